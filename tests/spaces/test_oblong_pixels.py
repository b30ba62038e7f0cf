"""8-bit pictures of other than square sides, and of other than one or three channels, by the commands."""

import numpy as np
import pytest
from PIL import Image

from tests.helpers.commands import command

pytestmark = pytest.mark.filterwarnings("ignore")


def trained(folder, shape, capsys):
    """The run folder of a training of one step on noise of that shape."""
    for split in "train", "val":
        (folder / "set" / split).mkdir(parents=True)
        x = np.random.default_rng(0).integers(0, 256, (12, *shape), np.uint8)
        np.save(folder / "set" / split / "x.npy", x)
    done = command(
        "train",
        *("dataset=arrays", f"dataset.path={folder / 'set'}", "space=pixels", "dataset.batch_size=8"),
        *("network=unet_tiny", "network.widths=[8,16]", "trainer.max_steps=1", "callbacks.preview.n=2"),
        *("callbacks.preview.sampler.steps=2", "logger=none", "strategy=cpu", f"run.dir={folder / 'run'}"),
        capsys=capsys,
    )
    assert done.code == 0, done.err
    return done


def drawn(run, *overrides, capsys):
    short = ["sampler=ddim", "sampler.steps=2", "n=2", "npz=true"]
    done = command("sample", f"ckpt={run}", *short, *overrides, capsys=capsys)
    assert done.code == 0, done.err
    with np.load(done.folder / "samples.npz") as file:
        return done, file["arr_0"]


def test_oblong_images(tmp_path, capsys):
    run = trained(tmp_path, (3, 8, 12), capsys).folder
    done, x = drawn(run, f"output={tmp_path / 'out'}", capsys=capsys)
    assert (x.shape, x.dtype) == ((2, 8, 12, 3), np.uint8)
    assert np.array_equal(np.asarray(Image.open(done.folder / "images" / "000001.png")), x[1])
    assert not (done.folder / "arrays").exists()
    picture = np.random.default_rng(1).integers(0, 256, (16, 40, 3), np.uint8)
    mask = np.zeros((16, 40), np.uint8)
    mask[:, 20:] = 255  # white: the right half, of the picture and of what is left of it at the centre
    Image.fromarray(picture).save(tmp_path / "picture.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    files = [f"task.image={tmp_path / 'picture.png'}", f"task.mask={tmp_path / 'mask.png'}"]
    _, x = drawn(run, "task=inpaint", *files, f"output={tmp_path / 'inpainted'}", capsys=capsys)
    assert np.array_equal(x[0][:, :6], x[1][:, :6])
    assert not np.array_equal(x[0][:, 6:], x[1][:, 6:])
    assert command("evaluate", f"ckpt={run}", "metric.bpd.steps=2", capsys=capsys).code == 0


@pytest.mark.parametrize(("channels", "noticed"), [(2, False), (5, True)])
def test_other_channels_are_kept_next_to_the_images(tmp_path, capsys, channels, noticed):
    done = trained(tmp_path, (channels, 8, 8), capsys)
    assert ("images show the first three of the 5 channels" in done.err) == noticed
    done, x = drawn(done.folder, f"output={tmp_path / 'out'}", capsys=capsys)
    assert (x.shape, x.dtype) == ((2, channels, 8, 8), np.uint8)
    picture = np.asarray(Image.open(done.folder / "images" / "000000.png"))
    assert np.array_equal(picture.transpose(2, 0, 1)[: min(channels, 3)], x[0][:3])
