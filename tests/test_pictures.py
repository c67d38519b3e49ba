"""Pictures of validation cases: which cases and slices they show, that they read back, and that damaged ones are
refused."""

import base64
import json
from dataclasses import replace
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
import torch
from PIL import Image
from pydantic import ValidationError

from dlx.data.batches.voxels import VoxelStore
from dlx.data.cases import IGNORED, Dataset
from dlx.engine import pictures as engine_pictures
from dlx.engine.pictures import (
    as_seen,
    find_worst_slice,
    image_slice,
    ranked_cases,
    take_pictures,
    windowed,
    worst_slice,
)
from dlx.engine.score import score_trial
from dlx.records.archive import read_study, with_pictures, write_archive
from dlx.records.folder import TrialFolder, read_pictures
from dlx.records.palette import OKABE_ITO, _oklab, class_colours
from dlx.records.pictures import (
    IGNORED_INDEX,
    MAX_SIDE_PX,
    CasePicture,
    CasePictures,
    errors_of,
    grey_png,
    indexed_png,
)
from dlx.scoring.outputs import Outputs
from dlx.study.results import CaseScores
from dlx.system.errors import DataError
from made_grids import MIXED_CODES, opened, write
from made_records import made_study
from small import SMALL_ARGS, small_job, small_resolved

SMALL = np.array([[0, 1, 2], [3, 0, 1]], np.uint8)


def made_picture(image=SMALL, truth=SMALL, prediction=SMALL, **fields):
    pngs = {"image": grey_png(image), "truth": indexed_png(truth), "prediction": indexed_png(prediction)}
    place = {"axis": "z", "slice": 3, "num_slices": 10, "plane": "axial", "pixel_size": (1.0, 2.0), "is_part": False}
    named = {"case": "case 1", "rank": "hardest", "dice": 0.5, "classes": ("background", "a", "b", "c")}
    return CasePicture(**(named | place | pngs | fields))


def scores(*dice):
    return CaseScores(dice=dict(enumerate_names(dice)))


def enumerate_names(dice):
    return ((f"class {k}", value) for k, value in enumerate(dice))


# which cases


def test_the_hardest_the_median_and_the_best_case_by_their_mean_dice():
    cases = {"a": scores(0.9, 0.7), "b": scores(0.2, None), "c": scores(None, None), "d": scores(0.5), "e": scores(0.6)}
    assert ranked_cases(cases) == [("hardest", "b", 0.2), ("median", "d", 0.5), ("best", "a", 0.8)]


@pytest.mark.parametrize(
    ("dice", "ranks"), [([], []), ([0.5], ["hardest"]), ([0.5, 0.5], ["hardest", "best"]), ([None], [])]
)
def test_few_cases_have_few_pictures_and_none_twice(dice, ranks):
    found = ranked_cases({f"{i}": scores(value) for i, value in enumerate(dice)})
    assert [rank for rank, *_ in found] == ranks
    assert len({name for _, name, _ in found}) == len(found)


# which slice


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_slice_with_the_most_errors_is_that_of_a_plain_count(axis, monkeypatch):
    rng = torch.Generator().manual_seed(0)
    mask = torch.randint(0, 4, (9, 8, 7), generator=rng, dtype=torch.uint8)
    mask[mask == 3] = IGNORED
    prediction = torch.randint(0, 3, (9, 8, 7), generator=rng, dtype=torch.uint8)
    wrong = ((prediction != mask) & (mask != IGNORED)).numpy()
    counts = wrong.sum(tuple({0, 1, 2} - {axis}))
    for voxels in (1, 2**20):  # plane by plane, and all at once
        monkeypatch.setattr(engine_pictures, "COUNTED_AT_ONCE", voxels)
        assert find_worst_slice(Outputs(3, has_ignored=True), prediction, mask, axis) == int(counts.argmax())


def test_without_errors_the_slice_with_most_labels_and_without_labels_the_middle_one():
    mask = torch.zeros(9, 4, 4, dtype=torch.uint8)
    assert find_worst_slice(Outputs(2), mask, mask, 0) == 4
    mask[6, 1] = 1
    assert find_worst_slice(Outputs(2), mask, mask, 0) == 6
    mask[7] = IGNORED
    assert find_worst_slice(Outputs(2, has_ignored=True), mask, mask, 0) == 6


# how it is turned, cut and scaled


def dataset_job(dataset: Dataset, axis: int = 0):
    outputs = Outputs(len(dataset.classes), dataset.ignored_value is not None, dataset.regions, dataset.region_order)
    return replace(small_job().evaluator, store=VoxelStore(dataset.cases), outputs=outputs, slice_axis=axis)


def picture_of(evaluator, case, prediction, classes=("background", "one", "two")):
    fields = worst_slice(evaluator, case, prediction)
    return CasePicture(case="x", rank="best", dice=1.0, classes=classes, **fields)


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scans_of_four_orientations_are_seen_alike_and_their_slices_are_those_of_the_files(tmp_path, axis):
    """The error is one corner of class 2 that is missed: it is in one slice across each axis of LPS."""
    folder = write(tmp_path / "set", MIXED_CODES)
    for orientation in ("stored", "LPS"):
        evaluator = dataset_job(opened(folder, orientation=orientation))
        for case, (name, (code, _)) in enumerate(MIXED_CODES.items()):
            stored = sitk.ReadImage(folder / f"labelsTr/{name}.nii.gz")
            reference = sitk.GetArrayFromImage(sitk.DICOMOrient(stored, "LPS"))  # z up, y back, x left
            at = [int(places[0]) for places in np.nonzero(reference == 2)]
            prepared = evaluator.store.measured_mask(case).clone()
            seen_as = "LPS" if orientation == "LPS" else code
            truth = prepared.numpy()
            truth_lps = as_lps(truth, seen_as)
            assert np.array_equal(truth_lps, reference)
            truth_lps[tuple(at)] = 0  # a view of `truth`
            # across the axis of the prepared image that is `axis` of LPS
            across = as_lps(np.arange(3).reshape(-1), seen_as, only_order=True)[axis]
            turned = replace(evaluator, slice_axis=across)
            picture = picture_of(turned, case, torch.from_numpy(truth))
            plane = np.take(reference, at[axis], axis)
            expected = plane if axis == 0 else plane[::-1]
            assert np.array_equal(picture.arrays().truth, expected)
            assert np.count_nonzero(errors_of(picture.arrays().truth, picture.arrays().prediction)) == 1
            assert picture.plane == ("axial", "coronal", "sagittal")[axis]
            in_file = np.take(sitk.GetArrayFromImage(stored), picture.slice, "zyx".index(picture.axis))
            assert np.array_equal(np.bincount(in_file.ravel()), np.bincount(plane.ravel()))
            assert picture.num_slices == stored.GetSize()["xyz".index(picture.axis)]


def as_lps(array, code, *, only_order=False):
    """By nibabel: a view of (D, H, W), stored as `code` of x, y, z, that runs as LPS; or where its axes come from."""
    import nibabel as nib

    names = (("R", "L"), ("A", "P"), ("I", "S"))
    have, want = (nib.orientations.axcodes2ornt(letters, names) for letters in (code, "LPS"))
    change = nib.orientations.ornt_transform(have, want)  # of axes x, y, z
    if only_order:
        new_of = [int(new) for new, _ in change]
        return [2 - new_of.index(2 - axis) for axis in range(3)]
    return nib.orientations.apply_orientation(array.transpose(), change).transpose()


def test_a_resampled_case_is_shown_on_its_own_voxels(tmp_path):
    folder = write(tmp_path / "set", {"c0": ("LPS", (1.0, 1.0, 1.0)), "c1": ("RAS", (2.0, 1.0, 0.5))})
    dataset = opened(folder, spacing_mm=[1, 1, 1])
    evaluator = dataset_job(dataset)
    prediction = torch.zeros_like(evaluator.store.measured_mask(1))
    picture = picture_of(evaluator, 1, prediction)
    assert picture.size == (14, 16)  # 12 x 14 x 16 before it was resampled
    assert picture.pixel_size == (1.0, 2.0)
    image = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(folder / "imagesTr/c1_0000.nii.gz"), "LPS"))
    at = picture.slice
    ours = image_slice(evaluator.store, 1, 0, at).numpy()[0]
    truth = image[at] if dataset.cases[1].orientation == "LPS" else image[at, ::-1, ::-1]
    assert np.corrcoef(ours.ravel(), truth.ravel())[0, 1] > 0.97


def test_an_image_of_unknown_orientation_is_shown_as_it_is_stored():
    plane = np.arange(12).reshape(1, 3, 4)
    assert np.array_equal(as_seen(plane, 0, ""), plane[0])
    assert np.array_equal(as_seen(plane.transpose(1, 0, 2), 1, ""), plane[0])


def test_a_large_slice_is_cut_to_its_labels_and_scaled_down_only_if_they_are_large():
    mask = torch.zeros(1, 600, 200, dtype=torch.uint8)
    mask[0, 500:540, 20:60] = 1
    evaluator = large_evaluator(mask)
    picture = picture_of(evaluator, 0, torch.zeros_like(mask))
    assert picture.size == (MAX_SIDE_PX, MAX_SIDE_PX)
    assert picture.is_part
    assert picture.pixel_size == (1.0, 1.0)
    assert np.count_nonzero(picture.arrays().truth) == 1600
    mask[0, 100:540, 20:60] = 1
    picture = picture_of(large_evaluator(mask), 0, torch.zeros_like(mask))
    assert picture.size == (152, MAX_SIDE_PX)  # 440 rows and a margin of 8 on both sides, by three
    assert picture.pixel_size == (3.0, 1.0)
    truth = picture.arrays().truth
    assert np.count_nonzero(truth) == pytest.approx(440 / 3 * 40, abs=40)


def large_evaluator(mask):
    """One case of one slice with this mask, in a store that was made by hand."""
    evaluator = small_job().evaluator
    store = VoxelStore.__new__(VoxelStore)
    shape = tuple(mask.shape)
    store.ids, store.shapes, store.measured_shapes = ("x",), [shape], [shape]
    store.is_resampled, store.offsets, store.channels, store.windowing = [False], [0], 1, None
    store.measured_spacings_mm, store.orientations = [(1.0, 1.0, 1.0)], [("", "")]
    store.images, store.masks = mask.reshape(-1, 1).to(torch.float16), mask.reshape(-1)
    store.shape, store.offset, store.pad_value = torch.tensor([shape]), torch.tensor([0]), torch.zeros(1, 1)
    return replace(evaluator, store=store, outputs=Outputs(2), slice_axis=0)


def test_greys_are_spread_between_percentiles_and_a_constant_image_is_grey():
    image = np.linspace(0.0, 1.0, 1001, dtype=np.float32).reshape(7, 143)
    greys = windowed(image)
    assert (greys.min(), greys.max()) == (0, 255)
    assert len(np.unique(greys)) == 64
    image[0, 0] = 1e6  # a single bright voxel
    assert np.count_nonzero(windowed(image) > 128) > 400
    assert set(windowed(np.full((4, 4), 3.0, np.float32)).ravel()) == {129}  # level 32 of 63


# from a trial


def test_regions_are_shown_as_the_labels_of_the_masks_with_the_regions_that_each_is_part_of():
    changes = {"data": {"source": "phantom:subjects=4,size=24,regions=true"}}
    job, names = small_job(changes), small_resolved(changes).dataset.label_names
    assert names == ("background", "1 (head)", "2 (head, brain)", "3 (head, brain, white matter)")
    _, val = score_trial(job, 1.0)
    (picture,) = take_pictures(job, val, names)
    case, evaluator = job.val_cases[0], job.evaluator
    labels = evaluator.outputs.labels(job.validated.predictions[0]).numpy()
    assert np.array_equal(picture.arrays().truth, evaluator.store.mask(case).numpy()[picture.slice])
    assert np.array_equal(picture.arrays().prediction, labels[picture.slice])
    wrong = (labels != evaluator.store.mask(case).numpy()).sum((1, 2))
    assert picture.slice == int(wrong.argmax())


@pytest.mark.parametrize("regions", ["false", "true"])
def test_ignored_voxels_are_ignored_in_truth_and_prediction(regions):
    changes = {"data": {"source": f"phantom:subjects=4,size=24,labelled_every=3,regions={regions}"}}
    job, names = small_job(changes), small_resolved(changes).dataset.label_names
    job = replace_evaluator(job, slice_axis=1)  # across the slices that have labels
    _, val = score_trial(job, 1.0)
    (picture,) = take_pictures(job, val, names)
    _, truth, prediction = picture.arrays()
    assert np.array_equal(truth == IGNORED_INDEX, prediction == IGNORED_INDEX)
    assert 0.5 < (truth == IGNORED_INDEX).mean() < 0.8
    assert errors_of(truth, prediction).any()


def replace_evaluator(job, **changes):
    job.evaluator = replace(job.evaluator, **changes)
    return job


def test_of_several_channels_the_first_is_shown():
    job = small_job()
    _, val = score_trial(job, 1.0)
    (picture,) = take_pictures(job, val, job.class_names)
    case, axis = job.val_cases[0], job.evaluator.slice_axis
    first = job.evaluator.store.images.view(-1, *job.evaluator.store.shapes[case], 2)[case][..., 0]
    expected = windowed(first.float().numpy().take(picture.slice, axis))
    assert np.array_equal(picture.arrays().image, expected)


def test_a_set_without_any_class_has_no_pictures():
    job = small_job()
    _, val = score_trial(job, 1.0)
    nothing = {name: CaseScores(dice=dict.fromkeys(scores.dice)) for name, scores in val.cases.items()}
    assert take_pictures(job, val.model_copy(update={"cases": nothing}), job.class_names) == []


# what is recorded reads back


def test_pixels_read_back_as_they_were_written():
    rng = np.random.default_rng(0)
    for num_classes in (2, 5, 25, 255):
        truth, prediction = rng.integers(0, num_classes, (2, 20, 31), dtype=np.uint8)
        truth[:2] = IGNORED_INDEX
        image = rng.integers(0, 256, (20, 31), dtype=np.uint8)
        names = tuple(f"class {k}" for k in range(num_classes))
        picture = made_picture(image, truth, prediction, classes=names)
        again = CasePicture.model_validate_json(picture.model_dump_json())
        for mine, theirs in zip(again.arrays(), (image, truth, prediction), strict=True):
            assert np.array_equal(mine, theirs)


def test_what_is_wrong_at_a_voxel():
    truth = np.array([[0, 1, 1, 0, IGNORED_INDEX, 2]], np.uint8)
    prediction = np.array([[0, 1, 0, 2, 1, 1]], np.uint8)
    assert errors_of(truth, prediction).tolist() == [[0, 0, 1, 2, 0, 3]]


def test_any_viewer_shows_a_mask_in_its_colours_with_a_transparent_background():
    png = Image.open(BytesIO(base64.b64decode(indexed_png(SMALL)))).convert("RGBA")
    assert png.getpixel((0, 0))[3] == 0
    assert png.getpixel((1, 0)) == (*OKABE_ITO[0], 255)


@pytest.mark.parametrize(
    ("png", "words"),
    [
        ("no base64!", "not base64"),
        (base64.b64encode(b"GIF89a" + bytes(40)).decode(), "not a PNG"),
        ("", "not a PNG"),
        ("size", "300 x 3 px: expected at most"),
        ("colour", "neither grey nor indexed"),
        ("long", "at most 60000"),
    ],
)
def test_text_that_is_no_small_png_is_refused_before_it_is_decoded(png, words):
    if png in ("size", "colour"):
        buffer = BytesIO()
        (Image.new("L", (300, 3)) if png == "size" else Image.new("RGB", (3, 2))).save(buffer, "PNG")
        png = base64.b64encode(buffer.getvalue()).decode()
    elif png == "long":
        png = grey_png(SMALL) + "A" * 60_000
    with pytest.raises(ValidationError, match=words):
        CasePicture.model_validate(made_picture().model_dump() | {"image": png})


def test_pictures_of_unlike_sizes_or_unknown_classes_or_cut_short_are_refused():
    with pytest.raises(ValidationError, match="unlike sizes"):
        made_picture(image=np.zeros((3, 3), np.uint8))
    with pytest.raises(DataError, match="case 'case 1': class 3 is not one of 3 classes"):
        made_picture(classes=("background", "a", "b")).arrays()
    cut = base64.b64encode(base64.b64decode(grey_png(np.arange(100, dtype=np.uint8).reshape(10, 10)))[:-30]).decode()
    zeros = np.zeros((10, 10), np.uint8)
    with pytest.raises(DataError, match="the PNG is damaged"):
        made_picture(image=zeros, truth=zeros, prediction=zeros).model_copy(update={"image": cut}).arrays()


def test_colours_of_classes_are_far_apart_and_those_of_fewer_classes_come_first():
    assert class_colours(7) == OKABE_ITO
    assert class_colours(2) == OKABE_ITO[:2]
    for fewer, more in pairwise([1, 7, 8, 24, 255]):
        assert class_colours(more)[:fewer] == class_colours(fewer)
    for num_classes, apart in ((24, 0.11), (255, 0.045)):  # black and white are 1 apart
        places = np.array([_oklab(rgb) for rgb in class_colours(num_classes)])
        distances = np.linalg.norm(places[:, None] - places, axis=-1)
        assert distances[~np.eye(num_classes, dtype=bool)].min() > apart


# folders and archives


@pytest.mark.slow
def test_a_trial_records_its_pictures_and_the_same_result_as_before(dlx, tmp_path):
    args = ["train", *SMALL_ARGS, "--epochs", "1", "--out", "run", "--quiet"]
    dlx(*args)
    (folder,) = (tmp_path / "run/trials").iterdir()
    (picture,) = read_pictures(folder)  # one of four subjects validates
    assert picture.rank == "hardest"
    assert picture.classes == ("background", "CSF", "GM", "WM")
    result = json.loads((folder / "result.json").read_text())["result"]
    (name,) = result["val"]["cases"]
    dice = [value for value in result["val"]["cases"][name]["dice"].values() if value is not None]
    assert (picture.case, picture.dice) == (name, pytest.approx(sum(dice) / len(dice)))
    assert picture.size == (24, 24)
    before = (folder / "pictures.json").read_bytes()
    dlx(*args, "--fresh")
    assert (folder / "pictures.json").read_bytes() == before
    assert json.loads((folder / "result.json").read_text())["result"] == result


def test_a_trial_that_starts_over_has_no_pictures_of_its_earlier_attempt(tmp_path):
    folder = TrialFolder(tmp_path, "a", 0, "0123456789")
    folder.begin({})
    assert folder.pictures() == ()
    folder.write_pictures([made_picture()])
    assert folder.pictures() == (made_picture(),)
    folder.clear()
    assert folder.pictures() == ()


@pytest.mark.parametrize("content", [b"", b"{", b'{"pictures": [{}]}', b'{"pictures": 3, "more": 1}', b"\xff"])
def test_a_damaged_file_of_pictures_is_named_with_what_to_do(tmp_path, content):
    (tmp_path / "pictures.json").write_bytes(content)
    with pytest.raises(DataError, match=r"pictures\.json: not the pictures of a trial .*--no-pictures") as refusal:
        read_pictures(tmp_path)
    assert "\n" not in str(refusal.value)


def test_an_archive_keeps_the_pictures_of_the_trials_that_are_asked_for_and_the_lines_of_others_as_they_were(tmp_path):
    records = made_study()
    before, after = tmp_path / "before.jsonl", tmp_path / "after.jsonl"
    write_archive(before, records)
    shown = replace(records.trials[0], pictures=(made_picture(),))
    both = replace(records, trials=(shown, replace(records.trials[1], pictures=(made_picture(),)), *records.trials[2:]))
    write_archive(after, with_pictures(both, [shown.entry]))
    again = read_study(after)
    assert again.trials[0].read_pictures() == (made_picture(),)
    assert not any(trial.read_pictures() for trial in again.trials[1:])
    old, new = (path.read_text().splitlines() for path in (before, after))
    assert [n for n, (a, b) in enumerate(zip(old, new, strict=True)) if a != b] == [1]
    assert read_study(before) == records


def test_pictures_of_noise_take_less_than_110_kb_a_trial():
    rng = np.random.default_rng(0)
    image = windowed(rng.normal(size=(MAX_SIDE_PX, MAX_SIDE_PX)).astype(np.float32))
    blobs = (np.add.outer(np.arange(MAX_SIDE_PX) // 20, np.arange(MAX_SIDE_PX) // 20) % 4).astype(np.uint8)
    picture = made_picture(image, blobs, blobs)
    assert len(CasePictures(pictures=(picture,) * 3).model_dump_json()) < 110_000
