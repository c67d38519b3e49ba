"""`dlx evaluate`: scores worked by hand and against SimpleITK, MONAI and training; files, labels, what is refused."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from PIL import Image

from dlx.data.cases import IGNORED
from dlx.engine.score import score_set
from dlx.evaluation.label_volume import read_labels
from dlx.evaluation.labels import LabelClass
from dlx.evaluation.measure import measure
from dlx.scoring.outputs import Outputs
from dlx.system.errors import DataError, DlxError, SettingError
from made_masks import AFFINE, blobs, folders, read_summary, save, strict_json
from small import small_job
from test_imports import loaded_by

# MONAI calls a function of its own with an argument that it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")

NNUNET = ("Dice", "IoU", "TP", "FP", "FN", "TN", "n_pred", "n_ref")


def rows_of(path):
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def refusal(dlx, *args, kind=DlxError):
    """The error of `dlx evaluate`, a line for each problem."""
    with pytest.raises(kind) as caught:
        dlx("evaluate", *args)
    return str(caught.value)


# the scores


def test_the_keys_and_values_of_the_summary_are_nnunets_worked_by_hand(dlx):
    truth, prediction = np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8)
    truth[0, :, :2] = 1  # 8 voxels
    prediction[0, 1:, :3] = 1  # 9 voxels, 6 of them true
    save("t/a.nii.gz", truth)
    save("p/a.nii.gz", prediction)
    truth[1, 0, 0] = 2  # 1 voxel, not predicted
    save("t/b.nii.gz", truth)
    save("p/b.nii.gz", prediction)
    dlx("evaluate", "-p", "p", "-t", "t")
    summary = read_summary("p/summary.json")
    first, second = summary["metric_per_case"]
    of_one = {"Dice": 12 / 17, "IoU": 6 / 11, "TP": 6, "FP": 3, "FN": 2, "TN": 21, "n_pred": 9, "n_ref": 8}
    of_two = {"Dice": 0.0, "IoU": 0.0, "TP": 0, "FP": 0, "FN": 1, "TN": 31, "n_pred": 0, "n_ref": 1}
    of_neither = {"Dice": None, "IoU": None, "TP": 0, "FP": 0, "FN": 0, "TN": 32, "n_pred": 0, "n_ref": 0}
    assert [{name: first["metrics"][key][name] for name in NNUNET} for key in ("1", "2")] == [of_one, of_neither]
    assert {name: second["metrics"]["2"][name] for name in NNUNET} == of_two
    assert (first["prediction_file"], first["reference_file"]) == ("p/a.nii.gz", "t/a.nii.gz")
    # a mean is over the cases that have a value; the class that is in neither mask of case a has none there
    assert {name: summary["mean"]["1"][name] for name in NNUNET} == pytest.approx(of_one)
    assert summary["mean"]["2"]["Dice"] == 0.0
    assert summary["mean"]["2"]["FN"] == 0.5
    assert summary["foreground_mean"]["Dice"] == pytest.approx(6 / 17)
    assert summary["foreground_mean"]["n_ref"] == pytest.approx(4.25)
    assert summary["mean"]["2"]["HD95"] is None
    assert summary["foreground_mean"]["HD95"] is None  # the mean of the others would hide the class that is missed


def test_scores_are_those_of_simpleitk_and_monai(dlx):
    folders(Path(), {"p": 0.4}, num_cases=2)
    for file in Path("p").iterdir():  # another format, with the geometry as SimpleITK writes it
        sitk.WriteImage(sitk.ReadImage(str(file)), str(file).replace(".nii.gz", ".nrrd"))
        file.unlink()
    dlx("evaluate", "-p", "p", "-t", "truth", "--tolerance-mm", "1.6")
    rows = rows_of("p/cases.csv")
    assert [(row["case"], row["class"]) for row in rows] == [("c1", "1"), ("c1", "2"), ("c2", "1"), ("c2", "2")]
    for row in rows:
        truth, prediction = (sitk.ReadImage(row[key]) for key in ("reference_file", "prediction_file"))
        label, measured = int(row["label"]), sitk.LabelOverlapMeasuresImageFilter()
        measured.Execute(truth, prediction)
        assert 0.3 < float(row["dice"]) < 0.97
        assert float(row["dice"]) == pytest.approx(measured.GetDiceCoefficient(label), abs=1e-12)
        assert float(row["iou"]) == pytest.approx(measured.GetJaccardCoefficient(label), abs=1e-12)
        pair = [torch.from_numpy(sitk.GetArrayFromImage(of) == label)[None, None] for of in (prediction, truth)]
        options = {"include_background": True, "spacing": truth.GetSpacing()[::-1]}
        hd95 = compute_hausdorff_distance(*pair, percentile=95, directed=False, **options)
        assert float(row["hd95"]) == pytest.approx(hd95.item(), rel=1e-5)  # MONAI computes in float32
        surface = compute_surface_dice(*pair, [1.6], **options)
        assert float(row["surface_dice"]) == pytest.approx(surface.item(), abs=1e-6)


@pytest.mark.parametrize("data", ["phantom:subjects=4,size=24", "phantom:subjects=4,size=24,labelled_every=3"])
def test_scores_of_written_predictions_equal_those_of_training_to_the_last_bit(dlx, data):
    job = small_job({"data": {"source": data}}, seed=1)
    store, outputs = job.evaluator.store, job.evaluator.outputs
    cases = [0, 1, 2, 3]
    measured = job.evaluator.measure(job.evaluated_model, cases, keep_predictions=True)
    trained = score_set(job, cases, measured, surface_tolerance_mm=1.5)
    for row, case in enumerate(cases):
        spacing = store.measured_spacings_mm[case]
        affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
        mask = store.measured_mask(case).numpy()
        prediction = measured.predictions[row].numpy().copy()
        prediction[prediction == IGNORED] = 1  # whatever is predicted there must not count
        save(f"t/{store.ids[case]}.nii.gz", np.where(mask == IGNORED, 4, mask).astype(np.uint8).T, affine)
        save(f"p/{store.ids[case]}.nii.gz", prediction.T, affine)
    labels = "CSF=1,GM=2,WM=3" + ",ignore=4" * outputs.has_ignored
    dlx("evaluate", "-p", "p", "-t", "t", "--tolerance-mm", "1.5", "--labels", labels)
    rows = {(row["case"], row["class"]): row for row in rows_of("p/cases.csv")}
    assert len(rows) == 12
    for case, scores in trained.cases.items():
        for name, dice in scores.dice.items():
            row, counts = rows[case, name], scores.counts[name]
            assert [row["dice"], row["hd95"], row["surface_dice"]] == [
                "" if value is None else repr(value)
                for value in (dice, scores.hd95_mm[name], scores.surface_dice[name])
            ]
            assert [int(row[key]) for key in ("tp", "n_pred", "n_ref")] == [
                *(counts.overlap, counts.predicted, counts.true)
            ]
            assert sum(int(row[key]) for key in ("tp", "fp", "fn", "tn")) == scores.num_voxels
    summary = read_summary("p/summary.json")
    assert summary["foreground_mean"]["Dice"] == pytest.approx(trained.dice, abs=1e-15)
    assert summary["ignored_label"] == (4 if outputs.has_ignored else None)


def test_regions_are_measured_as_in_training(dlx):
    truth, prediction = blobs(1), blobs(1, 0.4)
    truth[3:6, 3:6, 3:6], prediction[4:7, 4:7, 4:7], truth[:, :2] = 3, 3, 4
    save("data/labelsTr/a.nii.gz", truth)
    save("p/a.nii.gz", prediction)
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "tip": 3, "ignore": 4}
    table = {"channel_names": {"0": "T1"}, "labels": labels, "regions_class_order": [1, 2, 3], "file_ending": ".nii.gz"}
    Path("data/dataset.json").write_text(json.dumps(table))
    dlx("evaluate", "-p", "p", "-t", "data/labelsTr")  # with the dataset.json of the folder above
    summary = read_summary("p/summary.json")
    assert summary["labels"] == {"(1, 2, 3)": "whole", "(2, 3)": "core", "3": "tip"}
    outputs = Outputs(4, has_ignored=True, regions=((1, 2, 3), (2, 3), (3,)), region_order=(1, 2, 3))
    mask = torch.from_numpy(np.where(truth == 4, IGNORED, truth))
    bits = sum((np.isin(prediction, region).astype(np.uint8) << r) for r, region in enumerate(outputs.regions))
    predicted = torch.from_numpy(bits)
    outputs.leave_out(predicted, mask)
    overlap, num_predicted, num_true = outputs.counts(predicted, mask).tolist()
    for k, key in enumerate(summary["labels"], 1):
        found = summary["metric_per_case"][0]["metrics"][key]
        assert [found["TP"], found["n_pred"], found["n_ref"]] == [overlap[k], num_predicted[k], num_true[k]]
        assert found["TP"] + found["FP"] + found["FN"] + found["TN"] == int((truth != 4).sum())


def test_a_class_of_one_slice_in_a_volume_has_the_surface_of_a_volume():
    mask = np.zeros((6, 6, 6), np.uint8)
    mask[2, 1:5, 1:5] = 1
    moved = np.roll(mask, 1, axis=0)
    found = measure(*(labels_in(of) for of in (moved, mask)), [LabelClass("a", (1,))], (2.0, 1.0, 1.0), 1.0, threads=2)
    ((_, scores),) = found.classes.items()
    assert scores.surface.hd95_mm == 2.0  # in a 2D mask only the ring would be its surface, with the same distance
    assert scores.surface.surface_dice == 0.0
    assert found.num_voxels == 216


def labels_in(array):
    """A label volume (z, y, x) that was written and read."""
    path = save(Path("volume.nii.gz").absolute(), np.ascontiguousarray(array.T))
    found = read_labels(path)
    path.unlink()
    return found


def test_pictures_without_a_resolution_are_measured_in_pixels(dlx):
    mask = np.zeros((30, 40), np.uint8)
    mask[5:20, 5:20] = 255
    for folder, array in (("t", mask), ("p", np.roll(mask, 3, axis=1))):
        Path(folder).mkdir()
        Image.fromarray(array).save(f"{folder}/a.png")
    result = dlx("evaluate", "-p", "p", "-t", "t", "--tolerance-mm", "2")
    assert "2 px" in result.stdout
    (row,) = rows_of("p/cases.csv")
    assert (row["label"], row["hd95"], row["distance_unit"]) == ("255", "3.0", "px")
    assert float(row["dice"]) == pytest.approx(12 / 15)


# files


def test_cases_are_matched_by_name_whatever_the_format(dlx):
    truths = folders(Path(), {}, num_cases=3)
    save("p/c1_0000.nii", truths[1])
    save("p/c2.nii", truths[2].astype(np.float64))
    sitk.WriteImage(sitk.ReadImage("truth/c3.nii.gz"), "p/c3.mha")
    save("p/c9.nii.gz", truths[3])
    save("p/._c3.nii.gz", truths[3])
    Path("p/predictions.json").write_text("{}")
    result = dlx("evaluate", "-p", "p", "-t", "truth")
    summary = read_summary("p/summary.json")
    assert [case["case"] for case in summary["metric_per_case"]] == ["c1", "c2", "c3"]
    assert summary["foreground_mean"]["Dice"] == 1.0
    assert summary["foreground_mean"]["HD95"] == 0.0
    assert summary["predictions_left_out"] == ["c9.nii.gz"]
    assert "c9.nii.gz" in result.stdout


def test_the_true_masks_of_every_layout_are_found(dlx, tmp_path):
    mask = blobs(1)
    for part in ("imagesTr/c1_0000", "labelsTr/c1"):
        save(f"nnunet/{part}.nii.gz", mask)
    table = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"}
    Path("nnunet/dataset.json").write_text(json.dumps(table))
    for part in ("imagesTr", "labelsTr"):
        save(f"msd/{part}/c1.nii.gz", mask)
    pair = {"image": "./imagesTr/c1.nii.gz", "label": "./labelsTr/c1.nii.gz"}
    msd = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "a", "2": "b"}, "training": [pair]}
    Path("msd/dataset.json").write_text(json.dumps(msd))
    save("p/c1.nii.gz", mask)
    for truth in ("nnunet", "nnunet/labelsTr", "msd", "msd/labelsTr"):
        dlx("evaluate", "-p", "p", "-t", truth, "-o", truth.replace("/", "-"))
        assert read_summary(f"{truth.replace('/', '-')}/summary.json")["labels"] == {"1": "a", "2": "b"}
    dlx("make-phantom", "iseg", "--subjects", "2", "--size", "16")
    Path("q").mkdir()
    for ending in ("hdr", "img"):
        for number in (1, 2):
            shutil.copy(f"iseg/subject-{number}-label.{ending}", f"q/subject-{number}.{ending}")
    dlx("evaluate", "-p", "q", "-t", "iseg")
    found = read_summary("q/summary.json")
    assert found["labels"] == {"10": "CSF", "150": "GM", "250": "WM"}
    assert [case["case"] for case in found["metric_per_case"]] == ["subject-1", "subject-2"]
    Path("masks").mkdir()
    for mask in Path("iseg").glob("*-label.*"):
        shutil.copy(mask, "masks")  # labels alone are a folder of masks, with the names of the subjects
    shutil.copytree("masks", "masks2")
    for predictions in ("q", "masks2"):
        dlx("evaluate", "-p", predictions, "-t", "masks", "-o", "of-masks")
        alone = read_summary("of-masks/summary.json")
        assert alone["labels"] == {"10": "10", "150": "150", "250": "250"}
        assert [case["case"] for case in alone["metric_per_case"]] == ["subject-1", "subject-2"]
    shutil.copy("iseg/subject-1-T1.hdr", "masks")
    shutil.copy("iseg/subject-1-T1.img", "masks")
    assert "subject-1-T2" in refusal(dlx, "-p", "q", "-t", "masks")  # an incomplete data set
    shutil.rmtree("nnunet/imagesTr")
    assert "-t nnunet/labelsTr" in refusal(dlx, "-p", "p", "-t", "nnunet")


def test_chosen_labels_that_no_mask_has_are_refused(dlx):
    folders(Path(), {"p": 0.2}, num_cases=2)
    assert "no mask has a label that --labels chooses (7, 9)" in refusal(
        dlx, "-p", "p", "-t", "truth", "--labels", "a=7,b=7+9"
    )
    dlx("evaluate", "-p", "p", "-t", "truth", "--labels", "1,7")  # some have 1
    empty = np.zeros((3, 4, 4), np.uint8)
    save("nothing/a.nii.gz", empty)
    save("predicted/a.nii.gz", empty)
    dlx("evaluate", "-p", "predicted", "-t", "nothing", "--labels", "7")  # rightly predicted to be absent
    assert read_summary("predicted/summary.json")["mean"]["7"]["Dice"] is None


def test_missing_predictions_are_refused_unless_asked_for_and_then_named_everywhere(dlx):
    folders(Path(), {"p": 0.2}, num_cases=3)
    Path("p/c2.nii.gz").unlink()
    assert "1 of 3 true masks have no prediction: 'c2'; --allow-missing" in refusal(dlx, "-p", "p", "-t", "truth")
    assert not Path("p/summary.json").exists()
    result = dlx("evaluate", "-p", "p", "-t", "truth", "--allow-missing")
    assert "measured 2 of 3 true masks: no prediction of 'c2'" in result.stdout
    summary = read_summary("p/summary.json")
    assert (summary["num_cases"], summary["num_references"], summary["references_left_out"]) == (2, 3, ["c2"])
    document = strict_json(dlx("evaluate", "-p", "p", "-t", "truth", "--allow-missing", "--json").stdout)
    assert "no prediction of 'c2'" in document["remarks"][0]


def test_comparing_with_a_set_that_lacks_cases_keeps_the_results_of_all_cases(dlx):
    folders(Path(), {"p": 0.2, "q": 0.3}, num_cases=3)
    Path("q/c2.nii.gz").unlink()
    dlx("evaluate", "-p", "p", "-t", "truth")
    before = Path("p/summary.json").read_bytes(), Path("p/cases.csv").read_bytes()
    dlx("evaluate", "-p", "p", "-p", "q", "-t", "truth", "--allow-missing")
    assert (Path("p/summary.json").read_bytes(), Path("p/cases.csv").read_bytes()) == before
    assert read_summary("q/summary.json")["num_cases"] == 2  # all of its cases
    dlx("evaluate", "-p", "p", "-p", "q", "-t", "truth", "--allow-missing", "-o", "out")
    assert read_summary("out/p/summary.json")["num_cases"] == 2


def test_results_go_to_the_folder_of_the_predictions_or_to_out_and_spare_files_of_others(dlx):
    folders(Path(), {"p": 0.2, "q": 0.3}, num_cases=2)
    dlx("evaluate", "-p", "p/c1.nii.gz", "-t", "truth/c1.nii.gz")
    assert not Path("p/summary.json").exists()  # single files are not a folder of predictions
    dlx("evaluate", "-p", "p", "-t", "truth")
    before = Path("p/summary.json").read_bytes()
    dlx("evaluate", "-p", "p", "-t", "truth")  # its own files are replaced
    assert Path("p/summary.json").read_bytes() == before
    dlx("evaluate", "-p", "p", "-p", "other=q", "-t", "truth", "-o", "out")
    assert {str(path.relative_to("out")) for path in Path("out").rglob("*") if path.is_file()} == {
        *("cases.csv", "comparison.json", "p/summary.json", "other/summary.json")
    }
    assert [row["predictions"] for row in rows_of("out/cases.csv")] == ["p"] * 4 + ["other"] * 4
    for name, content in (("summary.json", '{"mean": {}}'), ("summary.json", "no JSON"), ("cases.csv", "case,dice\n")):
        shutil.rmtree("foreign", ignore_errors=True)
        shutil.copytree("q", "foreign", ignore=shutil.ignore_patterns("*.json", "*.csv"))
        Path("foreign", name).write_text(content)
        assert f"foreign/{name}: was not written by dlx" in refusal(dlx, "-p", "foreign", "-t", "truth")
        assert Path("foreign", name).read_text() == content
    for out, cause in (("truth/c1.nii.gz", "is a file"), ("/proc/none", "cannot be written")):
        assert cause in refusal(dlx, "-p", "p", "-t", "truth", "-o", out, kind=SettingError)


# labels


def test_without_a_dataset_json_the_classes_are_the_values_of_the_true_masks(dlx):
    truth, prediction = blobs(1), blobs(1, 0.2).astype(np.int32)
    prediction[0, 0, 0], prediction[0, 0, 1], prediction[0, 0, 2] = -7, 70000, 2**30
    save("t/a.nii.gz", truth)
    save("p/a.nii.gz", prediction)
    result = dlx("evaluate", "-p", "p", "-t", "t")
    summary = read_summary("p/summary.json")
    assert summary["labels"] == {"1": "1", "2": "2"}
    assert summary["unknown_values"] == {"-7": 1, "70000": 1, str(2**30): 1}
    assert "3 values that no true mask has and no class" in " ".join(result.stdout.split())
    assert "-7 (1 file)" in result.stdout


@pytest.mark.parametrize(
    ("asked", "labels"),
    [
        ("2", {"2": "two"}),
        ("two,one", {"2": "two", "1": "one"}),
        ("both=1+2,7", {"(1, 2)": "both", "7": "7"}),
        (" liver = 1 , two", {"1": "liver", "2": "two"}),
    ],
)
def test_labels_are_chosen_by_value_name_or_both(dlx, asked, labels):
    truth = blobs(1)
    truth[0, 0, 0] = 9  # a value that nobody declared may be in a true mask if the labels are chosen
    save("t/a.nii.gz", truth)
    save("p/a.nii.gz", blobs(1, 0.2))
    Path("t/dataset.json").write_text(
        json.dumps({"labels": {"background": 0, "one": 1, "two": 2}, "channel_names": {"0": "T1"}})
    )
    dlx("evaluate", "-p", "p", "-t", "t", "--labels", asked)
    summary = read_summary("p/summary.json")
    assert summary["labels"] == labels
    assert summary["unknown_values"] == {}
    for key in labels:
        assert (summary["mean"][key]["Dice"] is None) == (key == "7")
    assert "label value 9 is not declared in t/dataset.json" in refusal(dlx, "-p", "p", "-t", "t")


@pytest.mark.parametrize(
    ("asked", "cause"),
    [
        ("0", "0 is the background"),
        ("one", "'one' is not a label"),
        ("", "'' is not a label"),
        ("1,1", "'1' is named twice"),
        ("a=1+1", "a value occurs twice"),
        ("a=x", "'x' is not a label value"),
        ("1,ignore=1", "1 is the value of the ignore label"),
        ("ignore=3", "names no class"),
        ("a\x1b=1", "unprintable"),
        ("9" * 30, "not a label value"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(dlx, asked, cause):
    folders(Path(), {"p": 0.2}, num_cases=1)
    assert cause in refusal(dlx, "-p", "p", "-t", "truth", "--labels", asked, kind=SettingError)


def test_a_name_that_is_no_label_gets_the_nearest_one(dlx):
    folders(Path(), {"p": 0.2}, num_cases=1)
    table = {"labels": {"0": "background", "1": "anterior", "2": "posterior"}}
    Path("truth/dataset.json").write_text(json.dumps(table))
    assert "did you mean 'anterior'?" in refusal(dlx, "-p", "p", "-t", "truth", "--labels", "anteriour")


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64])
def test_label_volumes_are_read_as_indices_into_their_values_in_any_type(tmp_path, kind):
    values = np.array([0, 3, 100, 120] if np.dtype(kind).itemsize == 1 else [0, 5, 300, 9000, 32000])
    mask = np.random.default_rng(0).choice(values, (7, 6, 5)).astype(kind)
    found = read_labels(save(tmp_path / "a.nii.gz", mask))
    assert found.values == tuple(values.tolist())
    assert found.indices.dtype == np.uint8
    np.testing.assert_array_equal(np.array(found.values)[found.indices], mask.T)
    assert found.volume.array.shape == (1, 5, 6, 7)
    assert found.volume.array.strides == (0, 0, 0, 0)  # no memory


def test_thousands_of_labels_are_an_image_unless_some_are_chosen(dlx):
    mask = np.arange(3000, dtype=np.int32).repeat(4).reshape(40, 30, 10) * 50
    save("t/a.nii.gz", mask)
    save("p/a.nii.gz", np.where(mask == 500, 0, mask))
    assert "3000 different values" in refusal(dlx, "-p", "p/a.nii.gz", "-t", "t/a.nii.gz")
    dlx("evaluate", "-p", "p", "-t", "t", "--labels", "500,100")
    assert [row["dice"] for row in rows_of("p/cases.csv")] == ["0.0", "1.0"]


# geometry and files that are refused


def test_slightly_different_headers_pass_with_a_note_and_are_refused_if_strict(dlx):
    folders(Path(), {}, num_cases=1)
    shifted = AFFINE.copy()
    shifted[0, 3] += 0.5
    save("p/c1.nii.gz", blobs(1), shifted)
    text = " ".join(dlx("evaluate", "-p", "p", "-t", "truth").stdout.split())
    assert "another origin than the true mask of the case, by at most 0.5 mm" in text
    assert "--geometry strict refuses this" in text
    assert "(-10, -20, -30) and (-10.5, -20, -30)" in refusal(dlx, "-p", "p", "-t", "truth", "--geometry", "strict")


def turned(scale):
    return AFFINE @ np.diag([*scale, 1.0])


def moved(by):
    affine = AFFINE.copy()
    affine[:3, 3] += by
    return affine


HOSTILE = {
    "fractions": (lambda: save("p/a.nii", blobs(1) * np.float32(1.0000001)), r"not whole numbers \(such as"),
    "huge": (lambda: save("p/a.nii", blobs(1).astype(np.float64) * 1e20), "beyond 2"),
    "huge whole": (lambda: save("p/a.nii", blobs(1).astype(np.int64) << 60), "beyond 2"),
    "4D": (lambda: save("p/a.nii", np.stack([blobs(1)] * 2, -1)), "has 4 axes"),
    "RGB": (lambda: Image.new("RGB", (24, 20)).save("p/a.png"), "contains RGB colours"),
    "garbage": (lambda: Path("p/a.nii.gz").write_bytes(b"garbage"), "not a gzip file"),
    "empty": (lambda: Path("p/a.nii.gz").touch(), "the file is empty"),
    "pipe": (lambda: os.mkfifo("p/a.nii.gz"), "named pipe"),
    "detached": (lambda: Path("p/a.mhd").write_text("ObjectType = Image"), "voxels in another file"),
    "image": (
        lambda: save("p/a.nii", np.arange(4800, dtype=np.int16).reshape(24, 20, 10)),
        "4800 different values, from 1 to 4799",
    ),
    "size": (lambda: save("p/a.nii", blobs(1)[:, :, 1:]), r"the size is \(24, 20, 10\) and \(24, 20, 9\)"),
    "spacing": (lambda: save("p/a.nii", blobs(1), turned((1, 1, 2))), r"spacing is \(1.5, 1, 3\) and \(1.5, 1, 6\)"),
    "origin": (lambda: save("p/a.nii", blobs(1), moved((4, 0, 0))), r"origin is \(-10, -20, -30\) and \(-14, "),
    "direction": (lambda: save("p/a.nii", blobs(1), turned((-1, 1, 1))), "run in opposite directions"),
    "itself": (lambda: os.link("t/a.nii.gz", "p/a.nii.gz"), "the same file"),
    "two": (lambda: [save(f"p/a.{ending}", blobs(1)) for ending in ("nii", "nii.gz")], "both of 'a'"),
    "other name": (
        lambda: save("p/b.nii", blobs(1)),
        r"no prediction has the name .* \(predictions: 'b'; true .* 'a'\)",
    ),
    "nothing": (lambda: None, "it is empty"),
    "JSON alone": (lambda: Path("p/predictions.json").write_text("{}"), r"no file ends in \.nii\.gz"),
    "a run": (lambda: Path("p/study.json").write_text("{}"), "dlx predict writes predictions"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_predictions_that_cannot_be_measured_are_refused_with_file_and_cause(dlx, name):
    save("t/a.nii.gz", blobs(1))
    Path("p").mkdir()
    make, cause = HOSTILE[name]
    make()
    message = refusal(dlx, "-p", "p", "-t", "t", kind=DataError)
    assert re.search(cause, message)
    assert message.isprintable()
    assert "p" in message.split(":")[0]
    assert not {"summary.json", "cases.csv"} & {path.name for path in Path("p").iterdir()}


def test_each_unreadable_file_has_a_line_and_nothing_is_written(dlx):
    folders(Path(), {"p": 0.2}, num_cases=3)
    for name in ("p/c1.nii.gz", "truth/c3.nii.gz"):
        Path(name).write_bytes(Path(name).read_bytes()[:-9])
    lines = refusal(dlx, "-p", "p", "-t", "truth").splitlines()
    assert [line.split(":")[0] for line in lines] == ["p/c1.nii.gz", "truth/c3.nii.gz"]
    assert not Path("p/summary.json").exists()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda: save("truth/c1.nii.gz", blobs(1).astype(np.int16) * -1), "the label values -2, -1 are below 0"),
        (lambda: save("truth/c1.nii.gz", blobs(1) * 0), "all voxels are 0"),
        (lambda: Path("truth/dataset.json").write_text("{"), "not valid JSON"),
        (
            lambda: Path("truth/dataset.json").write_text('{"labels": {"background": 0, "a": 1}}'),
            "value 2 is not declared",
        ),
        (lambda: Path("dataset.json").write_text('{"labels": {"a": 1}}'), "no background"),
    ],
)
def test_true_masks_that_are_none_are_refused(dlx, change, cause):
    folders(Path(), {"p": 0.2}, num_cases=1)
    change()
    assert cause in refusal(dlx, "-p", "p", "-t", "truth", kind=DataError)


@pytest.mark.parametrize(
    ("args", "cause"),
    [
        (("-p", "none", "-t", "truth"), "none: no such file or folder"),
        (("-p", "p", "-t", "none"), "none: no such file or folder"),
        (("-p", "p/c1.nii.gz", "-t", "truth"), "give two folders or two files"),
        (("-p", "p", "-p", "p", "-t", "truth"), "another set is named 'p' too"),
        (("-p", "=p", "-t", "truth", "--tolerance-mm", "0"), "--tolerance-mm 0: expected a number above 0"),
        (("-p", "p", "-t", "truth", "--tolerance-mm", "nan"), "above 0"),
        (("-p", "p", "-t", "truth", "--smallest-effect", "-1"), "above 0"),
        (("-p", "a/b=p", "-t", "truth"), "'a/b' cannot name"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(dlx, args, cause):
    folders(Path(), {"p": 0.2}, num_cases=1)
    assert cause in refusal(dlx, *args)


# what is printed


def test_tables_fit_80_columns_and_show_the_hardest_cases_or_all(dlx, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    folders(Path(), {"p": 0.3}, num_cases=8)
    lines = dlx("evaluate", "-p", "p", "-t", "truth", "-q").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.split()[:1] == ["class"] for line in lines) == 1  # a table, not a list
    hardest = lines.index("hardest cases, mean over classes")
    assert sum(line.startswith("  c") and line[3].isdigit() for line in lines[hardest:]) == 5
    shown = dlx("evaluate", "-p", "p", "-t", "truth", "-q", "--per-case").stdout.splitlines()
    rows = [line.split()[0] for line in shown if line.startswith("  c") and line[3:4].isdigit()]
    assert rows == [f"c{number}" for number in range(1, 9)]


def test_one_json_document_is_all_that_is_printed(dlx):
    folders(Path(), {"p": 0.3}, num_cases=2)
    result = dlx("evaluate", "-p", "p", "-t", "truth", "--json")
    document = strict_json(result.output)
    assert document["predictions"][0]["summary"] == read_summary("p/summary.json")
    assert document["comparisons"] == []


@pytest.mark.slow
def test_predictions_are_evaluated_without_torch(tmp_path):
    folders(tmp_path, {"p": 0.2, "q": 0.3}, num_cases=2)
    args = ["-p", str(tmp_path / "p"), "-p", str(tmp_path / "q"), "-t", str(tmp_path / "truth")]
    assert "torch" not in loaded_by("evaluate", *args)
    assert (tmp_path / "q/summary.json").exists()
