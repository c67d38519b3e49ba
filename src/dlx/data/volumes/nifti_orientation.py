"""The placement of voxels in a NIfTI header: spacing (pixdim, units), qform and sform, and the choice if they differ.

The spacing is that of pixdim, as in SimpleITK, nibabel's zooms and FSL. If qform and sform differ, the sform is used if
its code is 1 ("scanner"), else the qform, as in SimpleITK. An invalid form is replaced by the other. Each such choice
gives a Note. A header without a valid form raises BadFile if it declares one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from dlx.data.volumes.header import BadFile, Note, Placement, check_orthogonal, check_spacing, show_numbers, three
from dlx.data.volumes.nifti_fields import Fields

CODES = range(6)  # 0 none, 1 scanner, 2 aligned, 3 Talairach, 4 MNI 152, 5 other template
SCANNER = 1
UNITS = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}  # 2 is mm; 0 and others count as mm, as elsewhere
MAX_CONVERTED_MM = 100.0  # no scanner has larger voxels: the numbers are then in mm and the unit is wrong
SPACING_TOLERANCE = 1e-3  # relative; ITK warns above this
CORNER_TOLERANCE_VOXELS = 0.5  # float32 quaternions near half a turn move corners by up to a tenth of a voxel
TO_LPS = np.diag([-1.0, -1.0, 1.0])  # x and y run to the right and front in NIfTI, to the left and back in SimpleITK


@dataclass
class State:
    """The state while a header is read: mm per unit, voxel sides in mm, valid forms, causes for invalid ones, notes."""

    fields: Fields
    size_px: tuple[int, ...]  # of the spatial axes
    unit_mm: float = 1.0
    sides: np.ndarray = field(default_factory=lambda: np.ones(3))
    forms: dict[str, np.ndarray] = field(default_factory=dict)  # 3 x 4, from voxels to mm
    invalid: dict[str, str] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    @property
    def num_axes(self) -> int:
        return len(self.size_px)


class Placed(NamedTuple):
    """The placement that a header gives, any other placements that it gives, notes on the choice, and whether the
    header gives the directions of the axes.
    """

    placement: Placement
    also: tuple[Placement, ...]
    notes: list[Note]
    has_directions: bool


def read_orientation(fields: Fields, size_px: tuple[int, int, int, int]) -> Placed:
    """Where a header places the voxels. BadFile if it declares orientations and none of them is valid."""
    state = State(fields, size_px[: min(fields.num_axes, 3)])
    _read_unit(state)
    qform_code, sform_code = _codes(state)
    if sform_code:
        _read_form(state, "sform", _sform)
    _read_sides(state)
    if qform_code:
        _read_form(state, "qform", _qform)
    if state.invalid and not state.forms:
        raise BadFile(next(iter(state.invalid.values())))
    for cause in state.invalid.values():
        state.notes.append(Note("unsound form", f"{cause}; the {next(iter(state.forms))} is valid"))
    taken = _choose(state, sform_code)
    placements = {name: _placement(state, matrix) for name, matrix in state.forms.items()}
    has_directions = taken is not None and _directions(state, state.forms[taken]) is not None
    placement = placements.pop(taken) if taken else Placement(three(state.sides), (0.0, 0.0, 0.0), np.eye(3))
    return Placed(placement, tuple(placements.values()), state.notes, has_directions)


def _read_unit(state: State) -> None:
    name, state.unit_mm = UNITS.get(state.fields.whole("xyzt_units")[0] & 7, ("mm", 1.0))
    if state.unit_mm == 1.0:
        return
    spacing = state.fields.floats("pixdim")[1 : 1 + state.num_axes]
    shown = show_numbers(spacing)
    if max(spacing) * state.unit_mm > MAX_CONVERTED_MM:
        raise BadFile(
            f"the spacing is {shown} in {name}, which is too large: if it is in mm, correct the unit "
            "(xyzt_units; in nibabel header.set_xyzt_units('mm'))"
        )
    state.notes.append(Note("unit", f"the spacing is {shown} in {name}"))


def _codes(state: State) -> list[int]:
    """The codes of qform and sform; an unknown code counts as 0 (not in use)."""
    codes = state.fields.whole("codes")
    if any(code not in CODES for code in codes):
        shown = f"unknown orientation codes (qform {codes[0]}, sform {codes[1]}): each must be 0 to 5"
        state.notes.append(Note("unknown code", shown))
    return [code if code in CODES else 0 for code in codes]


def _read_form(state: State, name: str, read: Callable[[State], np.ndarray]) -> None:
    try:
        state.forms[name] = read(state)
    except BadFile as bad:
        state.invalid[name] = str(bad)


def _sform(state: State) -> np.ndarray:
    """The 3 x 4 matrix from voxels to mm (method 3 of nifti1.h), stored row by row."""
    matrix = np.array(state.fields.floats("srow")).reshape(3, 4) * state.unit_mm
    if not np.isfinite(matrix).all():
        raise BadFile("the sform is not finite")
    check_orthogonal(matrix[:, : state.num_axes], "sform")
    return matrix


def _qform(state: State) -> np.ndarray:
    """The 3 x 4 matrix from voxels to mm (method 2 of nifti1.h): a rotation as a quaternion, and pixdim."""
    b, c, d, *offset = state.fields.floats("quaternion")
    handedness = state.fields.floats("pixdim")[0]
    if not np.isfinite([b, c, d, handedness, *offset]).all():
        raise BadFile("the qform is not finite")
    rest = 1.0 - (b * b + c * c + d * d)
    if rest < -1e-3:
        raise BadFile(f"the qform is not a rotation: its quaternion has length {np.sqrt(1 - rest):.3g}, not 1")
    a = np.sqrt(max(rest, 0.0))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    scale = state.sides * np.array([1.0, 1.0, -1.0 if handedness < 0 else 1.0])
    return np.column_stack([rotation * scale, np.array(offset) * state.unit_mm])


def _read_sides(state: State) -> None:
    """Reads the spacing in mm: the absolute value of pixdim; for a side without a valid pixdim, the sform's spacing.

    Entries of pixdim beyond the axes of the image are ignored. The thickness of a single slice defaults to 1 mm.
    """
    given = np.array(state.fields.floats("pixdim")[1 : 1 + state.num_axes])
    sides = np.abs(given) * state.unit_mm
    if (given < 0).any():
        state.notes.append(Note("negative spacing", f"the spacing is {show_numbers(list(given))} (pixdim)"))
    is_missing = ~(np.isfinite(sides) & (sides > 0))
    if is_missing.any():
        shown = show_numbers(list(given))
        sform = state.forms.get("sform")
        if sform is not None:
            sides = np.where(is_missing, np.linalg.norm(sform[:, : state.num_axes], axis=0), sides)
            state.notes.append(Note("spacing of the sform", f"the spacing is {shown} (pixdim)"))
        elif all(size == 1 for size, is_missing_side in zip(state.size_px, is_missing, strict=True) if is_missing_side):
            sides = np.where(is_missing, 1.0, sides)
            state.notes.append(Note("thickness", f"the spacing is {shown} (pixdim), with one slice"))
    check_spacing(list(sides))
    state.sides[: state.num_axes] = sides


def _choose(state: State, sform_code: int) -> str | None:
    """The form to use; None if the header has none. Adds a note if the choice makes a difference."""
    forms = state.forms
    taken = "sform" if "sform" in forms and (sform_code == SCANNER or "qform" not in forms) else "qform"
    if "sform" in forms:
        sides = state.sides[: state.num_axes]
        lengths = np.linalg.norm(forms["sform"][:, : state.num_axes], axis=0)
        if (np.abs(lengths - sides) > SPACING_TOLERANCE * sides).any():
            taken = "qform" if "qform" in forms else "sform"
            shown = (
                f"the sform has the spacing {show_numbers(lengths.tolist())}, and pixdim says "
                f"{show_numbers(sides.tolist())}"
            )
            state.notes.append(Note("spacing of pixdim", shown))
            return taken
    if len(forms) == 2:
        apart_mm = _corners_apart(forms["qform"], forms["sform"], state.size_px)
        if apart_mm > CORNER_TOLERANCE_VOXELS * float(state.sides[: state.num_axes].min()):
            shown = f"qform and sform disagree: they put a corner of the volume {apart_mm:.3g} mm apart"
            state.notes.append(Note(f"forms apart, {taken}", shown, apart_mm))
    return taken if forms else None


def _corners_apart(qform: np.ndarray, sform: np.ndarray, size_px: Sequence[int]) -> float:
    """The largest distance in mm between the two positions of any corner of the volume."""
    x, y, z = (size - 1 for size in [*size_px, 1, 1][:3])
    corners = np.array([[i, j, k, 1] for i in (0, x) for j in (0, y) for k in (0, z)], dtype=float)
    return float(np.linalg.norm(corners @ (qform - sform).T, axis=1).max())


def _placement(state: State, matrix: np.ndarray) -> Placement:
    """A form in SimpleITK's convention; a 2D image keeps the directions of its axes only if they lie in x and y."""
    origin = TO_LPS @ matrix[:, 3]
    origin[state.num_axes :] = 0.0
    direction = _directions(state, matrix)
    return Placement(three(state.sides), three(origin), np.eye(3) if direction is None else direction)


def _directions(state: State, matrix: np.ndarray) -> np.ndarray | None:
    """The 3 x 3 directions of the axes that a form gives; None for a 2D image that does not lie in x and y."""
    count, axes = state.num_axes, TO_LPS @ matrix[:, :3]
    within = axes[:count, :count] / np.linalg.norm(axes[:, :count], axis=0)
    if not np.allclose(within.T @ within, np.eye(count), atol=1e-3):
        return None
    direction = np.eye(3)
    direction[:count, :count] = within
    return direction
