"""`python -m diffusion NAME` runs the command NAME."""

import sys

from diffusion.commands.cli import main

if __name__ == "__main__":
    sys.exit(main(None, sys.argv[1:]))
