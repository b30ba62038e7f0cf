"""Which pictures stay: few, evenly spread, the newest among them; and the loggers have them all."""

import pytest

from diffusion.training.callbacks.pictures import spread, thin


@pytest.mark.parametrize("keep", [1, 2, 3, 8, 50])
def test_what_stays_is_little_and_even_and_the_newest_is_there(keep):
    kept = []
    for step in range(1, 6000, 3):
        kept = sorted(spread([*kept, step], keep))
        assert len(kept) <= keep
        assert kept[-1] == step
        gaps = [after - before for before, after in zip([0, *kept], kept, strict=False)]
        assert max(gaps) <= 2 * step / keep + 3  # of an even row, twice
    assert len(kept) >= keep / 2


def test_steps_far_apart_are_all_kept_below_the_limit():
    assert spread([1, 1000, 1001, 50000], 4) == {1, 1000, 1001, 50000}
    assert spread([1, 1000, 1001, 50000], 3) == {1, 1001, 50000}


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def picture(folder, kind, step, suffix=".png"):
    path = folder / f"{kind}epoch_{step // 10 + 1:04d}_step_{step:07d}{suffix}"
    path.write_bytes(b"picture")
    return path


def test_each_kind_is_thinned_by_itself_and_nothing_else_is_touched(tmp_path):
    for step in (10, 20, 30):
        picture(tmp_path, "strip_", step), picture(tmp_path, "states_", step, ".gif")
        (tmp_path / f"mine_{step}.png").write_bytes(b"of the user")
        thin(picture(tmp_path, "", step), keep=2)
    assert files(tmp_path) == sorted(
        [f"epoch_{step // 10 + 1:04d}_step_{step:07d}.png" for step in (10, 30)]
        + [f"strip_epoch_{step // 10 + 1:04d}_step_{step:07d}.png" for step in (10, 20, 30)]
        + [f"states_epoch_{step // 10 + 1:04d}_step_{step:07d}.gif" for step in (10, 20, 30)]
        + [f"mine_{step}.png" for step in (10, 20, 30)]
    )


def test_images_of_later_steps_belong_to_another_run(tmp_path):
    for step in (10, 20, 30):
        picture(tmp_path, "loss_", step)
    thin(picture(tmp_path, "loss_", 15), keep=None)
    assert files(tmp_path) == ["loss_epoch_0002_step_0000010.png", "loss_epoch_0002_step_0000015.png"]
