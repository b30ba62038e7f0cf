"""metrics.csv: its columns, and a full disk."""

import csv
import resource

from diffusion.training.loggers.metrics_file import MetricsFile
from tests.helpers.loggers import loggers_of, rows


def test_new_columns_after_a_resume_keep_old_rows(tmp_path, recwarn):
    first = MetricsFile(tmp_path)
    first.log_metrics({"a": 1.0}, step=0)
    second = MetricsFile(tmp_path)
    second.log_metrics({"a": 2.0, "b": 3.0}, step=1)
    assert rows(tmp_path) == [{"a": "1.0", "b": "", "step": "0"}, {"a": "2.0", "b": "3.0", "step": "1"}]
    assert not recwarn.list


def test_a_full_disk_costs_no_row_and_leaves_no_half_of_one(tmp_path, caplog):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    (file,) = loggers_of(tmp_path, "none")

    def log(step, **metrics):
        file.log_metrics(metrics, step)
        file.save()
        with open(tmp_path / "metrics.csv", newline="") as read:
            return [row["step"] for row in csv.DictReader(read)]

    assert log(1, loss=0.5) == ["1"]
    size = (tmp_path / "metrics.csv").stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 2, limits[1]))
        assert log(2, loss=0.4) == ["1"]
        assert log(3, accuracy=0.3) == ["1"]
        assert (tmp_path / "metrics.csv").stat().st_size == size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert log(4, loss=0.2) == ["1", "2", "3", "4"]
    assert (tmp_path / "metrics.csv").read_text().splitlines()[3] == "0.3,,3"
    assert caplog.text.count("cannot be written (File too large)") == 1
