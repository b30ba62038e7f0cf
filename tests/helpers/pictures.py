"""Small image files for tests, and the data set of a folder of them."""

from pathlib import Path

import sklearn.datasets
from PIL import Image

from diffusion.data.image_folder import ImageFolder

RED, BLUE = (255, 0, 0), (0, 0, 255)


def data(root, **options):
    return ImageFolder(**{"path": str(root), "channels": 3, "size": 8, "batch_size": 2, **options})


def plain(path, colour=RED, size=(12, 8), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def load_photo():
    """640x427, RGB."""
    return Image.open(Path(sklearn.datasets.__file__).parent / "images" / "china.jpg")


def mean(array):
    return array.reshape(array.shape[0], -1).mean(1).round().tolist()
