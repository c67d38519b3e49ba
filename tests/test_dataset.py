"""Prepared data sets: classes, geometry and hashes of real files, and a prepared file by itself."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from dlx.data import cases
from dlx.data.cache import load_cache
from dlx.data.dataset import Case, open_dataset
from dlx.data.phantom.case import phantom_case
from dlx.data.splits.choose import split_cases
from dlx.data.splits.groups import load_groups
from dlx.data.volumes.reading import value_hash
from dlx.settings.spec import DataSpec, SplitSpec
from dlx.system.errors import DataError, SettingError
from made_folders import (
    CHANGES,
    PHANTOM,
    SHAPE,
    assert_same,
    damage,
    decathlon,
    intensities,
    labels,
    only_file,
    opened,
    save,
)

# --- preparing ---


def test_a_case_has_channels_last_float16_and_the_axes_of_the_file_turned(tmp_path: Path) -> None:
    dataset = opened(decathlon(tmp_path))
    case = dataset.cases[0]
    raw = intensities(0).transpose(2, 1, 0).astype(np.float64)  # z, y, x
    foreground = raw[raw > 0]
    mean, std = foreground.mean(), foreground.std()
    np.testing.assert_array_equal(case.image[..., 0], ((raw - mean) / std).astype(np.float32).astype(np.float16))
    np.testing.assert_array_equal(case.mask, labels(0).transpose(2, 1, 0))
    np.testing.assert_array_equal(case.pad_value, np.array([-mean / std], np.float32))
    assert (case.image.dtype, case.mask.dtype) == (np.float16, np.uint8)
    assert case.image.flags.c_contiguous
    assert case.mask.flags.c_contiguous
    assert case.spacing_mm == (3.0, 2.0, 1.0)
    assert [case.id for case in dataset.cases] == ["case-1", "case-2", "case-3"]
    assert (dataset.layout, dataset.source) == ("msd", str(tmp_path))
    assert (dataset.channels, dataset.classes) == (("MRI",), ("background", "a", "b"))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_an_image_saved_again_with_another_voxel_type_is_the_same_image(tmp_path: Path, dtype: type) -> None:
    decathlon(tmp_path)
    save(tmp_path / "imagesTr/case-3.nii.gz", intensities(1).astype(dtype))  # case-2's, of int16
    data = opened(tmp_path)
    one, two, three = data.cases
    assert one.value_hash != two.value_hash == three.value_hash
    assert two.content_hash != three.content_hash  # the fingerprint tells them apart
    hashes = {case.id: case.value_hash for case in data.cases}
    with pytest.raises(DataError, match=r"'case-3' .*'case-2' .*same image"):
        split_cases(list(hashes), hashes, {}, SplitSpec(val=("case-2",)))


def test_values_are_hashed_exactly_whatever_their_type() -> None:
    array = np.random.default_rng(0).integers(0, 200, (3, 4, 5))
    kinds = [np.uint8, np.int8, np.int16, np.uint32, np.int64, np.uint64, np.float32, np.float64]
    alike = [(array // 2).astype(kind) for kind in kinds]
    turned = np.asfortranarray(alike[-1]).astype(">f8")
    assert len({value_hash(other) for other in [*alike, turned]}) == 1
    assert value_hash(np.array([[0.0]])) == value_hash(np.array([[-0.0]]))
    assert value_hash(alike[0]) != value_hash(alike[0].reshape(3, 5, 4))
    large = np.array([[2**53, 2**53 + 1]])  # alike as float64
    assert value_hash(large) != value_hash(np.array([[2**53, 2**53]]))
    assert value_hash(large) == value_hash(large.astype(np.uint64)) != value_hash(-large)
    assert value_hash(np.array([[2**64 - 1]], np.uint64)) != value_hash(np.array([[2**64 - 2]], np.uint64))


def test_label_values_become_consecutive_classes(tmp_path: Path) -> None:
    decathlon(tmp_path, 1, labels={"0": "background", "10": "a", "250": "b"})
    for dtype in (np.uint8, np.int16, np.float32):
        save(tmp_path / "labelsTr/case-1.nii.gz", labels(0, (0, 10, 250)).astype(dtype))
        dataset = opened(tmp_path)
        assert dataset.label_values == (0, 10, 250)
        np.testing.assert_array_equal(dataset.cases[0].mask, labels(0).transpose(2, 1, 0))


def test_undeclared_labels_are_refused_with_file_value_and_count(tmp_path: Path) -> None:
    mask = labels(0)
    mask[0, 0, :3], mask[1, 1, 1] = 7, 9
    save(decathlon(tmp_path) / "labelsTr/case-1.nii.gz", mask)
    with pytest.raises(DataError, match=r"case-1\.nii\.gz: .*\b7 \(3 .*\b9 \(1 .*\b0, 1, 2\)"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (0.5, r"2 voxels .*0\.5"),
        (1.0000001, r"2 voxels .*1\.0000001"),
        (-1, "-1 "),
    ],
)
def test_labels_that_are_no_whole_numbers_or_negative_are_refused(tmp_path: Path, value: float, cause: str) -> None:
    mask = labels(0).astype(np.float32)
    mask[0, 0, :2] = value
    save(decathlon(tmp_path) / "labelsTr/case-1.nii.gz", mask)
    with pytest.raises(DataError, match=cause):
        opened(tmp_path)


def test_a_mask_that_lies_elsewhere_than_its_image_is_refused(tmp_path: Path) -> None:
    decathlon(tmp_path)
    save(tmp_path / "labelsTr/case-1.nii.gz", labels(0), spacing=(1.0, 2.0, 3.5))
    save(tmp_path / "labelsTr/case-2.nii.gz", labels(1)[:, :, :5])
    save(tmp_path / "imagesTr/case-3.nii.gz", intensities(2), origin=10.0)
    save(tmp_path / "labelsTr/case-3.nii.gz", labels(2), origin=14.0)
    with pytest.raises(DataError) as refused:
        opened(tmp_path)
    lines = str(refused.value).splitlines()
    assert [word in line for line, word in zip(lines, ("spacing", "size", "origin"), strict=True)] == [True] * 3
    assert "case-1.nii.gz" in lines[0]


def test_the_channels_of_a_fourth_axis_must_be_the_declared_ones(tmp_path: Path) -> None:
    decathlon(tmp_path, 1, modality={"0": "T2", "1": "ADC"})
    two = np.stack([intensities(0), intensities(1)], axis=-1)
    save(tmp_path / "imagesTr/case-1.nii.gz", two, spacing=(1.0, 2.0, 3.0))
    dataset = opened(tmp_path, normalize="none")
    assert dataset.channels == ("T2", "ADC")
    np.testing.assert_array_equal(dataset.cases[0].image, two.transpose(2, 1, 0, 3))
    save(tmp_path / "imagesTr/case-1.nii.gz", np.concatenate([two, two[..., :1]], axis=-1))
    with pytest.raises(DataError, match=r"\b3 channels\b.*\b2\b.*\('T2', 'ADC'\)"):
        opened(tmp_path)


def test_several_files_a_case_are_its_channels_in_order(tmp_path: Path) -> None:
    description = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "a": 1, "b": 2}}
    for c in range(2):
        save(tmp_path / f"imagesTr/x_{c:04d}.nii", intensities(c))
    save(tmp_path / "labelsTr/x.nii", labels(0))
    (tmp_path / "dataset.json").write_text(json.dumps({**description, "numTraining": 1, "file_ending": ".nii"}))
    case = opened(tmp_path, normalize="none").cases[0]
    np.testing.assert_array_equal(case.image, np.stack([intensities(0), intensities(1)], -1).transpose(2, 1, 0, 3))
    save(tmp_path / "imagesTr/x_0000.nii", intensities(0), origin=2.0)
    save(tmp_path / "imagesTr/x_0001.nii", intensities(1), origin=9.0)
    with pytest.raises(DataError, match=r"x_0000\.nii .*x_0001\.nii .*voxels"):
        opened(tmp_path)


def test_a_colour_slice_has_three_channels_and_one_slice(tmp_path: Path) -> None:
    import SimpleITK as sitk  # noqa: N813 - its usual name

    for where in ("imagesTr", "labelsTr"):
        (tmp_path / where).mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    mask = (colours[..., 0] > 99).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), tmp_path / "imagesTr/x_0000.png")
    sitk.WriteImage(sitk.GetImageFromArray(mask), tmp_path / "labelsTr/x.png")
    table = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "a": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps({**table, "file_ending": ".png"}))
    case = opened(tmp_path, normalize="none").cases[0]
    np.testing.assert_array_equal(case.image, colours[None])
    np.testing.assert_array_equal(case.mask, mask[None])


def test_every_file_that_fails_has_a_line_the_first_first(tmp_path: Path) -> None:
    decathlon(tmp_path, 4)
    (tmp_path / "imagesTr/case-2.nii.gz").write_bytes(b"nothing")
    (tmp_path / "labelsTr/case-2.nii.gz").write_bytes(b"nothing")
    save(tmp_path / "imagesTr/case-4.nii.gz", np.zeros(SHAPE, np.int16))
    with pytest.raises(DataError) as refused:
        opened(tmp_path)
    lines = str(refused.value).splitlines()
    assert len(lines) == 3
    assert "imagesTr/case-2.nii.gz" in lines[0]
    assert "labelsTr/case-2.nii.gz" in lines[1]
    assert lines[2].startswith("case 'case-4': ")
    assert "above zero" in lines[2]


def test_a_message_about_many_files_has_20_lines_and_counts_the_rest(tmp_path: Path) -> None:
    decathlon(tmp_path, 25)
    for number in range(1, 26):
        (tmp_path / f"imagesTr/case-{number}.nii.gz").write_bytes(b"nothing")
    with pytest.raises(DataError) as refused:
        opened(tmp_path)
    lines = str(refused.value).splitlines()
    assert len(lines) == 20
    assert "case-1.nii.gz" in lines[0]
    assert lines[-1] == "... and 6 more"


def test_progress_counts_every_case(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    spec = DataSpec.model_validate({"source": str(decathlon(tmp_path))})
    open_dataset(spec, cache_dir=None, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_unknown_sources_normalisers_and_arguments_are_refused() -> None:
    for spec in ({"normalize": "zscor"}, {"normalize": "zscore:over=some"}, {"source": "phantom:subject=1"}):
        with pytest.raises(SettingError):
            open_dataset(DataSpec.model_validate(spec), cache_dir=None)


def test_the_phantom_is_a_data_set_of_its_cases() -> None:
    dataset = open_dataset(PHANTOM, cache_dir=None)
    image, mask = phantom_case(1, seed=0, size_px=(24, 24, 24))
    assert (dataset.layout, [case.id for case in dataset.cases]) == ("phantom", ["subject-1", "subject-2"])
    np.testing.assert_array_equal(dataset.cases[1].mask, mask)
    foreground = image[0] > 0
    for c in range(2):
        normalized = dataset.cases[1].image[..., c][foreground].astype(np.float64)
        assert abs(normalized.mean()) < 1e-3
        assert abs(normalized.std() - 1) < 1e-3


def box_case(mask: np.ndarray) -> Case:
    image, pad_value = np.zeros((*mask.shape, 1), np.float16), np.zeros(1, np.float32)
    return Case("x", image, mask.astype(np.uint8), (1.0, 1.0, 1.0), pad_value, "")


def test_the_label_box_is_half_open_around_all_labels() -> None:
    mask = np.zeros((5, 6, 7))
    mask[1, 2, 3] = mask[3, 2, 6] = 2
    assert box_case(mask).label_box == ((1, 4), (2, 3), (3, 7))


def test_the_label_box_without_labels_is_the_whole_volume() -> None:
    assert box_case(np.zeros((5, 6, 7))).label_box == ((0, 5), (0, 6), (0, 7))


# --- the fingerprint ---


def test_the_fingerprint_knows_neither_paths_nor_times_nor_compression(tmp_path: Path) -> None:
    first = opened(decathlon(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for path in (tmp_path / "b").rglob("*.nii.gz"):
        os.utime(path, (1, 1))
    assert opened(tmp_path / "b").fingerprint == first.fingerprint
    assert opened(tmp_path / "a", normalize="zscore:over=foreground").fingerprint == first.fingerprint


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_can_change_numbers_changes_the_fingerprint(tmp_path: Path, change: Callable[[Path], None]) -> None:
    before = opened(decathlon(tmp_path)).fingerprint
    change(tmp_path)
    assert opened(tmp_path).fingerprint != before


def test_the_normaliser_and_the_data_version_change_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = {
        open_dataset(PHANTOM.model_copy(update={"normalize": part}), cache_dir=None).fingerprint
        for part in (
            DataSpec.model_validate({"normalize": text}).normalize for text in ("none", "zscore", "zscore:over=all")
        )
    }
    monkeypatch.setattr(cases, "DATA_VERSION", cases.DATA_VERSION + 1)
    prints.add(open_dataset(PHANTOM, cache_dir=None).fingerprint)
    assert len(prints) == 4


# --- a prepared file alone ---


def test_the_file_alone_is_the_data_set(tmp_path: Path) -> None:
    made = opened(decathlon(tmp_path / "data"), tmp_path / "cache")
    alone = only_file(tmp_path / "cache").rename(tmp_path / "prepared.safetensors")
    shutil.rmtree(tmp_path / "data")
    assert_same(made, load_cache(alone))
    again = opened(alone)
    assert_same(made, again)
    assert again.source == str(alone)
    assert "checksums" in opened(alone, verify=True).remarks[0]


def test_a_file_prepared_otherwise_than_asked_is_refused(tmp_path: Path) -> None:
    open_dataset(PHANTOM, cache_dir=tmp_path)
    with pytest.raises(DataError, match=r"zscore:over=foreground\b.*zscore:over=all\b"):
        opened(only_file(tmp_path), normalize="zscore:over=all")


def test_the_groups_of_a_folder_go_with_its_prepared_file(tmp_path: Path) -> None:
    groups = {"case-1": "anna", "case-2": "anna"}
    decathlon(tmp_path / "data")
    opened(tmp_path / "data", tmp_path / "cache")
    assert load_groups(SplitSpec(), only_file(tmp_path / "cache")) == {}
    (tmp_path / "data/groups.json").write_text(json.dumps(groups))
    opened(tmp_path / "data", tmp_path / "cache")
    assert load_groups(SplitSpec(), only_file(tmp_path / "cache")) == groups


def test_groups_are_not_read_from_a_damaged_file(tmp_path: Path) -> None:
    decathlon(tmp_path / "data")
    (tmp_path / "data/groups.json").write_text(json.dumps({"case-1": "anna"}))
    opened(tmp_path / "data", tmp_path / "cache")
    path = only_file(tmp_path / "cache")
    damage(path, path.read_bytes().index(b"anna"))
    with pytest.raises(DataError, match="checksum"):
        load_groups(SplitSpec(), path)


def test_a_file_that_is_no_prepared_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        opened(tmp_path / "none.safetensors")
    safetensors.numpy.save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match=r"weights\.safetensors: .*not a prepared data set"):
        opened(tmp_path / "weights.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(DataError, match=r"text\.safetensors: .*not a prepared data set"):
        opened(tmp_path / "text.safetensors")


@pytest.mark.slow
def test_the_real_hippocampus_data_are_read_whole(hippocampus: Path, tmp_path: Path) -> None:
    dataset = opened(hippocampus, tmp_path)
    assert (len(dataset.cases), dataset.classes) == (260, ("background", "Anterior", "Posterior"))
    assert len({case.content_hash for case in dataset.cases}) == 260
    reference = nib.load(hippocampus / "labelsTr/hippocampus_001.nii.gz")
    np.testing.assert_array_equal(dataset.cases[0].mask, np.asarray(reference.dataobj).transpose(2, 1, 0))
    assert_same(dataset, opened(hippocampus, tmp_path))
