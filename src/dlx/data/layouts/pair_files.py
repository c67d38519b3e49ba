"""Writes a volume as a pair of files (`.hdr` and `.img`), Analyze 7.5 or NIfTI-1; `dlx.data.volumes` reads them.

Both headers have 348 bytes and store sizes, type and spacing at the same offsets. Sources: Mayo's description of
`dbh.h` for Analyze 7.5; `nifti1.h` (nifti.nimh.nih.gov) for NIfTI-1, which adds orientation and the magic bytes `ni1`.
"""

import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dlx.system.errors import DataError
from dlx.system.files import replacing

PairFormat = Literal["analyze", "nifti"]

HEADER_BYTES = 348
_DESCRIPTION_AT, _DESCRIPTION_BYTES = 148, 80
_TYPE_CODES = {np.dtype(np.uint8): 2, np.dtype(np.int16): 4}
PART_ENDING = ".part"  # of a file while it is written


def write_pair(
    header_path: Path,
    array: npt.NDArray[Any],
    *,
    spacing_mm: tuple[float, float, float],
    description: str,
    format: PairFormat,  # noqa: A002 (the word of the command line)
) -> None:
    """Writes `array` (D, H, W), uint8 or int16, to `header_path` (`.hdr`) and the `.img` beside it.

    `spacing_mm` is (d, h, w). x runs to the left, y to the back, z upwards; only a NIfTI header stores this. The voxels
    are written first, so that a header never lacks its voxels. Raises DataError if a file cannot be written.
    """
    voxels = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    header = _header(array, spacing_mm, description, format)
    _replace(header_path.with_suffix(".img"), voxels.tobytes())
    _replace(header_path, header)


def read_description(header_path: Path) -> str:
    """The free text in a header; empty if the file is not a header. OSError if it cannot be read."""
    with header_path.open("rb") as file:
        header = file.read(HEADER_BYTES + 1)
    if len(header) != HEADER_BYTES:
        return ""
    text = header[_DESCRIPTION_AT : _DESCRIPTION_AT + _DESCRIPTION_BYTES].partition(b"\0")[0]
    return text.decode("ascii", errors="replace")


def _header(
    array: npt.NDArray[Any], spacing_mm: tuple[float, float, float], description: str, format_: PairFormat
) -> bytes:
    depth, height, width = array.shape
    dz, dy, dx = spacing_mm
    header = bytearray(HEADER_BYTES)
    struct.pack_into("<i", header, 0, HEADER_BYTES)
    struct.pack_into("<i", header, 32, 16384)  # extents: the value that Analyze expects
    header[38] = ord("r")
    struct.pack_into("<8h", header, 40, 4, width, height, depth, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, _TYPE_CODES[array.dtype], 8 * array.dtype.itemsize)
    struct.pack_into("<8f", header, 76, 1.0, dx, dy, dz, 1.0, 0.0, 0.0, 0.0)
    struct.pack_into("<f", header, 112, 1.0)  # scale 1: the stored values are the intensities
    struct.pack_into("<ii", header, 140, int(array.max()), int(array.min()))
    struct.pack_into(
        f"{_DESCRIPTION_BYTES}s", header, _DESCRIPTION_AT, description.encode("ascii")[: _DESCRIPTION_BYTES - 1]
    )
    if format_ == "analyze":
        struct.pack_into("4s", header, 56, b"mm")
    else:
        struct.pack_into("<h", header, 40, 3)  # axes; Analyze files have a fourth of length 1
        struct.pack_into("<ii", header, 140, 0, 0)
        header[123] = 2  # millimetres
        struct.pack_into("<hh", header, 252, 1, 1)  # qform and sform: scanner coordinates
        struct.pack_into(
            "<3f", header, 256, 0.0, 0.0, 1.0
        )  # half a turn about z, as x and y of NIfTI run to the right and front
        struct.pack_into("<12f", header, 280, -dx, 0, 0, 0, 0, -dy, 0, 0, 0, 0, dz, 0)
        struct.pack_into("4s", header, 344, b"ni1\0")
    return bytes(header)


def _replace(path: Path, content: bytes) -> None:
    """Writes a file atomically; an interrupted writer leaves a temporary file that the layout `iseg` recognises."""
    try:
        with replacing(path, path.with_name(f".{path.name}{PART_ENDING}")) as file:
            file.write(content)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
