"""Prepared data sets: classes, geometry and hashes of real files, and the cache that keeps them."""

import json
import os
import shutil
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from dlx.data import cache_file, cases
from dlx.data.cache import load_cache
from dlx.data.checks.remarks import remark_on
from dlx.data.dataset import Case, Dataset, open_dataset
from dlx.data.phantom.case import phantom_case
from dlx.data.splits.choose import split_cases
from dlx.data.splits.groups import load_groups
from dlx.data.splits.split import Split
from dlx.data.volumes.reading import value_hash
from dlx.settings.spec import DataSpec, SplitSpec
from dlx.system.errors import DataError, SettingError

SHAPE = (4, 5, 6)  # x, y, z
PHANTOM = DataSpec.model_validate({"source": "phantom:subjects=2,size=24"})


def intensities(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """An image with an air border at x = 0 and values from 1 to 1000 elsewhere."""
    image = np.random.default_rng(seed).integers(1, 1000, shape).astype(np.int16)
    image[0] = 0
    return image


def labels(seed: int, values: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    return np.random.default_rng(100 + seed).choice(np.array(values, np.uint8), SHAPE)


def save(path: Path, array: np.ndarray, spacing: tuple[float, ...] = (1.0, 2.0, 3.0), origin: float = 0.0) -> None:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def decathlon(root: Path, num_cases: int = 3, **description: Any) -> Path:
    """A Decathlon folder of small random cases `case-1` ..."""
    names = [f"case-{number}" for number in range(1, num_cases + 1)]
    for seed, name in enumerate(names):
        save(root / f"imagesTr/{name}.nii.gz", intensities(seed))
        save(root / f"labelsTr/{name}.nii.gz", labels(seed))
    training = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    table = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "a", "2": "b"}, "training": training}
    (root / "dataset.json").write_text(json.dumps(table | description))
    return root


def opened(path: Path, cache_dir: Path | None = None, *, normalize: str = "zscore", verify: bool = False) -> Dataset:
    spec = DataSpec.model_validate({"source": str(path), "normalize": normalize})
    return open_dataset(spec, cache_dir=cache_dir, verify=verify)


def assert_same(a: Dataset, b: Dataset) -> None:
    """Everything but the remarks and the source is the same, bit for bit."""
    assert (a.layout, a.channels, a.classes, a.fingerprint) == (b.layout, b.channels, b.classes, b.fingerprint)
    assert (a.label_values, a.normalize) == (b.label_values, b.normalize)
    assert len(a.cases) == len(b.cases)
    for one, other in zip(a.cases, b.cases, strict=True):
        assert (one.id, one.spacing_mm, one.content_hash, one.mask_hash, one.value_hash) == (
            (other.id, other.spacing_mm, other.content_hash, other.mask_hash, other.value_hash)
        )
        for name in ("orientation", "prepared_hash", "intensities", "negative_fraction"):
            assert getattr(one, name) == getattr(other, name)
        assert one.thumbnail is not None
        assert other.thumbnail is not None
        assert one.thumbnail.cell_mm == other.thumbnail.cell_mm
        np.testing.assert_array_equal(one.thumbnail.image, other.thumbnail.image)
        for name in ("image", "mask", "pad_value"):
            left, right = getattr(one, name), getattr(other, name)
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


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


def change_voxel(root: Path) -> None:
    image = intensities(2)
    image[1, 1, 1] += 1
    save(root / "imagesTr/case-3.nii.gz", image)


def change_label(root: Path) -> None:
    mask = labels(2)
    mask[1, 1, 1] = (mask[1, 1, 1] + 1) % 3
    save(root / "labelsTr/case-3.nii.gz", mask)


def change_spacing(root: Path) -> None:
    save(root / "imagesTr/case-3.nii.gz", intensities(2), spacing=(1.0, 2.0, 4.0))
    save(root / "labelsTr/case-3.nii.gz", labels(2), spacing=(1.0, 2.0, 4.0))


def change_classes(root: Path) -> None:
    table = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(table | {"labels": {"0": "background", "1": "b", "2": "a"}}))


CHANGES = [change_voxel, change_label, change_spacing, change_classes]


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


# --- the cache ---


def spoil(root: Path) -> None:
    """Every image becomes garbage of the same size and time."""
    for path in root.rglob("*.nii.gz"):
        stat = path.stat()
        path.write_bytes(b"x" * stat.st_size)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def only_file(cache_dir: Path) -> Path:
    (path,) = cache_dir.iterdir()  # and no temporary file is left beside it
    return path


def test_the_cache_gives_back_the_same_data_bit_for_bit(tmp_path: Path) -> None:
    made = opened(decathlon(tmp_path / "data"), tmp_path / "cache")
    kept = opened(tmp_path / "data", tmp_path / "cache")
    assert_same(made, kept)
    assert made.remarks == kept.remarks == ()
    assert kept.source == made.source


def test_with_the_cache_no_image_is_opened_unless_verifying(tmp_path: Path) -> None:
    made = opened(decathlon(tmp_path / "data"), tmp_path / "cache")
    spoil(tmp_path / "data")
    assert_same(made, opened(tmp_path / "data", tmp_path / "cache"))
    with pytest.raises(DataError, match=r"case-1\.nii\.gz"):
        opened(tmp_path / "data", tmp_path / "cache", verify=True)


def test_with_the_cache_neither_simpleitk_nor_torch_is_imported(tmp_path: Path) -> None:
    opened(decathlon(tmp_path / "data"), tmp_path / "cache")
    program = (
        "import sys; from pathlib import Path; from dlx.data.dataset import open_dataset; "
        "from dlx.settings.spec import DataSpec; "
        "open_dataset(DataSpec(source=sys.argv[1]), cache_dir=Path(sys.argv[2])); "
        "print([name for name in ('SimpleITK', 'torch', 'scipy', 'matplotlib') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "data"), str(tmp_path / "cache")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "[]"


def test_verifying_unchanged_data_says_so_and_leaves_the_file_alone(tmp_path: Path) -> None:
    made = opened(decathlon(tmp_path / "data"), tmp_path / "cache")
    before = only_file(tmp_path / "cache").stat().st_mtime_ns
    verified = opened(tmp_path / "data", tmp_path / "cache", verify=True)
    assert_same(made, verified)
    assert len(verified.remarks) == 1
    assert "nothing has changed" in verified.remarks[0]
    assert only_file(tmp_path / "cache").stat().st_mtime_ns == before


def test_verifying_names_the_case_whose_content_changed_behind_its_time(tmp_path: Path) -> None:
    decathlon(tmp_path / "data")
    images = [tmp_path / f"data/imagesTr/case-{n}.nii" for n in (1, 2, 3)]
    training = [{"image": f"imagesTr/case-{n}.nii", "label": f"labelsTr/case-{n}.nii.gz"} for n in (1, 2, 3)]
    for n, path in enumerate(images):
        save(path, intensities(n))
    table = json.loads((tmp_path / "data/dataset.json").read_text()) | {"training": training}
    (tmp_path / "data/dataset.json").write_text(json.dumps(table))
    made = opened(tmp_path / "data", tmp_path / "cache")
    stat = images[1].stat()
    save(images[1], intensities(77))  # uncompressed: of the same size
    os.utime(images[1], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert_same(made, opened(tmp_path / "data", tmp_path / "cache"))
    verified = opened(tmp_path / "data", tmp_path / "cache", verify=True)
    assert len(verified.remarks) == 1
    assert "'case-2' changed" in verified.remarks[0]
    assert verified.fingerprint != made.fingerprint
    assert_same(verified, opened(tmp_path / "data", tmp_path / "cache"))


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_shows_makes_the_cache_invalid(tmp_path: Path, change: Callable[[Path], None]) -> None:
    before = opened(decathlon(tmp_path / "data"), tmp_path / "cache")
    change(tmp_path / "data")
    for path in (tmp_path / "data").rglob("case-3*"):
        os.utime(path, (1, 1))
    after = opened(tmp_path / "data", tmp_path / "cache")
    assert after.fingerprint != before.fingerprint
    assert_same(after, opened(tmp_path / "data"))
    only_file(tmp_path / "cache")


def test_a_new_case_and_a_lost_one_show(tmp_path: Path) -> None:
    decathlon(tmp_path / "data", 2)
    assert len(opened(tmp_path / "data", tmp_path / "cache").cases) == 2
    decathlon(tmp_path / "data", 3)
    assert len(opened(tmp_path / "data", tmp_path / "cache").cases) == 3
    (tmp_path / "data/imagesTr/case-2.nii.gz").unlink()
    with pytest.raises(DataError, match="1 missing: 'imagesTr/case-2"):
        opened(tmp_path / "data", tmp_path / "cache")


def test_either_half_of_a_pair_makes_the_cache_invalid(tmp_path: Path) -> None:
    """iSeg's pairs are listed by their .hdr; the voxels are in the .img."""
    (tmp_path / "data").mkdir()
    for part in ("T1", "T2"):
        save_pair(tmp_path / f"data/subject-1-{part}.img", intensities(1))
    save_pair(tmp_path / "data/subject-1-label.img", labels(0, (0, 10, 150, 250)))
    before = opened(tmp_path / "data", tmp_path / "cache")
    assert before.label_values == (0, 10, 150, 250)
    changed = intensities(1)
    changed[1, 1, 1] += 1
    save_pair(tmp_path / "data/subject-1-T2.img", changed)
    os.utime(tmp_path / "data/subject-1-T2.img", (1, 1))
    assert opened(tmp_path / "data", tmp_path / "cache").fingerprint != before.fingerprint


def save_pair(path: Path, array: np.ndarray) -> None:
    header = path.with_suffix(".hdr")
    stat = header.stat() if header.exists() else None
    nib.save(nib.Nifti1Pair(array, np.eye(4)), path)
    if stat is not None:
        os.utime(header, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_each_preparation_has_a_file_of_its_own(tmp_path: Path) -> None:
    decathlon(tmp_path / "data")
    for normalize in ("zscore", "none", "zscore:over=all", "zscore:over=foreground"):
        opened(tmp_path / "data", tmp_path / "cache", normalize=normalize)
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_the_phantom_is_kept_too(tmp_path: Path) -> None:
    made = open_dataset(PHANTOM, cache_dir=tmp_path)
    progress: list[int] = []
    kept = open_dataset(PHANTOM, cache_dir=tmp_path, progress=lambda done, total: progress.append(done))
    assert_same(made, kept)
    assert progress == []
    assert kept.source == "phantom:subjects=2,size=24,seed=0"


def damage(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("part", ["images", "masks", "description", "length", "end", "all", "empty"])
def test_a_damaged_cache_file_is_made_anew_with_a_remark(tmp_path: Path, part: str) -> None:
    made = opened(decathlon(tmp_path / "data"), tmp_path / "cache")
    path = only_file(tmp_path / "cache")
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    num_voxels = 3 * int(np.prod(SHAPE))
    if part in ("images", "masks", "description", "length"):
        places = {"images": start + 5, "masks": start + 2 * num_voxels, "length": 0}
        damage(path, places.get(part, content.index(b"spacing_mm") + 14))
    else:
        path.write_bytes({"end": content[:-1], "all": b"garbage" * 100, "empty": b""}[part])
    again = opened(tmp_path / "data", tmp_path / "cache")
    assert_same(made, again)
    assert len(again.remarks) == 1
    assert again.remarks[0].startswith("the cache file was rebuilt: ")
    assert path.read_bytes() == content
    assert opened(tmp_path / "data", tmp_path / "cache").remarks == ()


def test_every_bit_of_the_cache_file_is_guarded(tmp_path: Path) -> None:
    """Wherever a bit flips, the data are the same or the file is refused."""
    save_path = tmp_path / "cache"
    made = open_dataset(DataSpec.model_validate({"source": "phantom:subjects=1,size=16"}), cache_dir=save_path)
    path = only_file(save_path)
    content = path.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(content), 40).tolist() + list(range(0, 1200, 23)):
        path.write_bytes(content)
        damage(path, at)
        try:
            loaded = load_cache(path)
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
        else:
            assert_same(made, loaded)


def test_a_cache_of_another_data_version_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_dataset(PHANTOM, cache_dir=tmp_path)
    monkeypatch.setattr(cache_file, "DATA_VERSION", cases.DATA_VERSION + 1)
    with pytest.raises(DataError, match="another version"):
        load_cache(only_file(tmp_path))
    assert "another version" in open_dataset(PHANTOM, cache_dir=tmp_path).remarks[0]


def test_a_cache_that_cannot_be_written_gives_a_remark(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    dataset = open_dataset(PHANTOM, cache_dir=tmp_path / "file" / "cache")
    assert len(dataset.cases) == 2
    assert "not kept in the cache" in dataset.remarks[0]
    assert (tmp_path / "file").read_bytes() == b""


def test_writers_at_the_same_time_do_no_harm(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: open_dataset(PHANTOM, cache_dir=tmp_path), range(4)))
    assert [dataset.remarks for dataset in made] == [()] * 4
    assert_same(load_cache(only_file(tmp_path)), made[0])


def in_first_format(file: Path) -> None:
    """Rewrites a file of prepared data as dlx wrote it before it kept orientations, intensities and thumbnails."""
    tensors = safetensors.numpy.load_file(file)
    with safetensors.safe_open(file, framework="numpy") as opened_file:
        description = json.loads(opened_file.metadata()["dlx"])
    del description["file_format"]
    keys = {"id", "shape", "spacing_mm", "pad_value", "content_hash", "mask_hash", "value_hash", "correlations"}
    description["cases"] = [{key: case[key] for key in keys} for case in description["cases"]]
    text = json.dumps(description)
    sums = [zlib.crc32(part) for part in (text.encode(), tensors["images"].data, tensors["masks"].data)]
    metadata = {"dlx": text, "crc32": " ".join(f"{value:08x}" for value in sums)}
    safetensors.numpy.save_file({name: tensors[name] for name in ("images", "masks")}, file, metadata=metadata)


def test_a_file_of_the_first_format_is_read_by_itself_and_made_anew_in_the_cache(tmp_path: Path) -> None:
    folder, store = decathlon(tmp_path / "data"), tmp_path / "cache"
    made = opened(folder, store)
    file = only_file(store)
    in_first_format(file)
    alone = opened(file)
    assert (alone.fingerprint, alone.remarks) == (made.fingerprint, ())
    for old, new in zip(alone.cases, made.cases, strict=True):
        assert (old.orientation, old.prepared_hash, old.intensities, old.thumbnail) == ("", "", (), None)
        np.testing.assert_array_equal(old.image, new.image)
    ids = [case.id for case in alone.cases]
    assert remark_on(alone, Split(tuple(ids[1:]), (ids[0],)), {}) == []
    again = opened(folder, store)
    assert again.remarks == ()
    assert_same(again, made)
    assert_same(opened(only_file(store)), made)


def test_orientation_and_intensities_of_a_case_are_those_of_its_files(tmp_path: Path) -> None:
    case = opened(decathlon(tmp_path)).cases[0]
    raw = intensities(0).astype(np.float64)
    foreground = raw[raw > 0]
    assert case.orientation == "RAS"  # nibabel's identity: x to the right, y to the front, z upwards
    (channel,) = case.intensities
    assert (channel.lowest, channel.highest) == (foreground.min(), foreground.max())
    assert channel.mean == pytest.approx(foreground.mean(), rel=1e-12)
    assert channel.std == pytest.approx(foreground.std(), rel=1e-12)
    assert channel.used_fraction == foreground.size / raw.size
    assert case.negative_fraction == 0.0


def test_the_voxels_of_each_class_are_counted_without_a_wide_copy_of_the_mask() -> None:
    mask = np.zeros((16, 1024, 1024), np.uint8)  # 16 MiB
    mask[3], mask[15, 0, :7] = 2, 5
    zero = np.zeros(1, np.float32)
    case = Case("c", np.zeros((1, 1, 1, 1), np.float16), mask, (1.0, 1.0, 1.0), zero, "")
    tracemalloc.start()
    counts = case.class_voxels
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counts == (15 * 2**20 - 7, 0, 2**20, 0, 0, 7)
    assert case.classes == {0, 2, 5}
    assert peak < mask.nbytes


def test_the_file_is_what_the_safetensors_library_reads(tmp_path: Path) -> None:
    dataset = open_dataset(PHANTOM, cache_dir=tmp_path)
    tensors = safetensors.numpy.load_file(only_file(tmp_path))
    assert set(tensors) == {"images", "masks", "thumbnails"}
    np.testing.assert_array_equal(tensors["images"], np.concatenate([case.image.ravel() for case in dataset.cases]))
    np.testing.assert_array_equal(tensors["masks"], np.concatenate([case.mask.ravel() for case in dataset.cases]))


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
