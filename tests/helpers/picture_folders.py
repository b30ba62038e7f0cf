"""A folder of pictures, for evaluate.py images=."""

from PIL import Image


def write(folder, images):
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(folder / f"{number:04d}.png")
    return folder
