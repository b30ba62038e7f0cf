"""Height and width of the images of a network."""

from collections.abc import Sequence


def both_sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of images of `size`, a square's side or (H, W)."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return height, width


def size_in_words(sides: tuple[int, int]) -> str:
    height, width = sides
    return str(height) if height == width else f"{height}x{width}"
