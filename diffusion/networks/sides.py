"""Height and width of the input images of a network."""

from collections.abc import Sequence


def both_sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of images of `size`, the side of a square or (H, W)."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return height, width


def size_text(sides: tuple[int, int]) -> str:
    """For messages: "32" or "32x48"."""
    height, width = sides
    return str(height) if height == width else f"{height}x{width}"
