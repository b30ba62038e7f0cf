"""TensorBoard shows what is on disk."""

import numpy as np
import pytest

from diffusion.training.callbacks.preview import Preview
from diffusion.training.loggers.tensorboard import TensorBoard
from tests.helpers.previews import fit, pixels


@pytest.mark.parametrize("name", ["preview", "preview/strip"])
def test_tensorboard_gets_the_same_pixels(tmp_path, name):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoard(tmp_path)
    fit(tmp_path, Preview(tmp_path / "samples", n=4), max_epochs=2, logger=logger)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    shown = events.Images(name)
    files = "strip_*.png" if name == "preview/strip" else "epoch_*.png"
    assert [event.step for event in shown] == [4, 8]
    for event, path in zip(shown, sorted((tmp_path / "samples").glob(files)), strict=True):
        (tmp_path / "shown.png").write_bytes(event.encoded_image_string)
        np.testing.assert_array_equal(pixels(tmp_path / "shown.png"), pixels(path))
    assert len(events.Scalars("preview/seconds")) == 2
