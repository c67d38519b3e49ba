"""Checks NRRD files with attached voxels (`.nrrd`): `field: value` lines, an empty line, then raw or gzipped voxels.

Source: "Definition of NRRD File Format" (teem.sourceforge.net/nrrd/format.html). Only known fields are accepted; fields
that change where the voxels lie (skips, other files, axis minima) are refused.
"""

import re

import numpy as np

from dlx.data.volumes.header import BadFile, Header, check_orthogonal, check_size, check_spacing, four, quoted, three
from dlx.data.volumes.opening import OpenedFile
from dlx.data.volumes.streams import GzipStream, Readable, check_voxels
from dlx.data.volumes.text import MAX_LINES, number, numbers, read_line, required, whole_number, whole_numbers

_INTEGERS = {
    "1": "signed char, int8, int8_t",
    "2": "short, short int, signed short, signed short int, int16, int16_t",
    "4": "int, signed int, int32, int32_t",
    "8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
}
_NATURALS = {
    "1": "uchar, unsigned char, uint8, uint8_t",
    "2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "4": "uint, unsigned int, uint32, uint32_t",
    "8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
}
VOXEL_TYPES = {
    **{name: f"i{size}" for size, names in _INTEGERS.items() for name in names.split(", ")},
    **{name: f"u{size}" for size, names in _NATURALS.items() for name in names.split(", ")},
    "float": "f4",
    "double": "f8",
}
# The three spaces that SimpleITK converts to its own (x to the left, y to the back, z upwards).
SPACES = {"left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las"}
USED = {"type", "dimension", "space", "space dimension", "sizes", "space directions", "kinds", "endian", "encoding",
        "space origin", "spacings"}  # fmt: skip
# Fields that do not change the voxels; SimpleITK ignores them.
IGNORED = {"thicknesses", "centers", "centerings", "labels", "units", "space units", "sample units", "sampleunits",
           "measurement frame", "content", "min", "max", "old min", "oldmin", "old max", "oldmax",
           "number"}  # fmt: skip
SKIPS = ("byte skip", "byteskip", "line skip", "lineskip")  # accepted with the value 0
KEY_VALUE = re.compile(r"[^:]+:=")  # decided by the first colon, so that a field cannot be taken for a pair
SPATIAL_KINDS = ("domain", "space")


def check_nrrd(file: OpenedFile) -> Header:
    """A `.nrrd` of 2 to 4 spatial axes; the fourth may also be time."""
    fields = read_fields(file)
    num_axes = whole_number(required(fields, "dimension"), "dimension")
    if not 2 <= num_axes <= 4:
        raise BadFile(f"has {num_axes} axes (dimension): 2 to 4 are supported")
    kind = required(fields, "type").lower()
    if kind not in VOXEL_TYPES:
        raise BadFile(f"voxels of the type {quoted(kind)} are not supported")
    dtype = np.dtype(VOXEL_TYPES[kind])
    sizes = whole_numbers(required(fields, "sizes"), num_axes, "sizes")
    num_voxels = check_size(sizes, dtype.itemsize)
    _check_kinds(fields, num_axes)
    spacing = _spacing(fields, num_axes)
    endian = fields.get("endian", "little" if dtype.itemsize == 1 else "").lower()
    if endian not in ("little", "big"):
        raise BadFile(f"the header's 'endian' is {quoted(endian)}, neither little nor big")
    check_voxels(_voxel_stream(fields, file), num_voxels, dtype.newbyteorder("<" if endian == "little" else ">"))
    has_directions = "space" in fields and "space directions" in fields
    return Header("NrrdImageIO", four(sizes), 1, dtype, three(spacing), has_directions=has_directions)


def read_fields(file: OpenedFile) -> dict[str, str]:
    """The fields up to the empty line, after which the voxels start, without comments and `key:=value` pairs."""
    if not re.fullmatch(rb"NRRD000[1-5]\r?\n", file.stream.readline(12)):
        raise BadFile("not a NRRD header: it does not start with NRRD0001 to NRRD0005")
    fields: dict[str, str] = {}
    for _ in range(MAX_LINES):
        line = read_line(file.stream)
        if not line:
            return fields
        if line.startswith("#") or KEY_VALUE.match(line):
            continue
        name, colon, value = line.partition(": ")
        name = name.lower()
        if name in ("data file", "datafile"):
            raise BadFile(f"its voxels are in another file ({quoted(value)}): save it as one file")
        if name in SKIPS and value.strip() == "0":
            continue
        if not colon or not (name in USED or name in IGNORED):
            raise BadFile(f"a line of the header is not supported: {quoted(line)}")
        if name in fields:
            raise BadFile(f"the header has '{name}' twice")
        fields[name] = value.strip()
    raise BadFile(f"the header has more than {MAX_LINES} lines")


def _check_kinds(fields: dict[str, str], num_axes: int) -> None:
    """BadFile unless all axes are spatial; a list, vector, colour or complex axis means several values per voxel."""
    kinds = fields.get("kinds", " ".join(["domain"] * num_axes)).lower().split()
    if len(kinds) != num_axes:
        raise BadFile(f"the header's 'kinds' names {len(kinds)} axes, not {num_axes}")
    for axis, kind in enumerate(kinds):
        if kind not in SPATIAL_KINDS and (axis, kind) != (3, "time"):
            raise BadFile(f"contains several values per voxel: axis {axis} is of the kind {quoted(kind)}, not 'domain'")


def _spacing(fields: dict[str, str], num_axes: int) -> list[float]:
    """Lengths of the space directions (checked for right angles), else `spacings`, else 1."""
    space = fields.get("space", "").lower()
    if space and space not in SPACES:
        raise BadFile(f"the space {quoted(space)} is not supported: only LPS, RAS and LAS are")
    if any(unit not in ('"mm"', '""') for unit in fields.get("space units", "").split()):
        raise BadFile(f"the space units are {quoted(fields['space units'])}, not mm")
    num_space = 3 if space else whole_number(fields.get("space dimension", str(num_axes)), "space dimension")
    if num_space != num_axes:
        raise BadFile(f"has {num_axes} axes in a space of {num_space}: the numbers must agree")
    if "space origin" in fields:
        _vector(fields["space origin"], num_axes, "space origin")
    if "space directions" not in fields:
        spacing = numbers(fields["spacings"], num_axes, "spacings") if "spacings" in fields else [1.0] * num_axes
        check_spacing(spacing)
        return spacing
    if "spacings" in fields:
        raise BadFile("the header has both 'spacings' and 'space directions'")
    words = re.sub(r"\s*,\s*", ",", fields["space directions"]).split()
    if len(words) != num_axes:
        raise BadFile(f"the header's 'space directions' has {len(words)} vectors, not {num_axes}")
    directions = np.array([_vector(word, num_axes, "space directions") for word in words]).T
    check_orthogonal(directions, "space directions")
    return [float(length) for length in np.linalg.norm(directions, axis=0)]


def _vector(text: str, count: int, name: str) -> list[float]:
    """`(1,0,0)` as numbers."""
    if not (text.startswith("(") and text.endswith(")")):
        raise BadFile(f"the header's '{name}' holds {quoted(text)}, not a vector as in (1,0,0)")
    words = text[1:-1].split(",")
    if len(words) != count:
        raise BadFile(f"the header's '{name}' holds a vector of {len(words)} numbers, not {count}")
    return [number(word.strip(), name) for word in words]


def _voxel_stream(fields: dict[str, str], file: OpenedFile) -> Readable:
    encoding = required(fields, "encoding").lower()
    if encoding == "raw":
        return file.stream
    if encoding in ("gzip", "gz"):
        return GzipStream(file.stream)
    raise BadFile(f"the encoding {quoted(encoding)} is not supported: only raw and gzip are")
