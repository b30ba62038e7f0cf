import sys

from diffusion.commands.cli import script

if __name__ == "__main__":
    sys.exit(script())
