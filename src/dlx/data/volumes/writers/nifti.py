"""Encodes labels as NIfTI-1, NIfTI-2 or Analyze 7.5, with the header of the image: the same version and byte order.

Kept as they are: pixdim, qform, sform, their codes, and the units. Replaced: type, scaling, intent, the range for
display, and the free texts. Header extensions are left out, as they describe the image.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlx.data.volumes.header import BadFile
from dlx.data.volumes.nifti import PAIR_MAGIC, SINGLE_MAGIC
from dlx.data.volumes.nifti_fields import Fields
from dlx.data.volumes.opening import open_regular
from dlx.data.volumes.streams import GzipStream, Readable
from dlx.data.volumes.writers.packing import gzipped, voxel_bytes

TYPE_CODES = {"u1": 2, "u2": 512, "u4": 768, "u8": 1280}
ANALYZE_TYPE_CODES = {"u1": 2, "i2": 4, "i4": 8}  # all whole numbers that Analyze 7.5 has
DESCRIPTION = b"dlx predict"


def encode_nifti(labels: NDArray[Any], like: Path) -> Iterator[bytes]:
    """The bytes of a `.nii` or `.nii.gz`, as the name of `like` ends."""
    is_gzip = like.name.lower().endswith(".gz")
    fields = _fields_of(like, is_gzip=is_gzip)
    offset = fields.num_bytes + 4  # four zero bytes: no extension follows
    header = _header(fields, labels, TYPE_CODES) | {"vox_offset": (offset,)}
    encoded = fields.changed(SINGLE_MAGIC[fields.version], **header) + bytes(4)
    pieces = chain([encoded], voxel_bytes(labels, fields.order))
    return gzipped(pieces) if is_gzip else pieces


def encode_pair(labels: NDArray[Any], like: Path) -> dict[str, Iterator[bytes]]:
    """The bytes of an `.img` and of its `.hdr`, by these endings; `like` is the `.hdr` of the image."""
    fields = _fields_of(like, is_gzip=False)
    is_nifti = fields.magic == PAIR_MAGIC[fields.version]
    if not is_nifti:
        labels = _signed(labels)
    header = _header(fields, labels, TYPE_CODES if is_nifti else ANALYZE_TYPE_CODES) | {"vox_offset": (0,)}
    if not is_nifti:  # some writers keep a scale in this place, which is 0 if they do not
        header |= {"scaling": (1.0 if fields.floats("scaling")[0] else 0.0, 0.0)}
    encoded = fields.changed(fields.magic, **header)
    return {".img": voxel_bytes(labels, fields.order), ".hdr": iter([encoded + bytes(4) if is_nifti else encoded])}


def _fields_of(like: Path, *, is_gzip: bool) -> Fields:
    file = open_regular(like)
    with file.stream:
        stream: Readable = GzipStream(file.stream) if is_gzip else file.stream
        return Fields(stream)


def _header(fields: Fields, labels: NDArray[Any], type_codes: dict[str, int]) -> dict[str, tuple[Any, ...]]:
    """The fields that differ from the image's. The size of a fourth axis, which holds channels, becomes 1."""
    dim = fields.whole("dim")
    if any(size > 1 for size in dim[4 : 1 + dim[0]]):
        dim = (3, *dim[1:4], 1, 1, 1, 1)
    if tuple(reversed(labels.shape)) != tuple(max(1, size) for size in (*dim[1 : 1 + min(dim[0], 3)], 1, 1)[:3]):
        raise BadFile("the file changed while it was predicted: its size is another")
    code = labels.dtype.str[1:]
    if code not in type_codes:
        raise BadFile(f"labels of the type {labels.dtype} cannot be stored in this format")
    changed: dict[str, tuple[Any, ...]] = {
        "dim": dim,
        "datatype": (type_codes[code],),
        "bitpix": (8 * labels.dtype.itemsize,),
        "scaling": (1.0, 0.0),
        "display_range": (0.0, 0.0),
        "description": (DESCRIPTION,),
        "auxiliary_file": (b"",),
    }
    if fields.magic in (*SINGLE_MAGIC.values(), *PAIR_MAGIC.values()):  # Analyze has other fields in their place
        return changed | {"intent_code": (0,), "intent_parameters": (0.0, 0.0, 0.0), "intent_name": (b"",)}
    return changed | {"value_range": (int(labels.max()), int(labels.min()))}


def _signed(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels beyond 8 bits in the smallest signed type that holds them: Analyze has no other."""
    if labels.dtype == np.uint8:
        return labels
    highest = int(labels.max())
    if highest > np.iinfo(np.int32).max:
        raise BadFile(f"the label value {highest} is beyond 32 bits, the largest whole numbers of Analyze 7.5")
    return labels.astype(np.int16 if highest <= np.iinfo(np.int16).max else np.int32)
