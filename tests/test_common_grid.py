"""One orientation and one voxel size for all cases of a set, against nibabel, SimpleITK, scipy and numbers by hand."""

import json
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
import torch
from nibabel.orientations import axcodes2ornt, ornt_transform
from safetensors import safe_open
from scipy import ndimage

from dlx.data import cache_file
from dlx.data.cache_file import Description, read_cache, write_cache
from dlx.data.cases import IGNORED, Grid
from dlx.data.checks.remarks import unlike_spacings
from dlx.data.dataset import Dataset, open_dataset
from dlx.data.geometry import common_grid
from dlx.data.geometry.common_grid import bring_case
from dlx.data.geometry.orientation import turn
from dlx.data.geometry.resample import (
    MASK_BYTES_PER_VOXEL,
    coarse_axis,
    median_spacing,
    new_size,
    resample_image,
    resample_mask,
)
from dlx.engine import checkpoint
from dlx.engine.original_grid import to_original
from dlx.settings.layers import nest, parse_assignment
from dlx.settings.spec import DataSpec
from dlx.system.errors import DataError, SettingError
from dlx.trial.fit_batch import fit_slice_axis
from dlx.trial.resolve import resolve
from small import SMALL_ARGS, small_resolved, small_spec

CODES = ("LPS", "RAS", "PIR", "SLA")
Array = np.ndarray[Any, Any]


def smooth(shape: tuple[int, ...], seed: int = 0) -> Array:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0)
    return np.asarray(100 + 50 * field / field.std(), np.float32)


def boxes(shape: tuple[int, ...]) -> Array:
    """A mask of two classes that touch, neither symmetric in any axis."""
    mask = np.zeros(shape, np.uint8)
    d, h, w = shape
    mask[d // 5 : d // 2, h // 4 : h // 2, w // 3 : w - 2] = 1
    mask[d // 2 : d - 2, h // 4 : h - 3, w // 3 : w // 2] = 2
    return mask


def write(folder: Path, cases: dict[str, tuple[str, tuple[float, float, float]]], shape: Any = (12, 14, 16)) -> Path:
    """An nnU-Net folder: name -> orientation of its files, and spacing (x, y, z) before it was turned."""
    for place in ("imagesTr", "labelsTr"):
        (folder / place).mkdir(parents=True)
    for seed, (name, (code, spacing)) in enumerate(cases.items()):
        for array, path in ((smooth(shape, seed), f"imagesTr/{name}_0000"), (boxes(shape), f"labelsTr/{name}")):
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing(spacing)
            sitk.WriteImage(sitk.DICOMOrient(volume, code), folder / f"{path}.nii.gz")
    table = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "one": 1, "two": 2}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(table | {"numTraining": len(cases)}))
    return folder


def opened(folder: Path, cache_dir: Path | None = None, **settings: Any) -> Dataset:
    return open_dataset(DataSpec.model_validate({"source": str(folder), **settings}), cache_dir=cache_dir)


ONE = (1.0, 1.0, 1.0)
MIXED_CODES = {"c0": ("LPS", ONE), "c1": ("RAS", ONE), "c2": ("LPS", ONE), "c3": ("PIR", ONE)}
MIXED_SPACINGS = {"c0": ("LPS", ONE), "c1": ("RAS", (2.0, 1.0, 0.5)), "c2": ("LPS", ONE)}


# --- orientation ---


@pytest.mark.parametrize("wanted", CODES)
@pytest.mark.parametrize("stored", CODES)
def test_turning_is_nibabels_reorientation_and_turning_back_undoes_it(stored: str, wanted: str) -> None:
    array = np.random.default_rng(0).normal(size=(3, 4, 5))  # D, H, W
    steps = ornt_transform(*(axcodes2ornt([*code]) for code in (stored, wanted)))
    expected = nib.orientations.apply_orientation(array.transpose(2, 1, 0), steps).transpose(2, 1, 0)
    turned = turn(array, stored, wanted)
    np.testing.assert_array_equal(turned, expected)
    np.testing.assert_array_equal(turn(turned, wanted, stored), array)


def test_cases_in_common_orientation_are_nibabels_closest_canonical(tmp_path: Path) -> None:
    spacing = (1.0, 2.0, 3.0)
    codes = {"c0": "RAS", "c1": "LPS", "c2": "RAS", "c3": "SLA"}
    folder = write(tmp_path / "d", {name: (code, spacing) for name, code in codes.items()})
    data = opened(folder)  # RAS, the most common, is nibabel's canonical orientation
    for case in data.cases:
        image = nib.as_closest_canonical(nib.load(folder / f"labelsTr/{case.id}.nii.gz"))
        np.testing.assert_array_equal(case.mask, np.asarray(image.dataobj).transpose(2, 1, 0))
        np.testing.assert_allclose(case.spacing_mm, image.header.get_zooms()[::-1])
        assert case.orientation == "RAS"
        assert case.stored_orientation == ("" if codes[case.id] == "RAS" else codes[case.id])
        assert (case.original, case.mask.flags.c_contiguous, case.image.flags.c_contiguous) == (None, True, True)


def test_the_same_scans_stored_in_any_orientation_are_prepared_alike(tmp_path: Path) -> None:
    one = opened(write(tmp_path / "a", dict.fromkeys(MIXED_CODES, ("LPS", ONE))))
    mixed = opened(write(tmp_path / "b", MIXED_CODES))
    for first, second in zip(one.cases, mixed.cases, strict=True):
        np.testing.assert_allclose(first.image, second.image, rtol=0, atol=2e-3)  # statistics in another order
        np.testing.assert_array_equal(first.mask, second.mask)
    (line,) = mixed.remarks
    assert "data.orientation=common: 2 of 4 cases were turned to LPS" in line
    assert "1 stored as RAS ('c1')" in line
    assert one.remarks == ()


def test_a_set_of_one_orientation_keeps_its_fingerprint_and_a_turned_one_gets_another(tmp_path: Path) -> None:
    one = write(tmp_path / "a", dict.fromkeys(MIXED_CODES, ("RAS", ONE)))
    mixed = write(tmp_path / "b", MIXED_CODES)
    assert opened(one).fingerprint == opened(one, orientation="stored", spacing_mm="none").fingerprint
    assert opened(one, orientation="LPS").fingerprint != opened(one).fingerprint
    assert opened(mixed).fingerprint != opened(mixed, orientation="stored").fingerprint
    grid = opened(one).grid
    assert grid is not None
    assert (grid.orientation, grid.spacing_mm) == ("RAS", ONE)  # what new scans are brought to


# --- resampling ---


@pytest.mark.parametrize("wanted", [(0.5, 1.0, 1.0), (1.0, 1.7, 0.8), (2.0, 2.0, 2.0)])
def test_an_image_is_resampled_as_by_the_splines_of_simpleitk(wanted: tuple[float, float, float]) -> None:
    image = smooth((20, 22, 24))
    size = new_size((20, 22, 24), ONE, wanted)
    ours = resample_image(image.astype(np.float16)[..., None], size)[..., 0]
    theirs = by_simpleitk(image.astype(np.float16).astype(np.float32), size, sitk.sitkBSpline3)
    inner = tuple(slice(n // 4, -(n // 4)) for n in size)  # SimpleITK mirrors at the ends, where ours continues them
    np.testing.assert_allclose(ours[inner], theirs[inner], rtol=0, atol=0.25)  # float16 at 100 to 250 has steps of 1/8


def by_simpleitk(array: Array, size: tuple[int, ...], interpolator: int) -> Array:
    """Resampled over the same field of view, from its corner in space; outside, the nearest voxel."""
    volume = sitk.GetImageFromArray(array)
    step = [n / new for n, new in zip(array.shape[::-1], size[::-1], strict=True)]
    start = [(width - 1) / 2 for width in step]  # the first centre: the corner is at -1/2
    filled = sitk.Resample(
        volume, size[::-1], sitk.Transform(), interpolator, start, step, np.eye(3).ravel(), 0.0, sitk.sitkFloat32, True
    )
    return np.asarray(sitk.GetArrayFromImage(filled))


def test_an_image_of_float32_stays_one_and_ignored_voxels_are_a_class_of_their_own() -> None:
    values = np.random.default_rng(0).standard_normal((6, 6, 6, 1)).astype(np.float32) * 1e5  # beyond float16
    resampled = resample_image(values, (12, 6, 6))
    assert resampled.dtype == np.float32
    assert np.isfinite(resampled).all()
    mask = np.zeros((6, 6, 6), np.uint8)
    mask[:3], mask[3:, :3] = IGNORED, 2
    fine = resample_mask(mask, (12, 6, 6))
    np.testing.assert_array_equal(fine, mask.repeat(2, axis=0))


def test_voxels_lie_at_the_edges_of_the_field_of_view() -> None:
    ramp = np.broadcast_to(np.arange(8, dtype=np.float16).reshape(1, 1, 8, 1), (4, 4, 8, 1))
    doubled = resample_image(ramp, (4, 4, 16))[0, 0, :, 0]
    np.testing.assert_allclose(doubled[5:11], [2.25, 2.75, 3.25, 3.75, 4.25, 4.75], atol=0.02)  # (k + 1/2) / 2 - 1/2


@pytest.mark.parametrize("size", [(12, 14, 32), (6, 14, 9), (17, 20, 23)])
def test_a_mask_is_resampled_as_each_class_by_itself(size: tuple[int, int, int]) -> None:
    mask = boxes((12, 14, 16))
    shares = np.stack([by_simpleitk((mask == k).astype(np.float32), size, sitk.sitkLinear) for k in range(3)])
    clear = np.sort(shares, 0)
    is_clear = clear[-1] - clear[-2] > 1e-4  # at a tie, rounding decides
    np.testing.assert_array_equal(resample_mask(mask, size)[is_clear], shares.argmax(0)[is_clear])
    assert is_clear.mean() > 0.9


@pytest.mark.parametrize(
    ("old", "new"), [((10, 11, 12), (15, 7, 12)), ((1, 9, 9), (1, 12, 5)), ((2, 2, 2), (40, 1, 3))]
)
def test_an_image_is_resampled_as_by_scipys_zoom_within_its_former_range(old: Any, new: Any) -> None:
    image = np.random.default_rng(0).standard_normal(old).astype(np.float32)
    factors = [after / before for before, after in zip(old, new, strict=True)]
    for is_linear, order in ((False, 3), (True, 1)):
        expected = ndimage.zoom(image, factors, order=order, mode="nearest", grid_mode=True)
        found = resample_image(image[..., None], new, is_linear=[is_linear])[..., 0]
        np.testing.assert_allclose(found, expected.clip(image.min(), image.max()), rtol=0, atol=2e-6)


def test_resampling_stays_finite_in_float16_and_within_the_range_of_each_channel() -> None:
    edge = np.zeros((4, 4, 16, 2), np.float16)
    edge[:, :, 8:, 0], edge[:, :, 8:, 1] = 65000, -1  # a spline overshoots 65000 to more than float16 holds
    resampled = resample_image(edge, (4, 4, 40))
    assert (resampled[..., 0].min(), resampled[..., 0].max()) == (0, 65000)
    assert (resampled[..., 1].min(), resampled[..., 1].max()) == (-1, 0)


@pytest.mark.parametrize("size", [(1, 1024, 1024), (2, 1024, 1024)])
def test_resampling_needs_little_memory_even_for_slices(size: tuple[int, int, int]) -> None:
    image, mask = np.zeros((1, 512, 512, 1), np.float16), np.eye(512, dtype=np.uint8)[None]
    resample_image(image[:, :8, :8], (1, 9, 9))  # loads scipy
    for resample, most in (
        (lambda: resample_image(image, size), 2 + 9),
        (lambda: resample_mask(mask, size), MASK_BYTES_PER_VOXEL),
    ):
        tracemalloc.start()
        resample()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most * np.prod(size) + 12 * 2**20


def test_channels_that_are_clipped_later_do_not_ring_beside_metal(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", {"c0": ("LPS", ONE)})
    path = folder / "imagesTr/c0_0000.nii.gz"
    values = np.full((12, 14, 16), 34, np.float32)
    values[:, :, :8], values[:2] = 900, -1000  # metal beside tissue; air in the first planes
    sitk.WriteImage(sitk.GetImageFromArray(values), path)
    spline, linear = (opened(folder, spacing_mm=[0.4, 1, 1], normalize=name).cases[0] for name in ("none", "ct"))
    assert spline.image[8:].min() < 0
    assert (linear.image[8:].min(), linear.image[8:].max()) == (34, 900)


def test_a_mask_that_lacks_low_classes_keeps_those_it_has() -> None:
    mask = np.full((4, 4, 4), 3, np.uint8)
    mask[2:] = 200
    resampled = resample_mask(mask, (8, 4, 4))
    np.testing.assert_array_equal(resampled[:, 0, 0], [3] * 4 + [200] * 4)


def test_the_coarse_axis_takes_the_nearest_plane_and_the_others_splines() -> None:
    image = smooth((6, 20, 20)).astype(np.float16)[..., None]
    apart = resample_image(image, (9, 30, 20), 0)[..., 0]
    nearest = [0, 1, 1, 2, 3, 3, 4, 5, 5]  # floor((k + 1/2) 6 / 9)
    values = image[..., 0].astype(np.float32)
    planes = [ndimage.zoom(values[k], (1.5, 1), mode="nearest", grid_mode=True) for k in nearest]
    np.testing.assert_allclose(apart, np.clip(planes, values.min(), values.max()), rtol=1e-3)
    mask = boxes((6, 20, 20))
    np.testing.assert_array_equal(resample_mask(mask, (9, 20, 20), 0), mask[nearest])


def test_only_a_single_axis_of_more_than_three_times_the_smallest_spacing_is_coarse() -> None:
    size = (2, 3, 4)
    assert coarse_axis((5.0, 0.5, 0.5), size) == 0
    assert coarse_axis((0.5, 0.5, 1.6), size) == 2
    assert coarse_axis((1.5, 0.5, 0.5), size) is None
    assert coarse_axis((5.0, 5.0, 0.5), size) is None
    assert coarse_axis((5.0, 0.5, 0.5), (1, 3, 4)) is None
    assert coarse_axis((0.1, 0.5, 5.0), (1, 3, 4)) == 2


def test_the_thickness_of_single_slices_is_no_voxel_size(tmp_path: Path) -> None:
    thick = {f"c{k}": ("LPS", (1.0, 1.0, mm)) for k, mm in enumerate((1.0, 1.0, 1.0, 5.0))}
    slices = opened(write(tmp_path / "slices", thick, (1, 32, 32)))
    assert [case.mask.shape for case in slices.cases] == [(1, 32, 32)] * 4
    assert [case.spacing_mm[0] for case in slices.cases] == [1.0, 1.0, 1.0, 5.0]
    assert unlike_spacings(slices.cases) == []
    pixels = {"c0": ("LPS", (1.0, 1.0, 5.0)), "c1": ("LPS", (0.5, 1.0, 2.0)), "c2": ("LPS", (1.0, 1.0, 2.0))}
    finer = opened(write(tmp_path / "pixels", pixels, (1, 32, 32)))
    assert [case.mask.shape for case in finer.cases] == [(1, 32, 32), (1, 32, 16), (1, 32, 32)]
    assert finer.cases[1].spacing_mm == (2.0, 1.0, 1.0)
    asked = opened(tmp_path / "slices", spacing_mm=[1, 2, 2])
    assert [case.mask.shape for case in asked.cases] == [(1, 16, 32)] * 4


def test_the_median_of_an_axis_is_over_volumes_with_several_voxels_along_it() -> None:
    spacings = [(9.0, 1.0, 2.0), (2.0, 1.0, 4.0), (3.0, 1.0, 6.0)]
    assert median_spacing(spacings, [(1, 8, 1), (4, 8, 1), (4, 8, 1)]) == (2.5, 1.0, 4.0)


def test_unlike_spacings_are_resampled_to_the_median_and_alike_ones_stay(tmp_path: Path) -> None:
    data = opened(write(tmp_path / "a", MIXED_SPACINGS))
    kept, changed = data.cases[0], data.cases[1]
    assert (kept.original, kept.mask.shape) == (None, (12, 14, 16))
    assert changed.mask.shape == (6, 14, 32)  # 2 x 1 x 0.5 mm (x, y, z) in the orientation of most, to 1 mm
    assert changed.spacing_mm == ONE
    assert changed.original is not None
    assert changed.original.spacing_mm == (0.5, 1.0, 2.0)
    np.testing.assert_array_equal(changed.original.mask, boxes((12, 14, 16)))
    (line,) = (remark for remark in data.remarks if "data.spacing_mm=auto" in remark)
    assert "1 of 3 cases were resampled to voxels of 1 x 1 x 1 mm" in line
    assert "the median of all cases" in line
    near = opened(write(tmp_path / "b", {"c0": ("LPS", ONE), "c1": ("LPS", (1.009, 1.0, 1.0)), "c2": ("LPS", ONE)}))
    assert near.remarks == ()
    assert all(case.original is None for case in near.cases)
    assert near.fingerprint == opened(tmp_path / "b", spacing_mm="none").fingerprint


def test_a_spacing_in_mm_is_that_of_the_prepared_cases_and_keyed_in_the_cache(tmp_path: Path) -> None:
    folder, store = write(tmp_path / "d", MIXED_SPACINGS), tmp_path / "cache"
    asked = opened(folder, store, spacing_mm=[1, 1, 2])
    assert [case.spacing_mm for case in asked.cases] == [(2.0, 1.0, 1.0)] * 3
    defaults = opened(folder, store)
    assert len({asked.fingerprint, defaults.fingerprint, opened(folder, store, spacing_mm="none").fingerprint}) == 3
    assert len([*store.iterdir()]) == 3
    for made, settings in ((asked, {"spacing_mm": "1,1,2"}), (defaults, {})):
        again = opened(folder, store, **settings)
        assert (again.fingerprint, again.grid, again.remarks) == (made.fingerprint, made.grid, made.remarks)
        for one, other in zip(made.cases, again.cases, strict=True):
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.mask, other.mask)
            assert one.stored_orientation == other.stored_orientation
            assert (one.original is None) == (other.original is None)
            if one.original is not None and other.original is not None:
                np.testing.assert_array_equal(one.original.mask, other.original.mask)
                assert one.original.spacing_mm == other.original.spacing_mm


def test_a_prepared_file_that_was_resampled_is_opened_with_its_own_settings_only(tmp_path: Path) -> None:
    folder, store = write(tmp_path / "d", MIXED_SPACINGS), tmp_path / "cache"
    made = opened(folder, store)
    (file,) = store.iterdir()
    assert opened(file).fingerprint == made.fingerprint
    with pytest.raises(DataError, match=r"data\.spacing_mm=auto.*none"):
        opened(file, spacing_mm="none")
    with pytest.raises(DataError, match=r"data\.orientation=common.*LPS"):
        opened(file, orientation="LPS")


def test_the_settings_that_open_a_prepared_file_are_named_as_they_are_typed(tmp_path: Path) -> None:
    folder, store = write(tmp_path / "d", MIXED_SPACINGS), tmp_path / "cache"
    made = opened(folder, store, orientation="LPS", spacing_mm=[0.71234567, 0.75, 2.0])
    (file,) = store.iterdir()
    with pytest.raises(DataError) as refused:
        opened(file)
    named = re.findall(r"--set (\S+)", str(refused.value))
    assert named == ["data.orientation=LPS", "data.spacing_mm=[0.71234567,0.75,2.0]"]
    assert opened(file, **nest(map(parse_assignment, named))["data"]).fingerprint == made.fingerprint


def test_a_voxel_size_that_would_exceed_the_memory_is_refused_with_the_case_and_a_remedy(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", MIXED_SPACINGS | {"c1": ("LPS", (5000.0, 5000.0, 5000.0))})
    with pytest.raises(DataError, match=r"c1.*5000 x 5000 x 5000 mm.*80000 x 70000 x 60000.*data\.spacing_mm=none"):
        opened(folder)
    assert len(opened(folder, spacing_mm="none").cases) == 3


@pytest.mark.parametrize("value", ["median", [1, 1, 2]])
def test_one_voxel_size_for_axes_in_unlike_anatomical_order_is_refused(value: Any, tmp_path: Path) -> None:
    mixed = write(tmp_path / "a", MIXED_CODES)
    with pytest.raises(
        SettingError, match=r"data\.orientation=stored.*c0 \(LPS\).*c3 \(PIR\).*data\.orientation=common"
    ):
        opened(mixed, orientation="stored", spacing_mm=value)
    assert opened(mixed, orientation="stored", spacing_mm=[0.5, 0.5, 0.5]).cases[0].spacing_mm == (0.5, 0.5, 0.5)
    assert len(opened(mixed, spacing_mm=value).cases) == 4
    opposite = write(tmp_path / "b", {"c0": ("LPS", ONE), "c1": ("RAS", ONE)})
    assert len(opened(opposite, orientation="stored", spacing_mm=value).cases) == 2


@pytest.mark.parametrize("value", ["thick", [1, 1], [1, 1, 0], [1, 1, "x"], 3])
def test_a_spacing_that_is_none_is_refused_with_what_is_expected(value: Any) -> None:
    with pytest.raises(SettingError, match=r"data\.spacing_mm: expected auto, median, none or three spacings"):
        small_spec({"data": {"spacing_mm": value}})


def test_a_new_scan_is_brought_to_the_grid_of_a_set(tmp_path: Path) -> None:
    grid = Grid(orientation="LPS", spacing_mm=ONE)
    folder = write(tmp_path / "d", {"new": ("PIR", (2.0, 1.0, 0.5))})
    (scan,) = opened(folder, orientation="stored", spacing_mm="none").cases
    brought = bring_case(scan, grid, (False,))
    assert (brought.spacing_mm, brought.orientation, brought.mask.shape) == (ONE, "LPS", (6, 14, 32))


# --- measured on the original voxels ---


def cut(volume: torch.Tensor, axis: int, sizes: tuple[int, ...]) -> Any:
    """Pieces of (K, D, H, W) that follow one another along an axis of (D, H, W)."""
    at = 0
    for size in sizes:
        place = [slice(None)] * 3
        place[axis] = slice(at, at + size)
        yield tuple(place), volume[(slice(None), *place)]
        at += size


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("original", [(12, 12, 12), (5, 30, 12), (31, 7, 13), (2, 3, 4)])
@pytest.mark.parametrize("max_size", [1, 2000, 10**9])
def test_probabilities_in_pieces_go_back_as_scipy_zooms_the_whole(
    axis: int, original: tuple[int, int, int], max_size: int
) -> None:
    volume = torch.rand(3, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    found = torch.full((3, *original), torch.nan)
    for place, piece in to_original(cut(volume, axis, (1, 4, 5, 2)), axis, (12, 12, 12), original, max_size):
        assert torch.isnan(found[(slice(None), *place)]).all()  # each voxel once
        found[(slice(None), *place)] = piece
    factors = [new / 12 for new in original]
    for k in range(3):
        expected = ndimage.zoom(volume[k].numpy(), factors, order=1, mode="nearest", grid_mode=True)
        np.testing.assert_allclose(found[k], expected, rtol=0, atol=1e-5)


# --- slices ---


def with_spacing(spacing_mm: tuple[float, float, float]) -> Dataset:
    dataset = small_resolved().dataset
    return replace(dataset, cases=tuple(replace(case, spacing_mm=spacing_mm) for case in dataset.cases))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_lie_along_the_coarse_axis_of_anisotropic_volumes(axis: int) -> None:
    spacing = tuple(5.0 if other == axis else 0.5 for other in range(3))
    resolved = resolve(small_spec(), with_spacing(spacing))  # type: ignore[arg-type]
    assert resolved.spec.batch.slice_axis == axis
    said = [remark for remark in resolved.remarks if "batch.slice_axis=auto" in remark]
    assert len(said) == (axis != 0)
    fixed = resolve(small_spec({"batch": {"slice_axis": 1}}), with_spacing(spacing))  # type: ignore[arg-type]
    assert fixed.spec.batch.slice_axis == 1


def test_the_slice_axis_is_chosen_by_the_training_cases_alone() -> None:
    resolved = small_resolved()
    thick = dict.fromkeys(resolved.split.val, (0.5, 0.5, 5.0))
    cases = tuple(replace(case, spacing_mm=thick.get(case.id, ONE)) for case in resolved.dataset.cases)
    assert len(resolved.split.val) > 0
    many = [replace(case, id=f"{case.id}-{k}") for case in cases if case.id in thick for k in range(4)]
    dataset = replace(resolved.dataset, cases=(*(case for case in cases if case.id not in thick), *many))
    spec, remarks = fit_slice_axis(
        small_spec(), dataset, replace(resolved.split, val=tuple(case.id for case in many)), dims=2
    )
    assert (spec.batch.slice_axis, remarks) == (0, [])


def test_trials_on_sets_of_one_grid_keep_their_ids_whatever_the_settings_of_the_grid() -> None:
    plain = small_resolved({"batch": {"slice_axis": 0}}).trial_id(0)
    assert small_resolved().trial_id(0) == plain
    assert small_resolved({"data": {"spacing_mm": "none", "orientation": "stored"}}).trial_id(0) == plain
    assert small_resolved({"data": {"spacing_mm": [1, 1, 2]}}).trial_id(0) != plain


# --- kept with what was prepared and trained ---


def test_a_cache_file_of_a_mixed_set_from_before_there_were_grids_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = write(tmp_path / "d", MIXED_SPACINGS), tmp_path / "cache"
    made = opened(folder, store)
    (file,) = store.iterdir()
    with safe_open(file, framework="numpy") as prepared:
        origin = Description.model_validate_json(prepared.metadata()["dlx"]).origin
    as_read = replace(opened(folder, orientation="stored", spacing_mm="none"), grid=None)
    with monkeypatch.context() as older:
        older.setattr(cache_file, "FILE_FORMAT", 2)
        write_cache(file, as_read, origin)
    again = opened(folder, store)
    assert (again.fingerprint, again.remarks, again.grid) == (made.fingerprint, made.remarks, made.grid)
    kept = read_cache(file)
    assert kept is not None
    assert kept.fingerprint == made.fingerprint


@pytest.mark.parametrize(("name", "cases"), [("TURN_VERSION", MIXED_CODES), ("RESAMPLE_VERSION", MIXED_SPACINGS)])
def test_a_cache_file_is_made_anew_when_turning_or_resampling_changed(
    name: str, cases: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = write(tmp_path / "d", cases), tmp_path / "cache"
    before = opened(folder, store)
    for module in (cache_file, common_grid):
        monkeypatch.setattr(module, name, getattr(module, name) + 1)
    (file,) = store.iterdir()
    with pytest.raises(DataError, match="another version"):
        opened(file)
    after = opened(folder, store)
    assert after.fingerprint != before.fingerprint
    assert "another version" in after.remarks[-1]
    assert "another version" not in opened(folder, store).remarks[-1]


def test_other_versions_of_resampling_leave_cache_and_fingerprint_of_alike_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = write(tmp_path / "d", dict.fromkeys(MIXED_CODES, ("RAS", ONE))), tmp_path / "cache"
    before = opened(folder, store)
    for module in (cache_file, common_grid):
        monkeypatch.setattr(module, "RESAMPLE_VERSION", 1000)
    again = opened(folder, store)
    assert (again.fingerprint, again.remarks) == (before.fingerprint, ())


@pytest.mark.slow
def test_a_checkpoint_holds_the_grid_and_the_start_says_what_was_brought_to_it(dlx: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", MIXED_SPACINGS)
    data = ("--data", str(folder), "--val", "c1")
    result = dlx("train", *data, *SMALL_ARGS[4:], "--out", "out", "--epochs", "1")
    (file,) = Path("out").rglob("last.safetensors")
    assert Grid(**checkpoint.read(file).header["grid"]) == Grid(orientation="LPS", spacing_mm=ONE)
    assert "data.orientation=common: 1 of 3 cases" in " ".join(result.stderr.split())
