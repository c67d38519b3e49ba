"""Draws the labels of a phantom: a folded, infant-brain-like head, different in each subject.

All shapes are distance fields: the bodies (cerebrum, temporal lobes, cerebellum, stem) are warped ellipsoids with a
known depth in voxels, and so are their folds. Voxels in the folds or within a rim are CSF, voxels within the cortex's
thickness are GM, and the rest is WM; ventricles and deep grey matter are added last.
"""

import numpy as np
import numpy.typing as npt

from dlx.data.phantom.folds import cortex_depth, cortex_thickness, folia_depth
from dlx.data.phantom.noise import Draw, Stream
from dlx.data.phantom.shapes import Frame, Place, ellipsoid, joined, place_in, square, stem_depth

BACKGROUND, CSF, GM, WM = range(4)

Mask3 = npt.NDArray[np.bool_]


def draw_labels(draw: Draw, frame: Frame) -> npt.NDArray[np.uint8]:
    """Classes (D, H, W) in the frame's box: 0 background, 1 CSF, 2 GM, 3 WM."""
    place = place_in(draw, frame)
    f = frame.detail
    upper = ellipsoid(
        frame,
        place.z * np.where(place.z < 0, np.float32(1.45), np.float32(1.0)),
        place.y,
        place.x * (1.0 - 0.14 * place.y),
    )  # flat below, narrower in front
    lobes = ellipsoid(frame, place.z, place.y, abs(place.x), centre=(-0.47, -0.12, 0.48), semi=(0.30, 0.52, 0.34))
    cerebrum = joined(upper, lobes, 1.0 * f)
    width, depth, height, tilt = draw.uniform(Stream.HINDBRAIN, (0.54, 0.64), (0.34, 0.41), (0.28, 0.35), (0.10, 0.25))
    hind = ellipsoid(frame, place.z, place.y, place.x, centre=(-0.66, 0.50, 0.0), semi=(height, depth, width))
    stem = stem_depth(frame, place, tilt)
    outline = joined(joined(cerebrum, hind, 6.0 * f), stem, 5.0 * f)
    rim = f * (1.25 + 0.25 * draw.smooth(Stream.RIM, frame.shape, 9.0 * f))
    head = outline + np.maximum(rim, 0.8 * f) > 0.0

    folded = cortex_depth(draw, frame, place, cerebrum, upper - lobes)
    hind_folded = folia_depth(draw, frame, hind)
    tentorium = 0.5 * abs(cerebrum - hind) - 0.5 * f
    inside_hind = hind > cerebrum
    surface = np.where(inside_hind, hind_folded, folded)
    both = (hind > -2.0 * f) & (cerebrum > -2.0 * f)
    surface = np.where(both, np.minimum(surface, tentorium), surface)
    thickness = cortex_thickness(draw, frame)
    thickness[inside_hind] *= 0.85

    stem_inside = (stem > 0.0) & (outline > 0.0)
    # White specks in the cortex and grey ones in the core are artefacts of the distances: keep connected parts only.
    grey = _reached(surface <= thickness, outline < 2.0 * f) & ~stem_inside
    fluid = (surface < 0.0) & grey
    fluid &= _neighbours(fluid | ~head) >= 2  # isolated voxels of fluid deep in a sulcus are noise
    fluid |= (outline <= 0.0) | _ventricles(draw, place)
    grey |= _deep_grey(draw, frame, place)
    white = ~(grey | fluid)
    core = stem_inside | ((outline > 0.38 * frame.semi[2]) & (_neighbours(white) >= 4))
    labels = np.where(_reached(white, core), np.uint8(WM), np.uint8(GM))
    labels[fluid] = CSF
    labels[~head] = BACKGROUND
    return labels


def _ventricles(draw: Draw, place: Place) -> Mask3:
    """The lateral ventricles (arched, different on the left and right), the third and the fourth."""
    height, length, bend, third, left, right = draw.uniform(
        Stream.VENTRICLES, (0.11, 0.17), (0.36, 0.50), (0.25, 0.45), (0.03, 0.055), (0.06, 0.11), (0.06, 0.11)
    )
    width = np.where(place.x > 0, np.float32(left), np.float32(right))
    back = np.maximum(place.y, np.float32(0.0))
    across = abs(place.x) - (0.13 + 0.5 * square(back))
    up = place.z - (0.16 - bend * square(place.y))
    lateral = square(across / width) + square(place.y * (1.0 / length)) + square(up * (1.0 / height)) < 1.0
    middle = square(place.x * (1.0 / third)) + square((place.y - 0.02) * 6.0) + square((place.z + 0.12) * 7.0) < 1.0
    fourth = square(place.x * 11.0) + square((place.y - 0.27) * 13.0) + square((place.z + 0.62) * 9.0) < 1.0
    return lateral | middle | fourth


def _deep_grey(draw: Draw, frame: Frame, place: Place) -> Mask3:
    """Thalamus, caudate head and putamen on both sides, with a random size for each structure."""
    sizes = draw.uniform(Stream.DEEP_GREY, *[(0.85, 1.2)] * 3)
    bodies = (  # centre z, y, |x| and semi-axes
        ((-0.06, 0.10, 0.15), (0.13, 0.19, 0.12)),
        ((0.04, -0.28, 0.17), (0.12, 0.16, 0.08)),
        ((-0.08, -0.10, 0.34), (0.15, 0.26, 0.09)),
    )
    found = np.zeros(frame.shape, dtype=np.bool_)
    for (centre, semi), size in zip(bodies, sizes, strict=True):
        z, y, x = (
            (position - middle) * (1.0 / (half * size))
            for position, middle, half in zip((place.z, place.y, abs(place.x)), centre, semi, strict=True)
        )
        found |= square(z) + square(y) + square(x) < 1.0
    return found


def _neighbours(mask: Mask3) -> npt.NDArray[np.uint8]:
    """How many of the six neighbours of each voxel are set."""
    count = np.zeros(mask.shape, dtype=np.uint8)
    for axis in range(3):
        low, high = np.swapaxes(count, 0, axis), np.swapaxes(mask, 0, axis)
        low[1:] += high[:-1]
        low[:-1] += high[1:]
    return count


def _reached(mask: Mask3, seed: Mask3) -> Mask3:
    """The part of a mask that is connected with the seed by faces."""
    reached = mask & seed
    size = -1
    while size != (size := int(np.count_nonzero(reached))):
        for axis in range(3):
            to, source = np.swapaxes(reached, 0, axis), np.swapaxes(reached.copy(), 0, axis)
            to[1:] |= source[:-1]
            to[:-1] |= source[1:]
            reached &= mask
    return reached
