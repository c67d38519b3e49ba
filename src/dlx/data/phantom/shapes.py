"""The position of a phantom's head, and the smooth bodies that it consists of, each as a depth in voxels."""

from dataclasses import dataclass

import numpy as np

from dlx.data.phantom.noise import Draw, Field3, Stream

_PROPORTIONS = (0.86, 1.0, 0.80)  # of a head's depth (z), height (y: front to back) and width (x)
_STRETCH = 1.12  # a head may exceed its proportions by this factor, to fill a longer volume
_FILL = 0.47  # semi-axis, including the rim, divided by the volume's extent
_UNIT_PX = 30.0  # semi-axis (y) of a head in 64 voxels, for which all sizes in voxels were chosen


@dataclass(frozen=True)
class Frame:
    """The box of the head and the scales of its details, which grow more slowly than the head itself.

    A head with more voxels has more folds, not only larger ones: `detail` is the square root of the head's size and
    `reach` its 3/4th power, both 1 for a head in 64 voxels.
    """

    shape: tuple[int, ...]  # D, H, W of the box around the head
    corner: tuple[int, ...]  # position of the box in the volume
    semi: tuple[float, ...]  # z, y, x in voxels, without the CSF rim
    detail: float
    reach: float


def frame_for(draw: Draw, shape: tuple[int, int, int]) -> Frame:
    """The frame of a head in a volume of `shape` (D, H, W)."""
    unit = min(_FILL * size / share for size, share in zip(shape, _PROPORTIONS, strict=True))
    widest = [min(_FILL * size, _STRETCH * unit * share) for size, share in zip(shape, _PROPORTIONS, strict=True)]
    detail = float(np.sqrt(unit / _UNIT_PX))
    shares = draw.uniform(Stream.SIZE, (0.93, 1.0), (0.93, 1.0), (0.93, 1.0))
    semi = [size * share - 1.6 * detail for size, share in zip(widest, shares, strict=True)]
    box = [min(size, 2 * int(edge + 2.0 + 2.0 * detail) + size % 2) for size, edge in zip(shape, widest, strict=True)]
    corner = [(size - edge) // 2 for size, edge in zip(shape, box, strict=True)]
    return Frame(tuple(box), tuple(corner), tuple(semi), detail, float(np.sqrt(detail)) * detail)


@dataclass(frozen=True)
class Place:
    """Each voxel's coordinates in the warped head: z up, y to the back, x to the left; the surface is near 1."""

    z: Field3
    y: Field3
    x: Field3


def place_in(draw: Draw, frame: Frame) -> Place:
    """Voxel positions, shifted, rotated and warped by a few voxels, divided by the semi-axes."""
    f = frame.detail
    shifts = draw.uniform(Stream.POSE, *[(-0.02, 0.02)] * 3, *[(-0.07, 0.07)] * 3)
    z, y, x = (
        (np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2 + shift * semi)).reshape(along)
        for size, semi, shift, along in zip(
            frame.shape, frame.semi, shifts[:3], ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True
        )
    )
    for plane, half_tangent in enumerate(shifts[3:]):
        cosine = (1.0 - half_tangent * half_tangent) / (1.0 + half_tangent * half_tangent)
        sine = 2.0 * half_tangent / (1.0 + half_tangent * half_tangent)
        if plane == 0:
            y, x = cosine * y - sine * x, sine * y + cosine * x
        elif plane == 1:
            z, y = cosine * z - sine * y, sine * z + cosine * y
        else:
            z, x = cosine * z - sine * x, sine * z + cosine * x
    warps = (
        draw.smooth(stream, frame.shape, 0.7 * frame.semi[1]) * (0.6 * f)
        for stream in (Stream.WARP_Z, Stream.WARP_Y, Stream.WARP_X)
    )
    z, y, x = (
        (position + warp) * (1.0 / semi) for position, warp, semi in zip((z, y, x), warps, frame.semi, strict=True)
    )
    return Place(z, y, x)


def ellipsoid(
    frame: Frame,
    z: Field3,
    y: Field3,
    x: Field3,
    *,
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
    semi: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Field3:
    """Depth below an ellipsoid's surface in voxels, negative outside; to first order, and so exact near the surface."""
    total: Field3 | np.float32 = np.float32(0.0)
    slope: Field3 | np.float32 = np.float32(1e-8)
    for position, middle, half, scale in zip((z, y, x), centre, semi, frame.semi, strict=True):
        part = (position - middle) * (1.0 / half)
        part *= part
        total = total + part
        part *= 1.0 / (half * scale * half * scale)
        slope = slope + part
    radius = np.sqrt(total)
    depth: Field3 = 1.0 - radius
    depth *= radius
    depth /= np.sqrt(slope)
    return depth


def stem_depth(frame: Frame, place: Place, tilt: float) -> Field3:
    """Depth below the brainstem's surface: a column from the thalami downwards and backwards, thicker at the pons."""
    top, bottom = -0.22, -0.84
    along = np.minimum(np.maximum(place.z, np.float32(bottom)), np.float32(top))
    y = (place.y - 0.06 + tilt * (along - top)) * frame.semi[1]
    x = place.x * frame.semi[2]
    z = (place.z - along) * frame.semi[0]
    pons = np.maximum(1.0 - abs(along + 0.58) * 5.0, np.float32(0.0))
    depth: Field3 = frame.semi[2] * (0.15 + 0.05 * pons) - np.sqrt(x * x + y * y + z * z)
    return depth


def joined(one: Field3, other: Field3, width: float) -> Field3:
    """The depth below the union of two bodies, its seam rounded over `width` voxels (polynomial smooth maximum)."""
    overlap = np.maximum(width - abs(one - other), np.float32(0.0))
    depth: Field3 = np.maximum(one, other) + overlap * overlap * (0.25 / width)
    return depth


def rounded(one: Field3, other: Field3, width: float) -> Field3:
    """The smaller of two distances, rounded over `width` voxels where they are similar (a smooth minimum)."""
    return -joined(-one, -other, width)


def square(field: Field3) -> Field3:
    return field * field
