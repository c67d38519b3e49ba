"""Encodes labels as NRRD: the fields of the image's header that say where the voxels lie, as they are."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dlx.data.volumes.nrrd import read_fields
from dlx.data.volumes.opening import open_regular
from dlx.data.volumes.writers.packing import gzipped, voxel_bytes

TYPES = {"u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64"}
# One word an axis. Fields that are not named here describe intensities (min), or are not read (units).
PER_AXIS = ("kinds", "centers", "centerings", "spacings", "thicknesses", "space units")


def encode_nrrd(labels: NDArray[Any], like: Path) -> Iterator[bytes]:
    """The bytes of a `.nrrd` with gzipped voxels. A fourth axis, which holds channels, is left out."""
    file = open_regular(like)
    with file.stream:
        fields = read_fields(file)
    num_axes = int(fields["dimension"])
    kept = min(num_axes, 3)
    lines = {
        "type": TYPES[labels.dtype.str[1:]],
        "dimension": str(kept),
    }
    if "space" in fields:
        lines["space"] = fields["space"]
    if "space dimension" in fields:
        lines["space dimension"] = str(kept)
    lines["sizes"] = " ".join(map(str, reversed(labels.shape[3 - kept :])))
    if "space directions" in fields:
        vectors = re.sub(r"\s*,\s*", ",", fields["space directions"]).split()[:kept]
        lines["space directions"] = " ".join(_shortened(vector, kept) for vector in vectors)
    lines |= {name: " ".join(fields[name].split()[:kept]) for name in PER_AXIS if name in fields}
    if labels.dtype.itemsize > 1:
        lines["endian"] = "little"
    lines["encoding"] = "gzip"
    if "space origin" in fields:
        lines["space origin"] = _shortened(fields["space origin"], kept)
    yield "".join(["NRRD0004\n", *(f"{name}: {value}\n" for name, value in lines.items()), "\n"]).encode("latin-1")
    yield from gzipped(voxel_bytes(labels))


def _shortened(vector: str, count: int) -> str:
    """`(1,0,0)` of so many numbers."""
    return f"({','.join(word.strip() for word in vector.strip('()').split(',')[:count])})"
