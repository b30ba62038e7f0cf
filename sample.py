import sys

from diffusion.cli import sample

if __name__ == "__main__":
    sys.exit(sample())
