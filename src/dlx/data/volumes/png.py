"""Checks PNG files: every chunk with its checksum, and all compressed rows.

Source: Portable Network Graphics, third edition (w3.org/TR/png-3), sections 5 and 11. Only files whose values SimpleITK
returns unchanged are accepted: 8 or 16 bits, grey or RGB, without palette, transparency or interlacing.
"""

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby

import numpy as np

from dlx.data.volumes.header import BadFile, Header, check_size, check_spacing, quoted
from dlx.data.volumes.opening import OpenedFile
from dlx.data.volumes.streams import inflated

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COMPONENTS = {0: 1, 2: 3}
REFUSED_COLOURS = {3: "a palette", 4: "transparency (alpha)", 6: "transparency (RGBA)"}
CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
MAX_CHUNK_BYTES = 64 << 20  # IDAT chunks are mostly 8 KiB to 1 MiB
SCALE = re.compile(rb"[\x01\x02]([0-9.eE+-]{1,40})\0([0-9.eE+-]{1,40})")


def check_png(file: OpenedFile) -> Header:
    """A `.png`; the spacing is 1 unless the file has a scale chunk (sCAL), as SimpleITK writes it."""
    if file.stream.read(len(SIGNATURE)) != SIGNATURE:
        raise BadFile("not a PNG file: it does not start with PNG's signature")
    chunks = chunks_of(file)
    kind, data = next(chunks)
    if kind != b"IHDR" or len(data) != 13:
        raise BadFile("not a PNG file: the first chunk is not IHDR")
    header = _read_header(data)
    seen = {kind}
    for is_rows, run in groupby(chunks, lambda chunk: chunk[0] == b"IDAT"):
        if not is_rows:
            for kind, data in run:
                header = _check_chunk(kind, data, header, seen)
                seen.add(kind)
        elif b"IDAT" in seen:
            raise BadFile("other chunks lie between those of the rows (IDAT)")
        else:
            _check_rows(header, (data for _, data in run))
            seen.add(b"IDAT")
    if b"IDAT" not in seen:
        raise BadFile("truncated: it has no rows (IDAT)")
    return header


def _check_rows(header: Header, packed: Iterable[bytes]) -> None:
    """BadFile unless the compressed rows are complete, of the claimed length, and each starts with a known filter."""
    width, height, _, _ = header.size_px
    row_bytes = 1 + width * header.components * header.dtype.itemsize  # the filter, then the samples
    claimed, held = row_bytes * height, 0
    for piece in inflated(packed):
        first = -held % row_bytes
        held += len(piece)
        if held > claimed:
            raise BadFile(f"longer than the header claims: more than {claimed} bytes of rows")
        if max(piece[first::row_bytes], default=0) > 4:
            raise BadFile("a row has an unknown filter")
    if held < claimed:
        raise BadFile(f"truncated: {held} of the {claimed} bytes of rows that the header claims")


def chunks_of(file: OpenedFile) -> Iterator[tuple[bytes, bytes]]:
    """All chunks up to IEND, with valid checksums; BadFile unless the file ends after IEND."""
    while True:
        head = file.stream.read(8)
        if len(head) < 8:
            raise BadFile("truncated: the file ends before the chunk IEND")
        length, kind = struct.unpack(">I4s", head)
        if not kind.isalpha():
            raise BadFile(f"a chunk is named {quoted(kind.decode('latin-1'))}, which is not a valid name")
        name = kind.decode("ascii")
        if length > file.num_bytes - file.stream.tell() - 4:
            raise BadFile(f"truncated: the chunk {name} claims {length} bytes, more than the file has")
        if length > MAX_CHUNK_BYTES:
            raise BadFile(f"the chunk {name} has {length} bytes: the limit is {MAX_CHUNK_BYTES}")
        data = file.stream.read(length)
        stored = file.stream.read(4)
        if stored != struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))):
            raise BadFile(f"the chunk {name} does not match its checksum (CRC)")
        if kind == b"IEND":
            if length or file.stream.read(1):
                raise BadFile("longer than it should be: bytes follow the end of the image (IEND)")
            return
        yield kind, data


def _read_header(data: bytes) -> Header:
    width, height, num_bits, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", data)
    if colour not in COMPONENTS:
        raise BadFile(
            f"has {REFUSED_COLOURS.get(colour, f'an unknown colour type ({colour})')}: save it as grey or RGB"
        )
    if num_bits not in (8, 16):
        raise BadFile(f"has {num_bits} bits a sample: save it with 8 or 16")
    if compression or filtering or interlace:
        raise BadFile(
            "interlaced: save it without" if interlace == 1 else "an unknown compression, filter or interlace"
        )
    components, dtype = COMPONENTS[colour], np.dtype(f"u{num_bits // 8}")
    check_size([width, height], components * dtype.itemsize)
    return Header("PNGImageIO", (width, height, 1, 1), components, dtype, (1.0, 1.0, 1.0), has_directions=False)


def _check_chunk(kind: bytes, data: bytes, header: Header, seen: set[bytes]) -> Header:
    """Checks a chunk other than IDAT: refused if it changes values, is critical and unknown, or occurs twice."""
    name = kind.decode("ascii")
    if kind[:1].isupper() and (kind not in CRITICAL or kind in seen):
        raise BadFile(f"has an unknown or repeated chunk {name}")
    if kind == b"tRNS":
        raise BadFile("has transparency (tRNS): save it without")
    if kind == b"acTL":
        raise BadFile("is an animation (acTL): save one image")
    if kind == b"sBIT" and data != bytes([8 * header.dtype.itemsize]) * header.components:
        raise BadFile("uses only a part of its bits (sBIT): SimpleITK would shift the values")
    if kind != b"sCAL":
        return header
    found = SCALE.fullmatch(data)
    if kind in seen or b"IDAT" in seen or not found:
        raise BadFile("has a broken scale (sCAL)")
    try:
        x, y = float(found[1]), float(found[2])
    except ValueError:
        raise BadFile("has a broken scale (sCAL)") from None
    check_spacing([x, y])
    return replace(header, spacing_mm=(x, y, 1.0))
