"""What images are compared with: the data, or the moments of a file."""

import numpy as np
import pytest

from diffusion.evaluation.comparison import differences
from tests.helpers.picture_folders import write

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("_cache")]


def test_reference_moments_of_a_file(digits, evaluate, tmp_path):
    train = digits.split("train")[0].flatten(1).double() / 127.5 - 1
    np.savez(tmp_path / "fid.npz", mu=train.mean(0).numpy(), sigma=train.T.cov().numpy())
    images = write(tmp_path / "x", digits.split("val")[0][:150])
    line = [f"images={images}", "dataset=digits", "metric=fd", "features=pixels"]
    [own] = evaluate(*line)
    [row] = evaluate(*line, f"reference={tmp_path / 'fid.npz'}", output=tmp_path / "file")
    assert row["value"] == pytest.approx(own["value"], rel=1e-6)
    assert row["protocol"]["reference"]["file"] == "fid.npz"
    found = differences(own["protocol"], row["protocol"])
    assert {"reference.file", "reference.split"} < found.keys()
