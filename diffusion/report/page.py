"""The report of runs: one HTML file that loads nothing; script, style, curves and images are embedded."""

import base64
import csv
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from os.path import commonpath
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from diffusion.ground.errors import UserError
from diffusion.ground.files import atomic, json_text
from diffusion.report import commands, curves, pictures, settings, verdict
from diffusion.report.pictures import Album
from diffusion.report.run import Run, runs

NAME = "report.html"
LIMIT = 5_000_000  # bytes of a page
_SPARE = 20_000  # of these, reserved for text that depends on the images
_ROWS = 200  # of a table of samplers, at most
_HERE = Path(__file__).parent


def write(folders: Sequence[Path], output: Path | None = None) -> Path:
    """Writes the report of the runs in `folders`, and returns its file: `output`, or report.html in the run folder; for
    several runs a file in their common parent, the same for the same runs. Raises UserError for a folder without a
    run."""
    text = html(runs(folders))
    path = output or _default_path(folders)
    try:
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another output=") from None
    return path


def _default_path(folders: Sequence[Path]) -> Path:
    if len(folders) == 1:
        return folders[0] / NAME
    absolute = sorted(str(folder.resolve()) for folder in folders)
    digest = hashlib.sha256("\n".join(absolute).encode(errors="surrogateescape")).hexdigest()
    return Path(commonpath(absolute)) / f"report_{digest[:8]}.html"


def html(found: Sequence[Run]) -> str:
    """The page. Raises UserError if it is larger than `LIMIT` even without images."""
    content = _content(found)
    budget = LIMIT - _SPARE - len(_rendered(content, Album()).encode())
    if budget < 0:
        raise UserError(
            f"the report of {len(found)} run(s) is larger than {LIMIT / 1e6:g} MB even without images: give fewer runs"
        )
    return _rendered(content, Album.of(_paths(content), budget))


def _content(found: Sequence[Run]) -> dict[str, Any]:
    charts = curves.of_one(found[0]) if len(found) == 1 else curves.of_several(found)
    return {
        "title": found[0].name if len(found) == 1 else f"{len(found)} runs",
        "made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
        "runs": [_of_run(run, max(2, pictures.FRAMES // len(found))) for run in found],
        "charts": curves.drawn(charts),
        "longest": curves.longest(charts),
        "several": _of_several(found) if len(found) > 1 else None,
    }


def _of_run(run: Run, at_most: int) -> dict[str, Any]:
    frames, of_frames = pictures.frames(run, at_most)
    changed = settings.changed(run)
    return {
        "run": run,
        "findings": verdict.findings(run),
        "frames": frames,
        "of_frames": of_frames,
        "beginning": pictures.beginning(run),
        "results": [_result(run, row) for row in verdict.newest(run).values()],
        "earlier": len(run.rows) - len(verdict.newest(run)),
        "samplers": pictures.samplers(run),
        "samplers_table": _table(run.folder / "evaluation" / "samplers.csv"),
        "neighbours": pictures.neighbours(run),
        "changed": changed,
        "config": settings.flat(run.config),
        "manifest": _manifest(run),
        "sessions": [_session(each) for each in run.manifest["sessions"] if isinstance(each, Mapping)],
        "repeat": commands.commands(run),
        "missing": commands.missing(run),
    }


def _manifest(run: Run) -> dict[str, str]:
    shown = {key: run.manifest.get(key) for key in ("started", "seed", "git", "versions", "data", "hardware")}
    return settings.flat({key: value for key, value in shown.items() if value is not None})


def _result(run: Run, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "metric": row.get("metric"),
        "text": row.get("summary") or row.get("value"),
        "date": row.get("date"),
        "figure": pictures.figure(run, row),
        "details": json_text(row),
    }


def _session(session: Mapping[str, Any]) -> list[Any]:
    return [session.get(key) for key in ("started", "step", "command")]


def _table(path: Path) -> list[list[str]]:
    """The rows of a CSV file, starting with the column names; empty if there is no such file."""
    try:
        with open(path, newline="", encoding="utf-8", errors="replace") as file:
            return [row for row, _ in zip(csv.reader(file), range(_ROWS + 1), strict=False)]
    except (OSError, csv.Error):
        return []


def _of_several(found: Sequence[Run]) -> dict[str, Any]:
    values, _ = verdict.measured(found)
    return {
        "findings": verdict.compared(found),
        "metrics": [*values],
        "rows": [_summary(run, [each[k] for each in values.values()]) for k, run in enumerate(found)],
        "between": settings.between(found),
    }


def _summary(run: Run, metrics: Sequence[Any]) -> dict[str, Any]:
    """The numbers of a run for the table of several; None where one is not known. metrics: their values."""
    saved, losses = run.saved, run.series.get("val/loss")
    return {
        "name": run.name,
        "finished": "yes" if saved and saved.reached else "no",
        "numbers": [
            saved and saved.step,
            run.last("val/loss"),
            min(losses.values) if losses else None,
            verdict.end_of(run.series.get("train/loss")),
            saved and saved.images / saved.seconds if saved and saved.seconds else None,
            saved and saved.seconds / 60,
            saved and saved.skipped,
            *metrics,
        ],
    }


def _paths(content: Mapping[str, Any]) -> list[Path]:
    """The images of a page."""
    found = []
    for each in content["runs"]:
        found += [path for frame in each["frames"] for path in frame.pictures.values()]
        found += [*each["beginning"].values(), each["samplers"], each["neighbours"]]
        found += [result["figure"] for result in each["results"]]
    return [path for path in found if path is not None]


def _rendered(content: Mapping[str, Any], album: Album) -> str:
    return _template().render(**content, album=album, **_inside())


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment.get_template("page.html")


def _number(value: Any) -> str:
    """A number formatted for display; other values as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


@cache
def _inside() -> dict[str, Any]:
    """Constant parts of each page: scripts, style, and the policy that allows only these scripts and no requests."""
    licence = _read("uplot/LICENSE").strip()
    scripts = [f"/*\n{licence}\n*/\n{_read('uplot/uPlot.iife.min.js')}", _read("page.js")]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    return {
        "style": Markup(_read("uplot/uPlot.min.css") + _read("page.css")),
        "scripts": [Markup(script) for script in scripts],
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {_sources(hashes)}",
    }


def _sources(hashes: Sequence[str]) -> str:
    return " ".join(f"'sha256-{each}'" for each in hashes)


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
