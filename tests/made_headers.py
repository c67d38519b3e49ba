"""Files of NIfTI and Analyze, byte by byte, sound or with a fault."""

import struct
from pathlib import Path

import numpy as np
import pytest

from dlx.data.volumes.reading import read_volume
from dlx.system.errors import DataError

VOXELS = np.arange(120, dtype="<i2")  # 6 x 5 x 4
DATA = VOXELS.tobytes()
Patch = tuple[int, str, tuple[float, ...]]  # offset, struct code, values


def nifti_header(*patches: Patch, magic: bytes = b"n+1\0") -> bytes:
    """348 bytes: 6 x 5 x 4 int16, spacing 0.5 x 0.75 x 1.25 mm, qform and sform that agree."""
    header = bytearray(348)
    for offset, code, values in (
        (0, "i", (348,)), (40, "8h", (3, 6, 5, 4, 1, 1, 1, 1)), (70, "2h", (4, 16)),
        (76, "8f", (1, 0.5, 0.75, 1.25, 0, 0, 0, 0)), (108, "3f", (352 if magic == b"n+1\0" else 0, 1, 0)),
        (123, "B", (2,)), (252, "2h", (1, 1)), (256, "6f", (0, 0, 0, 1, 2, 3)),
        (280, "12f", (0.5, 0, 0, 1, 0, 0.75, 0, 2, 0, 0, 1.25, 3)), (344, "4s", (magic,)), *patches,
    ):  # fmt: skip
        struct.pack_into("<" + code, header, offset, *values)
    return bytes(header)


def nifti(*patches: Patch, data: bytes = DATA, between: bytes = bytes(4)) -> bytes:
    return nifti_header(*patches) + between + data


def floats(value: float, dtype: str = "<f4") -> bytes:
    voxels = np.ones(120, dtype)
    voxels[77] = value
    return voxels.tobytes()


def sform(*rows: float) -> Patch:
    return 280, "12f", rows


def refusal(path: Path) -> str:
    """The cause for which a file is refused; the message is one line that names the file first."""
    with pytest.raises(DataError) as caught:
        read_volume(path, allow_rgb=True, allow_4d=True)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message.removeprefix(f"{path}: ")


def write_pair(folder: Path, header: bytes, image: bytes | None) -> Path:
    (folder / "a.hdr").write_bytes(header)
    if image is not None:
        (folder / "a.img").write_bytes(image)
    return folder / "a.hdr"


def analyze_header(*patches: Patch) -> bytes:
    return nifti_header(*patches, magic=bytes(4))


QFORM_ALONE: Patch = (252, "2h", (1, 0))
SFORM_ALONE: Patch = (252, "2h", (0, 1))
