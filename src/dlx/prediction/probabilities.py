"""Writes the probabilities of a scan to an `.npz`, in pieces and in any order, without holding them in memory.

They are collected in a temporary file that is mapped into memory, which the system writes out as it needs to, and which
is then packed. The file has one array, `probabilities` (K, D, H, W) in float32: the format of nnU-Net's files.
"""

import os
import shutil
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dlx.system.files import naming

KEY = "probabilities"
PACKING = 1  # the fastest level of deflate: a higher one saves little of such values
COPIED_BYTES = 1 << 20
EPOCH = (1980, 1, 1, 0, 0, 0)  # no time of day in the file: equal probabilities give equal files


def map_probabilities(path: Path, shape: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """A new `.npy` file of (K, D, H, W) that is mapped into memory, as an array (D, H, W, K) to write into.

    OSError if the disk has no room for it.
    """
    with naming(path):
        mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(shape[3], *shape[:3]))
        _reserve(path)
    return np.moveaxis(mapped, 0, -1)


def _reserve(path: Path) -> None:
    """Allocates the file's blocks: writing to a mapped file on a full disk would end the process."""
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        start = file.seek(0, os.SEEK_SET) + 128  # after the header of the array, which is written already
        file.seek(start)
        zeros = bytes(COPIED_BYTES)
        for at in range(start, size, COPIED_BYTES):
            file.write(zeros[: size - at])


def pack_probabilities(mapped: Path, packed: BinaryIO) -> None:
    """Packs a file that `map_probabilities` made into an open `.npz`."""
    member = zipfile.ZipInfo(f"{KEY}.npy", EPOCH)
    member.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=PACKING) as archive:
        archive.compresslevel = PACKING
        with mapped.open("rb") as source, archive.open(member, "w", force_zip64=True) as target:
            shutil.copyfileobj(source, target, COPIED_BYTES)
