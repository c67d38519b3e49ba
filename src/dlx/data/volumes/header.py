"""The parts that the checks of all formats share: the checked header, its limits, and the error BadFile."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlx.system.memory import host_memory_bytes

MAX_AXIS_PX = 1 << 16
MIN_LIMIT_BYTES = 2 << 30  # a 1024 x 1024 x 512 volume of float32 is read on any machine
MAX_SHEAR = 1e-3  # largest cosine between two axes; header text and float32 rounding stay below 1e-5


class BadFile(Exception):  # noqa: N818 - named after the file
    """A file is refused. The message is one line without the path, which `read_volume` puts before it."""


class Note(NamedTuple):
    """An ambiguity in a header that was resolved, for a warning.

    `kind` is a key of `dlx.data.notes.KINDS`, `detail` what the header says, `amount` the size of a difference.
    """

    kind: str
    detail: str
    amount: float = 0.0


class Placement(NamedTuple):
    """Where voxels lie, as in SimpleITK: spacing x, y, z; origin; 3 x 3 direction with the axes as columns."""

    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: np.ndarray


@dataclass(frozen=True)
class RawVoxels:
    """Voxels that SimpleITK cannot decode, or would decode to other values: one contiguous array in a file.

    dtype: as stored, with its byte order; scaling: slope and offset, or None for unscaled values.
    """

    path: Path
    is_gzip: bool
    offset: int
    dtype: np.dtype[Any]
    scaling: tuple[float, float] | None
    placement: Placement


@dataclass(frozen=True)
class Header:
    """The content of a header, after the check found that the file contains what the header claims.

    size_px: x, y, z and the length of the fourth axis (1 without one).
    components: 3 for RGB, else 1.
    dtype: of the voxels as SimpleITK will return them (with the header's scaling applied).
    spacing_mm: x, y, z.
    notes: ambiguities that were resolved.
    also: other placements that the header gives for the same voxels.
    raw: set if the voxels must be decoded without SimpleITK.
    has_directions: whether the header says in which directions of the body the axes run.
    """

    image_io: str
    size_px: tuple[int, int, int, int]
    components: int
    dtype: np.dtype[Any]
    spacing_mm: tuple[float, float, float]
    notes: tuple[Note, ...] = ()
    also: tuple[Placement, ...] = ()
    raw: RawVoxels | None = None
    has_directions: bool = True


def three(lengths: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """The first two or three numbers as x, y, z; a missing z is 1."""
    x, y, z = (float(length) for length in [*lengths, 1.0][:3])
    return x, y, z


def four(sizes: list[int]) -> tuple[int, int, int, int]:
    """Two to four sizes as x, y, z, t, filled up with 1."""
    x, y, z, t = [*sizes, 1, 1][:4]
    return x, y, z, t


def check_size(sizes: list[int], voxel_bytes: int) -> int:
    """The number of voxels; BadFile if a size is not positive or beyond the limits."""
    shown = " x ".join(str(size) for size in sizes)
    if any(size < 1 for size in sizes):
        raise BadFile(f"the header claims a size of {shown}: every axis must be positive")
    num_voxels = math.prod(sizes)
    limit = max_volume_bytes()
    if max(sizes) > MAX_AXIS_PX or num_voxels * voxel_bytes > limit:
        raise BadFile(
            f"the header claims a size of {shown} voxels of {voxel_bytes} bytes: beyond the limit of "
            f"{MAX_AXIS_PX} per axis and {limit / 2**30:.3g} GiB (half of this machine's memory)"
        )
    return num_voxels


def max_volume_bytes() -> int:
    """Half of the host's memory, as the decoder and the array each hold a copy of the voxels; at least 2 GiB."""
    return max(MIN_LIMIT_BYTES, (host_memory_bytes() or 0) // 2)


def check_spacing(spacing: list[float]) -> None:
    """BadFile unless every spacing is finite and above zero."""
    if not all(math.isfinite(step) and step > 0 for step in spacing):
        raise BadFile(
            f"the spacing is {show_numbers(spacing)}: each must be finite and above 0; write the right voxel size "
            "into the header (in SimpleITK: image.SetSpacing)"
        )


def check_orthogonal(axes: np.ndarray, name: str) -> None:
    """BadFile unless the columns (directions of the axes, of any non-zero length) are orthogonal."""
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(axes).all() or not np.isfinite(lengths).all() or (lengths <= 0).any():
        raise BadFile(
            f"the {name} has a direction that is zero or not finite; write the right directions into the header (in "
            "SimpleITK: image.SetDirection)"
        )
    unit = axes / lengths
    shear = float(np.abs(unit.T @ unit - np.eye(axes.shape[1])).max())
    if shear > MAX_SHEAR:
        raise BadFile(f"the {name} is sheared (cosine of {shear:.2g} between two axes): resample the image first")


def show_numbers(values: list[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def quoted(text: str) -> str:
    """Text from a file for a one-line message: escaped, and shortened to 40 letters."""
    return ascii(text if len(text) <= 40 else text[:37] + "...")
