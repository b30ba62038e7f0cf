"""Pictures as files."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture(tmp_path):
    """A function that writes grey values (H, W) as a PNG and returns its path."""

    def write(values, name="picture.png"):
        Image.fromarray(np.asarray(values, dtype=np.uint8)).save(tmp_path / name)
        return str(tmp_path / name)

    return write
