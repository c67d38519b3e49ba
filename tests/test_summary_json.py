"""`summary.json` of trained networks: of one run, of all folds, of several seeds, and from older records."""

from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest

from dlx.records.archive import read_study
from dlx.report.files.summary_json import case_metrics, label_key, study_summary, trial_summary
from dlx.report.files.writing import write_tables
from dlx.study.results import CaseScores, OverlapCounts
from made_masks import read_summary
from made_records import made_study
from small import SMALL_ARGS

ARCHIVES = Path(__file__).parents[1] / "experiments"


def test_a_label_has_its_value_as_key_and_a_region_all_of_them():
    assert (label_key((2,)), label_key((1, 2, 3))) == ("2", "(1, 2, 3)")


def test_the_metrics_of_a_class_follow_from_its_counts():
    counts = OverlapCounts(overlap=6, predicted=9, true=8)
    scores = CaseScores(
        dice={"a": 12 / 17}, hd95_mm={"a": 2.5}, surface_dice={"a": 0.5}, counts={"a": counts}, num_voxels=100
    )
    assert case_metrics(scores, "a") == {
        "Dice": 12 / 17,
        "IoU": 6 / 11,
        "TP": 6,
        "FP": 3,
        "FN": 2,
        "TN": 89,
        "n_pred": 9,
        "n_ref": 8,
        "HD95": 2.5,
        "surface_Dice": 0.5,
    }
    without = case_metrics(scores.model_copy(update={"counts": None}), "a")
    assert set(without) == {"Dice", "IoU", "HD95", "surface_Dice"}
    assert without["IoU"] == pytest.approx(6 / 11)  # Dice / (2 - Dice)


def test_a_class_in_neither_mask_has_no_metrics_but_its_counts():
    counts = OverlapCounts(overlap=0, predicted=0, true=0)
    scores = CaseScores(dice={"a": None}, hd95_mm={"a": None}, counts={"a": counts}, num_voxels=10)
    found = case_metrics(scores, "a")
    assert (found["Dice"], found["IoU"], found["HD95"], found["TN"]) == (None, None, None, 10)


@pytest.mark.slow
def test_training_writes_the_summary_of_its_validation_cases(dlx):
    args = [*SMALL_ARGS[:2], *SMALL_ARGS[4:], "--epochs", "2"]
    result = dlx("train", *args, "--folds", "2", "--fold", "all", "--out", "out")
    assert "out/summary.json" in result.output
    pooled = read_summary("out/summary.json")
    assert (pooled["num_cases"], pooled["seed"], pooled["folds"]) == (4, 0, [0, 1])
    assert pooled["labels"] == {"1": "CSF", "2": "GM", "3": "WM"}
    dice = [case["metrics"]["2"]["Dice"] for case in pooled["metric_per_case"]]
    assert pooled["mean"]["2"]["Dice"] == pytest.approx(mean(dice))
    for trial in read_study(Path("out")).trials:
        val, summary = trial.record.result.val, read_summary(trial.folder / "summary.json")
        assert summary["fold"] == trial.entry.fold
        assert summary["foreground_mean"]["Dice"] == pytest.approx(val.dice)
        assert {case["case"] for case in summary["metric_per_case"]} == set(val.cases)
        for case in summary["metric_per_case"]:
            metrics = case["metrics"]["2"]
            assert metrics["Dice"] == val.cases[case["case"]].dice["GM"]
            assert metrics["TP"] + metrics["FP"] + metrics["FN"] + metrics["TN"] == 24**3


def test_several_seeds_variants_or_missing_folds_have_no_summary_of_the_study():
    one = made_study({"p=0": (0.9, 0.8)}, seeds=[3], control=None)
    found = study_summary(one)
    assert found["seed"] == 3
    assert [*found["mean"]] == ["csf", "grey matter"]  # records made before label values were kept have names alone
    assert study_summary(made_study({"p=0": (0.9, 0.8)}, seeds=[0, 1], control=None)) is None
    assert study_summary(made_study(seeds=[0])) is None
    assert study_summary(made_study({"p=0": (0.9, 0.8)}, seeds=[0], running={("p=0", 0): 3}, control=None)) is None
    in_folds = replace(one, header=one.header.model_copy(update={"folds": (0, 1)}))
    assert study_summary(in_folds) is None


def test_an_outdated_summary_is_removed_and_a_file_of_others_is_not(tmp_path):
    path = tmp_path / "made-summary.json"
    several, one = made_study(seeds=[0]), made_study({"p=0": (0.9, 0.8)}, seeds=[0], control=None)
    assert path in write_tables(tmp_path / "made", one)
    assert path not in write_tables(tmp_path / "made", several)
    assert not path.exists()
    path.write_text('{"mean": {}}')
    write_tables(tmp_path / "made", several)
    assert path.read_text() == '{"mean": {}}'


def test_records_of_earlier_versions_have_the_metrics_that_they_hold():
    records = read_study(ARCHIVES / "batch-norm.jsonl")
    result = records.trials[0].record.result
    summary = trial_summary(result)
    assert set(summary["foreground_mean"]) == {"Dice", "IoU", "HD95", "surface_Dice"}
    assert summary["foreground_mean"]["Dice"] == pytest.approx(result.val.dice)
    assert {key: of["Dice"] for key, of in summary["mean"].items()} == pytest.approx(result.val.dice_per_class)
