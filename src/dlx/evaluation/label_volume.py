"""Reads a mask whose label values are not known before: as indices into its own values, in as few bytes as possible."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlx.data.notes import HARMLESS
from dlx.data.prepare import not_labels
from dlx.data.volumes.reading import Volume, read_volume
from dlx.settings.spec import Geometry
from dlx.system.errors import DataError

PIECE = 2**20  # voxels that are looked at once
MAX_RANGE = 2**16  # values within such a range are counted and mapped by a table
MAX_LABEL = 2**53  # larger numbers are not exact as floats
MAX_VALUES = 1000  # an atlas has some hundreds of labels, an image thousands of values


@dataclass(frozen=True)
class LabelVolume:
    """A mask (D, H, W): `values[i]` is the label value at the voxels of index i. Index 0 is the background, value 0.

    `volume` has the geometry of the file, and in place of its voxels an array of the same size that takes no memory.
    """

    indices: NDArray[Any]
    values: tuple[int, ...]
    volume: Volume

    def index_of(self, value: int) -> int | None:
        """The index of a label value; None if no voxel has it."""
        return self.values.index(value) if value in self.values else None


def read_labels(path: Path, *, geometry: Geometry = "image", max_values: int | None = MAX_VALUES) -> LabelVolume:
    """Reads a file of labels: one whole number for each voxel, in any type of voxels.

    Raises DataError if `read_volume` does, if a value is not whole or not exact, and if there are more than
    `max_values` values: it is an image then. With geometry="strict" an ambiguous header is refused too. Memory: the
    voxels in the type of the file twice, then 1 to 4 bytes for each voxel.
    """
    volume = read_volume(path)
    differing = [note.detail for note in volume.notes if note.kind not in HARMLESS]
    if geometry == "strict" and differing:
        raise DataError(f"{path}: {differing[0]} (--geometry truth reads it and reports what was used)")
    voxels = volume.array[0]
    values = _values_of(voxels, path)
    if max_values is not None and len(values) > max_values:
        raise DataError(
            f"{path}: holds {len(values)} different values, from {values[1]} to {values[-1]}: an image, not a mask? "
            "(--labels 1,2 measures these labels alone)"
        )
    without_voxels = np.broadcast_to(np.uint8(0), volume.array.shape)
    return LabelVolume(_indices(voxels, values), values, replace(volume, array=without_voxels))


def _values_of(voxels: NDArray[Any], path: Path) -> tuple[int, ...]:
    """All values of the voxels in ascending order, after a 0 that is always the first."""
    if voxels.dtype.kind == "f":
        _check_whole(voxels, path)
    found: set[int] = set()
    for piece in _pieces(voxels):
        low, high = int(piece.min()), int(piece.max())
        if high > MAX_LABEL or low < -MAX_LABEL:
            raise DataError(f"{path}: the label value {high if high > MAX_LABEL else low} is beyond 2^53")
        if high - low < MAX_RANGE:
            found |= {int(value) + low for value in np.flatnonzero(np.bincount(_above(piece, low)))}
        else:
            found |= {int(value) for value in np.unique(piece)}
    return (0, *sorted(found - {0}))


def _check_whole(voxels: NDArray[Any], path: Path) -> None:
    """DataError if a voxel is not a whole number, with their number and the first one."""
    num_fractions, first = 0, None
    for piece in _pieces(voxels):
        fractions = piece != np.rint(piece)
        number = int(np.count_nonzero(fractions))
        if number and first is None:
            first = piece[fractions][0]
        num_fractions += number
    if num_fractions:
        raise not_labels(path, num_fractions, first)


def _indices(voxels: NDArray[Any], values: tuple[int, ...]) -> NDArray[Any]:
    """The index of each voxel's value among `values`."""
    kind = np.min_scalar_type(len(values) - 1)
    indices = np.empty(voxels.shape, kind)
    out, known = indices.reshape(-1), np.array(values, np.int64)
    order = np.argsort(known)  # 0 is the first, also before negative values
    low, high = int(known.min()), int(known.max())
    table = None
    if high - low < MAX_RANGE:
        table = np.zeros(high - low + 1, kind)
        table[known - low] = np.arange(len(values))
    for number, piece in enumerate(_pieces(voxels)):
        place = slice(number * PIECE, number * PIECE + len(piece))
        if table is not None:
            out[place] = table[_above(piece, low)]
        else:
            out[place] = order[np.searchsorted(known, piece.astype(np.int64), sorter=order)]
    return indices


def _pieces(voxels: NDArray[Any]) -> Iterator[NDArray[Any]]:
    flat = voxels.reshape(-1)
    for start in range(0, flat.size, PIECE):
        yield flat[start : start + PIECE]


def _above(piece: NDArray[Any], low: int) -> NDArray[np.int64]:
    """By how much each value exceeds the lowest, which may be out of the range of the type."""
    return piece.astype(np.int64) - low
