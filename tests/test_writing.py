"""Label volumes get the format and the geometry of their image, as nibabel, SimpleITK, Pillow and its bytes say."""

import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from PIL import Image, TiffImagePlugin

from dlx.data.volumes.header import BadFile
from dlx.data.volumes.reading import CHECKS, read_volume, split_ending
from dlx.data.volumes.writers.nifti import encode_pair
from dlx.data.volumes.writing import check_label_values, encode_labels, label_endings, label_type, write_labels
from dlx.system.errors import DataError
from made_headers import QFORM_ALONE, SFORM_ALONE, analyze_header, nifti, nifti_header, sform, write_pair
from test_volumes import oblique, voxels

VOLUMES = [".nii", ".nii.gz", ".hdr", ".nrrd", ".mha"]
PICTURES = [".png", ".tif", ".tiff"]
SHAPE = (4, 5, 6)


def labels_of(dtype: str, shape: tuple[int, ...] = SHAPE) -> np.ndarray[Any, Any]:
    """Labels that use the whole range of a type."""
    made = np.random.default_rng(0).integers(0, 3, shape).astype(dtype)
    made[-1, -1, -1] = np.iinfo(dtype).max
    return made


def rewritten(like: Path, labels: np.ndarray[Any, Any]) -> Path:
    """Writes labels as `like` into a folder beside it."""
    stem, _ = split_ending(like.name)
    (like.parent / "out").mkdir(exist_ok=True)
    written = write_labels(like.parent / "out" / stem, labels, like)
    assert written[-1].name == like.name
    return written[-1]


def geometry_of(path: Path) -> tuple[Any, ...]:
    """Size, spacing, origin and direction as SimpleITK reads them."""
    image = sitk.ReadImage(str(path))
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


def assert_same_affine(like: Path, path: Path) -> None:
    """As nibabel reads them, both forms with their codes, the voxel sizes, the units, and the shape."""
    one, other = nib.load(like), nib.load(path)
    assert one.shape == other.shape
    np.testing.assert_array_equal(one.affine, other.affine)
    assert one.header.get_zooms() == other.header.get_zooms()
    for (form, code), (other_form, other_code) in (
        (one.header.get_sform(coded=True), other.header.get_sform(coded=True)),
        (one.header.get_qform(coded=True), other.header.get_qform(coded=True)),
    ):
        assert code == other_code
        np.testing.assert_array_equal(form, other_form)
    assert one.header.get_xyzt_units() == other.header.get_xyzt_units()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("ending", VOLUMES)
def test_labels_lie_where_their_image_lies(tmp_path: Path, ending: str, dtype: str) -> None:
    like = tmp_path / f"a{ending}"
    sitk.WriteImage(oblique(voxels("float32", *SHAPE)), str(like))
    path = rewritten(like, labels_of(dtype))
    assert geometry_of(path) == geometry_of(like)
    if ending not in (".nrrd", ".mha"):
        assert_same_affine(like, path)
    read = read_volume(path)
    assert read.array.dtype == dtype
    np.testing.assert_array_equal(read.array[0], labels_of(dtype))
    if dtype != "uint64" or ending in (".nrrd", ".mha"):
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), labels_of(dtype))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_nifti_header_keeps_its_version_byte_order_forms_and_units(tmp_path: Path, kind: Any, order: str) -> None:
    header = kind.header_class(endianness=order)
    image = kind(voxels("int16", 6, 5, 4), None, header)
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    form = np.eye(4)
    form[:3, :3], form[:3, 3] = turned * (0.7000001, 1.1, 3.3), (-12.345678, 1 / 3, 99.9)
    image.set_sform(form, code=2)
    image.set_qform(form, code=1)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"], image.header["cal_max"] = b"a scan", 400.0
    image.header.set_slope_inter(2.5, -100.0)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"of the image"))
    nib.save(image, tmp_path / "a.nii")
    path = rewritten(tmp_path / "a.nii", labels_of("uint16"))
    assert_same_affine(tmp_path / "a.nii", path)
    found = nib.load(path)
    assert (type(found), found.header.endianness) == (kind, order)
    assert found.header.get_slope_inter() in ((None, None), (1.0, 0.0))
    assert (found.header["descrip"].item(), found.header["cal_max"].item()) == (b"dlx predict", 0.0)
    assert not found.header.extensions
    np.testing.assert_array_equal(np.asarray(found.dataobj).T, labels_of("uint16"))


@pytest.mark.parametrize(
    "patches",
    [
        [QFORM_ALONE],
        [SFORM_ALONE, sform(0, -0.5, 0, 1, 0.75, 0, 0, 2, 0, 0, 1.25, 3)],
        [(76, "8f", (-1, 0.5, 0.75, 1.25, 7, 0, 0, 0))],  # a left-handed qform, and a pixdim beyond the axes
        [(76, "8f", (1, -0.5, 0.75, 1.25, 0, 0, 0, 0))],
        [(252, "2h", (0, 0))],
        [(123, "B", (3,)), (76, "8f", (1, 500, 750, 1250, 0, 0, 0, 0)), QFORM_ALONE],  # micrometres
        [(40, "8h", (4, 6, 5, 4, 1, 1, 1, 1))],
        [(68, "h", (3,)), (56, "3f", (12, 0, 0)), (328, "6s", (b"t-test",))],
        [sform(0.5, 0, 0, 1, 0, 0.75, 0, 2, 0, 0, 1.3, 3)],  # forms that differ
    ],
)
def test_a_header_keeps_the_bytes_that_say_where_voxels_lie(tmp_path: Path, patches: list[Any]) -> None:
    like = tmp_path / "a.nii"
    like.write_bytes(nifti(*patches))
    path = rewritten(like, labels_of("uint8"))
    before, after = like.read_bytes(), path.read_bytes()
    for start, end in ((0, 4), (38, 56), (74, 108), (116, 124), (132, 140), (252, 328), (344, 348)):
        assert before[start:end] == after[start:end], start
    assert struct.unpack_from("<4h", after, 68) == (0, 2, 8, 0)
    assert struct.unpack_from("<3f", after, 108) == (352.0, 1.0, 0.0)
    assert after[348:352] == bytes(4)
    assert geometry_of(path) == geometry_of(like)
    assert read_volume(path).placement.spacing_mm == read_volume(like).placement.spacing_mm


@pytest.mark.parametrize("scale", [0.0, 0.25])
def test_an_analyze_pair_stays_one_and_stores_signed_labels_beyond_8_bits(tmp_path: Path, scale: float) -> None:
    header = analyze_header((112, "f", (scale,)), (148, "12s", (b"dlx phantom\0",)))
    like = write_pair(tmp_path, header, voxels("int16", *SHAPE).tobytes())
    for highest, stored in ((255, "uint8"), (256, "int16"), (32767, "int16"), (32768, "int32")):
        labels = np.zeros(SHAPE, label_type([highest]))
        labels[1, 2, 3] = highest
        path = rewritten(like, labels)
        found = read_volume(path)
        assert found.array.dtype == stored
        np.testing.assert_array_equal(found.array[0], labels)
        assert not found.has_directions
        assert type(nib.load(path)) is type(nib.load(like))
        assert nib.load(path).header.get_zooms() == nib.load(like).header.get_zooms()
        assert geometry_of(path) == geometry_of(like)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), labels)
    with pytest.raises(BadFile, match="beyond 32 bits"):
        encode_pair(np.full(SHAPE, 2**31, np.uint32), like)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".hdr", ".nrrd", ".mha"])
def test_the_labels_of_an_image_with_channels_have_three_axes(tmp_path: Path, ending: str) -> None:
    like, first = tmp_path / f"a{ending}", tmp_path / f"first{ending}"
    sitk.WriteImage(sitk.JoinSeries([oblique(voxels("int16", *SHAPE))] * 2), str(like))
    sitk.WriteImage(oblique(voxels("int16", *SHAPE)), str(first))
    path = rewritten(like, labels_of("uint8"))
    size, spacing, origin, direction = geometry_of(path)
    assert size == (6, 5, 4)
    assert (spacing, origin) == (geometry_of(like)[1][:3], geometry_of(like)[2][:3])
    assert direction == pytest.approx(geometry_of(first)[3], abs=1e-7)
    read, image = read_volume(path), read_volume(like, allow_4d=True)
    np.testing.assert_array_equal(read.array[0], labels_of("uint8"))
    assert read.placement.spacing_mm == image.placement.spacing_mm
    np.testing.assert_array_equal(read.placement.direction, image.placement.direction)


@pytest.mark.parametrize("ending", [*VOLUMES, *PICTURES])
def test_labels_of_a_2d_image_are_2d(tmp_path: Path, ending: str) -> None:
    image = sitk.GetImageFromArray(voxels("uint16", 5, 6))
    image.SetSpacing((0.5, 0.25))
    like = tmp_path / f"a{ending}"
    sitk.WriteImage(image, str(like))
    path = rewritten(like, labels_of("uint16", (1, 5, 6)))
    assert geometry_of(path) == geometry_of(like)
    assert geometry_of(path)[1] == pytest.approx((0.5, 0.25), rel=1e-7)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), labels_of("uint16", (1, 5, 6))[0])
    assert read_volume(path).placement.spacing_mm == read_volume(like).placement.spacing_mm


@pytest.mark.parametrize("ending", PICTURES)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_keeps_its_resolution_and_becomes_grey(tmp_path: Path, ending: str, mode: str) -> None:
    like = tmp_path / f"a{ending}"
    Image.fromarray(voxels("uint8", 7, 9, *([3] if mode == "RGB" else []))).save(like, dpi=(300, 150))
    path = rewritten(like, labels_of("uint8", (1, 7, 9)))
    with Image.open(path) as found, Image.open(like) as before:
        assert found.mode == "L"
        assert found.info["dpi"] == before.info["dpi"]
        np.testing.assert_array_equal(np.array(found), labels_of("uint8", (1, 7, 9))[0])
    assert geometry_of(path)[1] == geometry_of(like)[1]


def test_a_large_tiff_has_several_strips(tmp_path: Path) -> None:
    like = tmp_path / "a.tif"
    Image.fromarray(voxels("uint16", 700, 513)).save(like)
    labels = np.random.default_rng(0).integers(0, 2**32, (1, 700, 513), dtype=np.uint32)
    path = rewritten(like, labels)
    with Image.open(path) as found:
        assert len(found.tag_v2[TiffImagePlugin.STRIPOFFSETS]) > 2
    np.testing.assert_array_equal(read_volume(path).array[0], labels)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), labels[0])


def test_text_headers_keep_their_numbers_as_they_are_spelled(tmp_path: Path) -> None:
    spelled = "0.10000000000000001 1e-1 .30"
    (tmp_path / "a.mha").write_bytes(
        b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nOffset = 1.50 -2 +3.0e0\n"
        b"TransformMatrix = 0 1 0 -1.0 0 0 0 0 1\nAnatomicalOrientation = RAI\nElementSpacing = "
        + spelled.encode()
        + b"\nElementMin = 0\nDimSize = 6 5 4\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        + voxels("int16", *SHAPE).tobytes()
    )
    lines = rewritten(tmp_path / "a.mha", labels_of("uint8")).read_bytes().split(b"\n")
    for line in (b"Offset = 1.50 -2 +3.0e0", b"ElementSpacing = " + spelled.encode(), b"AnatomicalOrientation = RAI"):
        assert line in lines
    assert not any(line.startswith(b"ElementMin") for line in lines)
    (tmp_path / "a.nrrd").write_bytes(
        b"NRRD0004\n# by hand\ntype: int16\ndimension: 3\nspace: RAS\nsizes: 6 5 4\n"
        b"space directions: (0.10000000000000001, 0,0) (0,.2,0) (0,0,3e-1)\nkinds: domain domain domain\nmin: 3\n"
        b"endian: little\nencoding: raw\nspace origin: (1.50,-2,+3.0e0)\nsubject:=7\n\n"
        + voxels("int16", *SHAPE).tobytes()
    )
    lines = rewritten(tmp_path / "a.nrrd", labels_of("uint16")).read_bytes().split(b"\n")
    for line in (
        b"space: RAS",
        b"space directions: (0.10000000000000001,0,0) (0,.2,0) (0,0,3e-1)",
        b"space origin: (1.50,-2,+3.0e0)",
        b"type: uint16",
    ):
        assert line in lines
    assert not any(line.startswith((b"min", b"subject")) for line in lines)
    for name in ("a.mha", "a.nrrd"):
        assert geometry_of(tmp_path / "out" / name) == geometry_of(tmp_path / name)


@pytest.mark.parametrize("ending", [".NII", ".NII.GZ", ".HDR", ".IMG", ".PNG"])
def test_an_ending_in_capitals_stays_so(tmp_path: Path, ending: str) -> None:
    small = {".IMG": ".hdr"}.get(ending, ending.lower())
    array = voxels("uint8", 5, 6) if ending == ".PNG" else voxels("uint8", *SHAPE)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"a{small}"))
    for path in sorted(tmp_path.glob("a.*")):
        path.rename(path.with_name(path.name.upper().replace("A.", "a.")))
    labels = labels_of("uint8", (1, 5, 6) if ending == ".PNG" else SHAPE)
    (tmp_path / "out").mkdir()
    written = write_labels(tmp_path / "out/a", labels, tmp_path / f"a{ending}")
    assert {path.suffix.upper() for path in written} == {path.suffix for path in written}
    np.testing.assert_array_equal(read_volume(tmp_path / f"out/a{ending}").array[0], labels)


def test_the_type_is_the_smallest_that_holds_all_label_values() -> None:
    for highest, dtype in ((1, "uint8"), (255, "uint8"), (256, "uint16"), (65536, "uint32"), (2**32, "uint64")):
        assert label_type([0, highest]) == dtype
    with pytest.raises(DataError, match="18446744073709551616"):
        label_type([0, 2**64])


@pytest.mark.parametrize(("name", "limit"), [("a.png", 2**16 - 1), ("a.TIF", 2**32 - 1), ("a.hdr", 2**31 - 1)])
def test_label_values_that_a_format_cannot_store_are_refused(name: str, limit: int) -> None:
    check_label_values([0, limit], Path(name))
    with pytest.raises(DataError, match=f"{name}: .* {limit + 1} "):
        check_label_values([0, limit + 1], Path(name))


def test_every_format_that_is_read_is_written(tmp_path: Path) -> None:
    assert {label_endings(Path(f"a{ending}"))[-1] for ending in CHECKS} == {*CHECKS} - {".img"}


def test_a_file_that_changed_meanwhile_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(nifti((40, "8h", (3, 6, 5, 3, 1, 1, 1, 1))))
    with pytest.raises(DataError, match=r"a\.nii: the file changed"):
        encode_labels(labels_of("uint8"), tmp_path / "a.nii")
    (tmp_path / "a.nii").write_bytes(nifti_header()[:100])
    with pytest.raises(DataError, match=r"a\.nii: truncated"):
        encode_labels(labels_of("uint8"), tmp_path / "a.nii")
    (tmp_path / "a.png").write_bytes(b"no picture at all, but long enough")
    with pytest.raises(DataError, match=r"a\.png"):
        list(encode_labels(labels_of("uint8", (1, 5, 6)), tmp_path / "a.png")[".png"])


def test_equal_labels_give_equal_files(tmp_path: Path) -> None:
    like = tmp_path / "a.nii.gz"
    sitk.WriteImage(oblique(voxels("int16", *SHAPE)), str(like))
    first, again = (b"".join(encode_labels(labels_of("uint8"), like)[".nii.gz"]) for _ in range(2))
    assert first == again
