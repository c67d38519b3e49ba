"""Reads and changes the fields of a NIfTI-1, NIfTI-2 or Analyze 7.5 header by name, in either byte order, unchecked.

Sources: nifti1.h and nifti2.h of the NIfTI Data Format Working Group, dbh.h of the Mayo Clinic. Analyze has
the same offsets as NIfTI-1 for the fields of both.
"""

import struct
from typing import Any, Literal

from dlx.data.volumes.header import BadFile
from dlx.data.volumes.streams import Readable

HEADER_BYTES = 348
HEADER2_BYTES = 540
# name -> (struct code, offset) in NIfTI-1 and NIfTI-2; related numbers are read together
FIELDS = {
    "dim": (("8h", 40), ("8q", 16)),
    "intent_code": (("h", 68), ("i", 504)),
    "datatype": (("h", 70), ("h", 12)),
    "bitpix": (("h", 72), ("h", 14)),
    "pixdim": (("8f", 76), ("8d", 104)),
    "vox_offset": (("f", 108), ("q", 168)),
    "scaling": (("2f", 112), ("2d", 176)),  # scl_slope and scl_inter
    "xyzt_units": (("B", 123), ("i", 500)),
    "codes": (("2h", 252), ("2i", 344)),  # qform_code and sform_code
    "quaternion": (("6f", 256), ("6d", 352)),  # quatern_b, c, d and qoffset_x, y, z
    "srow": (("12f", 280), ("12d", 400)),
    "intent_parameters": (("3f", 56), ("3d", 80)),
    "intent_name": (("16s", 328), ("16s", 508)),
    "display_range": (("2f", 124), ("2d", 192)),  # cal_max and cal_min
    "description": (("80s", 148), ("80s", 240)),
    "auxiliary_file": (("24s", 228), ("24s", 320)),
    "value_range": (("2i", 140), ("0s", 0)),  # glmax and glmin, which NIfTI-2 has not
}
MAGIC_AT = {1: (344, 348), 2: (4, 12)}


class Fields:
    """A header's bytes, version (1 or 2) and byte order: `fields.floats("pixdim")` returns eight numbers.

    Reads 348 bytes from the stream, then the rest if it is a NIfTI-2 header. BadFile if they do not start with the
    length of a header, or if the file ends within the header.
    """

    def __init__(self, stream: Readable) -> None:
        raw = stream.read(HEADER_BYTES)
        if len(raw) < HEADER_BYTES:
            raise BadFile(f"truncated: {len(raw)} bytes, but a header has {HEADER_BYTES}")
        lengths = {struct.unpack_from("<i", raw, 0)[0]: "<", struct.unpack_from(">i", raw, 0)[0]: ">"}
        found = [length for length in (HEADER_BYTES, HEADER2_BYTES) if length in lengths]
        if not found:
            raise BadFile("not a NIfTI or Analyze header: it does not start with its length, 348 or 540")
        self.num_bytes = found[0]
        self.version = 1 if self.num_bytes == HEADER_BYTES else 2
        self.order: Literal["<", ">"] = "<" if lengths[self.num_bytes] == "<" else ">"
        self._raw = raw + stream.read(self.num_bytes - len(raw))
        if len(self._raw) < self.num_bytes:
            raise BadFile(f"truncated: {len(self._raw)} bytes, but the header has {self.num_bytes}")
        self.num_axes = self.whole("dim")[0]
        if not 1 <= self.num_axes <= 7:
            raise BadFile(f"the header claims {self.num_axes} axes, not 1 to 7 (dim[0])")

    @property
    def magic(self) -> bytes:
        """The bytes that name the format: 4 of NIfTI-1, 8 of NIfTI-2."""
        return self._raw[slice(*MAGIC_AT[self.version])]

    def whole(self, name: str) -> tuple[int, ...]:
        """The whole numbers of a field."""
        code, offset = FIELDS[name][self.version - 1]
        return struct.unpack_from(f"{self.order}{code}", self._raw, offset)

    def floats(self, name: str) -> list[float]:
        """The floating-point numbers of a field."""
        return [float(value) for value in self.whole(name)]

    def changed(self, magic: bytes, **values: tuple[Any, ...]) -> bytes:
        """The header's bytes with this magic and other values of the named fields."""
        header = bytearray(self._raw)
        header[slice(*MAGIC_AT[self.version])] = magic
        for name, field in values.items():
            code, offset = FIELDS[name][self.version - 1]
            struct.pack_into(f"{self.order}{code}", header, offset, *field)
        return bytes(header)

    def whole_at(self, data: bytes, offset: int) -> int:
        """A 32-bit whole number in the bytes that follow the header."""
        return int(struct.unpack_from(f"{self.order}i", data, offset)[0])
