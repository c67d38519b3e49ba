"""NIfTI-1 (one file, gzip or a pair) and Analyze 7.5 (a pair): the 348-byte header, its extensions, its voxels.

Sources: the NIfTI-1 header (nifti1.h of the NIfTI Data Format Working Group) and the Analyze 7.5 header (dbh.h of the
Mayo Clinic). The orientation rules are in `nifti_orientation.py`.
"""

import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlx.data.headers.claim import BadFile, Claim, check_size, check_spacing, four, quoted
from dlx.data.headers.nifti_orientation import check_orientation
from dlx.data.headers.opening import OpenedFile, open_regular
from dlx.data.headers.streams import GzipStream, Readable, check_voxels

HEADER_BYTES = 348
MAX_EXTENSION_BYTES = 64 << 20
VOXEL_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
REFUSED_TYPES = {1: "single bits", 32: "complex", 128: "RGB", 1536: "128-bit float", 1792: "complex", 2048: "complex",
                 2304: "RGBA"}  # fmt: skip
SPATIAL_UNITS = {0: "unknown", 1: "metres", 2: "mm", 3: "micrometres"}
VECTOR_INTENTS = range(1004, 1011)  # matrices, displacements, vectors, point sets, triangles, quaternions
# Below this a slope, an offset, or a slope's distance from 1 counts as none for ITK (epsilon of float64).
ITK_EPSILON = float(np.finfo(np.float64).eps)


class Fields:
    """The header's bytes and their byte order: `fields.get("f", 76, 8)` gives eight float32 from byte 76 on."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        lengths = {struct.unpack_from("<i", raw, 0)[0]: "<", struct.unpack_from(">i", raw, 0)[0]: ">"}
        if 540 in lengths:
            raise BadFile("a NIfTI-2 file, which is not supported: save it as NIfTI-1")
        if HEADER_BYTES not in lengths:
            raise BadFile("no NIfTI or Analyze header: it does not start with its length, 348")
        self.order: Literal["<", ">"] = "<" if lengths[HEADER_BYTES] == "<" else ">"
        (self.num_axes,) = self.get("h", 40, 1)
        if not 1 <= self.num_axes <= 7:
            raise BadFile(f"the header claims {self.num_axes} axes, not 1 to 7 (dim[0])")

    def get(self, kind: str, offset: int, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f"{self.order}{count}{kind}", self.raw, offset)

    def floats(self, offset: int, count: int) -> list[float]:
        return list(struct.unpack_from(f"{self.order}{count}f", self.raw, offset))


def check_nifti(file: OpenedFile) -> Claim:
    """A `.nii` or `.nii.gz`."""
    is_gzip = file.path.name.lower().endswith(".gz")
    magic = file.read_at(0, 2, "first bytes") if file.num_bytes >= 2 else b""
    if is_gzip != (magic == b"\x1f\x8b"):
        raise BadFile("not a gzip file, as its name says" if is_gzip else "a gzip file that is not named .nii.gz")
    file.stream.seek(0)
    stream: Readable = GzipStream(file.stream) if is_gzip else file.stream
    fields = Fields(_read_header(stream))
    if fields.raw[344:348] != b"n+1\0":
        raise BadFile(
            f"the magic bytes are {quoted(fields.raw[344:348].decode('latin-1'))}, not those of NIfTI ('n+1')"
        )
    offset = _voxel_offset(fields)
    if offset < HEADER_BYTES + 4:
        raise BadFile(f"the voxels cannot start at byte {offset}, within the header (vox_offset)")
    between = stream.read(offset - HEADER_BYTES)
    if len(between) < offset - HEADER_BYTES:
        raise BadFile("truncated: the file ends before the voxels")
    _check_extensions(between, fields)
    return _check_nifti1(fields, stream)


def check_pair(file: OpenedFile) -> Claim:
    """The `.hdr` of a pair, NIfTI-1 or Analyze 7.5; its `.img` beside it is opened and checked too."""
    fields = Fields(_read_header(file.stream))
    magic = fields.raw[344:348]
    is_nifti = magic == b"ni1\0"
    if not is_nifti and magic[:1] == b"n" and magic[3:] == b"\0":
        raise BadFile(f"the magic bytes are {quoted(magic.decode('latin-1'))}: not those of a pair ('ni1' or none)")
    offset = _voxel_offset(fields)
    if is_nifti:
        extensions = file.stream.read(MAX_EXTENSION_BYTES)
        _check_extensions(extensions, fields)
    with open_image(file.path) as image:
        image.read_at(0, offset, "first voxel")
        image.stream.seek(offset)
        return _check_nifti1(fields, image.stream) if is_nifti else _check_analyze(fields, image.stream)


def header_path(path: Path) -> Path:
    """The `.hdr` of a pair of which `path` names either file."""
    if path.suffix.lower() != ".img":
        return path
    return path.with_suffix(".HDR" if path.suffix.isupper() else ".hdr")


def open_image(path: Path) -> OpenedFile:
    """Opens the `.img` that belongs to a `.hdr`, which has its name and case."""
    image_path = path.with_suffix(".IMG" if path.suffix.isupper() else ".img")
    try:
        return open_regular(image_path)
    except BadFile as bad:
        raise BadFile(f"its voxels, {quoted(image_path.name)}: {bad}") from None


def _read_header(stream: Readable) -> bytes:
    raw = stream.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES:
        raise BadFile(f"truncated: {len(raw)} bytes, and a header has {HEADER_BYTES}")
    return raw


def _voxel_offset(fields: Fields) -> int:
    (offset,) = fields.floats(108, 1)
    if not math.isfinite(offset) or offset != int(offset) or not 0 <= offset <= MAX_EXTENSION_BYTES:
        raise BadFile(f"the voxels cannot start at byte {offset:g} (vox_offset)")
    return int(offset)


def _check_extensions(between: bytes, fields: Fields) -> None:
    """What stands between header and voxels: four bytes that say whether extensions follow, then those."""
    if len(between) < 4 or between[0] == 0:
        return
    position = 4
    while position + 8 <= len(between):
        (size,) = struct.unpack_from(f"{fields.order}i", between, position)
        if size < 16 or size % 16 or position + size > len(between):
            raise BadFile(f"a header extension claims {size} bytes: not a multiple of 16 within the header")
        position += size


def _check_nifti1(fields: Fields, stream: Readable) -> Claim:
    (intent,) = fields.get("h", 68, 1)
    if intent in VECTOR_INTENTS:
        raise BadFile(f"holds vectors or matrices (intent code {intent}), not one value a voxel")
    units = fields.raw[123] & 7
    if SPATIAL_UNITS.get(units) not in ("unknown", "mm"):
        raise BadFile(f"the spacing is in {SPATIAL_UNITS.get(units, f'an unknown unit ({units})')}, not in mm")
    claim = _read_claim(fields)
    (bits,) = fields.get("h", 72, 1)
    if bits != claim.dtype.itemsize * 8:
        raise BadFile(f"the header contradicts itself: voxels of {bits} bits (bitpix) of the type {claim.dtype}")
    check_orientation(fields, claim.size_px)
    decoded = _scaled_type(fields, claim.dtype)
    _follow_voxels(fields, claim, stream)
    return replace(claim, dtype=decoded)


def _check_analyze(fields: Fields, stream: Readable) -> Claim:
    """Analyze has no scaling, orientation or unit that SimpleITK would use: bytes that others put there are ignored."""
    claim = _read_claim(fields)
    _follow_voxels(fields, claim, stream)
    return claim


def _read_claim(fields: Fields) -> Claim:
    """Size, type as stored, spacing. Axes after the third that are 1 long do not count; a longer fifth is refused."""
    sizes = list(fields.get("h", 42, fields.num_axes))
    if len(sizes) == 1:
        raise BadFile("has one axis only")
    (code,) = fields.get("h", 70, 1)
    if code not in VOXEL_TYPES:
        raise BadFile(f"voxels of the type '{REFUSED_TYPES.get(code, 'unknown')}' (datatype {code}) are not supported")
    dtype = np.dtype(VOXEL_TYPES[code])
    check_size(sizes, dtype.itemsize)
    if any(size != 1 for size in sizes[4:]):
        raise BadFile(f"has {len(sizes)} axes ({' x '.join(map(str, sizes))}): at most 4 are supported")
    spacing = fields.floats(80, 4)[: len(sizes)]
    check_spacing(spacing[:3])
    if not math.isfinite(spacing[-1]):
        raise BadFile(f"the spacing of the fourth axis is {spacing[-1]:g}")
    x, y, z = [*spacing[:3], 1.0][:3]
    return Claim("NiftiImageIO", four(sizes), 1, dtype, (x, y, z))


def _follow_voxels(fields: Fields, claim: Claim, stream: Readable) -> None:
    check_voxels(stream, math.prod(claim.size_px), claim.dtype.newbyteorder(fields.order))


def _scaled_type(fields: Fields, stored: np.dtype[Any]) -> np.dtype[Any]:
    """The type after scaling: value = slope * stored + offset, where slope 0 stands for no scaling (nifti1.h).

    SimpleITK adds the offset even where the slope is 0, and takes a slope below float64's epsilon for 1; both are
    refused, since the values would not be those that the standard says.
    """
    slope, offset = fields.floats(112, 2)
    if not math.isfinite(slope) or not math.isfinite(offset):
        raise BadFile(f"the scaling is not finite (slope {slope:g}, offset {offset:g})")
    if slope < 0 or 0 < slope < 2 * ITK_EPSILON:
        raise BadFile(f"the scaling has the slope {slope:g}: it must be above 0, or 0 for none")
    if slope == 0 and offset != 0:
        raise BadFile(f"the scaling has the slope 0, which means none, and yet the offset {offset:g}")
    is_scaled = slope != 0 and (abs(slope - 1) > ITK_EPSILON or abs(offset) > ITK_EPSILON)
    if not is_scaled:
        return stored
    return np.dtype("f8") if stored == np.dtype("f8") else np.dtype("f4")
