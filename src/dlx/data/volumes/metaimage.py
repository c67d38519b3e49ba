"""Checks MetaImage files with attached voxels (`.mha`): `Key = Value` lines, then raw or zlib-compressed voxels.

Source: the MetaIO documentation (itk.org/Wiki/MetaIO/Documentation). SimpleITK's parser copies keys and values into
fixed buffers and crashes on lines that are too long, so lengths and counts are limited here.
"""

import re

import numpy as np

from dlx.data.volumes.header import BadFile, Header, check_orthogonal, check_size, check_spacing, four, quoted, three
from dlx.data.volumes.opening import OpenedFile
from dlx.data.volumes.streams import Readable, ZlibStream, check_voxels
from dlx.data.volumes.text import MAX_LINES, numbers, read_line, required, whole_number, whole_numbers

LINE = re.compile(r"([!-9;<>-~](?:[ -9;<>-~]*[!-9;<>-~])?)\s*=\s*(\S.*)")  # a key contains neither = nor :
MAX_KEY_LETTERS = 100  # both are well below the parser's limit of 255
MAX_TEXT_LETTERS = 200
VOXEL_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
# Keys with numbers, of which the parser reads a fixed count: n per axis, n x n, or one. All other keys are text.
PER_AXIS = ("Offset", "Position", "Origin", "CenterOfRotation", "ElementSpacing", "ElementSize")
MATRICES = ("TransformMatrix", "Rotation", "Orientation")
SYNONYMS = (PER_AXIS[:3], MATRICES, ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"))
SINGLE = ("ID", "ParentID", "CompressionLevel", "ElementMin", "ElementMax")
# Keys that must have this value if they are present.
FIXED = {
    "ObjectType": "Image", "BinaryData": "True", "HeaderSize": "0", "ElementNumberOfChannels": "1",
    "ElementToIntensityFunctionSlope": "1", "ElementToIntensityFunctionOffset": "0",
}  # fmt: skip
REFUSED = ("SequenceID", "ElementNBits", "ImagePosition")  # not needed, and the parser reads them into buffers by count


def check_metaimage(file: OpenedFile) -> Header:
    """A `.mha` of 2 to 4 axes."""
    fields = read_fields(file)
    num_axes = whole_number(required(fields, "NDims"), "NDims")
    if not 2 <= num_axes <= 4:
        raise BadFile(f"has {num_axes} axes (NDims): 2 to 4 are supported")
    for key, value in fields.items():
        _check_field(key, value, num_axes)
    for names in SYNONYMS:
        if sum(name in fields for name in names) > 1:
            raise BadFile(f"the header gives one property twice: {' and '.join(n for n in names if n in fields)}")
    sizes = whole_numbers(required(fields, "DimSize"), num_axes, "DimSize")
    kind = required(fields, "ElementType")
    if kind not in VOXEL_TYPES:
        raise BadFile(f"voxels of the type {quoted(kind)} (ElementType) are not supported")
    dtype = np.dtype(VOXEL_TYPES[kind])
    num_voxels = check_size(sizes, dtype.itemsize)
    spacing = _spacing(fields, num_axes)
    is_big = _flag(fields, "BinaryDataByteOrderMSB") or _flag(fields, "ElementByteOrderMSB")
    check_voxels(_voxel_stream(fields, file), num_voxels, dtype.newbyteorder(">" if is_big else "<"))
    has_directions = any(name in fields for name in MATRICES)
    return Header("MetaImageIO", four(sizes), 1, dtype, three(spacing), has_directions=has_directions)


def read_fields(file: OpenedFile) -> dict[str, str]:
    """The keys and values up to ElementDataFile, after which the voxels start."""
    fields: dict[str, str] = {}
    for _ in range(MAX_LINES):
        line = read_line(file.stream)
        found = LINE.fullmatch(line.strip())
        if not found:
            start = "" if fields else "not a MetaImage header: "
            raise BadFile(f"{start}a line of the header is not of the form 'Key = Value': {quoted(line)}")
        key, value = found[1], found[2].strip()
        if key in fields:
            raise BadFile(f"the header has {quoted(key)} twice")
        if not fields and key not in ("ObjectType", "NDims"):
            raise BadFile(f"not a MetaImage header: it starts with {quoted(key)}, not with ObjectType")
        fields[key] = value
        if key == "ElementDataFile":
            if value != "LOCAL":
                raise BadFile(f"its voxels are in another file ({quoted(value)}): save it as one file")
            return fields
    raise BadFile(f"the header has more than {MAX_LINES} lines")


def _check_field(key: str, value: str, num_axes: int) -> None:
    """Checks counts of numbers and lengths of texts, and refuses values that change the meaning of the voxels."""
    if key in REFUSED:
        raise BadFile(f"the header has '{key}', which is not supported")
    if key in FIXED and value != FIXED[key]:
        raise BadFile(f"the header's '{key}' is {quoted(value)}: only '{FIXED[key]}' is supported")
    if key in PER_AXIS:
        numbers(value, num_axes, key)
    elif key in MATRICES:
        matrix = np.array(numbers(value, num_axes * num_axes, key)).reshape(num_axes, num_axes)
        check_orthogonal(matrix, f"matrix ({key})")
    elif key in SINGLE:
        numbers(value, 1, key)
    elif key == "Color":
        numbers(value, 4, key)
    elif len(key) > MAX_KEY_LETTERS or (len(value) > MAX_TEXT_LETTERS and key != "DimSize"):
        raise BadFile(f"the header's {quoted(key)} is longer than {MAX_TEXT_LETTERS} letters")


def _spacing(fields: dict[str, str], num_axes: int) -> list[float]:
    """ElementSpacing, else ElementSize, else 1, as in MetaIO."""
    text = fields.get("ElementSpacing", fields.get("ElementSize"))
    spacing = [1.0] * num_axes if text is None else numbers(text, num_axes, "ElementSpacing")
    check_spacing(spacing)
    return spacing


def _voxel_stream(fields: dict[str, str], file: OpenedFile) -> Readable:
    """The voxels' bytes. CompressedDataSize is required, as without it SimpleITK returns uninitialised memory."""
    if not _flag(fields, "CompressedData"):
        return file.stream
    size = whole_number(required(fields, "CompressedDataSize"), "CompressedDataSize")
    start = file.stream.tell()
    held = file.num_bytes - start
    if size != held:
        state = "truncated" if held < size else "longer than the header claims"
        raise BadFile(f"{state}: {held} bytes of compressed data, but CompressedDataSize is {size}")
    return ZlibStream(file.pieces_at(start, held))


def _flag(fields: dict[str, str], key: str) -> bool:
    value = fields.get(key, "False")
    if value not in ("True", "False"):
        raise BadFile(f"the header's '{key}' is {quoted(value)}, neither True nor False")
    return value == "True"
