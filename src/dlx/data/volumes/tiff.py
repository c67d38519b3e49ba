"""Checks TIFF files: one page of grey or RGB, in strips that lie within the file; deflated strips are inflated fully.

Source: TIFF Revision 6.0 (Adobe, 1992) and its supplements. BigTIFF, tiles, planes, palettes, several pages and lossy
compression are refused. LZW and PackBits have no checksum: only the largest size that their bytes can expand to is
checked here, and libtiff raises an error if a strip is too short.
"""

import math
import struct

import numpy as np

from dlx.data.volumes.header import BadFile, Header, Note, check_size, check_spacing, show_numbers
from dlx.data.volumes.opening import OpenedFile
from dlx.data.volumes.streams import inflated

TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
READABLE = {1: "B", 3: "H", 4: "I", 5: "II"}  # the field types of the tags that are read here
MAX_ENTRIES = 200
MAX_FIELD_BYTES = 16 << 20
WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, OFFSETS = 256, 257, 258, 259, 262, 266, 273
ORIENTATION, SAMPLES, ROWS, BYTE_COUNTS, X_RESOLUTION, Y_RESOLUTION, PLANAR = 274, 277, 278, 279, 282, 283, 284
UNIT, PREDICTOR, EXTRA_SAMPLES, SAMPLE_FORMAT = 296, 317, 338, 339
DEFAULTS = {BITS: 1, COMPRESSION: 1, FILL_ORDER: 1, ORIENTATION: 1, SAMPLES: 1, PLANAR: 1, UNIT: 1, PREDICTOR: 1,
            SAMPLE_FORMAT: 1}  # fmt: skip
REFUSED = {32997: "is a volume (ImageDepth)", 322: "is tiled", 323: "is tiled", 324: "is tiled",
           325: "is tiled", 320: "has a palette", 330: "has pages within its page (SubIFDs)",
           EXTRA_SAMPLES: "has transparency or other extra samples"}  # fmt: skip
NAMES = {WIDTH: "ImageWidth", LENGTH: "ImageLength", OFFSETS: "StripOffsets", BYTE_COUNTS: "StripByteCounts",
         PHOTOMETRIC: "PhotometricInterpretation"}  # fmt: skip
VOXEL_TYPES = {(8, 1): "u1", (8, 2): "i1", (16, 1): "u2", (16, 2): "i2", (32, 1): "u4", (32, 2): "i4", (32, 3): "f4"}
NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS = 1, 5, 8, 32946, 32773
MAX_RATIO = {LZW: 4096, PACKBITS: 64}  # one code stands for at most 4,096 bytes; two bytes for at most 128
UNIT_MM = {2: 25.4, 3: 10.0}


class Directory:
    """The tags of the only page: numbers by tag, with the standard's defaults."""

    def __init__(self, file: OpenedFile) -> None:
        order = {b"II*\0": "<", b"MM\0*": ">"}.get(file.read_at(0, 4, "header") if file.num_bytes >= 8 else b"")
        if order is None:
            raise BadFile(
                "not a TIFF file (or a BigTIFF, which is not supported): it does not start with TIFF's signature"
            )
        self._file, self._order = file, order
        (at,) = struct.unpack(f"{order}I", file.read_at(4, 4, "header"))
        (count,) = struct.unpack(f"{order}H", file.read_at(at, 2, "directory"))
        if not 1 <= count <= MAX_ENTRIES:
            raise BadFile(f"its directory has {count} entries: 1 to {MAX_ENTRIES} are supported")
        entries = file.read_at(at + 2, count * 12 + 4, "directory")
        if entries[-4:] != b"\0\0\0\0":
            raise BadFile("has several pages (or broken ones): save one image per file")
        self._values: dict[int, list[int]] = {}
        for index in range(count):
            self._read_entry(entries[index * 12 : index * 12 + 12])

    def _read_entry(self, entry: bytes) -> None:
        tag, kind, count = struct.unpack(f"{self._order}HHI", entry[:8])
        if tag in self._values:
            raise BadFile(f"has the tag {tag} twice")
        if tag in REFUSED:
            raise BadFile(f"{REFUSED[tag]} (tag {tag}), which is not supported")
        num_bytes = TYPE_BYTES.get(kind, 1) * count
        if num_bytes > MAX_FIELD_BYTES:
            raise BadFile(f"the tag {tag} claims {num_bytes} bytes")
        if num_bytes <= 4:
            data = entry[8 : 8 + num_bytes]
        else:
            (at,) = struct.unpack(f"{self._order}I", entry[8:])
            data = self._file.read_at(at, num_bytes, f"tag {tag}")
        code = READABLE.get(kind)
        numbers = [] if code is None else struct.unpack(f"{self._order}{count * len(code)}{code[0]}", data)
        self._values[tag] = list(numbers)

    def all(self, tag: int) -> list[int]:
        """All numbers of a tag; BadFile if it is missing and has no default."""
        values = self._values.get(tag)
        if values is None and tag in DEFAULTS:
            return [DEFAULTS[tag]]
        if not values:
            raise BadFile(f"the tag {NAMES.get(tag, tag)} is missing or not a number")
        return values

    def one(self, tag: int) -> int:
        """The number of a tag; several numbers (one per sample) must be equal."""
        values = set(self.all(tag))
        if len(values) != 1:
            raise BadFile(f"the tag {NAMES.get(tag, tag)} has several different values")
        return values.pop()

    def __contains__(self, tag: int) -> bool:
        return tag in self._values


def check_tiff(file: OpenedFile) -> Header:
    """A `.tif` or `.tiff`; the spacing follows from the resolution, if it has a unit, else it is 1."""
    page = Directory(file)
    components = page.one(SAMPLES)
    photometric = page.one(PHOTOMETRIC)
    if (components, photometric) not in ((1, 1), (3, 2)):
        raise BadFile(
            f"has {components} samples per pixel of the kind {photometric} (PhotometricInterpretation): only "
            "grey (1, black is zero) and RGB (2) are supported"
        )
    for tag in (ORIENTATION, FILL_ORDER, PLANAR):
        if page.one(tag) != 1:
            raise BadFile(f"the tag {tag} is {page.one(tag)}: only 1 is supported (rows from the top, pixel by pixel)")
    kind = (page.one(BITS), page.one(SAMPLE_FORMAT))
    if kind not in VOXEL_TYPES:
        raise BadFile(f"has {kind[0]} bits per sample in the format {kind[1]}: 8, 16 or 32 bits are supported")
    dtype = np.dtype(VOXEL_TYPES[kind])
    width, height = page.one(WIDTH), page.one(LENGTH)
    check_size([width, height], components * dtype.itemsize)
    _check_strips(file, page, width * components * dtype.itemsize, height)
    spacing = _spacing(page)
    notes: tuple[Note, ...] = ()
    if any(abs(step - 1) > 1e-3 for step in spacing):  # SimpleITK writes 25.4 dots per inch for a spacing of 1
        notes = (Note("screen", f"the resolution makes a pixel {show_numbers(list(spacing[:2]))} mm"),)
    return Header("TIFFImageIO", (width, height, 1, 1), components, dtype, spacing, notes, has_directions=False)


def _check_strips(file: OpenedFile, page: Directory, row_bytes: int, height: int) -> None:
    """BadFile unless every strip lies within the file and contains its rows."""
    rows = min(page.one(ROWS), height) if ROWS in page else height
    if rows < 1:
        raise BadFile("its strips have no rows")
    num_strips = math.ceil(height / rows)
    offsets, counts = page.all(OFFSETS), page.all(BYTE_COUNTS)
    if not len(offsets) == len(counts) == num_strips:
        raise BadFile(f"has {len(offsets)} strips with {len(counts)} lengths; expected {num_strips}")
    compression = page.one(COMPRESSION)
    predictor = page.one(PREDICTOR)
    if predictor not in (1, 2, 3) or (predictor != 1 and compression in (NONE, PACKBITS)):
        raise BadFile(f"has an unknown predictor ({predictor})")
    for index, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
        claimed = min(rows, height - index * rows) * row_bytes
        if offset + count > file.num_bytes:
            raise BadFile(f"truncated: its strip {index} lies beyond the end of the file")
        _check_strip(file, offset, count, claimed, compression)


def _check_strip(file: OpenedFile, offset: int, count: int, claimed: int, compression: int) -> None:
    if compression == NONE:
        if count != claimed:
            raise BadFile(f"a strip has {count} bytes, but its rows need {claimed}")
    elif compression in (DEFLATE, OLD_DEFLATE):
        _inflate_strip(file, offset, count, claimed)
    elif compression in MAX_RATIO:
        if count * MAX_RATIO[compression] < claimed:
            raise BadFile(f"truncated: a strip of {count} bytes cannot hold the {claimed} that its rows need")
    else:
        raise BadFile(f"the compression {compression} is not supported: none, deflate, LZW and PackBits are")


def _inflate_strip(file: OpenedFile, offset: int, count: int, claimed: int) -> None:
    """Inflates a strip in pieces; BadFile unless it is complete and has the claimed length."""
    held = 0
    for piece in inflated(file.pieces_at(offset, count), may_be_followed=True):
        held += len(piece)
        if held > claimed:
            raise BadFile(f"longer than the header claims: a strip inflates to more than {claimed} bytes")
    if held < claimed:
        raise BadFile(f"truncated: a strip inflates to {held} bytes, but its rows need {claimed}")


def _spacing(page: Directory) -> tuple[float, float, float]:
    """mm per pixel from XResolution and YResolution; 1 if they are missing, 0 or without a unit.

    By the standard a missing unit means inches; SimpleITK treats it as no unit, and so does this function.
    """
    if X_RESOLUTION not in page or Y_RESOLUTION not in page:
        return 1.0, 1.0, 1.0
    resolutions = [page.all(tag) for tag in (X_RESOLUTION, Y_RESOLUTION)]
    if any(len(fraction) != 2 for fraction in resolutions):
        raise BadFile("the resolution is not a fraction")
    if any(above == 0 for above, _ in resolutions):  # treated as missing, as by SimpleITK
        return 1.0, 1.0, 1.0
    if any(below == 0 for _, below in resolutions):
        raise BadFile("the resolution is infinite")
    unit_mm = UNIT_MM.get(page.one(UNIT))
    if unit_mm is None:
        return 1.0, 1.0, 1.0
    x, y = (unit_mm * below / above for above, below in resolutions)
    check_spacing([x, y])
    return x, y, 1.0
