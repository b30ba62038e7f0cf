"""Files of `torch.save`, read once: tensors and checksums in one pass, without unpickling."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any
from zipfile import ZipFile, ZipInfo

import torch

from diffusion.ground.errors import UserError, reading


def read(path: str | Path, what: str) -> Any:
    """The plain tensors and containers of a file, on the CPU. Raises UserError if it is not `what` or is damaged."""
    with reading(path, what), _Checked(io.FileIO(path)) as file:
        contents = torch.load(file, map_location="cpu", weights_only=True)
        if not file.is_whole():
            raise UserError(f"{path}: damaged, its checksums do not match: not {what}")
    return contents


def glance(path: str | Path, what: str) -> Any:
    """The same with tensors left on disk and without comparing checksums, to read small values. Raises UserError if the
    file is not `what`."""
    with reading(path, what):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def is_whole(path: str | Path) -> bool:
    """Whether every part of the archive is present and matches its checksum."""
    try:
        with ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # a changed byte can cause any error
        return False


class _Checked(io.BufferedReader):
    """A file that records the checksum of each read by its position. torch reads a tensor in one piece and compares no
    checksums; parts that it does not read in one piece are read again for the comparison."""

    def __init__(self, raw: io.RawIOBase):
        super().__init__(raw)
        self._sums: dict[tuple[int, int], int] = {}

    def readinto(self, buffer) -> int:
        position, count = self.tell(), super().readinto(buffer)
        self._sums[position, count] = zlib.crc32(memoryview(buffer)[:count])
        return count

    def is_whole(self) -> bool:
        with ZipFile(self) as archive:
            return all(self._has_checksum(archive, part) for part in archive.infolist())

    def _has_checksum(self, archive: ZipFile, part: ZipInfo) -> bool:
        # The 30 bytes of the local header end with the lengths of name and extra field.
        self.seek(part.header_offset + 26)
        position = part.header_offset + 30 + sum(struct.unpack("<HH", self.read(4)))
        found = self._sums.get((position, part.file_size))
        return zlib.crc32(archive.read(part)) == part.CRC if found is None else found == part.CRC
