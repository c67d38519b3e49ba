"""One orientation and one voxel size for all cases of a set, against nibabel, SimpleITK, scipy and numbers by hand."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from nibabel.orientations import axcodes2ornt, ornt_transform
from safetensors import safe_open

from dlx.data import cache_file
from dlx.data.cache_file import Description, read_cache, write_cache
from dlx.data.cases import Grid
from dlx.data.checks.remarks import unlike_spacings
from dlx.data.dataset import Dataset
from dlx.data.geometry import common_grid
from dlx.data.geometry.common_grid import bring_case
from dlx.data.geometry.orientation import turn
from dlx.engine import checkpoint
from dlx.settings.layers import nest, parse_assignment
from dlx.system.errors import DataError, SettingError
from dlx.trial.fit_batch import fit_slice_axis
from dlx.trial.resolve import resolve
from made_grids import CODES, MIXED_CODES, MIXED_SPACINGS, ONE, boxes, opened, write
from small import SMALL_ARGS, small_resolved, small_spec

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


def test_channels_that_are_clipped_later_do_not_ring_beside_metal(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", {"c0": ("LPS", ONE)})
    path = folder / "imagesTr/c0_0000.nii.gz"
    values = np.full((12, 14, 16), 34, np.float32)
    values[:, :, :8], values[:2] = 900, -1000  # metal beside tissue; air in the first planes
    sitk.WriteImage(sitk.GetImageFromArray(values), path)
    spline, linear = (opened(folder, spacing_mm=[0.4, 1, 1], normalize=name).cases[0] for name in ("none", "ct"))
    assert spline.image[8:].min() < 0
    assert (linear.image[8:].min(), linear.image[8:].max()) == (34, 900)


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
    assert "1 of 3 cases ('c1') were resampled to voxels of 1 x 1 x 1 mm" in line
    assert "stored voxels are x 1 to 2 mm, y 1 mm, z 0.5 to 1 mm" in line
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
    assert Grid(**checkpoint.read(file).header["grid"]) == Grid(orientation="LPS", spacing_mm=ONE, slice_axis=2)
    assert "data.orientation=common: 1 of 3 cases" in " ".join(result.stderr.split())
