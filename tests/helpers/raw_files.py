"""PNG and TIFF files byte by byte from numbers, so that what a library reads is not compared with what it wrote."""

import struct
import zlib

import numpy as np


def packed(samples, bits, order=">"):
    """Integers or floats (H, W, n) as the bytes of rows, each of which begins at a byte."""
    if samples.dtype.kind == "f":
        return samples.astype(f"{order}f4").tobytes()
    if bits in (8, 16, 32):
        return samples.astype(f"{order}i8").astype(f"{order}u{bits // 8}").tobytes()
    ones = samples[..., None] >> np.arange(bits)[::-1] & 1
    return np.packbits(ones.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, bits, colour, *chunks, pixels=b"", filtered=False):
    """pixels: rows as `packed` gives them, unless each has its filter in front of it already."""
    if not filtered and pixels:
        row = len(pixels) // height
        pixels = b"".join(b"\0" + pixels[k : k + row] for k in range(0, len(pixels), row))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    )


def tiff(width, height, planes, order="<", **tags):
    """planes: bytes of the image, or of each plane. tags: number (as t258) -> values, 16 bits each."""
    entries = {256: [width], 257: [height], 259: [1], 273: planes, 278: [height], 279: [len(plane) for plane in planes]}
    entries |= {int(tag[1:]): list(values) for tag, values in tags.items()}
    entries[284] = [2 if len(planes) > 1 else 1]
    offset = 8 + 2 + 12 * len(entries) + 4
    directory, data = struct.pack(f"{order}H", len(entries)), b"".join(planes)
    starts = [offset + sum(map(len, planes[:k])) for k in range(len(planes))]
    for tag, values in sorted(entries.items()):
        kind, code = (4, "I") if tag in (273, 279) else (3, "H")
        values = starts if tag == 273 else values
        raw = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(raw) > 4:
            data += b"\0" * (len(data) % 2)
            raw, data = struct.pack(f"{order}I", offset + len(data)), data + raw
        directory += struct.pack(f"{order}HHI", tag, kind, len(values)) + raw.ljust(4, b"\0")
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    return head + directory + struct.pack(f"{order}I", 0) + data
