"""Reads the runs that W&B wrote offline, with nothing but their files."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record

_BLOCK, _HEADER = 32768, 7  # a LevelDB log: blocks of records, each with checksum (4), length (2) and kind (1)
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """What one session of a run sent: its config, and a dict per row of its history."""

    folder: Path
    id: str = ""
    name: str = ""
    project: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    step_metrics: dict[str, str] = field(default_factory=dict)  # metric: its x axis

    def values(self, name: str) -> list[Any]:
        return [row[name] for row in self.history if name in row]

    def files(self, name: str) -> list[Path]:
        """The file of each picture logged under that name."""
        return [self.folder / "files" / value["path"] for value in self.values(name)]

    def images(self, name: str) -> list[np.ndarray]:
        """The pixels, uint8 (H, W) or (H, W, C), of each image logged under that name."""
        return [np.asarray(Image.open(path)) for path in self.files(name)]


def read_offline_runs(run_folder: Path | str) -> list[OfflineRun]:
    """The finished W&B sessions in a run folder, oldest first."""
    files = Path(run_folder).glob("wandb/offline-run-*/run-*.wandb")
    return [_read(path) for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)]


def _read(path: Path) -> OfflineRun:
    run = OfflineRun(path.parent)
    for record in _finished(path):
        if record.HasField("run"):
            run.id, run.name, run.project = record.run.run_id, record.run.display_name, record.run.project
            run.config.update({item.key: json.loads(item.value_json) for item in record.run.config.update})
        elif record.HasField("history"):
            run.history.append(_row(record.history.item))
        elif record.HasField("metric"):
            run.step_metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric
    return run


def _finished(path: Path, seconds: float = 20) -> list[Record]:
    """The file's records, the last of which ends the run: W&B's service may write it just after `finish` returns."""
    deadline = time.monotonic() + seconds
    while True:
        records = [Record.FromString(data) for data in _records(path.read_bytes())]
        if records and records[-1].HasField("exit"):
            return records
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} was not finished within {seconds} seconds")
        time.sleep(0.02)


def _row(items) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for item in items:
        *outer, last = item.nested_key or [item.key]  # an image comes as preview/path, preview/sha256, ...
        node = row
        for key in outer:
            node = node.setdefault(key, {})
        node[last] = json.loads(item.value_json)
    return row


def _records(data: bytes):
    assert not data or data[:4] == b":W&B", "not a .wandb file"
    position, record = _HEADER, b""  # the file's own header is as long as a record's
    while position + _HEADER <= len(data):
        if _BLOCK - position % _BLOCK < _HEADER:  # the rest of a block too short for a header is padding
            position += _BLOCK - position % _BLOCK
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]
        assert kind in (_FULL, _FIRST, _MIDDLE, _LAST), f"record of unknown kind {kind} at byte {position}"
        part = data[position + _HEADER : position + _HEADER + length]
        if len(part) < length:
            return  # still being written
        record += part
        position += _HEADER + length
        if kind in (_FULL, _LAST):
            yield record
            record = b""
