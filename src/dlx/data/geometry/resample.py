"""Resampling of images and masks to another voxel size. The field of view stays: voxels are aligned at its edges.

Voxel k of n covers the share k / n to (k + 1) / n of the field of view, as in SimpleITK and in skimage's `resize`; its
centre is at (k + 1/2) / n. Images are interpolated by cubic splines without smoothing, masks class by class, as nnU-Net
does (Isensee et al. 2021; nnunetv2/preprocessing/resampling/default_resampling.py). nnU-Net clips CT before it
resamples it; here the clipping depends on the split and comes later, so CT is interpolated linearly.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int, int]
Spacing = tuple[float, float, float]  # d, h, w
Voxels = NDArray[np.float32]
Interpolate = Callable[[Voxels, int, int], NDArray[Any]]  # values, the axis, its new size

# Increase this when resampling gives other values: part of the fingerprint of sets with resampled cases, whose cache
# files are then made anew.
RESAMPLE_VERSION = 2
BLOCK_VOXELS = 2**18  # interpolated at once: a few arrays of 2 MiB, where a slab across the axis is not larger
SPLINE_MARGIN = 12  # voxels by which scipy continues the ends before it filters; their influence on the image is 1e-7
MASK_BYTES_PER_VOXEL = 17  # of `resample_mask`, with its result; `resample_image` takes less beside image and result
MAX_ISOTROPIC = 3.0  # ratio of the largest to the smallest spacing of volumes that count as isotropic (nnU-Net)


def new_size(size: Size, spacing_mm: Spacing, wanted_mm: Spacing) -> Size:
    """The number of voxels along each axis after resampling: rounded, at least 1. An axis of one voxel keeps it, as the
    thickness of a single slice is no distance between voxels.
    """
    sizes = zip(size, spacing_mm, wanted_mm, strict=True)
    d, h, w = (1 if n == 1 else max(1, round(n * step / wanted)) for n, step, wanted in sizes)
    return d, h, w


def coarse_axis(spacing_mm: Spacing, size: Size) -> int | None:
    """The axis whose spacing is more than three times the smallest; None if there is none or if there are two.

    Axes of one voxel are left out, as that has a thickness and no spacing.
    """
    axes = [axis for axis in range(3) if size[axis] > 1]
    coarse = [axis for axis in axes if spacing_mm[axis] > MAX_ISOTROPIC * min(spacing_mm[other] for other in axes)]
    return coarse[0] if len(coarse) == 1 else None


def slice_axis(spacing_mm: Spacing, size: Size) -> int | None:
    """The axis across which the slices of a volume lie: its only axis of one voxel, or else its coarse axis; None if it
    has neither.
    """
    single = [axis for axis in range(3) if size[axis] == 1]
    return single[0] if len(single) == 1 else coarse_axis(spacing_mm, size)


def median_spacing(spacings_mm: Sequence[Spacing], sizes: Sequence[Size]) -> Spacing:
    """The median spacing of each axis over the volumes with more than one voxel along it; over all if none has."""
    spacings, has_spacing = np.array(spacings_mm), np.array(sizes) > 1
    counted = np.where(has_spacing | ~has_spacing.any(axis=0), spacings, np.nan)
    d, h, w = np.nanmedian(counted, axis=0).tolist()
    return d, h, w


def median_shape(sizes: Sequence[Size]) -> Size:
    """The median number of voxels of volumes along each axis, rounded down."""
    d, h, w = np.median(sizes, axis=0).astype(int).tolist()
    return d, h, w


def resample_image(
    image: NDArray[np.float16] | NDArray[np.float32],
    size: Size,
    apart: int | None = None,
    *,
    is_linear: Sequence[bool] = (),
) -> NDArray[np.float16] | NDArray[np.float32]:
    """The image (D, H, W, C) with `size` voxels of its type, by cubic splines whose ends continue the outermost voxels.

    Splines overshoot beside edges; the result is clipped to each channel's former range. Channels that `is_linear`
    names are interpolated linearly, which does not overshoot. Along the axis `apart` the nearest voxel is taken, as a
    spline through thick slices overshoots. One channel is resampled at a time. Memory, measured: 9 bytes beside the
    image and the result for each voxel of the larger of the two, and up to 12 MiB.
    """
    resampled = np.empty((*size, image.shape[-1]), image.dtype)
    for channel, linear in zip(range(image.shape[-1]), [*is_linear] or [False] * image.shape[-1], strict=True):
        voxels = image[..., channel]
        values = _resample(voxels.astype(np.float32), size, apart, _linear if linear else _cubic)
        resampled[..., channel] = np.clip(values, voxels.min(), voxels.max(), out=values)
    return resampled


def resample_mask(mask: NDArray[np.uint8], size: Size, apart: int | None = None) -> NDArray[np.uint8]:
    """The mask (D, H, W) with `size` voxels: each class interpolated linearly by itself, the largest one taken.

    Along the axis `apart` the nearest voxel is taken. Where two classes are equal, the lower one is taken. Holds two
    classes at a time, in float32. Memory, measured: MASK_BYTES_PER_VOXEL for each voxel of the larger of the two masks.
    """
    present = np.unique(mask)
    result = np.full(size, present[0], np.uint8)
    if len(present) == 1:
        return result
    largest: NDArray[np.float32] | None = None
    for k in present:
        share = _resample((mask == k).astype(np.float32), size, apart, _linear)
        if largest is None:
            largest = share
            continue
        is_larger = share > largest
        result[is_larger] = k
        np.maximum(largest, share, out=largest)
    return result


def _resample(values: NDArray[np.float32], size: Size, apart: int | None, interpolate: Interpolate) -> Voxels:
    """The volume with `size` voxels, one axis after another; the axis that shrinks most comes first."""
    for axis in sorted(range(3), key=lambda axis: size[axis] / values.shape[axis]):
        if size[axis] == values.shape[axis]:
            continue
        if axis == apart:
            values = values.take(_nearest(values.shape[axis], size[axis]), axis)
        else:
            values = _in_blocks(values, axis, size[axis], interpolate)
    return values


def _in_blocks(values: Voxels, axis: int, size: int, interpolate: Interpolate) -> Voxels:
    """Interpolates along one axis, in blocks across another one, so that intermediate values take little memory."""
    shape = [*values.shape]
    across = max((other for other in range(3) if other != axis), key=lambda other: shape[other])
    voxels = (max(size, shape[axis]) + 2 * SPLINE_MARGIN) * values.size // shape[axis]
    step = max(1, BLOCK_VOXELS * shape[across] // voxels)
    shape[axis] = size
    result = np.empty(shape, np.float32)
    block = [slice(None)] * 3
    for start in range(0, shape[across], step):
        block[across] = slice(start, start + step)
        result[tuple(block)] = interpolate(values[tuple(block)], axis, size)
    return result


def _linear(values: Voxels, axis: int, size: int) -> Voxels:
    low, high, fraction = linear_weights(values.shape[axis], size)
    weight = _along(axis, fraction).astype(np.float32)
    result: Voxels = values.take(low, axis) * (1 - weight)
    result += values.take(high, axis) * weight
    return result


def _cubic(values: Voxels, axis: int, size: int) -> NDArray[np.float64]:
    """By a cubic spline: as `scipy.ndimage.zoom` with mode="nearest" and grid_mode, but along one axis only.

    scipy extends every axis by 12 voxels on both sides, also those that keep their size.
    """
    from scipy import ndimage  # here, as it is slow to load

    old = values.shape[axis]
    widths = [(SPLINE_MARGIN, SPLINE_MARGIN) if other == axis else (0, 0) for other in range(3)]
    extended = np.pad(values, widths, mode="edge")
    coefficients = ndimage.spline_filter1d(extended, 3, axis, output=np.float64, mode="mirror")
    centre = (np.arange(size) + 0.5) * old / size - 0.5
    before = np.floor(centre).astype(np.int64)
    t = centre - before
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3)  # of a B-spline, times 6
    result = np.zeros([size if other == axis else n for other, n in enumerate(values.shape)])
    for k, weight in enumerate(weights):
        taken = coefficients.take(before + (SPLINE_MARGIN - 1 + k), axis)
        taken *= _along(axis, weight / 6)
        result += taken
    return result


def _along(axis: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) as an array of three axes that varies along one of them."""
    return values.reshape([-1 if other == axis else 1 for other in range(3)])


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
