"""Checks voxel data to their end: complete, with valid checksums (gzip and zlib), finite, and with nothing after them.

The data are read in pieces that are discarded, so that neither a large file nor a decompression bomb fills the memory.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Protocol

import numpy as np

from dlx.data.volumes.header import BadFile

PIECE_BYTES = 4 << 20  # a multiple of every voxel's size
MAX_PADDING_BYTES = 4096  # zeros after the last voxel, from writers that fill up a block


class Readable(Protocol):
    """A stream that returns the requested number of bytes, fewer only at its end."""

    def read(self, num_bytes: int, /) -> bytes: ...


def inflated(packed: Iterable[bytes], *, may_be_followed: bool = False) -> Iterator[bytes]:
    """The bytes of a zlib stream in pieces; BadFile if it is broken, cut short or, unless allowed, followed by more."""
    inflater = zlib.decompressobj()
    try:
        for data in packed:
            while data and not inflater.eof:
                yield inflater.decompress(data, PIECE_BYTES)
                data = inflater.unconsumed_tail
            if inflater.eof and may_be_followed:
                return  # what follows is not read, as the strips of a TIFF file may overlap
            if data or inflater.unused_data:
                raise BadFile("unknown bytes follow the compressed data")
    except zlib.error as error:
        raise BadFile(f"broken compressed data ({error})") from None
    if not inflater.eof:
        raise BadFile("truncated: the compressed data end too early")


class ZlibStream:
    """The bytes of a zlib stream, any number at a time; BadFile as for `inflated`."""

    def __init__(self, packed: Iterable[bytes]) -> None:
        self._pieces = inflated(packed)
        self._held = bytearray()

    def read(self, num_bytes: int, /) -> bytes:
        while len(self._held) < num_bytes and (piece := next(self._pieces, None)) is not None:
            self._held += piece
        taken = bytes(self._held[:num_bytes])
        del self._held[:num_bytes]
        return taken


class GzipStream:
    """The inflated bytes of the gzip stream at the end of a file; BadFile if it is broken, cut short or followed."""

    def __init__(self, file: BinaryIO) -> None:
        self._stream = gzip.GzipFile(fileobj=file, mode="rb")

    def read(self, num_bytes: int, /) -> bytes:
        try:
            return self._stream.read(num_bytes)
        except EOFError:
            raise BadFile("truncated: the gzip stream ends too early") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise BadFile(f"broken gzip stream ({error})") from None


def check_voxels(stream: Readable, num_voxels: int, dtype: np.dtype[Any]) -> None:
    """BadFile unless the stream contains this number of finite voxels, followed by nothing but zero padding.

    `dtype` has the byte order of the file. Padding is at most MAX_PADDING_BYTES, all zero; other data after the last
    voxel mean that the header claims too little.
    """
    claimed = missing = num_voxels * dtype.itemsize
    while missing:
        piece = stream.read(min(missing, PIECE_BYTES))
        if not piece or len(piece) % dtype.itemsize:
            held = claimed - missing + len(piece)
            raise BadFile(f"truncated: {held} of the {claimed} bytes of voxels that the header claims")
        if dtype.kind == "f" and not np.isfinite(np.frombuffer(piece, dtype)).all():
            raise BadFile("contains voxels that are not finite (NaN or infinity): replace them (numpy.nan_to_num)")
        missing -= len(piece)
    padding = stream.read(MAX_PADDING_BYTES + 1)
    if len(padding) > MAX_PADDING_BYTES or padding.strip(b"\0"):
        raise BadFile(f"longer than the header claims: more than padding follows the {claimed} bytes of voxels")
