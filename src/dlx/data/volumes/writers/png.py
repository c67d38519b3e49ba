"""Encodes labels as a grey PNG of 8 or 16 bits, with the chunks of the image that give the size of a pixel."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dlx.data.volumes.header import BadFile
from dlx.data.volumes.opening import open_regular
from dlx.data.volumes.png import SIGNATURE, chunks_of
from dlx.data.volumes.writers.packing import voxel_bytes

OF_SIZE = (b"sCAL", b"pHYs")
BITS = {"u1": 8, "u2": 16}


def encode_png(labels: NDArray[Any], like: Path) -> Iterator[bytes]:
    """The bytes of a `.png`; BadFile for labels (1, H, W) beyond 16 bits."""
    bits = BITS.get(labels.dtype.str[1:])
    if bits is None:
        raise BadFile("the label values are beyond 16 bits, the largest whole numbers of PNG")
    _, height, width = labels.shape
    file = open_regular(like)
    with file.stream:
        file.stream.seek(len(SIGNATURE))
        kept = [(kind, data) for kind, data in chunks_of(file) if kind in OF_SIZE]
    yield SIGNATURE
    yield _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    for kind, data in kept:
        yield _chunk(kind, data)
    (rows,) = voxel_bytes(labels, ">")
    row_bytes = width * bits // 8
    unfiltered = b"".join(b"\0" + rows[at : at + row_bytes] for at in range(0, len(rows), row_bytes))
    yield _chunk(b"IDAT", zlib.compress(unfiltered))
    yield _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
