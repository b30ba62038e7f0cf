"""Alternating measurements of pairs, and tables of the results."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm


class Row(NamedTuple):
    """A row of the table: the medians of ours and of the peer in `unit`, and the factor by which ours is better.

    ratio: of the medians. ratios: of each round, ascending.
    """

    what: str
    ours: float
    peer: float
    unit: str
    ratio: float
    ratios: Sequence[float]


def alternate(
    what: str, ours: Callable[[], float], peer: Callable[[], float], unit: str, rounds: int = 5, less: bool = False
) -> Row:
    """Measures both alternately. less: lower is better, as for seconds and bytes."""
    pairs = [(ours(), peer()) for _ in tqdm(range(rounds), desc=what, unit=" round", leave=False)]
    better = (lambda a, b: b / a) if less else (lambda a, b: a / b)
    medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
    return Row(what, *medians, unit, better(*medians), sorted(better(*pair) for pair in pairs))


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def sgemm_peak(size: int = 1024, rounds: int = 10) -> float:
    """The maximum GFLOP/s of a product of float32 matrices on this machine."""
    a = torch.randn(size, size)
    return 2 * size**3 / min(seconds(lambda: a @ a) for _ in range(rounds)) / 1e9


def machine() -> str:
    threads = torch.get_num_threads()
    return f"torch {torch.__version__}, {threads} threads, float32 matrix products at {sgemm_peak():.0f} GFLOP/s"


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    lines = ["| quantity | ours | peer | ratio | rounds |", "|---|---|---|---|---|"]
    for row in rows:
        low, high = row.ratios[0], row.ratios[-1]
        lines.append(
            f"| {row.what} | {row.ours:.4g} {row.unit} | {row.peer:.4g} {row.unit} | {row.ratio:.3f} "
            f"| {low:.3f} to {high:.3f} |"
        )
    return "\n".join(lines)


def report(rows: Sequence[Row], path: Path | None = None) -> None:
    """Prints the table; with a path, also writes it and prints the path last."""
    text = f"{machine()}\n\n{table(rows)}"
    print(text)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        print(path)
