"""Sound files of every format come back exactly as written; geometry, hashes, and files broken at random."""

import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

import fuzz_volumes
from dlx.data.volumes.reading import content_hash, read_volume
from dlx.data.volumes.streams import inflated
from dlx.system.errors import DataError

TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]
TURN = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)  # a quarter about z


def voxels(dtype: str, *shape: int) -> np.ndarray:
    """Values over most of the type's range, negative ones where it has them."""
    rng = np.random.default_rng(1)
    if dtype.startswith("float"):
        return rng.normal(0, 1000, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def oblique(array: np.ndarray) -> sitk.Image:
    """An image with unlike spacings, an origin, and axes turned by 30 degrees about x and a quarter about z."""
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.5, 0.75, 1.25))
    image.SetOrigin((-12.5, 30.25, 7.0))
    image.SetDirection((np.array(TURN).reshape(3, 3) @ [[1, 0, 0], [0, c, -s], [0, s, c]]).ravel().tolist())
    return image


@pytest.mark.parametrize("compressed", [False, True], ids=["raw", "packed"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".nrrd", ".mha"])
def test_a_volume_comes_back_as_it_was_written(tmp_path: Path, suffix: str, compressed: bool) -> None:
    for dtype in TYPES:
        array = voxels(dtype, 4, 5, 6)
        image = oblique(array)
        path = tmp_path / f"{dtype}{suffix}"
        sitk.WriteImage(image, str(path), useCompression=compressed)
        volume = read_volume(path)
        assert volume.array.dtype == array.dtype
        assert np.array_equal(volume.array, array[None])
        assert volume.spacing_mm == (1.25, 0.75, 0.5)
        assert volume.placement.origin_mm == pytest.approx((-12.5, 30.25, 7.0), abs=1e-5)
        assert volume.placement.direction.ravel() == pytest.approx(image.GetDirection(), abs=1e-6)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".nrrd", ".mha", ".png", ".tif"])
def test_a_2d_image_has_a_depth_of_one(tmp_path: Path, suffix: str) -> None:
    array = voxels("uint8", 5, 6)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.5, 0.25))
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    volume = read_volume(tmp_path / f"a{suffix}")
    assert np.array_equal(volume.array, array[None, None])
    assert volume.spacing_mm == pytest.approx((1.0, 0.25, 0.5), rel=1e-7)
    assert volume.placement.origin_mm == (0.0, 0.0, 0.0)
    assert np.array_equal(volume.placement.direction, np.eye(3))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".nrrd", ".mha"])
def test_a_fourth_axis_becomes_channels_where_it_is_allowed(tmp_path: Path, suffix: str) -> None:
    array = voxels("int16", 2, 4, 5, 6)
    image = sitk.JoinSeries([oblique(array[0]), oblique(array[1])])
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image, str(path))
    volume = read_volume(path, allow_4d=True)
    assert np.array_equal(volume.array, array)
    assert volume.spacing_mm == (1.25, 0.75, 0.5)
    assert volume.placement.origin_mm == pytest.approx((-12.5, 30.25, 7.0), abs=1e-5)
    with pytest.raises(DataError, match=r"4 axes \(6 x 5 x 4 x 2\)"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_rgb_becomes_three_channels_where_it_is_allowed(tmp_path: Path, suffix: str) -> None:
    array = voxels("uint8", 5, 6, 3)
    Image.fromarray(array).save(tmp_path / f"a{suffix}")
    volume = read_volume(tmp_path / f"a{suffix}", allow_rgb=True)
    assert np.array_equal(volume.array, array.transpose(2, 0, 1)[:, None])
    with pytest.raises(DataError, match="RGB"):
        read_volume(tmp_path / f"a{suffix}")
    Image.fromarray(voxels("uint8", 5, 6, 4)).save(tmp_path / f"b{suffix}")
    with pytest.raises(DataError, match="transparency"):
        read_volume(tmp_path / f"b{suffix}", allow_rgb=True)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate", "tiff_deflate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_every_lossless_tiff_of_pillow_is_read(tmp_path: Path, dtype: str, compression: str) -> None:
    array = voxels(dtype, 70, 90)
    Image.fromarray(array).save(tmp_path / "a.tiff", compression=compression)
    volume = read_volume(tmp_path / "a.tiff")
    assert volume.array.dtype == array.dtype
    assert np.array_equal(volume.array, array[None, None])


def test_what_follows_a_compressed_strip_is_not_read() -> None:  # strips may overlap: each could span the whole file
    def pieces() -> Iterator[bytes]:
        yield zlib.compress(bytes(100)) + b"more"
        pytest.fail("read on")

    assert b"".join(inflated(pieces(), may_be_followed=True)) == bytes(100)


@pytest.mark.parametrize(("unit", "mm"), [(None, 1.0), (1, 1.0), (2, 25.4 / 12.5), (3, 10 / 12.5)])
def test_the_spacing_of_a_tiff_is_its_resolution_in_its_unit(tmp_path: Path, unit: int | None, mm: float) -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[282] = info[283] = TiffImagePlugin.IFDRational(25, 2)
    if unit:
        info[296] = unit
    Image.fromarray(voxels("uint8", 7, 9)).save(tmp_path / "a.tif", tiffinfo=info)
    assert read_volume(tmp_path / "a.tif").spacing_mm == pytest.approx((1.0, mm, mm), rel=1e-7)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_png_of_pillow_is_read(tmp_path: Path, dtype: str) -> None:
    array = voxels(dtype, 70, 90)
    Image.fromarray(array).save(tmp_path / "a.png")
    assert np.array_equal(read_volume(tmp_path / "a.png").array, array[None, None])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti1Pair, nib.AnalyzeImage])
def test_what_nibabel_writes_in_either_byte_order_is_read(tmp_path: Path, kind: type, order: str) -> None:
    array = voxels("int16", 6, 5, 4)
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.dtype("int16").newbyteorder(order))
    path = tmp_path / ("a.nii" if kind is nib.Nifti1Image else "a.img")
    nib.save(kind(array, np.diag([-0.5, -0.75, 1.25, 1.0]), header), path)
    volume = read_volume(path)
    assert np.array_equal(volume.array[0], array.T)
    assert volume.array.dtype == np.int16
    assert volume.spacing_mm == (1.25, 0.75, 0.5)


def test_geometry_of_nifti_is_that_of_nibabel_with_x_and_y_mirrored(tmp_path: Path) -> None:
    rotation = nib.quaternions.quat2mat([0.9, 0.1, -0.3, 0.2])
    affine = nib.affines.from_matvec(rotation * [0.5, 0.75, 1.25], [4, -5, 6])
    for name, (qform, sform) in {"both": (1, 1), "q": (1, 0), "s": (0, 1), "s2": (0, 2), "q1 s4": (1, 4)}.items():
        image = nib.Nifti1Image(voxels("float32", 6, 5, 4), affine)
        image.set_qform(affine, qform)
        image.set_sform(affine, sform)
        nib.save(image, tmp_path / f"{name}.nii.gz")
        volume = read_volume(tmp_path / f"{name}.nii.gz")
        expected = np.diag([-1, -1, 1, 1]) @ affine
        axes = volume.placement.direction * volume.spacing_mm[::-1]
        assert axes == pytest.approx(expected[:3, :3], abs=1e-6)
        assert volume.placement.origin_mm == pytest.approx(expected[:3, 3], abs=1e-6)


@pytest.mark.parametrize(("slope", "offset"), [(2.0, 0.0), (0.5, -3.0), (1.0, 7.0), (0.0, 0.0)])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_the_scaling_of_nifti_is_applied_and_slope_zero_means_none(
    tmp_path: Path, dtype: str, slope: float, offset: float
) -> None:
    array = np.arange(120).reshape(6, 5, 4).astype(dtype)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<2f", raw, 112, slope, offset)
    (tmp_path / "a.nii").write_bytes(raw)
    volume = read_volume(tmp_path / "a.nii")
    assert np.array_equal(volume.array[0], array.T * slope + offset if slope else array.T)


def test_axes_of_length_one_after_the_third_do_not_count(tmp_path: Path) -> None:
    array = voxels("uint8", 6, 5, 4)
    nib.save(nib.AnalyzeImage(array[..., None], np.eye(4)), tmp_path / "a.img")
    nib.save(nib.Nifti1Image(array[..., None, None], np.eye(4)), tmp_path / "a.nii")
    assert read_volume(tmp_path / "a.hdr").array.shape == (1, 4, 5, 6)
    assert read_volume(tmp_path / "a.nii").array.shape == (1, 4, 5, 6)


def test_a_header_extension_is_passed_over(tmp_path: Path) -> None:
    array = voxels("uint8", 6, 5, 4)
    image = nib.Nifti1Image(array, np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"words " * 40))
    nib.save(image, tmp_path / "a.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "a.nii.gz").array[0], array.T)


def test_zero_padding_behind_the_voxels_is_allowed(tmp_path: Path) -> None:
    array = voxels("uint8", 6, 5, 4)
    nib.save(nib.AnalyzeImage(array, np.eye(4)), tmp_path / "a.img")
    with (tmp_path / "a.img").open("ab") as file:
        file.write(bytes(512 - 120))
    assert np.array_equal(read_volume(tmp_path / "a.img").array[0], array.T)


@pytest.mark.parametrize("name", ["A.NII", "A.NII.GZ", "A.MHA", "A.NRRD", "köpfe 頭.nii"])
def test_capital_and_foreign_letters_in_names_are_read(tmp_path: Path, name: str) -> None:
    array = voxels("int16", 4, 5, 6)
    written = tmp_path / name.lower()
    sitk.WriteImage(sitk.GetImageFromArray(array), str(written))
    written.rename(tmp_path / name)
    assert np.array_equal(read_volume(tmp_path / name).array, array[None])


def test_nothing_is_printed_about_a_sound_analyze_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nib.save(nib.AnalyzeImage(voxels("uint8", 6, 5, 4), np.eye(4)), tmp_path / "a.img")
    read_volume(tmp_path / "a.hdr")
    assert capfd.readouterr() == ("", "")


def test_importing_volumes_loads_neither_torch_nor_simpleitk() -> None:
    code = "import sys, dlx.data.volumes.reading; print({'torch', 'SimpleITK'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_content_hash_sees_values_shape_and_type_and_nothing_else() -> None:
    array = voxels("int16", 4, 5, 6)
    same = [array.copy(), np.asfortranarray(array), array.astype(">i2")]
    assert {content_hash(other) for other in same} == {content_hash(array)}
    changed = array.copy()
    changed[1, 2, 3] ^= 1
    others = [changed, array.reshape(4, 6, 5), array.view(np.uint16), array[:0], array[:0].reshape(5, 0, 6)]
    assert len({content_hash(other) for other in [array, *others]}) == 6


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Path, bytes]]]:
    written = fuzz_volumes.write_samples(tmp_path_factory.mktemp("fuzz"))
    return {kind: [(path, path.read_bytes()) for path in paths] for kind, paths in written.items()}


def test_every_sample_of_the_fuzzer_is_sound(samples: dict[str, list[tuple[Path, bytes]]]) -> None:
    assert {kind for kind, files in samples.items() if fuzz_volumes.read_verdict(files[0][0]) != "read"} == set()


@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1 << 32))
def test_a_file_broken_at_random_is_refused_or_read_as_finite_voxels(
    samples: dict[str, list[tuple[Path, bytes]]], seed: int
) -> None:
    files = samples[sorted(samples)[seed % len(samples)]]
    rng = random.Random(seed)
    path, sound = files[rng.randrange(len(files))]
    path.write_bytes(fuzz_volumes.mutate_file(sound, path.name, rng))
    try:
        assert fuzz_volumes.read_verdict(files[0][0]) in ("refused", "read")
    finally:
        path.write_bytes(sound)


def test_real_files_hold_the_values_that_nibabel_reads(hippocampus: Path) -> None:
    files = [
        path for folder in ("imagesTr", "labelsTr") for path in sorted((hippocampus / folder).glob("[!.]*.nii.gz"))
    ]
    for path in files[:: len(files) // 20]:
        other = nib.load(path)
        volume = read_volume(path)
        assert np.array_equal(volume.array[0], np.asanyarray(other.dataobj).T)
        assert volume.array.dtype == other.get_data_dtype()
        assert volume.spacing_mm == pytest.approx(other.header.get_zooms()[::-1], rel=1e-6)
