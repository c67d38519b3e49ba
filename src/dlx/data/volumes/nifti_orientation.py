"""Where a NIfTI header puts its voxels: spacing (pixdim, units), qform and sform, and which is taken where they differ.

The spacing is pixdim's, as SimpleITK, nibabel's zooms and FSL have it. Where qform and sform differ, the sform is taken
if its code is 1 ("scanner"), else the qform, as SimpleITK does; a form that is not sound gives way to the other. Each
such choice is a Note. A header that leaves nothing sound raises BadFile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from dlx.data.volumes.claim import BadFile, Note, Place, check_orthogonal, check_spacing, show_numbers
from dlx.data.volumes.nifti_fields import Fields

CODES = range(6)  # 0 none, 1 scanner, 2 aligned, 3 Talairach, 4 MNI 152, 5 other template
SCANNER = 1
UNITS = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}  # 2 is mm; 0 and unknown numbers count as mm, as elsewhere
MAX_CONVERTED_MM = 100.0  # no scanner's voxel is as large: then the numbers are mm and the unit is wrong
SPACING_TOLERANCE = 1e-3  # relative; ITK warns above it
CORNER_TOLERANCE_VOXELS = 0.5  # float32 quaternions near half a turn move corners by up to a tenth of a voxel
TO_LPS = np.diag([-1.0, -1.0, 1.0])  # NIfTI counts x to the right and y to the front, SimpleITK to the left and back


@dataclass(frozen=True)
class Orientation:
    """The place that is taken, the others that the header gives, and what there is to say of the choice."""

    place: Place
    also: tuple[Place, ...]
    notes: tuple[Note, ...]


@dataclass
class Reading:
    """What is known of a header while it is read: mm a unit, sides of a voxel in mm, sound forms, causes, notes."""

    fields: Fields
    size_px: tuple[int, ...]  # of the axes of space
    unit_mm: float = 1.0
    sides: np.ndarray = field(default_factory=lambda: np.ones(3))
    forms: dict[str, np.ndarray] = field(default_factory=dict)  # 3 x 4, from voxels to mm
    unsound: dict[str, str] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    @property
    def num_axes(self) -> int:
        return len(self.size_px)


def read_orientation(fields: Fields, size_px: tuple[int, int, int, int]) -> Orientation:
    """The orientation of a NIfTI-1 or NIfTI-2 header; BadFile if no sound one can be made of it."""
    reading = Reading(fields, size_px[: min(fields.num_axes, 3)])
    _read_unit(reading)
    qform_code, sform_code = _codes(reading)
    if sform_code:
        _read_form(reading, "sform", _sform)
    _read_sides(reading)
    if qform_code:
        _read_form(reading, "qform", _qform)
    if reading.unsound and not reading.forms:
        raise BadFile(next(iter(reading.unsound.values())))
    for cause in reading.unsound.values():
        reading.notes.append(Note("unsound form", f"{cause}; the {next(iter(reading.forms))} is sound"))
    taken = _choose(reading, sform_code)
    places = {name: _place(reading, matrix) for name, matrix in reading.forms.items()}
    place = places.pop(taken) if taken else Place(_three(reading.sides), (0.0, 0.0, 0.0), np.eye(3))
    return Orientation(place, tuple(places.values()), tuple(reading.notes))


def _read_unit(reading: Reading) -> None:
    name, reading.unit_mm = UNITS.get(reading.fields.whole("xyzt_units")[0] & 7, ("mm", 1.0))
    if reading.unit_mm == 1.0:
        return
    spacing = reading.fields.floats("pixdim")[1 : 1 + reading.num_axes]
    shown = show_numbers(spacing)
    if max(spacing) * reading.unit_mm > MAX_CONVERTED_MM:
        raise BadFile(
            f"the spacing is {shown} in {name}, and no voxel is as large: if it is mm, correct the unit "
            "(xyzt_units; in nibabel header.set_xyzt_units('mm'))"
        )
    reading.notes.append(Note("unit", f"the spacing is {shown} in {name}"))


def _codes(reading: Reading) -> list[int]:
    """The codes of qform and sform; one that the standard does not know counts as 0, not in use."""
    codes = reading.fields.whole("codes")
    if any(code not in CODES for code in codes):
        shown = f"unknown orientation codes (qform {codes[0]}, sform {codes[1]}): each must be 0 to 5"
        reading.notes.append(Note("unknown code", shown))
    return [code if code in CODES else 0 for code in codes]


def _read_form(reading: Reading, name: str, read: Callable[[Reading], np.ndarray]) -> None:
    try:
        reading.forms[name] = read(reading)
    except BadFile as bad:
        reading.unsound[name] = str(bad)


def _sform(reading: Reading) -> np.ndarray:
    """The 3 x 4 matrix from voxels to mm (method 3 of nifti1.h), stored row by row."""
    matrix = np.array(reading.fields.floats("srow")).reshape(3, 4) * reading.unit_mm
    if not np.isfinite(matrix).all():
        raise BadFile("the sform is not finite")
    check_orthogonal(matrix[:, : reading.num_axes], "sform")
    return matrix


def _qform(reading: Reading) -> np.ndarray:
    """The 3 x 4 matrix from voxels to mm (method 2 of nifti1.h): a rotation as a quaternion, and pixdim."""
    b, c, d, *offset = reading.fields.floats("quaternion")
    handedness = reading.fields.floats("pixdim")[0]
    if not np.isfinite([b, c, d, handedness, *offset]).all():
        raise BadFile("the qform is not finite")
    rest = 1.0 - (b * b + c * c + d * d)
    if rest < -1e-3:
        raise BadFile(f"the qform is no rotation: its quaternion is {np.sqrt(1 - rest):.3g} long, not 1")
    a = np.sqrt(max(rest, 0.0))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    scale = reading.sides * np.array([1.0, 1.0, -1.0 if handedness < 0 else 1.0])
    return np.column_stack([rotation * scale, np.array(offset) * reading.unit_mm])


def _read_sides(reading: Reading) -> None:
    """The spacing in mm: pixdim, without its sign; the sform's for a side that pixdim leaves open.

    What stands in pixdim for an axis that the image has not is left aside, as is the thickness of a single slice.
    """
    given = np.array(reading.fields.floats("pixdim")[1 : 1 + reading.num_axes])
    sides = np.abs(given) * reading.unit_mm
    if (given < 0).any():
        reading.notes.append(Note("negative spacing", f"the spacing is {show_numbers(list(given))} (pixdim)"))
    is_open = ~(np.isfinite(sides) & (sides > 0))
    if is_open.any():
        shown = show_numbers(list(given))
        sform = reading.forms.get("sform")
        if sform is not None:
            sides = np.where(is_open, np.linalg.norm(sform[:, : reading.num_axes], axis=0), sides)
            reading.notes.append(Note("spacing of the sform", f"the spacing is {shown} (pixdim)"))
        elif all(size == 1 for size, open_ in zip(reading.size_px, is_open, strict=True) if open_):
            sides = np.where(is_open, 1.0, sides)
            reading.notes.append(Note("thickness", f"the spacing is {shown} (pixdim), with one slice"))
    check_spacing(list(sides))
    reading.sides[: reading.num_axes] = sides


def _choose(reading: Reading, sform_code: int) -> str | None:
    """Which form is taken; None where none is in use. Says in notes where the choice matters."""
    forms = reading.forms
    taken = "sform" if "sform" in forms and (sform_code == SCANNER or "qform" not in forms) else "qform"
    if "sform" in forms:
        sides = reading.sides[: reading.num_axes]
        lengths = np.linalg.norm(forms["sform"][:, : reading.num_axes], axis=0)
        if (np.abs(lengths - sides) > SPACING_TOLERANCE * sides).any():
            taken = "qform" if "qform" in forms else "sform"
            shown = (
                f"the sform has the spacing {show_numbers(lengths.tolist())}, and pixdim says "
                f"{show_numbers(sides.tolist())}"
            )
            reading.notes.append(Note("spacing of pixdim", shown))
            return taken
    if len(forms) == 2:
        apart_mm = _corners_apart(forms["qform"], forms["sform"], reading.size_px)
        if apart_mm > CORNER_TOLERANCE_VOXELS * float(reading.sides[: reading.num_axes].min()):
            shown = f"qform and sform disagree: they put a corner of the volume {apart_mm:.3g} mm apart"
            reading.notes.append(Note(f"forms apart, {taken}", shown, apart_mm))
    return taken if forms else None


def _corners_apart(qform: np.ndarray, sform: np.ndarray, size_px: Sequence[int]) -> float:
    """The largest distance in mm between the places of one of the volume's eight corners."""
    x, y, z = (size - 1 for size in [*size_px, 1, 1][:3])
    corners = np.array([[i, j, k, 1] for i in (0, x) for j in (0, y) for k in (0, z)], dtype=float)
    return float(np.linalg.norm(corners @ (qform - sform).T, axis=1).max())


def _place(reading: Reading, matrix: np.ndarray) -> Place:
    """A form as SimpleITK has places; a 2D image keeps its plane's axes where they lie in x and y."""
    axes, origin = TO_LPS @ matrix[:, :3], TO_LPS @ matrix[:, 3]
    direction = np.eye(3)
    count = reading.num_axes
    within = axes[:count, :count] / np.linalg.norm(axes[:, :count], axis=0)
    if np.allclose(within.T @ within, np.eye(count), atol=1e-3):
        direction[:count, :count] = within
    origin[count:] = 0.0
    return Place(_three(reading.sides), _three(origin), direction)


def _three(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z
