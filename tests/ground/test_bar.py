"""What is seen of a bar, by a clock of our own."""

import io
import sys

import pytest
import tqdm.std

from diffusion.ground.bar import Bar


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def work(monkeypatch):
    """Does steps of some seconds each; gives what was written to stderr."""
    now = 0.0

    def do(steps, seconds, terminal):
        nonlocal now
        monkeypatch.setattr(sys, "stderr", Stream(terminal))
        with Bar(total=steps, desc="Decoding", unit=" images") as bar:
            for _ in range(steps):
                now += seconds
                bar.update()
        return sys.stderr.getvalue()

    monkeypatch.setattr(tqdm.std, "time", lambda: now)
    monkeypatch.setattr(Bar, "monitor_interval", 0)  # a thread that goes by the real clock
    return do


def test_a_log_file_has_a_line_every_ten_seconds(work):
    written = work(steps=1000, seconds=0.1, terminal=False)
    assert "\r" not in written
    lines = written.splitlines()
    assert 9 <= len(lines) <= 12
    assert all("images/s" in line for line in lines)
    assert "101/1000 [00:10<01:29, 10.00 images/s]" in lines[1]
    assert "1000/1000" in lines[-1]


def test_a_terminal_has_one_line_that_is_kept_up_to_date(work):
    written = work(steps=1000, seconds=0.1, terminal=True)
    assert written.count("\r") > 500
    assert written.count("\n") == 1
    assert "500/1000 [00:50<00:50, 10.00 images/s]" in written


def test_what_is_over_at_once(work):
    assert work(steps=100, seconds=0.0005, terminal=True) == ""
    written = work(steps=100, seconds=0.05, terminal=False).splitlines()
    assert [line.partition("|")[0] for line in written] == ["Decoding:   0%", "Decoding: 100%"]
