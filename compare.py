import sys

from diffusion.cli import script

if __name__ == "__main__":
    sys.exit(script())
