"""Files of `torch.save`, read once: tensors and checksums in one pass, nothing unpickled."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any
from zipfile import ZipFile, ZipInfo

import torch

from diffusion.ground.errors import UserError, reading


def read(path: str | Path, what: str) -> Any:
    """The plain tensors and containers of a file, on the CPU. Raises UserError where it is not `what`, or damaged."""
    with reading(path, what), _Checked(io.FileIO(path)) as file:
        contents = torch.load(file, map_location="cpu", weights_only=True)
        if not file.is_whole():
            raise UserError(f"{path}: damaged, its checksums do not hold: not {what}")
    return contents


def glance(path: str | Path, what: str) -> Any:
    """The same, for its small values: tensors stay on the disk, and no checksum is compared. Raises UserError where it
    is not `what`."""
    with reading(path, what):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def is_whole(path: str | Path) -> bool:
    """Whether every part of the archive is there and has its checksum."""
    try:
        with ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # a changed byte may be anywhere
        return False


class _Checked(io.BufferedReader):
    """A file that notes the checksum of what is read from each place. torch reads a tensor in one piece, and compares
    no checksums; what it does not read in one piece, or not at all, is read for that."""

    def __init__(self, raw: io.RawIOBase):
        super().__init__(raw)
        self._sums: dict[tuple[int, int], int] = {}

    def readinto(self, buffer) -> int:
        place, count = self.tell(), super().readinto(buffer)
        self._sums[place, count] = zlib.crc32(memoryview(buffer)[:count])
        return count

    def is_whole(self) -> bool:
        with ZipFile(self) as archive:
            return all(self._has_checksum(archive, part) for part in archive.infolist())

    def _has_checksum(self, archive: ZipFile, part: ZipInfo) -> bool:
        self.seek(part.header_offset + 26)  # of the local header: its 30 bytes end with the lengths of what follows
        place = part.header_offset + 30 + sum(struct.unpack("<HH", self.read(4)))
        found = self._sums.get((place, part.file_size))
        return zlib.crc32(archive.read(part)) == part.CRC if found is None else found == part.CRC
