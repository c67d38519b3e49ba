"""Distances in mm between the surfaces of two masks of one class: HD95 and normalised surface Dice.

On the host, with numpy and scipy; overlap is in `overlap.py`. The surface of a mask consists of its voxels that have a
face neighbour outside the mask; everything beyond the edge of the volume is outside. In a 2D mask (one voxel along one
axis, whichever) only neighbours in the plane count. Distances are measured from the centre of a surface voxel to the
nearest centre of a voxel of the other surface.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64
from scipy.spatial import KDTree

# In floating point three voxels of 0.1 mm are 0.30000000000000004 mm, which must count as within 0.3 mm.
ROUNDING = 1.0 + 1e-9

# The memory that one thread takes to score a class of a case. Measured: 7.5 to 7.9 if the class reaches all corners.
# Two threads at 512 x 512 x 600 keep the process below 6 GiB (`make memory`); on a large machine all cores would not.
BYTES_PER_VOXEL = 8
MAX_BYTES = 3 * 2**30


class SurfaceScores(NamedTuple):
    """Both are None if the class is in neither mask. If it is in one only, HD95 is None and the surface Dice 0."""

    hd95_mm: float | None
    surface_dice: float | None


def surface_scores(
    prediction: Bool[np.ndarray, "D H W"],
    mask: Bool[np.ndarray, "D H W"],
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float,
) -> SurfaceScores:
    """Scores of one class of one case; `spacing_mm` is (d, h, w). ValueError if the two shapes differ.

    `hd95_mm`: the 95th percentile (interpolated linearly) of the distances from the prediction's surface to the mask's,
    or from the mask's to the prediction's, whichever is larger. `surface_dice`: the fraction of the voxels of both
    surfaces that lie within `tolerance_mm` of the other surface (Nikolov et al. 2018, but counting voxels, not areas).
    """
    if prediction.shape != mask.shape:
        raise ValueError(f"a prediction of shape {prediction.shape}, a mask of shape {mask.shape}")
    if not prediction.any() or not mask.any():
        return SurfaceScores(None, 0.0 if prediction.any() or mask.any() else None)
    box = bounding_box(prediction | mask)
    cropped = prediction[box], mask[box]
    single = tuple(axis for axis, size in enumerate(mask.shape) if size == 1)
    if len(single) > 1:  # a row of voxels is a volume
        single = ()
    surfaces = [surface(volume.squeeze(single)) for volume in cropped]
    spacing = [step for axis, step in enumerate(spacing_mm) if axis not in single]
    there = surface_distances(surfaces[0], surfaces[1], spacing)
    back = surface_distances(surfaces[1], surfaces[0], spacing)
    num_within = sum(np.count_nonzero(distances <= tolerance_mm * ROUNDING) for distances in (there, back))
    return SurfaceScores(
        hd95_mm=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        surface_dice=float(num_within / (there.size + back.size)),
    )


def bounding_box(mask: Bool[np.ndarray, "*S"]) -> tuple[slice, ...]:
    """The smallest box around the voxels of a mask, which must not be empty, as one slice per axis."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        occupied = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(box)


def surface(mask: Bool[np.ndarray, "*S"]) -> Bool[np.ndarray, "*S"]:
    """The voxels of a mask with a face neighbour outside it; everything beyond the array is outside.

    Written in numpy, because `scipy.ndimage.binary_erosion` took 2 to 20 times as long on masks of 40 x 256 x 256 to
    512 x 512.
    """
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in range(mask.ndim):
        for shift in (0, 2):
            window = [slice(1, 1 + size) for size in mask.shape]
            window[axis] = slice(shift, shift + mask.shape[axis])
            inner &= padded[tuple(window)]
    edge: np.ndarray[Any, np.dtype[np.bool_]] = mask & ~inner
    return edge


def surface_distances(
    start: Bool[np.ndarray, "*S"], target: Bool[np.ndarray, "*S"], spacing_mm: Sequence[float]
) -> Float64[np.ndarray, "N"]:
    """The distances in mm from each voxel of `start` to the nearest of `target`, in any order; neither may be empty.

    Only voxels that the surfaces do not share are looked up, in a tree of `target`: 1.3 to 4 times as fast as a
    distance transform for masks that fill the volume, and more for sparse ones.
    """
    apart = np.argwhere(start & ~target)
    distances = np.zeros(np.count_nonzero(start))
    if len(apart):
        # An unbalanced tree is built twice as fast and, on voxel grids, queried about as fast as a balanced one.
        tree = KDTree(np.argwhere(target) * spacing_mm, leafsize=32, balanced_tree=False, compact_nodes=False)
        distances[: len(apart)] = tree.query(apart * spacing_mm)[0]
    return distances


def surface_threads(threads: int, voxels: int) -> int:
    """How many classes are scored at once: as many as there are threads, fewer where cases are large."""
    return max(1, min(threads, MAX_BYTES // (BYTES_PER_VOXEL * voxels)))
