import pytest
import torch
from PIL import Image

from diffusion import images


def test_every_uint8_comes_back():
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(images.to_uint8(images.from_uint8(every)), every)


def test_range_is_minus_one_to_one_and_outside_is_clipped():
    assert images.from_uint8(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]
    assert images.to_uint8(torch.tensor([-7.0, 0.0, 7.0])).tolist() == [0, 128, 255]


@pytest.mark.parametrize("channels", [1, 3])
def test_png_holds_the_very_pixels(tmp_path, channels):
    image = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    path = images.write_png(tmp_path / "new" / "a.png", image)
    with Image.open(path) as read:
        assert read.mode == ("L" if channels == 1 else "RGB")
        assert list(read.tobytes()) == image.permute(1, 2, 0).flatten().tolist()
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]


def test_grid_lays_images_out_by_rows():
    shades = torch.arange(5, dtype=torch.uint8).mul(50).reshape(5, 1, 1, 1).expand(5, 1, 60, 60)
    whole = images.grid(shades, columns=3)
    assert whole.shape == (1, 2 * 62, 3 * 62)
    centres = whole[0, 31::62, 31::62]
    assert centres.tolist() == [[0, 50, 100], [150, 200, 64]]


def test_small_images_are_enlarged_by_a_whole_factor():
    image = torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8).reshape(1, 1, 2, 2)
    whole = images.grid(image)[0, 1:-1, 1:-1]
    assert whole.shape == (56, 56)
    assert (whole[:28, :28] == 0).all()
    assert (whole[:28, 28:] == 255).all()


def test_gif_has_every_frame(tmp_path):
    frames = [torch.full((1, 8, 8), 40 * i, dtype=torch.uint8) for i in range(6)]
    with Image.open(images.write_gif(tmp_path / "a.gif", frames)) as gif:
        assert gif.n_frames == 6
