"""Warnings about data and splits: each is given where it is due, names cases, and is not given to sound data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from dlx.data.checks.remarks import remark_on
from dlx.data.dataset import Dataset, open_dataset
from dlx.data.splits.split import Split
from dlx.settings.spec import DataSpec
from dlx.system.errors import DataError
from dlx.trial.resolve import Resolved, resolve
from small import small_spec

SHAPE = (14, 16, 18)
Image = np.ndarray[Any, Any]


def made(seed: int, shape: tuple[int, int, int] = SHAPE) -> tuple[Image, Image]:
    """An image of noise about a box, and the box as its mask; no two seeds are alike."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    mask[2:6, 3:8, 4:10] = 1
    return 100 + 60 * mask + rng.normal(0, 20, shape).clip(-90, 90), mask


def write(folder: Path, images: dict[str, tuple[Image, Image]], *, channel: str = "T1", **change: Any) -> Path:
    """An nnU-Net folder; `change` maps a name to what is done with its images in SimpleITK."""
    has_two = any((mask == 2).any() for _, mask in images.values())
    labels = {"background": 0, "one": 1} | ({"two": 2} if has_two else {})
    for place in ("imagesTr", "labelsTr"):
        (folder / place).mkdir(parents=True)
    for name, (image, mask) in images.items():
        for array, path in ((image, f"imagesTr/{name}_0000"), (mask, f"labelsTr/{name}")):
            volume = sitk.GetImageFromArray(array.astype(np.float32 if array is image else np.uint8))
            volume = change[name](volume) if name in change else volume
            sitk.WriteImage(volume, folder / f"{path}.nii.gz")
    table = {"channel_names": {"0": channel}, "labels": labels, "numTraining": len(images), "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(table))
    return folder


def opened(folder: Path, normalize: str = "zscore", **settings: Any) -> Dataset:
    data = {"source": str(folder), "normalize": normalize, **settings}
    return open_dataset(DataSpec.model_validate(data), cache_dir=None)


def remarks(dataset: Dataset, *val: str) -> list[str]:
    """All warnings, with the named cases (or the last) to validate."""
    ids = [case.id for case in dataset.cases]
    chosen = val or (ids[-1],)
    return remark_on(dataset, Split(tuple(case for case in ids if case not in chosen), chosen), {})


def only(lines: list[str], word: str) -> str:
    (line,) = (line for line in lines if word in line)
    return line


def four(**change: tuple[Image, Image]) -> dict[str, tuple[Image, Image]]:
    return {name: change.get(name, made(seed)) for seed, name in enumerate(("c0", "c1", "c2", "c3"))}


def resolved(folder: Path, *val: str, spacing_mm: str = "auto", **split: Any) -> Resolved:
    data = {"source": str(folder), "spacing_mm": spacing_mm}
    spec = small_spec({"data": data, "split": {"val_fraction": None, "val": val or None, **split}})
    return resolve(spec, open_dataset(spec.data, cache_dir=None))


def test_sound_data_get_no_warning(tmp_path: Path) -> None:
    assert remarks(opened(write(tmp_path / "d", four()))) == []


def test_the_phantom_gets_no_warning() -> None:
    assert remarks(opened(Path("phantom:subjects=3,size=24"))) == []


def test_a_class_that_no_training_case_has_is_reported(tmp_path: Path) -> None:
    images = four()
    images["c3"][1][9:12, :5, :5] = 2
    lines = remarks(opened(write(tmp_path / "d", images)), "c3")
    assert lines == ["no training case has the class 'two'"]


def test_an_image_that_trains_twice_is_reported(tmp_path: Path) -> None:
    data = opened(write(tmp_path / "d", four(c2=made(0))))
    assert remarks(data, "c3") == [
        "c2 holds the same image as c0, so the image is trained on twice: remove one of them"
    ]


def turned(code: str) -> Any:
    return lambda volume: sitk.DICOMOrient(volume, code)


def test_cases_with_other_axes_are_counted_and_named(tmp_path: Path) -> None:
    data = opened(write(tmp_path / "d", four(), c1=turned("RAS"), c2=turned("PIR")), orientation="stored")
    line = only(remarks(data), "orientation")
    assert "of 4 cases, 1 as RAS ('c1'), 1 as PIR ('c2'); the rest as LPS" in line


def test_a_data_set_of_one_orientation_gets_no_warning_whichever_it_is(tmp_path: Path) -> None:
    data = opened(write(tmp_path / "d", four(), **dict.fromkeys(("c0", "c1", "c2", "c3"), turned("RAS"))))
    assert {case.orientation for case in data.cases} == {"RAS"}
    assert remarks(data) == []


def with_spacing(*spacing: float) -> Any:
    def change(volume: Any) -> Any:
        volume.SetSpacing(spacing)
        return volume

    return change


def test_cases_of_another_voxel_size_are_counted_and_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", four(), c1=with_spacing(1, 1, 3), c3=with_spacing(1.04, 1, 1))
    line = only(remarks(opened(folder, spacing_mm="none")), "spacing")
    assert "1 of 4 cases differ by more than 10 % from the median 1 x 1 x 1 mm ('c1' 1 x 1 x 3 mm)" in line


@pytest.mark.parametrize("normalize", ["zscore", "minmax", "percentile", "whiten"])
@pytest.mark.parametrize("kind", ["ct", "z-scored"])
def test_images_with_many_negative_voxels_get_a_warning_with_the_remedy(
    tmp_path: Path, normalize: str, kind: str
) -> None:
    change = {"ct": lambda image: 10 * image - 1100, "z-scored": lambda image: (image - image.mean()) / image.std()}
    images = {name: (change[kind](image), mask) for name, (image, mask) in four().items()}
    folder = write(tmp_path / "d", images)
    line = only(remarks(opened(folder, normalize)), "negative")
    assert line.startswith("4 of 4 cases ('c0', 'c1', 'c2' and 1 more)")
    assert "data.normalize=zscore:over=all" in line
    assert remarks(opened(folder, f"{normalize}:over=all")) == []


def test_air_that_is_a_little_below_zero_is_not_called_negative(tmp_path: Path) -> None:
    images = four()
    for image, _ in images.values():
        image[:7] = np.random.default_rng(5).normal(0, 1, image[:7].shape)  # half of the air below 0, by 1 % of tissue
    assert remarks(opened(write(tmp_path / "d", images))) == []


@pytest.mark.parametrize("normalize", ["zscore", "minmax", "zscore:over=all"])
def test_a_few_voxels_of_metal_are_reported_with_their_case(tmp_path: Path, normalize: str) -> None:
    image, mask = made(1)
    image[0, 0, :5], image[0, 1, 0] = 30000, 2
    folder = write(tmp_path / "d", four(c1=(image, mask)))
    line = only(remarks(opened(folder, normalize)), "squeeze")
    assert "'T1': in 1 of 4 cases ('c1': 2 to 30,000)" in line
    clipping = normalize.replace("zscore", "percentile").replace("minmax", "percentile")
    assert f"data.normalize={clipping} clips" in line
    assert remarks(opened(folder, clipping)) == []


def test_a_few_voxels_of_padding_are_reported_with_the_range_that_shows_them(tmp_path: Path) -> None:
    image, mask = made(1)
    image[0, 0, :5] = -30000
    line = only(remarks(opened(write(tmp_path / "d", four(c1=(image, mask))), "zscore:over=all")), "squeeze")
    assert "('c1': -30,000 to " in line


def test_ct_of_which_metal_determines_the_scale_gets_one_remedy_only(tmp_path: Path) -> None:
    images = four()
    for image, _ in images.values():
        image[:7] -= 1024
        image[0, 0, :5] = 30000
    shown = remarks(opened(write(tmp_path / "d", images)))
    assert "data.normalize=ct" in only(shown, "Hounsfield")
    assert not any("percentile" in line for line in shown)


NAMES = ["p1_a", "p1_b", "p2_a", "p2_b", "p3_a"]


def test_scans_of_one_person_on_both_sides_get_a_warning_unless_groups_are_given(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", {name: made(seed) for seed, name in enumerate(NAMES)})
    line = only(list(resolved(folder, "p1_a").remarks), "names look like")
    assert "3 persons with 1 to 2 scans each (p1: 'p1_a', 'p1_b'), and 1 of them have scans in both" in line
    assert not any("names look like" in remark for remark in resolved(folder, "p1_a", "p1_b").remarks)
    (folder / "groups.json").write_text(json.dumps(dict.fromkeys(("p2_a", "p2_b"), "a")))
    line = only(list(resolved(folder, "p1_a").remarks), "names look like")  # of the cases that it does not name
    assert "2 persons with 1 to 2 scans each (p1: " in line
    (folder / "groups.json").write_text(json.dumps({name: name for name in NAMES}))
    assert not any("names look like" in remark for remark in resolved(folder, "p1_a").remarks)


def test_a_typo_in_groups_json_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", {name: made(seed) for seed, name in enumerate(NAMES)})
    (folder / "groups.json").write_text(json.dumps({"p1_a": "anna", "p1b": "anna", "zzz": "ben"}))
    with pytest.raises(DataError, match=r"2 names match no case: 'p1b' \(did you mean 'p1_b'\?\), 'zzz';"):
        resolved(folder, "p1_a")


@pytest.mark.parametrize("change", [lambda image: 2 * image, lambda image: 4 * image], ids=["times two", "times four"])
def test_a_scaled_image_on_the_other_side_is_refused(tmp_path: Path, change: Any) -> None:
    image, mask = made(0)
    folder = write(tmp_path / "d", four(c3=(change(image.astype(np.float32)), mask)))
    with pytest.raises(
        DataError, match="'c0' is in training and 'c3' in validation, but both hold the same image, scaled"
    ):
        resolved(folder, "c3")
    assert resolved(folder, "c0", "c3").split.train == ("c1", "c2")


def test_an_image_stored_with_other_axes_on_the_other_side_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", four(c3=made(0)), c3=turned("PIR"))
    with pytest.raises(DataError, match="'c0' is in training and 'c3' in validation"):
        resolved(folder, "c3")


def test_a_noisy_mirrored_copy_on_the_other_side_gets_a_warning_that_names_both(tmp_path: Path) -> None:
    image, mask = made(0)
    noise = np.random.default_rng(9).normal(0, 2, image.shape)
    folder = write(tmp_path / "d", four(c3=((image + noise)[:, :, ::-1], mask[:, :, ::-1])))
    line = only(remarks(opened(folder), "c3"), "copies")
    assert line.startswith("1 pair of a training and a validation case may be copies of one image (correlation): ")
    assert "'c0' and 'c3' (1.00)" in line
    assert remarks(opened(folder), "c0", "c3") == []  # on one side it is no leak


def test_copies_among_too_many_pairs_are_not_looked_for_and_this_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, mask = made(0)
    folder = write(tmp_path / "d", four(c3=(image[:, :, ::-1], mask[:, :, ::-1])))
    monkeypatch.setattr("dlx.data.checks.remarks.MAX_PAIRS", 3)
    assert only(remarks(opened(folder), "c3"), "copies").startswith("1 pair of")
    monkeypatch.setattr("dlx.data.checks.remarks.MAX_PAIRS", 2)
    assert only(remarks(opened(folder), "c3"), "copies").startswith("no search for copies of images: 3 training and 1")


def test_classes_of_unlike_sizes_or_absent_from_validation_are_reported(tmp_path: Path) -> None:
    images = four()
    for name in ("c0", "c1", "c2"):
        images[name][1][8:12, :8, :10] = 2
    images["c3"][1][8, 0, :8] = 2
    folder = write(tmp_path / "d", images)
    assert only(remarks(opened(folder)), "class sizes") == (
        "class sizes differ between training and validation (voxels per case): 'two' 320 and 8"
    )
    images["c3"][1][8, 0, :8] = 0
    lines = remarks(opened(write(tmp_path / "e", images)))
    line = only(lines, "no validation case")
    assert line.startswith("no validation case has the class 'two'")
    assert "0 if the network predicts it" in line  # as `metrics.dice_from_counts` has it


def test_a_dry_run_names_validation_cases_persons_and_intensities(tmp_path: Path, dlx: Any) -> None:
    folder = write(tmp_path / "d", {name: made(seed) for seed, name in enumerate(NAMES)})
    (folder / "groups.json").write_text(json.dumps({"p1_a": "anna", "p1_b": "anna", "p2_a": "ben", "p2_b": "ben"}))
    args = ["train", "--data", str(folder), "--val", "p1_a,p1_b", "--dry-run", "--steps-per-epoch", "1"]
    args += ["--batch-size", "1", "--device", "cpu", "--threads", "1"]
    lines = dlx(*args).stdout.splitlines()
    assert "split    3 training scans of 2 persons, 2 validation scans of 1 person" in lines
    assert "val      p1_a, p1_b" in lines
    at = lines.index("intensities of 5 cases before zscore:over=foreground:")
    assert lines[at + 1].split() == ["channel", "voxels", "used", "mean", "sd", "min", "max"]
    assert lines[at + 2].startswith("T1       100 %")
    document = json.loads(dlx(*args, "--json").stdout)
    lowest, highest = document["intensities"]["T1"]["mean"]
    means = [made(seed)[0].mean() for seed in range(5)]
    assert (lowest, highest) == (pytest.approx(min(means), rel=1e-6), pytest.approx(max(means), rel=1e-6))
    assert isinstance(document["study"]["remarks"], list)


@pytest.fixture
def vanishing(tmp_path: Path) -> Path:
    """Six cases, of which two have smaller voxels and in them one of class 2, which resampling to the median removes.

    Both would validate in fold 0 of 2 if class 2 were unknown.
    """
    images = {f"c{n}": made(n) for n in range(6)}
    small = ("c1", "c4")
    for name in small:
        images[name][1][10, 12, 14] = 2
    return write(tmp_path / "d", images, **dict.fromkeys(small, with_spacing(0.4, 0.4, 0.4)))


@pytest.mark.parametrize("fold", [0, 1])
def test_folds_depend_on_the_classes_of_the_files_and_not_on_the_voxel_size(vanishing: Path, fold: int) -> None:
    splits = [
        resolved(vanishing, spacing_mm=spacing, fold=fold, folds=2).split for spacing in ("none", "auto", "median")
    ]
    assert splits[0] == splits[1] == splits[2]
    assert len({"c1", "c4"} & set(splits[0].val)) == 1


def test_a_class_that_resampling_removes_from_training_cases_is_reported(vanishing: Path) -> None:
    both, one = (remarks(opened(vanishing), *val) for val in (("c0",), ("c4",)))
    for lines, cases in ((both, "2 training cases ('c1', 'c4')"), (one, "1 training case ('c1')")):
        line = only(lines, "resampling removed")
        assert line.startswith("data.spacing_mm:")
        assert "'two'" in line
        assert cases in line
        assert not any("no training case" in other for other in lines)
    assert any(line.startswith("no validation case has the class 'two'") for line in both)
    assert not any("no validation case" in line for line in one)  # it is measured on the mask of the file
    assert not any("resampling removed" in line for line in remarks(opened(vanishing, spacing_mm="none")))
