"""Thumbnails of prepared images: small enough to compare all pairs and to store with the prepared data."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlx.data.intensities.normalize import FLOAT16_MAX

LONGEST_3D, LONGEST_2D = 32, 48  # cells along the longest side; chosen by how well `copies` works (docs/log.md)


@dataclass(frozen=True)
class Thumbnail:
    """A coarse image (D, H, W) in canonical orientation, and the size of its cells in mm."""

    image: NDArray[np.float16]
    cell_mm: tuple[float, float, float]

    @property
    def thin_axes(self) -> tuple[int, ...]:
        """The axes with a single cell: none for a volume, one for a slice."""
        return tuple(axis for axis, cells in enumerate(self.image.shape) if cells == 1)


def make_thumbnail(image: NDArray[Any], spacing_mm: Sequence[float]) -> Thumbnail:
    """The thumbnail of an image (D, H, W) in canonical orientation; an axis has at most as many cells as voxels."""
    extent_mm = np.array(image.shape) * np.array(spacing_mm)
    longest = LONGEST_2D if 1 in image.shape else LONGEST_3D
    cells = np.clip(np.rint(extent_mm / extent_mm.max() * longest), 1, image.shape).astype(int)
    small = resample(image, np.array(image.shape) / cells, cells)
    d, h, w = (extent_mm / cells).tolist()
    return Thumbnail(small.clip(-FLOAT16_MAX, FLOAT16_MAX).astype(np.float16), (d, h, w))


def resample(image: NDArray[Any], widths: NDArray[np.float64], cells: NDArray[np.int_]) -> NDArray[np.float32]:
    """Resamples (D, H, W) to `cells` cells per axis, each `widths` voxels wide, starting at the first corner."""
    result: NDArray[Any] = image
    for axis in np.argsort(cells / np.array(image.shape)):  # the axis that shrinks most first, as it saves most work
        if widths[axis] != 1.0 or cells[axis] != image.shape[axis]:
            weights = _weights(image.shape[axis], float(widths[axis]), int(cells[axis]))
            result = np.moveaxis(np.tensordot(weights, result.astype(np.float32), axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(result, np.float32)


@lru_cache(maxsize=64)
def _weights(voxels: int, width: float, cells: int) -> NDArray[np.float32]:
    """(cells, voxels): the mean over the voxels of a cell; linear interpolation if cells are narrower than voxels."""
    weights = np.zeros((cells, voxels), np.float32)
    positions = np.arange(voxels)
    for cell in range(cells):
        low, high = cell * width, min((cell + 1) * width, voxels)
        if width >= 1.0:
            weights[cell] = np.clip(np.minimum(high, positions + 1) - np.maximum(low, positions), 0.0, None)
        else:
            centre = min(max((low + high) / 2 - 0.5, 0.0), voxels - 1.0)
            weights[cell] = np.clip(1.0 - np.abs(positions - centre), 0.0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
