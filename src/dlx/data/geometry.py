"""Whether two volumes of one case lie on the same voxels: the image and its mask, or two channels.

Sizes must be equal. Where the headers place equal arrays a little differently, or one has lost its origin, the voxels
correspond: then the first volume's geometry counts, and a Note says by how much the other's differs. Headers that put
the arrays at clearly different places are refused: they may be of different images, or reoriented.
"""

from itertools import product

import numpy as np

from dlx.data.notes import HARMLESS
from dlx.data.volumes.claim import Note, Place
from dlx.data.volumes.reading import Volume
from dlx.settings.spec import Geometry
from dlx.system.errors import DataError

# Below these, two geometries are the same: relative to the spacing; for the entries of directions absolute.
TOLERANCE = 1e-3
# Rounding to one decimal changes a spacing above 0.5 mm by less. A volume resampled to the same number of voxels, but
# another field of view, mostly differs by more.
MAX_SPACING_DIFFERENCE = 0.1
# Beyond 45 degrees another axis is the nearest: the arrays are ordered otherwise. Below, the axes run the same way.
MIN_COSINE = float(np.cos(np.pi / 4))
# Writers disagree whether the origin is a voxel's centre or corner (half a voxel), and whether to count from 0 or 1.
MAX_SHIFT_VOXELS = 1.0
REMEDY = (
    "if the voxels do correspond, copy the image's geometry into the other file "
    "(in SimpleITK: mask.CopyInformation(image))"
)


def check_same_voxels(
    a: Volume, b: Volume, name_a: str, name_b: str, *, geometry: Geometry = "image"
) -> tuple[Note, ...]:
    """Notes on how the geometry of `b` differs from that of `a`; DataError, naming what differs, if it is another one.

    With `strict` spacings and origins may differ by 1e-3 of the spacing (of the smallest for the origin), the entries
    of the directions by 1e-3. Channels may differ. Pictures are compared by size alone, and by resolution if strict.
    """
    if a.array.shape[1:] != b.array.shape[1:]:
        shown = f"the size is {_show(a.array.shape[:0:-1])} and {_show(b.array.shape[:0:-1])}"
        raise DataError(f"{name_a} and {name_b} do not lie on the same voxels: {shown}")
    place_a, place_b = _place(a), _place(b)
    strict = _differences(place_a, place_b)
    if not strict:
        return ()
    if geometry == "strict":
        hint = "data.geometry=image takes the image's where the voxels can correspond"
        raise DataError(f"{name_a} and {name_b} do not lie on the same voxels: {strict[0].detail} ({hint})")
    if a.is_picture and b.is_picture:
        return (Note("resolution", strict[0].detail),)
    pairs = list(product((place_a, *a.also), (place_b, *b.also)))
    if any(not _differences(one, other) for one, other in pairs):
        has_note = any(note.kind not in HARMLESS for note in (*a.notes, *b.notes))
        return () if has_note else tuple(strict)  # strict finds it in prepared data by its note
    causes = [_cause(one, other, a.array.shape) for one, other in pairs]
    if all(causes):
        raise DataError(f"{name_a} and {name_b} do not lie on the same voxels: {causes[0]}; {REMEDY}")
    return tuple(strict)


def _place(volume: Volume) -> Place:
    d, h, w = volume.spacing_mm
    return Place((w, h, d), volume.origin_mm, np.array(volume.direction).reshape(3, 3))


def _differences(a: Place, b: Place) -> list[Note]:
    """What differs by more than rounding: spacing, origin, direction, with by how much."""
    step = np.array(a.spacing_mm)
    apart = np.abs(np.subtract(a.spacing_mm, b.spacing_mm))
    shift = np.abs(np.subtract(a.origin_mm, b.origin_mm))
    turned = np.abs(a.direction - b.direction)
    notes = []
    if (apart > TOLERANCE * step).any():
        shown = f"the spacing is {_show(a.spacing_mm)} and {_show(b.spacing_mm)}"
        notes.append(Note("spacing", shown, float((apart / step).max())))
    if (shift > TOLERANCE * step.min()).any():
        shown = f"the origin is {_show(a.origin_mm)} and {_show(b.origin_mm)}"
        kind = "no origin" if _is_zero(a) or _is_zero(b) else "origin"
        notes.append(Note(kind, shown, float(np.linalg.norm(np.subtract(a.origin_mm, b.origin_mm)))))
    if (turned > TOLERANCE).any():
        shown = f"the direction is {_show(a.direction.ravel())} and {_show(b.direction.ravel())}"
        notes.append(Note("direction", shown, float(np.degrees(np.arccos(_cosines(a, b).min())))))
    return notes


def _cause(a: Place, b: Place, shape: tuple[int, ...]) -> str | None:
    """Why two places are not those of one array; None if they may be. The thickness of a single slice is left aside."""
    several = np.array(shape[:0:-1]) > 1
    ratio = np.abs(np.divide(b.spacing_mm, a.spacing_mm) - 1)
    if (ratio[several] > MAX_SPACING_DIFFERENCE).any():
        return f"the spacing is {_show(a.spacing_mm)} and {_show(b.spacing_mm)}"
    if (_cosines(a, b) < MIN_COSINE).any():
        shown = f"the direction is {_show(a.direction.ravel())} and {_show(b.direction.ravel())}"
        return f"{shown}: the axes are ordered or run otherwise"
    shift = a.direction.T @ np.subtract(b.origin_mm, a.origin_mm) / a.spacing_mm
    if (np.abs(shift[several]) > MAX_SHIFT_VOXELS + TOLERANCE).any() and not (_is_zero(a) or _is_zero(b)):
        return f"the origin is {_show(a.origin_mm)} and {_show(b.origin_mm)}"
    return None


def _cosines(a: Place, b: Place) -> np.ndarray:
    """Of the angle between each axis of one and the same axis of the other."""
    cosines: np.ndarray = np.clip((a.direction * b.direction).sum(axis=0), -1.0, 1.0)
    return cosines


def _is_zero(place: Place) -> bool:
    return not any(place.origin_mm)


def _show(values: tuple[float, ...] | np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
