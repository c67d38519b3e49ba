"""Encodes labels as a TIFF of one grey page in deflated strips, with the resolution of the image as it is stored."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dlx.data.volumes import tiff
from dlx.data.volumes.header import BadFile
from dlx.data.volumes.opening import open_regular
from dlx.data.volumes.writers.packing import voxel_bytes

SHORT, LONG, RATIONAL = 3, 4, 5
PACKED = {SHORT: "H", LONG: "I", RATIONAL: "I"}
BITS = {"u1": 8, "u2": 16, "u4": 32}
STRIP_BYTES = 1 << 18  # of a strip before it is packed: readers unpack one at a time

Entry = tuple[int, int, list[int]]  # the tag, its type, its numbers


def encode_tiff(labels: NDArray[Any], like: Path) -> Iterator[bytes]:
    """The bytes of a little-endian `.tif`; BadFile for labels (1, H, W) beyond 32 bits."""
    bits = BITS.get(labels.dtype.str[1:])
    if bits is None:
        raise BadFile("the label values are beyond 32 bits, the largest whole numbers of TIFF")
    _, height, width = labels.shape
    (voxels,) = voxel_bytes(labels)
    rows = max(1, STRIP_BYTES // (width * bits // 8))
    step = rows * width * bits // 8
    strips = [zlib.compress(voxels[at : at + step]) for at in range(0, len(voxels), step)]
    offsets = [8]
    for strip in strips:
        offsets.append(offsets[-1] + len(strip))
    end = offsets.pop()
    padding = end % 2  # a directory starts at an even byte
    entries = [
        (tiff.WIDTH, LONG, [width]),
        (tiff.LENGTH, LONG, [height]),
        (tiff.BITS, SHORT, [bits]),
        (tiff.COMPRESSION, SHORT, [tiff.DEFLATE]),
        (tiff.PHOTOMETRIC, SHORT, [1]),
        (tiff.OFFSETS, LONG, offsets),
        (tiff.SAMPLES, SHORT, [1]),
        (tiff.ROWS, LONG, [rows]),
        (tiff.BYTE_COUNTS, LONG, [len(strip) for strip in strips]),
        *_resolution_of(like),
        (tiff.SAMPLE_FORMAT, SHORT, [1]),
    ]
    yield struct.pack("<2sHI", b"II", 42, end + padding)
    yield from strips
    yield bytes(padding) + _directory(entries, end + padding)


def _resolution_of(like: Path) -> list[Entry]:
    """The entries of the image that give the size of a pixel: two fractions, and the unit."""
    file = open_regular(like)
    with file.stream:
        page = tiff.Directory(file)
    types = {tiff.X_RESOLUTION: RATIONAL, tiff.Y_RESOLUTION: RATIONAL, tiff.UNIT: LONG}
    return [(tag, kind, page.all(tag)) for tag, kind in types.items() if tag in page]


def _directory(entries: list[Entry], start: int) -> bytes:
    """The directory that starts at this byte, followed by the values that do not fit into their entries."""
    beyond = start + 2 + 12 * len(entries) + 4
    table, values = struct.pack("<H", len(entries)), b""
    for tag, kind, numbers in entries:
        data = struct.pack(f"<{len(numbers)}{PACKED[kind]}", *numbers)
        count = len(numbers) // 2 if kind == RATIONAL else len(numbers)
        table += struct.pack("<HHI", tag, kind, count)
        if len(data) <= 4:
            table += data.ljust(4, b"\0")
        else:
            table += struct.pack("<I", beyond + len(values))
            values += data
    return table + bytes(4) + values
