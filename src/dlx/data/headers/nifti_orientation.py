"""The two orientations of a NIfTI-1 header (qform, sform): each sound, and where both are given, one and the same.

SimpleITK takes the sform if its code is 1 ("scanner") or there is no qform, else mostly the qform, and reads the
spacing from pixdim alone, so that a header whose parts disagree gives a geometry that nobody meant.
"""

from typing import Protocol

import numpy as np

from dlx.data.headers.claim import BadFile, check_orthogonal, show_numbers

CODES = range(6)  # 0 none, 1 scanner, 2 aligned, 3 Talairach, 4 MNI 152, 5 other template
SPACING_TOLERANCE = 1e-3  # relative; ITK warns above it
CORNER_TOLERANCE_VOXELS = 0.5  # float32 quaternions near half a turn move corners by up to a tenth of a voxel


class HeaderFields(Protocol):
    """The reading of numbers that `dlx.data.headers.nifti.Fields` offers."""

    def get(self, kind: str, offset: int, count: int) -> tuple[int, ...]: ...
    def floats(self, offset: int, count: int) -> list[float]: ...


def check_orientation(fields: HeaderFields, size_px: tuple[int, int, int, int]) -> None:
    """BadFile unless what of qform and sform is in use is finite, orthogonal, of pixdim's spacing, and agrees."""
    codes = fields.get("h", 252, 2)
    if any(code not in CODES for code in codes):
        raise BadFile(f"unknown orientation codes (qform {codes[0]}, sform {codes[1]}): each must be 0 to 5")
    sides = np.array(fields.floats(80, 3))
    num_axes = min(fields.get("h", 40, 1)[0], 3)
    sides[num_axes:] = 1.0  # of a 2D image; whatever stands there
    forms = []
    if codes[0]:
        forms.append(_qform(fields, sides))
    if codes[1]:
        forms.append(_sform(fields, sides, num_axes))
    if len(forms) == 2:
        _check_agreement(forms[0], forms[1], size_px, float(sides[:num_axes].min()))


def _qform(fields: HeaderFields, sides: np.ndarray) -> np.ndarray:
    """The 3 x 4 matrix from voxels to mm (method 2 of nifti1.h): a rotation as a quaternion, and pixdim."""
    b, c, d, *offset = fields.floats(256, 6)
    (handedness,) = fields.floats(76, 1)
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
    scale = sides * np.array([1.0, 1.0, -1.0 if handedness < 0 else 1.0])
    return np.column_stack([rotation * scale, offset])


def _sform(fields: HeaderFields, sides: np.ndarray, num_axes: int) -> np.ndarray:
    """The 3 x 4 matrix from voxels to mm (method 3 of nifti1.h), stored row by row."""
    matrix = np.array(fields.floats(280, 12)).reshape(3, 4)
    if not np.isfinite(matrix).all():
        raise BadFile("the sform is not finite")
    axes = matrix[:, :num_axes]
    check_orthogonal(axes, "sform")
    lengths = np.linalg.norm(axes, axis=0)
    if (np.abs(lengths - sides[:num_axes]) > SPACING_TOLERANCE * sides[:num_axes]).any():
        raise BadFile(
            f"the sform has the spacing {show_numbers(list(lengths))}, and pixdim says "
            f"{show_numbers(list(sides[:num_axes]))}"
        )
    return matrix


def _check_agreement(qform: np.ndarray, sform: np.ndarray, size_px: tuple[int, int, int, int], voxel_mm: float) -> None:
    """Compares where the two put the eight corners of the volume."""
    x, y, z = (size - 1 for size in size_px[:3])
    corners = np.array([[i, j, k, 1] for i in (0, x) for j in (0, y) for k in (0, z)], dtype=float)
    apart_mm = float(np.linalg.norm(corners @ (qform - sform).T, axis=1).max())
    if apart_mm > CORNER_TOLERANCE_VOXELS * voxel_mm:
        raise BadFile(f"qform and sform disagree: they put a corner of the volume {apart_mm:.3g} mm apart")
