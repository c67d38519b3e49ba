"""Encodes labels as MetaImage (`.mha`): the lines of the image's header that say where the voxels lie, as they are."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dlx.data.volumes.metaimage import MATRICES, PER_AXIS, read_fields
from dlx.data.volumes.opening import open_regular
from dlx.data.volumes.writers.packing import voxel_bytes

ELEMENT_TYPES = {"u1": "MET_UCHAR", "u2": "MET_USHORT", "u4": "MET_UINT", "u8": "MET_ULONG_LONG"}
AS_STORED = ("AnatomicalOrientation", "DistanceUnits", "TransformType")  # beside PER_AXIS and MATRICES


def encode_metaimage(labels: NDArray[Any], like: Path) -> Iterator[bytes]:
    """The bytes of a `.mha` with compressed voxels. A fourth axis, which holds channels, is left out."""
    file = open_regular(like)
    with file.stream:
        fields = read_fields(file)
    num_axes = int(fields["NDims"])
    kept = min(num_axes, 3)
    packed = _packed(labels)
    lines = {
        "ObjectType": "Image",
        "NDims": str(kept),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": str(sum(map(len, packed))),
    }
    for key, value in fields.items():
        if key in PER_AXIS:
            lines[key] = " ".join(value.split()[:kept])
        elif key in MATRICES:
            words = value.split()
            rows = [words[row * num_axes : row * num_axes + kept] for row in range(kept)]
            lines[key] = " ".join(word for row in rows for word in row)
        elif key in AS_STORED:
            lines[key] = value
    lines["DimSize"] = " ".join(map(str, reversed(labels.shape[3 - kept :])))
    lines["ElementType"] = ELEMENT_TYPES[labels.dtype.str[1:]]
    lines["ElementDataFile"] = "LOCAL"
    yield "".join(f"{key} = {value}\n" for key, value in lines.items()).encode("latin-1")
    yield from packed


def _packed(labels: NDArray[Any]) -> list[bytes]:
    """The voxels as one zlib stream. Its length stands before it, so all of it is kept; labels compress well."""
    packer = zlib.compressobj()
    pieces = [packer.compress(piece) for piece in voxel_bytes(labels)]
    return [*pieces, packer.flush()]
