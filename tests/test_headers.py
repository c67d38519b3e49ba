"""Files that must be refused: each is sound but for one thing, and the one-line cause names it.

The files are put together byte by byte from the formats' definitions, so that what SimpleITK would write plays no part.
"""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from dlx.data.volumes.reading import read_volume
from made_headers import (
    DATA,
    QFORM_ALONE,
    SFORM_ALONE,
    VOXELS,
    analyze_header,
    floats,
    nifti,
    nifti_header,
    refusal,
    sform,
    write_pair,
)

NIFTI = {
    "magic": (nifti((344, "4s", (b"abcd",))), "magic"),
    "a pair's magic": (nifti((344, "4s", (b"ni1\0",))), "magic"),
    "NIfTI-2's length before NIfTI-1's fields": (nifti((0, "i", (540,))), "axes"),
    "no header": (b"P5 these are not the bytes" * 40, "not a NIfTI"),
    "a short header": (nifti()[:300], "truncated"),
    "no voxels": (nifti()[:352], "truncated"),
    "short voxels": (nifti()[:-1], "truncated: 239 of the 240"),
    "long voxels": (nifti() + b"\1", "longer"),
    "long padding": (nifti() + bytes(5000), "longer"),
    "64 TiB in 2 kB": (nifti((42, "3h", (32767, 32767, 32767)), data=bytes(2000)), "limit"),
    "1 GiB in 2 kB": (nifti((42, "3h", (800, 800, 800)), data=bytes(2000)), "truncated"),
    "axis 0": (nifti((42, "3h", (6, 0, 4))), "positive"),
    "axis negative": (nifti((42, "3h", (6, -5, 4))), "positive"),
    "dim[0] 0": (nifti((40, "h", (0,))), "0 axes"),
    "dim[0] 9": (nifti((40, "h", (9,))), "9 axes"),
    "one axis": (nifti((40, "8h", (1, 120, 1, 1, 1, 1, 1, 1))), "one axis"),
    "five axes": (nifti((40, "8h", (5, 6, 5, 2, 1, 2, 1, 1))), "at most 4"),
    "complex": (nifti((70, "2h", (32, 64)), data=DATA * 4), "complex"),
    "RGB": (nifti((70, "2h", (128, 24)), data=DATA * 2), "RGB"),
    "unknown type": (nifti((70, "2h", (77, 16))), "unknown"),
    "bitpix": (nifti((70, "2h", (8, 16))), "truncated"),
    "vectors": (nifti((68, "h", (1007,)), (40, "8h", (5, 6, 5, 2, 1, 2, 1, 1))), "vectors"),
    "vectors along the fourth axis": (nifti((68, "h", (1007,)), (40, "8h", (4, 6, 5, 2, 2, 1, 1, 1))), "vectors"),
    "spacing 0": (nifti((84, "f", (0,)), QFORM_ALONE), "above 0"),
    "spacing NaN": (nifti((84, "f", (np.nan,)), QFORM_ALONE), "above 0"),
    "spacing Inf": (nifti((84, "f", (np.inf,)), (252, "2h", (0, 0))), "above 0"),
    "metres": (nifti((123, "B", (1,))), "0.75 x 1.25 in metres"),
    "slope tiny": (nifti((112, "f", (1e-20,))), "slope"),
    "offset NaN": (nifti((116, "f", (np.nan,))), "scaling"),
    "scaled to infinity": (nifti((112, "f", (1e38,))), "not finite after scaling"),
    "voxels NaN": (nifti((70, "2h", (16, 32)), data=floats(np.nan)), "not finite"),
    "voxels Inf": (nifti((70, "2h", (16, 32)), data=floats(-np.inf)), "not finite"),
    "float64 NaN": (nifti((70, "2h", (64, 64)), data=floats(np.nan, "<f8")), "not finite"),
    "vox_offset 100": (nifti((108, "f", (100,))), "vox_offset"),
    "vox_offset NaN": (nifti((108, "f", (np.nan,))), "vox_offset"),
    "vox_offset 352.5": (nifti((108, "f", (352.5,))), "vox_offset"),
    "vox_offset far": (nifti((108, "f", (1e6,))), "before the voxels"),
    "an extension of -1": (
        nifti((108, "f", (368,)), between=b"\1\0\0\0" + struct.pack("<2i", -1, 0) + bytes(8)), "extension",
    ),
    "an extension too long": (
        nifti((108, "f", (368,)), between=b"\1\0\0\0" + struct.pack("<2i", 4096, 0) + bytes(8)), "extension",
    ),
    "sheared sform": (nifti(sform(0.5, 0.2, 0, 1, 0, 0.75, 0, 2, 0, 0, 1.25, 3), (252, "h", (0,))), "sheared"),
    "sform of zeros": (nifti(sform(*[0] * 12), SFORM_ALONE), "zero"),
    "sform NaN": (nifti(sform(np.nan, *[0] * 11), SFORM_ALONE), "sform is not finite"),
    "qform NaN": (nifti((256, "f", (np.nan,)), QFORM_ALONE), "qform is not finite"),
    "quaternion of length 5": (nifti((256, "3f", (3, 4, 0)), QFORM_ALONE), "quaternion"),
    "neither form sound": (nifti((256, "3f", (3, 4, 0)), sform(*[0] * 12)), "zero"),
}  # fmt: skip


def mha(
    *,
    sizes: str = "6 5 4",
    axes: str = "3",
    kind: str = "MET_SHORT",
    extra: str = "",
    spacing: str = "0.5 0.75 1.25",
    matrix: str = "1 0 0 0 1 0 0 0 1",
    where: str = "LOCAL",
    data: bytes = DATA,
) -> bytes:
    lines = f"ObjectType = Image\nNDims = {axes}\nBinaryData = True\nTransformMatrix = {matrix}\n{extra}"
    lines += f"ElementSpacing = {spacing}\nDimSize = {sizes}\nElementType = {kind}\nElementDataFile = {where}\n"
    return lines.encode() + data


def packed_mha(packed: bytes, size: int | None = None) -> bytes:
    return mha(
        extra=f"CompressedData = True\nCompressedDataSize = {len(packed) if size is None else size}\n", data=packed
    )


PACKED = zlib.compress(DATA)
MHA = {
    "NDims -1": (mha(axes="-1"), "NDims"),
    "NDims 1": (mha(axes="1"), "NDims"),
    "NDims 99": (mha(axes="99"), "NDims"),
    "NDims 10^8": (mha(axes="100000000"), "NDims"),
    "no header": (b"\x89HDF these are not the lines\n", "not a MetaImage"),
    "no end": (mha()[:60], "ends within its header"),
    "another file": (mha(where="other.raw"), "another file"),
    "a list of files": (mha(where="LIST"), "another file"),
    "sizes missing": (mha(sizes="6 5"), "DimSize"),
    "sizes negative": (mha(sizes="6 -5 4"), "DimSize"),
    "size 0": (mha(sizes="6 0 4"), "positive"),
    "size 10^5": (mha(sizes="6 100000 4"), "limit"),
    "short": (mha(data=DATA[:-3]), "truncated"),
    "long": (mha(data=DATA + b"abc"), "longer"),
    "garbage for zlib": (packed_mha(b"garbage" * 20), "broken compressed data"),
    "zlib cut": (packed_mha(PACKED[:-9]), "truncated"),
    "zlib of too little": (packed_mha(zlib.compress(DATA[:-2])), "truncated"),
    "zlib of too much": (packed_mha(zlib.compress(DATA * 2)), "longer"),
    "zlib checksum": (packed_mha(PACKED[:-1] + bytes([PACKED[-1] ^ 1])), "incorrect data check"),
    "zlib and more": (packed_mha(PACKED + b"x"), "unknown bytes"),
    "zlib size too small": (packed_mha(PACKED, 20), "CompressedDataSize"),
    "zlib size too large": (packed_mha(PACKED, 2000), "CompressedDataSize"),
    "zlib size missing": (mha(extra="CompressedData = True\n", data=PACKED), "lacks 'CompressedDataSize'"),
    "spacing 0": (mha(spacing="0 1 1"), "above 0"),
    "spacing negative": (mha(spacing="-1 1 1"), "above 0"),
    "spacing NaN": (mha(spacing="nan 1 1"), "not a finite number"),
    "spacing 1e999": (mha(spacing="1e999 1 1"), "1e999"),
    "a line that is no text": (mha(extra="Comment = a\x07b\n"), "not text"),
    "sheared": (mha(matrix="1 0.5 0 0 1 0 0 0 1"), "sheared"),
    "matrix of zeros": (mha(matrix="0 0 0 0 0 0 0 0 0"), "zero"),
    "NaN": (mha(kind="MET_FLOAT", data=floats(np.nan)), "not finite"),
    "unknown type": (mha(kind="MET_FOO"), "MET_FOO"),
    "colours": (mha(extra="ElementNumberOfChannels = 3\n", data=DATA * 3), "ElementNumberOfChannels"),
    "text voxels": (mha().replace(b"BinaryData = True", b"BinaryData = False"), "BinaryData"),
    "slope": (mha(extra="ElementToIntensityFunctionSlope = 2\n"), "Slope"),
    "a header to skip": (mha(extra="HeaderSize = 4\n"), "HeaderSize"),
    "a line twice": (mha(extra="DimSize = 3 5 4\n"), "twice"),
    "two origins": (mha(extra="Offset = 0 0 0\nOrigin = 1 1 1\n"), "Offset and Origin"),
    "a long name": (mha(extra=f"Name = {'x' * 400}\n"), "longer"),
    "a long key": (mha(extra=f"{'K' * 300} = 1\n"), "longer"),
    "a long line": (mha(extra=f"Comment = {'x' * 40000}\n"), "longer"),
    "too many lines": (mha(extra="".join(f"Key{i} = x\n" for i in range(3000))), "more than"),
    "another first line": (b"Comment = x\n" + mha(), "it starts with"),
    "numbers of no use": (mha(extra="SequenceID = 1 2 3\n"), "SequenceID"),
    "neither true nor false": (mha(extra="CompressedData = maybe\n"), "neither True nor False"),
    "no value": (mha(extra="Comment =\n"), "Key = Value"),
    "too many origins": (mha(extra=f"Offset = {'1 ' * 500}\n"), "Offset"),
}


def nrrd(
    *,
    axes: str = "3",
    sizes: str = "6 5 4",
    kind: str = "short",
    encoding: str = "raw",
    extra: str = "",
    space: str = "left-posterior-superior",
    directions: str = "(0.5,0,0) (0,0.75,0) (0,0,1.25)",
    data: bytes = DATA,
) -> bytes:
    lines = f"NRRD0004\n# made by hand\ntype: {kind}\ndimension: {axes}\nspace: {space}\nsizes: {sizes}\n"
    lines += f"space directions: {directions}\nendian: little\nencoding: {encoding}\n{extra}\n"
    return lines.encode() + data


NRRD = {
    "magic": (b"NRRD0009" + nrrd()[8:], "not a NRRD"),
    "no end": (nrrd()[:60], "ends within its header"),
    "another file": (nrrd(extra="data file: other.raw\n"), "another file"),
    "another file, as a pair": (nrrd(extra="data file: other.raw := x\n"), "another file"),
    "another file, old": (nrrd(extra="datafile: other.raw\n"), "another file"),
    "skip": (nrrd(extra="byte skip: 4\n"), "byte skip"),
    "unknown field": (nrrd(extra="foo: bar\n"), "foo"),
    "sizes twice": (nrrd(extra="sizes: 3 5 4\n"), "twice"),
    "axes 99": (nrrd(axes="99"), "99 axes"),
    "axes -1": (nrrd(axes="-1"), "dimension"),
    "size negative": (nrrd(sizes="-6 5 4"), "sizes"),
    "size 0": (nrrd(sizes="6 5 0"), "positive"),
    "too large": (nrrd(sizes="60000 60000 60000"), "limit"),
    "short": (nrrd(data=DATA[:-1]), "truncated"),
    "long": (nrrd(data=DATA + b"x"), "longer"),
    "gzip cut": (nrrd(encoding="gzip", data=gzip.compress(DATA)[:-5]), "truncated"),
    "gzip checksum": (nrrd(encoding="gzip", data=gzip.compress(DATA)[:-8] + bytes(8)), "gzip"),
    "gzip of too much": (nrrd(encoding="gzip", data=gzip.compress(DATA * 2)), "longer"),
    "gzip garbage": (nrrd(encoding="gzip", data=b"garbage" * 20), "gzip"),
    "encoding": (nrrd(encoding="bzip2"), "bzip2"),
    "a vector a voxel": (nrrd(extra="kinds: vector domain domain\n"), "vector"),
    "block": (nrrd(kind="block"), "block"),
    "NaN": (nrrd(kind="float", data=floats(np.nan)), "not finite"),
    "sheared": (nrrd(directions="(0.5,0.3,0) (0,0.75,0) (0,0,1.25)"), "sheared"),
    "direction of zeros": (nrrd(directions="(0,0,0) (0,0.75,0) (0,0,1.25)"), "zero"),
    "direction NaN": (nrrd(directions="(nan,0,0) (0,0.75,0) (0,0,1.25)"), "space directions"),
    "two directions": (nrrd(directions="(1,0,0) (0,1,0)"), "2 vectors"),
    "space": (nrrd(space="scanner-xyz"), "scanner-xyz"),
    "inches": (nrrd(extra='space units: "in" "in" "in"\n'), "units"),
    "endian": (nrrd().replace(b"endian: little\n", b""), "neither little nor big"),
    "too many lines": (nrrd(extra="# x\n" * 3000), "more than"),
    "two kinds": (nrrd(extra="kinds: domain domain\n"), "2 axes"),
    "four axes in three": (nrrd(axes="4", sizes="6 5 2 2"), "in a space of 3"),
    "two spacings": (nrrd(extra="spacings: 1 1 1\n"), "both"),
    "an origin without brackets": (nrrd(extra="space origin: 1,2,3\n"), "not a vector"),
    "an origin of two": (nrrd(extra="space origin: (1,2)\n"), "a vector of 2"),
    "no type": (nrrd().replace(b"type: short\n", b""), "lacks 'type'"),
}


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    *extra: bytes,
    width: int = 6,
    bits: int = 8,
    colour: int = 0,
    interlace: int = 0,
    rows: bytes = bytes(7 * 5),
    after: tuple[bytes, ...] = (),
) -> bytes:
    """6 x 5 grey; `extra` chunks stand before those of the `rows`, which are compressed here, `after` behind."""
    head = struct.pack(">IIBBBBB", width, 5, bits, colour, 0, 0, interlace)
    chunks = [chunk(b"IHDR", head), *extra, chunk(b"IDAT", zlib.compress(rows)), *after, chunk(b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


PNG = {
    "signature": (b"GIF89a" + bytes(50), "signature"),
    "no IEND": (png()[:-12], "IEND"),
    "cut": (png()[:-20], "truncated"),
    "checksum": (png()[:-14] + b"\0\0" + png()[-12:], "checksum"),
    "after the end": (png() + b"x", "follow the end"),
    "too few rows": (png(rows=bytes(7 * 4)), "truncated"),
    "too many rows": (png(rows=bytes(7 * 6)), "longer"),
    "a bomb": (png(rows=bytes(1 << 24)), "longer"),
    "filter 9": (png(rows=b"\x09" + bytes(34)), "filter"),
    "too large": (png(width=1 << 30), "limit"),
    "width 0": (png(width=0), "positive"),
    "1 bit": (png(bits=1), "1 bits"),
    "palette": (png(colour=3), "palette"),
    "RGBA": (png(colour=6), "RGBA"),
    "interlaced": (png(interlace=1), "interlaced"),
    "transparency": (png(chunk(b"tRNS", b"\0\0")), "tRNS"),
    "fewer bits": (png(chunk(b"sBIT", b"\4")), "sBIT"),
    "scale 0": (png(chunk(b"sCAL", b"\x010\x001")), "above 0"),
    "scale of letters": (png(chunk(b"sCAL", b"\x01e\x00e")), "sCAL"),
    "scale of another unit": (png(chunk(b"sCAL", b"\x031\x001")), "sCAL"),
    "animation": (png(chunk(b"acTL", bytes(8))), "acTL"),
    "no IHDR": (b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"a\0b") + png()[8:], "not IHDR"),
    "two headers": (png(png()[8:33]), "repeated"),
    "no letters": (png(chunk(b"ab1 ")), "not a valid name"),
    "garbage for rows": (png(chunk(b"IDAT", b"garbage")), "broken compressed data"),
    "rows and more": (png(after=(chunk(b"IDAT", b"more"),)), "unknown bytes"),
    "rows apart": (png(after=(chunk(b"tEXt", b"a\0b"), chunk(b"IDAT", b""))), "between"),
    "unknown chunk": (png(chunk(b"ABCD")), "ABCD"),
    "long chunk": (png()[:33] + b"\x7f\xff\xff\xff" + png()[37:], "claims"),
}


def tiff(*changed: tuple[int, int, int, int], data: bytes = bytes(range(30)), more: int = 0, cut: int = 0) -> bytes:
    """6 x 5 grey in one strip at byte 8; `changed` replaces or adds entries (tag, type, count, value)."""
    entries = {
        256: (3, 1, 6), 257: (3, 1, 5), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 8), 277: (3, 1, 1),
        278: (3, 1, 5), 279: (4, 1, len(data)),
    }  # fmt: skip
    entries.update({tag: (kind, count, value) for tag, kind, count, value in changed})
    listed = b"".join(struct.pack("<HHII", tag, *entries[tag]) for tag in sorted(entries))
    directory = struct.pack("<H", len(entries)) + listed + struct.pack("<I", more)
    whole = b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory
    return whole[: len(whole) - cut]


TIFF = {
    "signature": (b"II+\0" + tiff()[4:], "signature"),
    "cut": (tiff(cut=9), "truncated"),
    "several pages": (tiff(more=8), "pages"),
    "strip beyond the end": (tiff((273, 4, 1, 5000)), "truncated"),
    "strip too short": (tiff(data=bytes(29)), "29 bytes"),
    "strip too long": (tiff(data=bytes(31)), "31 bytes"),
    "three strips": (tiff((278, 3, 1, 2)), "expected 3"),
    "no rows": (tiff((278, 3, 1, 0)), "no rows"),
    "too large": (tiff((256, 4, 1, 1 << 30)), "limit"),
    "no width": (tiff((256, 2, 1, 6)), "ImageWidth is missing"),
    "no entries": (tiff().replace(struct.pack("<H", 9), bytes(2)), "0 entries"),
    "a tag twice": (tiff().replace(struct.pack("<HHII", 277, 3, 1, 1), struct.pack("<HHII", 278, 3, 1, 5)), "twice"),
    "8 and 16 bits": (tiff((258, 3, 2, 8 + (16 << 16))), "different values"),
    "predictor": (tiff((317, 3, 1, 2)), "predictor"),
    "1 bit": (tiff((258, 3, 1, 1)), "1 bits"),
    "white is zero": (tiff((262, 3, 1, 0)), "black is zero"),
    "palette": (tiff((262, 3, 1, 3)), "Photometric"),
    "4 samples": (tiff((277, 3, 1, 4), (262, 3, 1, 2)), "4 samples"),
    "extra samples": (tiff((338, 3, 1, 2)), "transparency"),
    "tiles": (tiff((322, 3, 1, 16)), "tiled"),
    "JPEG": (tiff((259, 3, 1, 7)), "compression 7"),
    "turned": (tiff((274, 3, 1, 6)), "274"),
    "deflate garbage": (tiff((259, 3, 1, 8)), "broken compressed data"),
    "deflate cut": (tiff((259, 3, 1, 8), data=zlib.compress(bytes(range(30)))[:-6]), "truncated"),
    "deflate too much": (tiff((259, 3, 1, 8), data=zlib.compress(bytes(31))), "longer"),
    "deflate bomb": (tiff((259, 3, 1, 8), data=zlib.compress(bytes(1 << 24))), "longer"),
    "LZW of too little": (tiff((259, 3, 1, 5), (256, 3, 1, 60000), data=bytes(9)), "cannot hold"),
    "PackBits of too little": (tiff((259, 3, 1, 32773), data=b"\x05abcdef"), "decode"),
    "NaN": (tiff((258, 3, 1, 32), (339, 3, 1, 3), data=floats(np.nan)[228:348]), "not finite"),
    "resolution infinite": (tiff((282, 5, 1, 8), (283, 5, 1, 8), data=b"\1" + bytes(29)), "resolution is infinite"),
    "resolution of letters": (tiff((282, 2, 1, 8), (283, 2, 1, 8), data=bytes(30)), "tag 282"),
    "field of 4 GiB": (tiff((305, 2, 0xFFFFFFF0, 8)), "claims"),
}


def _cases() -> list[object]:
    of_format = {".nii": NIFTI, ".mha": MHA, ".nrrd": NRRD, ".png": PNG, ".tif": TIFF}
    return [
        pytest.param(f"broken{suffix}", data, cause, id=f"{suffix[1:]}: {name}")
        for suffix, table in of_format.items()
        for name, (data, cause) in table.items()
    ]


@pytest.mark.parametrize(("name", "data", "cause"), _cases())
def test_a_broken_file_is_refused_with_its_cause(tmp_path: Path, name: str, data: bytes, cause: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert cause in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("suffix", "data"),
    [(".nii", nifti()), (".mha", mha()), (".nrrd", nrrd()), (".mha", packed_mha(PACKED))],
    ids=["nii", "mha", "nrrd", "mha zlib"],
)
def test_the_files_that_are_broken_above_are_sound_without_it(tmp_path: Path, suffix: str, data: bytes) -> None:
    (tmp_path / f"sound{suffix}").write_bytes(data)
    volume = read_volume(tmp_path / f"sound{suffix}")
    assert np.array_equal(volume.array, VOXELS.reshape(1, 4, 5, 6))
    assert volume.spacing_mm == (1.25, 0.75, 0.5)


def test_the_pictures_that_are_broken_above_are_sound_without_it(tmp_path: Path) -> None:
    (tmp_path / "sound.png").write_bytes(png(chunk(b"sBIT", b"\x08"), chunk(b"sCAL", b"\x010.5\x002")))
    (tmp_path / "sound.tif").write_bytes(tiff())
    volume = read_volume(tmp_path / "sound.png")
    assert np.array_equal(volume.array, np.zeros((1, 1, 5, 6)))
    assert volume.spacing_mm == (1.0, 2.0, 0.5)
    assert np.array_equal(read_volume(tmp_path / "sound.tif").array.ravel(), np.arange(30))


@pytest.mark.parametrize("unit", [1, 2, 3])
def test_a_resolution_of_zero_counts_as_none(tmp_path: Path, unit: int) -> None:
    (tmp_path / "a.tif").write_bytes(tiff((282, 5, 1, 8), (283, 5, 1, 8), (296, 3, 1, unit), data=bytes(30)))
    volume = read_volume(tmp_path / "a.tif")
    assert (volume.spacing_mm, volume.notes) == ((1.0, 1.0, 1.0), ())


@pytest.mark.parametrize("line", ["byte skip: 0\n", "line skip: 0\n", 'space units: "" "" ""\n'])
def test_fields_of_nrrd_that_say_nothing_are_passed_over(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.nrrd").write_bytes(nrrd(extra=line))
    volume = read_volume(tmp_path / "a.nrrd")
    assert np.array_equal(volume.array, VOXELS.reshape(1, 4, 5, 6))
    assert volume.spacing_mm == (1.25, 0.75, 0.5)


def test_a_chunk_too_long_to_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.png"
    path.write_bytes(png()[:33] + struct.pack(">I4s", 65 << 20, b"IDAT"))
    with path.open("ab") as file:
        file.truncate(70 << 20)  # a hole: nothing is written
    assert "the limit is" in refusal(path)


GZIP: dict[str, tuple[bytes, str]] = {
    "cut in the middle": (gzip.compress(nifti())[:100], "truncated"),
    "cut in the checksum": (gzip.compress(nifti())[:-3], "truncated"),
    "wrong checksum": (gzip.compress(nifti())[:-8] + b"abcd" + gzip.compress(nifti())[-4:], "CRC"),
    "garbage behind": (gzip.compress(nifti()) + b"garbage", "gzip"),
    "a broken stream": (gzip.compress(nifti())[:10] + b"\x07" + gzip.compress(nifti())[11:], "invalid block type"),
    "voxels missing": (gzip.compress(nifti()[:-1]), "truncated"),
    "voxels left over": (gzip.compress(nifti() + b"x"), "longer"),
    "a bomb": (gzip.compress(nifti() + bytes(1 << 24)), "longer"),
    "a claim of 1 GiB": (gzip.compress(nifti((42, "3h", (800, 800, 800)))), "truncated"),
    "NaN": (gzip.compress(nifti((70, "2h", (16, 32)), data=floats(np.nan))), "not finite"),
    "no gzip": (nifti(), "not a gzip file"),
    "a header only": (gzip.compress(nifti()[:200]), "truncated"),
}


@pytest.mark.parametrize("name", GZIP)
def test_a_broken_gzip_file_is_refused_with_its_cause(tmp_path: Path, name: str) -> None:
    data, cause = GZIP[name]
    (tmp_path / "broken.nii.gz").write_bytes(data)
    assert cause in refusal(tmp_path / "broken.nii.gz")


def test_gzip_under_the_name_of_a_plain_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(gzip.compress(nifti()))
    assert "gzip" in refusal(tmp_path / "a.nii")


PAIRS: dict[str, tuple[bytes, bytes | None, str]] = {
    "no .img": (analyze_header(), None, "a.img"),
    "short .img": (analyze_header(), DATA[:-1], "truncated"),
    "long .img": (analyze_header(), DATA + b"x", "longer"),
    "empty .img": (analyze_header(), b"", "empty"),
    "short .hdr": (analyze_header()[:300], DATA, "truncated"),
    "single-file magic": (nifti_header(), DATA, "magic"),
    "unknown magic": (nifti_header(magic=b"ni2\0"), DATA, "magic"),
    "dim[0] 0": (analyze_header((40, "h", (0,))), DATA, "0 axes"),
    "no length of the header": (analyze_header((0, "i", (7,))), DATA, "not a NIfTI"),
    "colours": (analyze_header((70, "2h", (128, 24))), DATA * 2, "RGB"),
    "spacing 0": (analyze_header((80, "f", (0,))), DATA, "above 0"),
    "NaN": (analyze_header((70, "2h", (16, 32))), floats(np.nan), "not finite"),
    "vox_offset -8": (analyze_header((108, "f", (-8,))), DATA, "vox_offset"),
    "vox_offset far": (analyze_header((108, "f", (5000,))), DATA, "truncated"),
    "NIfTI pair sheared": (
        nifti_header(sform(0.5, 0.2, 0, 1, 0, 0.75, 0, 2, 0, 0, 1.25, 3), SFORM_ALONE, magic=b"ni1\0"), DATA,
        "sheared",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_a_broken_pair_is_refused_with_its_cause(tmp_path: Path, name: str) -> None:
    header, image, cause = PAIRS[name]
    path = write_pair(tmp_path, header, image)
    assert cause in refusal(path)
    if image is not None:
        assert cause in refusal(path.with_suffix(".img"))


def test_a_pair_without_its_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(DATA)
    assert "no such file" in refusal(tmp_path / "a.img")


@pytest.mark.parametrize(("name", "use"), [("a.mhd", ".mha"), ("a.nhdr", ".nrrd")])
def test_a_header_that_names_another_file_is_refused(tmp_path: Path, name: str, use: str) -> None:
    (tmp_path / name).write_bytes(mha(where="/etc/passwd"))
    cause = refusal(tmp_path / name)
    assert "another file" in cause
    assert use in cause
