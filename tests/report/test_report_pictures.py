"""The pictures of a report: their size, and which of them are shown."""

from diffusion.report import pictures
from diffusion.report.run import runs
from tests.helpers.run_folder import run_folder, write_picture


def test_images_share_the_size_limit(tmp_path):
    for name, size in ("a", 8), ("b", 200), ("c", 400):
        write_picture(tmp_path / f"{name}.png", size)
    paths = [*tmp_path.glob("*.png")]
    album = pictures.Album.of(paths, budget=60_000)
    assert sum(map(len, album.uris.values())) <= 60_000
    assert album.uris[tmp_path / "a.png"].startswith("data:image/png")  # as it is
    assert album.smaller == 2
    assert pictures.Album.of(paths, budget=0).uris == {}
    assert len(pictures.Album.of(paths, budget=0).unread) == 3


def test_frames_are_evenly_spread_and_end_with_the_last(tmp_path):
    [run] = runs([run_folder(tmp_path / "run", losses=[1.0] * 20)])
    shown, count = pictures.frames(run, at_most=5)
    assert ([frame.step for frame in shown], count) == ([50, 300, 550, 800, 1000], 20)
    assert [*shown[0].pictures] == ["", "strip", "loss", "x_0"]
