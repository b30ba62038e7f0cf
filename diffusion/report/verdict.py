"""Findings about a run, derived from its numbers by fixed rules."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from diffusion.evaluation import comparison
from diffusion.report.run import METRICS, Run, Series
from diffusion.runs import manifest

_LEVEL = 0.01  # smaller relative changes of the loss are ignored
_APART = 0.2  # relative to the training loss: a larger gap is reported as bad
_PART = 3  # the end of a run is its last third


class Finding(NamedTuple):
    """A sentence. kind: `bad` requires attention."""

    text: str
    kind: Literal["good", "bad", "plain"] = "plain"


def findings(run: Run) -> list[Finding]:
    """Findings about the end of a run, its loss, its gap, its skipped steps and its measured quality."""
    return [*_end(run), *_loss(run), *_gap(run), *_numbers(run), *_quality(run)]


def compared(runs: Sequence[Run]) -> list[Finding]:
    """Which of several runs has the lowest loss, and which metrics cannot be compared."""
    return [*_losses(runs), *(Finding(text, "bad") for text in measured(runs)[1])]


def measured(runs: Sequence[Run]) -> tuple[dict[str, list[Any]], list[str]]:
    """The newest value of each metric, one for each run or None, and why values are left out: two numbers are compared
    only if their protocols are equal, and the first run that has a metric sets its protocol."""
    values: dict[str, list[Any]] = {}
    reasons = []
    for name in dict.fromkeys(name for run in runs for name in newest(run)):
        rows = [newest(run).get(name) for run in runs]
        first = next(number for number, row in enumerate(rows) if row is not None)
        values[name] = []
        for run, row in zip(runs, rows, strict=True):
            unlike = row and comparison.differences(_protocol(rows[first]), _protocol(row))
            values[name].append(row.get("value") if row and not unlike else None)
            if unlike:
                found = manifest.text(unlike)
                reasons.append(f"{name} of {run.name} is not comparable with that of {runs[first].name}: {found}.")
    return values, reasons


def _protocol(row: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return (row or {}).get("protocol") or {}


def _losses(runs: Sequence[Run]) -> list[Finding]:
    """The run with the lowest loss, if the losses are comparable."""
    losses = {run.name: value for run in runs if (value := run.last("val/loss")) is not None}
    if len(losses) < 2:
        return []
    images = {str(run.about("data").get("fingerprint")) for run in runs}
    if len(images) > 1:
        return [Finding("The runs have different data: their val/loss cannot be compared.", "bad")]
    (best, low), (second, next_) = sorted(losses.items(), key=lambda pair: pair[1])[:2]
    return [Finding(f"{best} ends with the lowest val/loss, {low:.4g}; {second} has {next_:.4g}{_by(low, next_)}.")]


def _by(low: float, other: float) -> str:
    if low <= 0:
        return ""
    more = other / low - 1
    return f", {more:.1%} more{': another seed may reverse this' * (more < _LEVEL)}"


def _end(run: Run) -> Iterator[Finding]:
    saved = run.saved
    if saved is None:
        yield Finding("There is no checkpoint that records the progress of the run.", "bad")
        return
    done = f"{saved.step:,} steps, {saved.images:,} images, {_time(saved.seconds)}"
    if saved.seconds > 0:
        done += f", {saved.images / saved.seconds:,.0f} images/s including validations and images"
    if saved.reached:
        yield Finding(f"Finished, {saved.reached} reached: {done}.", "good")
    else:
        yield Finding(f"Not finished, or without a limit; last checkpoint: {done}.", "bad")


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes"


def _loss(run: Run) -> Iterator[Finding]:
    series = run.series.get("val/loss")
    if not series:
        yield Finding(f"{METRICS} has no val/loss yet.", "bad")
        return
    last, low = series.values[-1], min(series.values)
    at = series.steps[series.values.index(low)]
    text = f"val/loss is {last:.4g} at step {series.steps[-1]:,}"
    if low == last:
        yield Finding(f"{text}, the lowest of {len(series)} validations{_trend(series)}.", "good")
        return
    above = last / low - 1 if low > 0 else 0.0
    text += f", {above:.1%} above its lowest, {low:.4g} at step {at:,}{_kept(run.folder)}{_trend(series)}."
    yield Finding(text, "bad" if above > _LEVEL else "plain")


def _kept(folder: Path) -> str:
    return ", which is best.ckpt" if (folder / "checkpoints" / "best.ckpt").exists() else ""


def _trend(series: Series) -> str:
    """The change of a loss in the last third of the steps."""
    since = series.steps[-1] * (1 - 1 / _PART)
    before = [value for step, value in zip(series.steps, series.values, strict=True) if step <= since]
    if not before or before[-1] <= 0:
        return ""
    change = series.values[-1] / before[-1] - 1
    if abs(change) < _LEVEL:
        return f"; constant in the last third of the steps ({change:+.1%})"
    still = ": still decreasing" if change < -5 * _LEVEL else ""
    return f"; {change:+.1%} in the last third of the steps{still}"


def _gap(run: Run) -> Iterator[Finding]:
    if (gap := run.last("train/gap")) is not None:
        yield Finding(f"On training images the loss is {gap:.3g} above that of the exact denoiser (train/gap).")
    train, val = end_of(run.series.get("train/loss")), run.last("val/loss")
    if train is None or val is None:
        return
    if not is_simple(run):
        yield Finding("train/loss has another objective than val/loss: they are not comparable.")
        return
    apart = val / train - 1
    text = f"val/loss is {abs(apart):.0%} {'above' if apart >= 0 else 'below'} train/loss, {train:.4g} on average"
    text += " over the last third of the logged values (single batches, weights not averaged)"
    yield Finding(f"{text}{': overfitting, or the average lags behind' * (apart > _APART)}.", _bad(apart > _APART))


def is_simple(run: Run) -> bool:
    """Whether train/loss is L_simple, as val/loss always is."""
    return run.is_a("loss", "L2") and run.is_a("weighting", "Simple") and run.is_a("timesteps", "Uniform", "Stratified")


def end_of(series: Series | None) -> float | None:
    """The mean of the last third of the values; None if there is none or it is not above 0."""
    if not series:
        return None
    last = series.values[-max(1, len(series) // _PART) :]
    mean = sum(last) / len(last)
    return mean if mean > 0 else None


def _bad(condition: bool) -> Literal["bad", "plain"]:
    return "bad" if condition else "plain"


def _numbers(run: Run) -> Iterator[Finding]:
    if run.saved is not None:
        skipped = run.saved.skipped
        text = f"{skipped:,} steps were skipped because of a non-finite loss or gradient" if skipped else ""
        yield Finding(f"{text or 'No step was skipped'}.", _bad(skipped > 0))
    odd = {name: series.odd for name, series in run.series.items() if series.odd}
    if odd:
        counts = ", ".join(f"{name} {count:,} times" for name, count in odd.items())
        yield Finding(f"Not finite in {METRICS}: {counts}.", "bad")


def _quality(run: Run) -> Iterator[Finding]:
    for row in newest(run).values():
        yield Finding(f"Measured: {row.get('summary') or row.get('value')} ({row.get('date', 'no date')}).")


def newest(run: Run) -> dict[str, dict]:
    """The newest row of each metric."""
    return {str(row.get("metric")): dict(row) for row in run.rows}
