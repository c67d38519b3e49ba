"""Checks NIfTI-1 and NIfTI-2 (one file, gzip or a pair) and Analyze 7.5 (a pair): header, extensions and voxels.

`nifti_fields` reads the fields and `nifti_orientation` chooses the orientation. `nifti_voxels` decodes the voxels that
SimpleITK cannot decode (NIfTI-2) or decodes to other values than the standard requires.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dlx.data.volumes.header import (
    BadFile,
    Header,
    Note,
    Placement,
    RawVoxels,
    check_size,
    check_spacing,
    four,
    quoted,
    show_numbers,
    three,
)
from dlx.data.volumes.nifti_fields import Fields
from dlx.data.volumes.nifti_orientation import read_orientation
from dlx.data.volumes.opening import OpenedFile, open_regular
from dlx.data.volumes.streams import GzipStream, Readable, check_voxels

MAX_EXTENSION_BYTES = 64 << 20
VOXEL_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
REFUSED_TYPES = {1: "single bits", 32: "complex", 128: "RGB", 1536: "128-bit float", 1792: "complex", 2048: "complex",
                 2304: "RGBA"}  # fmt: skip
VECTOR_INTENTS = range(1004, 1011)  # matrices, displacements, vectors, point sets, triangles, quaternions
SINGLE_MAGIC = {1: b"n+1\0", 2: b"n+2\0\r\n\x1a\n"}
PAIR_MAGIC = {1: b"ni1\0", 2: b"ni2\0\r\n\x1a\n"}
# ITK ignores an offset or a difference of the slope from 1 up to this (epsilon of float64).
ITK_EPSILON = float(np.finfo(np.float64).eps)

Scaling = tuple[float, float]


def check_nifti(file: OpenedFile) -> Header:
    """A `.nii` or `.nii.gz`."""
    is_gzip = file.path.name.lower().endswith(".gz")
    magic = file.read_at(0, 2, "first bytes") if file.num_bytes >= 2 else b""
    if is_gzip != (magic == b"\x1f\x8b"):
        raise BadFile(
            "not a gzip file, although it is named .gz" if is_gzip else "a gzip file that is not named .nii.gz"
        )
    file.stream.seek(0)
    stream: Readable = GzipStream(file.stream) if is_gzip else file.stream
    fields = Fields(stream)
    if fields.magic != SINGLE_MAGIC[fields.version]:
        raise BadFile(
            f"the magic bytes are {quoted(fields.magic.decode('latin-1'))}, not those of NIfTI ('n+{fields.version}')"
        )
    offset = _voxel_offset(fields)
    if offset < fields.num_bytes + 4:
        raise BadFile(f"the voxels cannot start at byte {offset}, within the header (vox_offset)")
    between = stream.read(offset - fields.num_bytes)
    if len(between) < offset - fields.num_bytes:
        raise BadFile("truncated: the file ends before the voxels")
    _check_extensions(between, fields)
    return _check_nifti_voxels(fields, stream, file.path, is_gzip, offset)


def check_pair(file: OpenedFile) -> Header:
    """The `.hdr` of a pair, NIfTI or Analyze 7.5; opens and checks the `.img` beside it too."""
    fields = Fields(file.stream)
    magic = fields.magic
    is_nifti = magic == PAIR_MAGIC[fields.version]
    if not is_nifti and (fields.version == 2 or (magic[:1] == b"n" and magic[3:] == b"\0")):
        raise BadFile(f"the magic bytes are {quoted(magic.decode('latin-1'))}: not those of a pair ('ni1' or none)")
    offset = _voxel_offset(fields)
    if is_nifti:
        extensions = file.stream.read(MAX_EXTENSION_BYTES)
        _check_extensions(extensions, fields)
    image = open_image(file.path)
    with image.stream:
        image.read_at(0, offset, "first voxel")
        image.stream.seek(offset)
        if is_nifti:
            return _check_nifti_voxels(fields, image.stream, image.path, False, offset)
        return _check_analyze(fields, image.stream, image.path, offset)


def header_path(path: Path) -> Path:
    """The `.hdr` of a pair; `path` names either file."""
    if path.suffix.lower() != ".img":
        return path
    return path.with_suffix(".HDR" if path.suffix.isupper() else ".hdr")


def image_path(path: Path) -> Path:
    """The `.img` of a `.hdr`; the ending has the same case."""
    return path.with_suffix(".IMG" if path.suffix.isupper() else ".img")


def open_image(path: Path) -> OpenedFile:
    """Opens the `.img` of a `.hdr`."""
    try:
        return open_regular(image_path(path))
    except BadFile as bad:
        raise BadFile(f"its voxels, {quoted(image_path(path).name)}: {bad}") from None


def _voxel_offset(fields: Fields) -> int:
    (offset,) = fields.floats("vox_offset")
    if not math.isfinite(offset) or offset != int(offset) or not 0 <= offset <= MAX_EXTENSION_BYTES:
        raise BadFile(f"the voxels cannot start at byte {offset:g} (vox_offset)")
    return int(offset)


def _check_extensions(between: bytes, fields: Fields) -> None:
    """Checks the bytes between header and voxels: four that say whether extensions follow, then the extensions."""
    if len(between) < 4 or between[0] == 0:
        return
    position = 4
    while position + 8 <= len(between):
        size = fields.whole_at(between, position)
        if size < 16 or size % 16 or position + size > len(between):
            raise BadFile(f"a header extension claims {size} bytes: not a multiple of 16 within the header")
        position += size


def _check_nifti_voxels(fields: Fields, stream: Readable, path: Path, is_gzip: bool, offset: int) -> Header:
    (intent,) = fields.whole("intent_code")
    if intent in VECTOR_INTENTS and any(size > 1 for size in fields.whole("dim")[4 : 1 + fields.num_axes]):
        raise BadFile(f"contains vectors or matrices (intent code {intent}), not one value per voxel")
    header = _header_of(fields)
    placed = read_orientation(fields, header.size_px)
    scaling, scaling_notes = _scaling(fields)
    notes = (*placed.notes, *scaling_notes, *_bits_note(fields, header.dtype))
    _follow_voxels(fields, header, stream)
    raw = RawVoxels(path, is_gzip, offset, header.dtype.newbyteorder(fields.order), scaling, placed.placement)
    return replace(
        header,
        dtype=_scaled_type(scaling, header.dtype),
        spacing_mm=placed.placement.spacing_mm,
        notes=notes,
        also=placed.also,
        raw=raw if notes or fields.version == 2 else None,
        has_directions=placed.has_directions,
    )


def _bits_note(fields: Fields, dtype: np.dtype[Any]) -> tuple[Note, ...]:
    """A note if bitpix contradicts the datatype. Readers use only the datatype; the length of the file confirms it."""
    (bits,) = fields.whole("bitpix")
    if bits == dtype.itemsize * 8:
        return ()
    return (Note("bits", f"the header has voxels of {bits} bits (bitpix) of the type {dtype}"),)


def _check_analyze(fields: Fields, stream: Readable, path: Path, offset: int) -> Header:
    """Checks an Analyze file. Scaling, orientation and unit, which only some writers store, are ignored.

    Some writers marked a flip by a negative spacing, from which SimpleITK makes a direction: here its absolute value is
    used.
    """
    header = replace(_header_of(fields), has_directions=False)
    spacing_mm = three(np.abs(header.spacing_mm))
    check_spacing(list(spacing_mm))
    _follow_voxels(fields, header, stream)
    if min(header.spacing_mm) > 0:
        return header
    placement = Placement(spacing_mm, (0.0, 0.0, 0.0), np.eye(3))
    raw = RawVoxels(path, False, offset, header.dtype.newbyteorder(fields.order), None, placement)
    note = Note("negative spacing", f"the spacing is {show_numbers(list(header.spacing_mm))}")
    return replace(header, spacing_mm=spacing_mm, notes=(note,), raw=raw)


def _header_of(fields: Fields) -> Header:
    """Size, stored type, and unchanged spacing.

    Axes after the third with length 1 (or 0) are ignored; a fifth axis longer than 1 is refused.
    """
    sizes = [max(size, 1) if axis > 2 and size == 0 else size for axis, size in enumerate(fields.whole("dim")[1:])]
    sizes = sizes[: fields.num_axes]
    if len(sizes) == 1:
        raise BadFile("has only one axis: 2 to 4 are supported")
    (code,) = fields.whole("datatype")
    if code not in VOXEL_TYPES:
        raise BadFile(f"voxels of the type '{REFUSED_TYPES.get(code, 'unknown')}' (datatype {code}) are not supported")
    dtype = np.dtype(VOXEL_TYPES[code])
    check_size(sizes, dtype.itemsize)
    if any(size != 1 for size in sizes[4:]):
        raise BadFile(f"has {len(sizes)} axes ({' x '.join(map(str, sizes))}): at most 4 are supported")
    spacing = fields.floats("pixdim")[1 : 1 + len(sizes)]
    return Header("NiftiImageIO", four(sizes), 1, dtype, three(spacing))


def _follow_voxels(fields: Fields, header: Header, stream: Readable) -> None:
    check_voxels(stream, math.prod(header.size_px), header.dtype.newbyteorder(fields.order))


def _scaling(fields: Fields) -> tuple[Scaling | None, tuple[Note, ...]]:
    """Slope and offset (value = slope * stored + offset), or None for unscaled values; and notes.

    A slope of 0 means no scaling, whatever the offset (nifti1.h); for nibabel, FSL and ITK so does a slope that is not
    finite. SimpleITK adds the offset even then, and replaces a slope below float64's epsilon by 1.
    """
    slope, offset = fields.floats("scaling")
    if slope == 0 or not math.isfinite(slope):
        if slope == 0 and offset == 0:
            return None, ()
        return None, (Note("scaling", f"the scaling has the slope {slope:g} and the offset {offset:g}"),)
    if not math.isfinite(offset):
        raise BadFile(f"the scaling is not finite (slope {slope:g}, offset {offset:g})")
    if abs(slope) < 2 * ITK_EPSILON:
        raise BadFile(f"the scaling has the slope {slope:g}: expected a larger one, or 0 for no scaling")
    is_scaled = abs(slope - 1) > ITK_EPSILON or abs(offset) > ITK_EPSILON
    return ((slope, offset) if is_scaled else None), ()


def _scaled_type(scaling: Scaling | None, stored: np.dtype[Any]) -> np.dtype[Any]:
    if scaling is None:
        return stored
    return np.dtype("f8") if stored == np.dtype("f8") else np.dtype("f4")
