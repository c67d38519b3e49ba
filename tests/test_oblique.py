"""Slices stay whole, however oblique they are, and files without directions are never turned."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from dlx.data.cases import Dataset, Grid
from dlx.data.checks.remarks import unlike_slice_axes
from dlx.data.dataset import open_dataset
from dlx.data.geometry.common_grid import bring_case
from dlx.data.volumes.reading import read_volume
from dlx.settings.spec import DataSpec

THICK_MM = (1.4, 1.4, 10.0)  # x, y, z: of a short-axis stack of the heart
STACK, SLICE = (9, 40, 32), (1, 40, 32)
AXIAL, OBLIQUE, STEEP = 0.0, 40.0, 50.0  # degrees by which y and z are turned about x


def volume_of(array: np.ndarray[Any, Any], degrees: float) -> sitk.Image:
    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing(THICK_MM)
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    volume.SetDirection((1, 0, 0, 0, cosine, -sine, 0, sine, cosine))
    return volume


def write(folder: Path, volumes: dict[str, sitk.Image], *, without_directions: tuple[str, ...] = ()) -> Path:
    """An nnU-Net folder whose masks are the upper half of each image's values."""
    for place in ("imagesTr", "labelsTr"):
        (folder / place).mkdir(parents=True)
    for name, volume in volumes.items():
        mask = sitk.Cast(volume > float(np.median(sitk.GetArrayFromImage(volume))), sitk.sitkUInt8)
        for image, path in ((volume, f"imagesTr/{name}_0000.nii.gz"), (mask, f"labelsTr/{name}.nii.gz")):
            sitk.WriteImage(image, folder / path)
            if name in without_directions:
                forget_directions(folder / path)
    table = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "one": 1}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(table | {"numTraining": len(volumes)}))
    return folder


def forget_directions(path: Path) -> None:
    """Writes the file again with both orientation codes 0; voxels and their size stay."""
    image = nib.load(path)
    voxels, header = np.asarray(image.dataobj), image.header.copy()
    image = nib.Nifti1Image(voxels, None, header)
    image.header["qform_code"] = image.header["sform_code"] = 0
    nib.save(image, path)


def opened(folder: Path, **settings: Any) -> Dataset:
    return open_dataset(DataSpec.model_validate({"source": str(folder), **settings}), cache_dir=None)


def noise(shape: tuple[int, int, int], seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [STACK, SLICE], ids=["stack", "single slice"])
def test_slices_whose_nearest_anatomical_axes_differ_stay_whole(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    angles = (OBLIQUE, STEEP, OBLIQUE, AXIAL, STEEP)
    volumes = {f"c{k}": volume_of(noise(shape, k), degrees) for k, degrees in enumerate(angles)}
    data = opened(write(tmp_path / "d", volumes))
    assert [case.orientation for case in data.cases] == ["LPS", "LSA", "LPS", "LPS", "LSA"]
    assert {case.mask.shape for case in data.cases} == {shape}
    np.testing.assert_allclose([case.spacing_mm for case in data.cases], [THICK_MM[::-1]] * 5, rtol=1e-5)
    assert not any(case.stored_orientation or case.original for case in data.cases)
    (line,) = data.remarks
    assert "2 cases stored as LSA ('c1', 'c4') stay so" in line
    assert unlike_slice_axes(data.cases) == []


def test_a_new_oblique_scan_is_brought_to_the_grid_as_the_cases_of_the_set_were(tmp_path: Path) -> None:
    angles = (OBLIQUE, OBLIQUE, STEEP)
    volumes = {f"c{k}": volume_of(noise(STACK, k), degrees) for k, degrees in enumerate(angles)}
    grid = opened(write(tmp_path / "d", volumes)).grid
    assert grid is not None
    assert (grid.orientation, grid.slice_axis) == ("LPS", 0)
    (scan,) = opened(write(tmp_path / "n", {"new": volume_of(noise(STACK, 9), STEEP)}), orientation="stored").cases
    assert bring_case(scan, grid, (False,)) is scan
    assert bring_case(scan, Grid(orientation="LPS"), (False,)).mask.shape == (40, 9, 32)


def test_slices_stored_across_another_axis_are_turned_to_those_of_most(tmp_path: Path) -> None:
    """The same axial stack with its axes stored in another order is not oblique."""
    volumes = {f"c{k}": volume_of(noise(STACK, k), AXIAL) for k in range(3)}
    volumes["c2"] = sitk.DICOMOrient(volumes["c2"], "SRA")
    stored = opened(write(tmp_path / "d", volumes), orientation="stored", spacing_mm="none").cases
    assert stored[2].mask.shape != STACK
    (line,) = unlike_slice_axes(stored)
    assert "1 across axis 2 ('c2')" in line
    data = opened(tmp_path / "d")
    assert {case.mask.shape for case in data.cases} == {STACK}
    assert [case.stored_orientation for case in data.cases] == ["", "", "SRA"]


def test_slices_across_unlike_axes_are_warned_of_though_they_are_resampled(tmp_path: Path) -> None:
    volumes = {f"c{k}": volume_of(noise(STACK, k), AXIAL) for k in range(3)}
    volumes["c2"].SetSpacing((10.0, 1.4, 1.4))
    data = opened(write(tmp_path / "d", volumes))
    assert [case.original is not None for case in data.cases] == [False, False, True]
    (line,) = unlike_slice_axes(data.cases)
    assert "across array axis 0 of (D, H, W) in most cases, and 1 across axis 2 ('c2')" in line


def test_files_without_directions_beside_others_are_named_though_none_is_turned(tmp_path: Path) -> None:
    volumes = {f"c{k}": volume_of(noise(STACK, k), AXIAL) for k in range(3)}
    folder = write(tmp_path / "d", volumes, without_directions=("c1",))
    (line,) = opened(folder).remarks
    assert "the headers of 1 case give no orientation ('c1')" in line
    assert opened(folder, orientation="stored").remarks == ()


def test_a_file_without_directions_is_not_turned(tmp_path: Path) -> None:
    """Some tools drop both orientation codes and leave the voxels as they were."""
    volumes = {f"c{k}": sitk.DICOMOrient(volume_of(noise(STACK, k), AXIAL), "RAS") for k in range(3)}
    volumes["c3"] = volume_of(noise(STACK, 3), AXIAL)
    data = opened(write(tmp_path / "d", volumes, without_directions=("c1",)))
    assert [case.orientation for case in data.cases] == ["RAS", "", "RAS", "RAS"]
    assert [case.stored_orientation for case in data.cases] == ["", "", "", "LPS"]
    turned, unknown = data.remarks
    assert "1 stored as LPS ('c3')" in turned
    assert "the headers of 1 case give no orientation ('c1')" in unknown
    np.testing.assert_array_equal(data.cases[1].mask, opened(tmp_path / "d", orientation="stored").cases[1].mask)


def test_the_orientation_lps_says_which_files_it_cannot_turn(tmp_path: Path) -> None:
    volumes = {f"c{k}": volume_of(noise(STACK, k), AXIAL) for k in range(2)}
    folder = write(tmp_path / "d", volumes, without_directions=("c0", "c1"))
    assert opened(folder).remarks == ()
    (line,) = opened(folder, orientation="LPS").remarks
    assert "the headers of 2 cases give no orientation ('c0', 'c1')" in line


@pytest.mark.parametrize(
    ("ending", "line"),
    [(".nrrd", b"space: left-posterior-superior\n"), (".mha", b"TransformMatrix = 1 0 0 0 1 0 0 0 1\n")],
)
def test_a_text_header_has_directions_if_it_gives_them(tmp_path: Path, ending: str, line: bytes) -> None:
    path = tmp_path / f"volume{ending}"
    sitk.WriteImage(volume_of(noise(STACK, 0), AXIAL), path)
    assert read_volume(path).has_directions
    content = path.read_bytes()
    assert content.count(line) == 1
    dimension = b"space dimension: 3\n" if ending == ".nrrd" else b""
    path.write_bytes(content.replace(line, dimension))
    assert not read_volume(path).has_directions


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_a_picture_has_no_directions(tmp_path: Path, ending: str) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((8, 9), np.uint8)), tmp_path / f"picture{ending}")
    assert not read_volume(tmp_path / f"picture{ending}").has_directions


def test_an_analyze_file_has_no_directions(tmp_path: Path) -> None:
    for signs in ([1, 1, 1], [-1, 1, 1]):  # some writers mark a flip by a negative spacing
        image = nib.AnalyzeImage(np.ones((4, 5, 6), np.int16), np.eye(4))
        image.header["pixdim"][1:4] = signs
        nib.save(image, tmp_path / "volume.img")
        assert not read_volume(tmp_path / "volume.img").has_directions


def test_a_nifti_file_has_directions_if_a_code_says_so(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii.gz"
    sitk.WriteImage(volume_of(noise(STACK, 0), OBLIQUE), path)
    assert read_volume(path).has_directions
    forget_directions(path)
    assert not read_volume(path).has_directions
