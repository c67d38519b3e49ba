"""The voxels of labels as bytes, a slice at a time, and their compression by gzip."""

import gzip
import io
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


def voxel_bytes(labels: NDArray[Any], order: Literal["<", ">"] = "<") -> Iterator[bytes]:
    """The voxels of labels (D, H, W) in this byte order, x fastest."""
    dtype = labels.dtype.newbyteorder(order)
    for plane in labels:
        yield np.ascontiguousarray(plane, dtype).tobytes()


def gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces as one gzip stream without name and time: equal labels give equal files."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0, compresslevel=6) as stream:
        for piece in pieces:
            stream.write(piece)
            yield _taken(packed)
    yield _taken(packed)


def _taken(buffer: io.BytesIO) -> bytes:
    content = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return content
