import pytest
import torch
from PIL import Image

from diffusion.ground import images


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


def test_names_and_titles_surround_the_grid():
    shades = torch.arange(4, dtype=torch.uint8).mul(60).reshape(4, 1, 1, 1).expand(4, 3, 60, 60)
    bare = images.grid(shades, columns=2)
    whole = images.grid(shades, columns=2, names=["above", "below"], titles=["t=1000", "t=0"])
    assert torch.equal(whole[:, -bare.shape[1] :, -bare.shape[2] :], bare)
    top, left = whole.shape[1] - bare.shape[1], whole.shape[2] - bare.shape[2]
    assert (whole[:, :top, :left] == 64).all()  # the corner
    written = whole != 64
    for half in whole.shape[2] - bare.shape[2], whole.shape[2] - bare.shape[2] // 2:
        assert written[:, :top, half : half + 62].any()
    assert written[:, top : top + 62, :left].any()
    assert written[:, top + 62 :, :left].any()


def test_a_strip_is_an_image_a_row_and_time_to_the_right():
    shades = torch.arange(6, dtype=torch.uint8).mul(40).reshape(3, 2, 1, 1, 1).expand(3, 2, 1, 60, 60)
    assert images.strip(shades)[0, 31::62, 31::62].tolist() == [[0, 80, 160], [40, 120, 200]]


def test_evenly():
    assert images.evenly(5, 8).tolist() == [0, 1, 2, 3, 4]
    assert images.evenly(51, 3).tolist() == [0, 25, 50]
    assert images.evenly(1, 3).tolist() == [0]
