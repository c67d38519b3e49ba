"""The folded surfaces of a phantom's cerebrum and cerebellum: the distance of each voxel from the nearest one.

Sulci are the zero level sets of a smooth noise; the noise divided by its slope is, to first order, the distance from
them.
"""

import numpy as np

from dlx.data.phantom.noise import Draw, Field3, Stream, sample
from dlx.data.phantom.shapes import Frame, Place, ellipsoid, rounded, square


def cortex_depth(draw: Draw, frame: Frame, place: Place, cerebrum: Field3, between: Field3) -> Field3:
    """Distance in voxels from the cerebral surface with all its folds and fissures, negative in their fluid."""
    f = frame.detail
    sheet = _sulci(draw, frame, place, cerebrum)
    open_ = f * (0.5 + 0.2 * draw.smooth(Stream.FOLD_WIDTH, frame.shape, 10.0 * f))
    open_ = open_ + np.maximum(0.5 * f - 0.2 * cerebrum, np.float32(0.0))  # sulci widen towards the surface
    grey = rounded(cerebrum, sheet - np.maximum(open_, 0.3 * f), 1.2 * f)

    # Between the hemispheres, down to the callosum.
    plane = np.zeros((1, 1, 1), dtype=np.float32)
    inner = ellipsoid(frame, place.z, place.y, plane, centre=(-0.10, 0.02, 0.0), semi=(0.42, 0.56, 1.0))
    midline = np.sqrt(square(place.x * frame.semi[2]) + square(np.maximum(inner, np.float32(0.0))))
    grey = rounded(grey, midline - 0.8 * f, 1.2 * f)

    # Between the temporal lobe and what lies above it (the lateral fissure).
    deeper = np.maximum(cerebrum - 0.26 * frame.semi[2], np.float32(0.0))
    lateral = np.sqrt(square(0.5 * between) + square(deeper))
    return rounded(grey, lateral - 0.7 * f, 1.2 * f)


def _sulci(draw: Draw, frame: Frame, place: Place, cerebrum: Field3) -> Field3:
    """Distance in voxels from the sulcal sheets, which stand upright on the surface and end at a varying depth.

    The noise is sampled at the voxel's position moved about half of the way to the surface, so that its sheets run
    inwards. Only its slope along the surface is used, which removes sheets parallel to the surface (onion layers).
    """
    f = frame.detail
    arms = [position * np.float32(semi) for position, semi in zip((place.z, place.y, place.x), frame.semi, strict=True)]
    length = np.sqrt(square(arms[0]) + square(arms[1]) + square(arms[2]))
    arms = [arm / np.maximum(length, np.float32(1.0)) for arm in arms]
    lift = 0.45 * np.minimum(np.maximum(cerebrum, np.float32(0.0)), np.float32(18.0 * frame.reach))
    noise = draw.smooth(Stream.FOLDS, frame.shape, max(6.0 * f, 4.0), band=True)
    grid = np.ogrid[tuple(slice(0, size) for size in frame.shape)]
    noise = sample(noise, *(axis.astype(np.float32) + arm * lift for axis, arm in zip(grid, arms, strict=True)))
    slopes = np.gradient(noise)
    outward = slopes[0] * arms[0] + slopes[1] * arms[1] + slopes[2] * arms[2]
    steep = square(slopes[0]) + square(slopes[1]) + square(slopes[2]) - square(outward)
    sheet = abs(noise) / np.sqrt(np.maximum(steep, np.float32(1e-6)))
    floor = frame.reach * (9.5 + 3.0 * draw.smooth(Stream.FOLD_DEPTH, frame.shape, 11.0 * f))
    distance: Field3 = np.sqrt(square(sheet) + square(np.maximum(cerebrum - floor, np.float32(0.0))))
    return distance


def folia_depth(draw: Draw, frame: Frame, hind: Field3) -> Field3:
    """Distance in voxels from the surface of the cerebellum and its folds, which lie flat and close together."""
    f = frame.detail
    steps = (max(3.2 * f, 3.0), 7.0 * f, 14.0 * f)
    noise = draw.smooth(Stream.FOLIA, frame.shape, steps, band=True)
    slopes = np.gradient(noise)
    steep = square(slopes[0]) + square(slopes[1]) + square(slopes[2])
    sheet = abs(noise) / np.sqrt(np.maximum(steep, np.float32(1e-6)))
    deeper = np.maximum(hind - 3.5 * frame.reach, np.float32(0.0))
    sheet = np.sqrt(square(sheet) + square(deeper))
    return rounded(hind, sheet - 0.3 * f, 0.8 * f)


def cortex_thickness(draw: Draw, frame: Frame) -> Field3:
    """The cortex's thickness in voxels."""
    f = frame.detail
    field = 2.1 + 0.25 * draw.smooth(Stream.THICKNESS, frame.shape, 8.0 * f)
    return np.maximum(field * f, np.float32(1.1))
