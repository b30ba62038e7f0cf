import sys

from diffusion.cli import convert

if __name__ == "__main__":
    sys.exit(convert())
