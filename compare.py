import sys

from diffusion.cli import compare

if __name__ == "__main__":
    sys.exit(compare())
