import sys

from diffusion.cli import train

if __name__ == "__main__":
    sys.exit(train())
