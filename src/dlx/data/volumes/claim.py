"""What every format's check shares: the claim a header makes, the limits it is held to, and how a cause is raised."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlx.system.memory import host_memory_bytes

MAX_AXIS_PX = 1 << 16
MIN_LIMIT_BYTES = 2 << 30  # a 1024 x 1024 x 512 volume of float32 is tried on every machine
MAX_SHEAR = 1e-3  # largest cosine between two axes; header text and float32 rounding stay below 1e-5


class BadFile(Exception):  # noqa: N818 - it says what the file is
    """Why a file is refused, in one line without the path; `read_volume` puts the path before it."""


class Note(NamedTuple):
    """What a file leaves open and was read in one way, for a warning.

    `kind` is a key of `dlx.data.notes.KINDS`, `detail` what the file says, `amount` by how much, if that is a number.
    """

    kind: str
    detail: str
    amount: float = 0.0


class Place(NamedTuple):
    """Where voxels lie, in SimpleITK's axes: spacing x, y, z; origin; direction 3 x 3, its columns the axes."""

    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: np.ndarray


@dataclass(frozen=True)
class RawVoxels:
    """Voxels that SimpleITK cannot decode, or would decode to other values: numbers that stand in a row in a file.

    dtype: as stored, with its byte order; scaling: slope and offset, None where the values are taken as they are.
    """

    path: Path
    is_gzip: bool
    offset: int
    dtype: np.dtype[Any]
    scaling: tuple[float, float] | None
    place: Place


@dataclass(frozen=True)
class Claim:
    """What a header claims and the check found to be held by the file.

    size_px: x, y, z and the length of the fourth axis, 1 where there is none.
    components: 3 for RGB, else 1.
    dtype: of the voxels as SimpleITK will give them (scaling in the header applied).
    spacing_mm: x, y, z; None where the check leaves it to SimpleITK.
    notes: what was read in one of several ways.
    also: other places that the header gives to the same voxels.
    raw: given where the voxels are not for SimpleITK to decode.
    """

    image_io: str
    size_px: tuple[int, int, int, int]
    components: int
    dtype: np.dtype[Any]
    spacing_mm: tuple[float, float, float] | None
    notes: tuple[Note, ...] = ()
    also: tuple[Place, ...] = ()
    raw: RawVoxels | None = None


def four(sizes: list[int]) -> tuple[int, int, int, int]:
    """Two to four sizes as x, y, z, t: what is missing is 1."""
    x, y, z, t = [*sizes, 1, 1][:4]
    return x, y, z, t


def check_size(sizes: list[int], voxel_bytes: int) -> int:
    """The number of voxels; BadFile where an axis is not positive or the claim is beyond the limits."""
    shown = " x ".join(str(size) for size in sizes)
    if any(size < 1 for size in sizes):
        raise BadFile(f"the header claims a size of {shown}: every axis must be positive")
    num_voxels = math.prod(sizes)
    limit = max_volume_bytes()
    if max(sizes) > MAX_AXIS_PX or num_voxels * voxel_bytes > limit:
        raise BadFile(
            f"the header claims a size of {shown} voxels of {voxel_bytes} bytes: beyond the limit of "
            f"{MAX_AXIS_PX} an axis and {limit / 2**30:.3g} GiB (half of the memory there is)"
        )
    return num_voxels


def max_volume_bytes() -> int:
    """Half of the host's memory, as the decoder and the array each hold the voxels once; at least 2 GiB."""
    return max(MIN_LIMIT_BYTES, (host_memory_bytes() or 0) // 2)


def check_spacing(spacing: list[float]) -> None:
    """BadFile unless every spacing is finite and above zero."""
    if not all(math.isfinite(step) and step > 0 for step in spacing):
        raise BadFile(f"the spacing is {show_numbers(spacing)}: each must be finite and above 0")


def check_orthogonal(axes: np.ndarray, name: str) -> None:
    """BadFile unless the columns (the directions of the axes, of any non-zero length) stand at right angles."""
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(axes).all() or not np.isfinite(lengths).all() or (lengths <= 0).any():
        raise BadFile(f"the {name} has a direction that is zero or not finite")
    unit = axes / lengths
    shear = float(np.abs(unit.T @ unit - np.eye(axes.shape[1])).max())
    if shear > MAX_SHEAR:
        raise BadFile(f"the {name} is sheared (cosine of {shear:.2g} between two axes): resample the image first")


def show_numbers(values: list[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def quoted(text: str) -> str:
    """Text of a file, fit for a one-line message: escaped, and cut to 40 letters."""
    return ascii(text if len(text) <= 40 else text[:37] + "...")
