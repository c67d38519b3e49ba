"""Resampling of images and masks to another voxel size. The field of view stays: voxels are aligned at its edges.

Voxel k of n covers the share k / n to (k + 1) / n of the field of view, as in SimpleITK and in skimage's `resize`; its
centre is at (k + 1/2) / n. Images are interpolated by cubic splines without smoothing, masks class by class, as nnU-Net
does (Isensee et al. 2021; nnunetv2/preprocessing/resampling/default_resampling.py).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int, int]
SpacingDHW = tuple[float, float, float]

# Increase this when resampling gives other values: part of the fingerprint of sets with resampled cases, whose cache
# files are then made anew.
RESAMPLE_VERSION = 1
MAX_ISOTROPIC = 3.0  # ratio of the largest to the smallest spacing of volumes that count as isotropic (nnU-Net)


def new_size(size: Size, spacing_mm: SpacingDHW, wanted_mm: SpacingDHW) -> Size:
    """The number of voxels along each axis after resampling: rounded, at least 1."""
    sizes = zip(size, spacing_mm, wanted_mm, strict=True)
    d, h, w = (max(1, round(n * step / wanted)) for n, step, wanted in sizes)
    return d, h, w


def coarse_axis(spacing_mm: SpacingDHW) -> int | None:
    """The axis whose spacing is more than three times the smallest; None if there is none or if there are two."""
    coarse = [axis for axis in range(3) if spacing_mm[axis] > MAX_ISOTROPIC * min(spacing_mm)]
    return coarse[0] if len(coarse) == 1 else None


def resample_image(
    image: NDArray[np.float16] | NDArray[np.float32], size: Size, apart: int | None = None
) -> NDArray[np.float16] | NDArray[np.float32]:
    """The image (D, H, W, C) with `size` voxels of its type, by cubic splines whose ends continue the outermost voxels.

    Along the axis `apart` the nearest voxel is taken, and the planes across it are interpolated one by one: a spline
    through thick slices overshoots. Takes 16 bytes per voxel beside image and result, for one channel at a time.
    """
    from scipy import ndimage  # here, as it is slow to load

    resampled = np.empty((*size, image.shape[-1]), image.dtype)
    for channel in range(image.shape[-1]):
        voxels = image[..., channel]
        if apart is None:
            _zoom(ndimage, voxels, size, resampled[..., channel])
            continue
        planes = np.moveaxis(voxels, apart, 0)
        result = np.moveaxis(resampled[..., channel], apart, 0)
        for plane, source in zip(result, _nearest(len(planes), len(result)), strict=True):
            _zoom(ndimage, planes[source], plane.shape, plane)
    return resampled


def _zoom(ndimage: Any, voxels: NDArray[Any], size: tuple[int, ...], result: NDArray[Any]) -> None:
    if voxels.shape == size:
        result[...] = voxels
        return
    factors = [new / old for new, old in zip(size, voxels.shape, strict=True)]
    result[...] = ndimage.zoom(voxels.astype(np.float32), factors, order=3, mode="nearest", grid_mode=True)


def resample_mask(mask: NDArray[np.uint8], size: Size, apart: int | None = None) -> NDArray[np.uint8]:
    """The mask (D, H, W) with `size` voxels: each class interpolated linearly by itself, the largest one taken.

    Along the axis `apart` the nearest voxel is taken. Where two classes are equal, the lower one is taken. Holds two
    classes at a time, in float32.
    """
    present = np.flatnonzero(np.bincount(mask.ravel(), minlength=1))
    result = np.full(size, present[0], np.uint8)
    largest: NDArray[np.float32] | None = None
    for k in present:
        share = (mask == k).astype(np.float32)
        for axis in sorted(range(3), key=lambda axis: size[axis] / mask.shape[axis]):  # the axis that shrinks most
            share = _resample_axis(share, axis, size[axis], is_nearest=axis == apart)
        if largest is None:
            largest = share
            continue
        is_larger = share > largest
        result[is_larger] = k
        np.maximum(largest, share, out=largest)
    return result


def _resample_axis(values: NDArray[np.float32], axis: int, size: int, *, is_nearest: bool) -> NDArray[np.float32]:
    """Resamples along one axis, linearly or to the nearest voxel."""
    if values.shape[axis] == size:
        return values
    if is_nearest:
        return values.take(_nearest(values.shape[axis], size), axis)
    low, high, fraction = linear_weights(values.shape[axis], size)
    shape = [1, 1, 1]
    shape[axis] = size
    weight = fraction.astype(np.float32).reshape(shape)
    result: NDArray[np.float32] = values.take(low, axis) * (1 - weight)
    result += values.take(high, axis) * weight
    return result


def linear_weights(old: int, new: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """For each of `new` voxels along an axis of `old` ones: its two neighbours, and the weight of the second.

    Beyond the centres of the outermost voxels their value continues.
    """
    centre = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = np.floor(centre).astype(np.int64)
    return low, np.minimum(low + 1, old - 1), centre - low


def _nearest(old: int, new: int) -> NDArray[np.int64]:
    """For each of `new` voxels along an axis, which of the `old` ones contains its centre."""
    return (2 * np.arange(new) + 1) * old // (2 * new)
