"""Decodes the voxels of checked NIfTI files with numpy if SimpleITK cannot decode them or gives other values."""

import math
from typing import Any

import numpy as np

from dlx.data.volumes.header import BadFile, Header, Placement, RawVoxels
from dlx.data.volumes.opening import open_regular
from dlx.data.volumes.streams import PIECE_BYTES, GzipStream, Readable


def decode_raw(header: Header, raw: RawVoxels) -> tuple[np.ndarray, Placement]:
    """The scaled voxels (t, z, y, x) in the header's type, and their placement; BadFile if the file has changed."""
    stored = np.empty(math.prod(header.size_px), raw.dtype)
    file = open_regular(raw.path)
    with file.stream:
        stream: Readable = GzipStream(file.stream) if raw.is_gzip else file.stream
        stream.read(raw.offset)
        _fill(stored.view(np.uint8), stream)
    scaled = _scale(stored, raw.scaling, header.dtype)
    if scaled.dtype.kind == "f" and not np.isfinite(scaled).all():
        raise BadFile("contains voxels that are not finite after scaling")
    x, y, z, t = header.size_px
    return scaled.reshape(t, z, y, x), raw.placement


def _fill(target: np.ndarray, stream: Readable) -> None:
    position = 0
    while position < len(target):
        piece = stream.read(min(len(target) - position, PIECE_BYTES))
        if not piece:
            raise BadFile("truncated: the file changed while it was read")
        target[position : position + len(piece)] = np.frombuffer(piece, np.uint8)
        position += len(piece)


def _scale(stored: np.ndarray, scaling: tuple[float, float] | None, dtype: np.dtype[Any]) -> np.ndarray:
    """Values in `dtype` and native byte order, scaled in float64 as ITK does."""
    if scaling is None:
        return stored.astype(dtype, copy=False)
    slope, offset = scaling
    values = stored.astype(dtype)
    step = PIECE_BYTES // values.itemsize
    for start in range(0, values.size, step):  # in pieces, to avoid a float64 copy of the whole array
        piece = values[start : start + step]
        with np.errstate(over="ignore"):
            piece[:] = piece.astype(np.float64) * slope + offset
    return values
