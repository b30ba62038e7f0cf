"""Which pictures stand where in the grid."""

import pytest
import torch

from diffusion.ground import images
from tests.helpers.drawn import ROW, drawn

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_grid_of_an_interpolation_has_its_rows_and_their_classes(sample, monkeypatch):
    made = []
    grid = images.grid
    monkeypatch.setattr(images, "grid", lambda *args, **options: made.append((args, options)) or grid(*args, **options))
    done = sample(*ROW, "y=[one,three]", "n=8")
    [(cells,), options] = made[-1]
    assert torch.equal(cells[:, 0].int(), torch.from_numpy(drawn(done)).int())
    assert options == {"columns": 3, "names": ["one", "three", "one"]}
