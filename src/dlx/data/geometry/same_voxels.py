"""Whether two volumes of one case lie on the same voxels: the image and its mask, or two channels.

Sizes must be equal. If the headers place the arrays only slightly differently, or one has lost its origin, the voxels
correspond: the first volume's geometry is used, and a Note says how much the other differs. If the headers place the
arrays clearly differently, they are refused: they may belong to different images, or one may be reoriented.
"""

from itertools import product

import numpy as np

from dlx.data.notes import HARMLESS
from dlx.data.volumes.header import Note, Placement
from dlx.data.volumes.reading import Volume
from dlx.settings.spec import Geometry
from dlx.system.errors import DataError

# Smaller differences count as rounding; relative to the spacing, absolute for the entries of directions.
TOLERANCE = 1e-3
# Relative. Rounding to one decimal changes a spacing above 0.5 mm by less; a volume resampled to the same number of
# voxels but another field of view usually differs by more.
MAX_SPACING_DIFFERENCE = 0.1
# Beyond 45 degrees another axis is nearer, so the axes of the two arrays are ordered or oriented differently.
MIN_COSINE = float(np.cos(np.pi / 4))
# Writers disagree on whether the origin is a voxel's centre or corner (half a voxel), and on counting from 0 or 1.
MAX_SHIFT_VOXELS = 1.0
REMEDY = (
    "if the headers are right, turn or resample one to the other's voxels, a mask by nearest neighbour; if the header "
    "of the {other} is wrong and its voxels correspond, copy the {reference}'s geometry into it (in SimpleITK: "
    "{other}.CopyInformation({reference}))"
)


def check_same_voxels(
    a: Volume,
    b: Volume,
    name_a: str,
    name_b: str,
    *,
    geometry: Geometry = "image",
    kinds: tuple[str, str] = ("image", "mask"),
    option: str = "data.geometry",
) -> tuple[Note, ...]:
    """Notes on slight differences between the geometries of `a` and `b`; DataError if they differ clearly.

    `kinds` are what the two are, and `option` is what sets `geometry`, both for messages.

    With `strict`, spacings may differ by 1e-3 (relative), origins by 1e-3 of the smallest spacing, and entries of the
    direction by 1e-3. The number of channels may differ. For PNG and TIFF only sizes must agree, and with `strict` the
    resolutions.
    """
    if a.array.shape[1:] != b.array.shape[1:]:
        shown = f"the size is {_show(a.array.shape[:0:-1])} and {_show(b.array.shape[:0:-1])} (x, y, z)"
        raise DataError(
            f"{name_a} and {name_b} do not lie on the same voxels: {shown}; resample one to the other's voxels, a mask "
            "by nearest neighbour"
        )
    strict = _differences(a.placement, b.placement)
    if not strict:
        return ()
    if geometry == "strict":
        hint = f"{option}={kinds[0]} uses the {kinds[0]}'s geometry if the voxels can correspond"
        raise DataError(f"{name_a} and {name_b} do not lie on the same voxels: {strict[0].detail} ({hint})")
    if a.is_picture and b.is_picture:
        return (Note("resolution", strict[0].detail),)
    pairs = list(product((a.placement, *a.also), (b.placement, *b.also)))
    if any(not _differences(one, other) for one, other in pairs):
        has_note = any(note.kind not in HARMLESS for note in (*a.notes, *b.notes))
        return (
            () if has_note else tuple(strict)
        )  # needed for strict, which finds differences in prepared data by their notes
    causes = [_cause(one, other, a.array.shape) for one, other in pairs]
    if all(causes):
        raise DataError(f"{name_a} and {name_b} do not lie on the same voxels: {causes[0]}; {_remedy(kinds)}")
    return tuple(strict)


def _remedy(kinds: tuple[str, str]) -> str:
    return REMEDY.format(reference=kinds[0], other=kinds[1])


def _differences(a: Placement, b: Placement) -> list[Note]:
    """Notes on spacing, origin and direction if they differ by more than rounding, with the amounts."""
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


def _cause(a: Placement, b: Placement, shape: tuple[int, ...]) -> str | None:
    """Why two placements cannot belong to one array; None if they can. The thickness of a single slice is ignored."""
    several = np.array(shape[:0:-1]) > 1
    ratio = np.abs(np.divide(b.spacing_mm, a.spacing_mm) - 1)
    if (ratio[several] > MAX_SPACING_DIFFERENCE).any():
        return f"the spacing is {_show(a.spacing_mm)} and {_show(b.spacing_mm)}"
    if (_cosines(a, b) < MIN_COSINE).any():
        shown = f"the direction is {_show(a.direction.ravel())} and {_show(b.direction.ravel())}"
        return f"{shown}: the axes have another order or run in opposite directions"
    shift = a.direction.T @ np.subtract(b.origin_mm, a.origin_mm) / a.spacing_mm
    if (np.abs(shift[several]) > MAX_SHIFT_VOXELS + TOLERANCE).any() and not (_is_zero(a) or _is_zero(b)):
        return f"the origin is {_show(a.origin_mm)} and {_show(b.origin_mm)}"
    return None


def _cosines(a: Placement, b: Placement) -> np.ndarray:
    """The cosines of the angles between corresponding axes."""
    cosines: np.ndarray = np.clip((a.direction * b.direction).sum(axis=0), -1.0, 1.0)
    return cosines


def _is_zero(placement: Placement) -> bool:
    return not any(placement.origin_mm)


def _show(values: tuple[float, ...] | np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
