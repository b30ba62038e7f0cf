import sys

from diffusion.cli import evaluate

if __name__ == "__main__":
    sys.exit(evaluate())
