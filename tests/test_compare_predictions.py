"""Sets of predictions compared by `dlx evaluate`: against scipy, by persons, and what is said of few or equal ones."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from calibration import NOISES, coverage, false_alarms
from dlx.report.predictions.comparison import person_values
from dlx.report.wording.verdicts import spell_reasons, spell_scoped_verdict
from dlx.statistics.estimate import over_patients_alone
from dlx.statistics.predictions import compare_predictions
from dlx.statistics.reasons import FewPatients, LostByCorrection, SmallDifference
from dlx.statistics.verdict import Verdict
from dlx.study.scope import Scope
from dlx.system.errors import DataError
from made_masks import blobs, folders, save, strict_json

RNG = np.random.default_rng(0)
CLEAR = RNG.normal(0.05, 0.02, 12)  # differences in Dice of twelve patients
NONE = RNG.normal(0.0, 0.004, 12)


def compare(**differences):
    rows = compare_predictions(
        {name: np.array(values) for name, values in differences.items()}, 0.01, higher_is_better=True
    )
    return {row.label: row for row in rows}


def test_one_set_is_judged_by_the_t_test_of_scipy():
    row = compare(b=CLEAR)["b"]
    found = stats.ttest_1samp(CLEAR, 0.0)
    assert row.p == pytest.approx(found.pvalue, rel=1e-9)
    assert row.interval == pytest.approx(tuple(found.confidence_interval()), rel=1e-9)
    assert row.difference == pytest.approx(CLEAR.mean())
    assert (row.verdict, row.scope, row.headline.n) == (Verdict.BETTER, Scope.PATIENTS, 12)
    assert spell_scoped_verdict(row) == "better for new patients"


def test_the_sign_and_the_margin_decide_the_verdict():
    assert compare(b=-CLEAR)["b"].verdict is Verdict.WORSE
    (row,) = compare_predictions({"b": CLEAR}, 0.01, higher_is_better=False)
    assert row.verdict is Verdict.WORSE
    assert compare(b=NONE)["b"].verdict is Verdict.NO_DIFFERENCE
    small = compare(b=0.005 + NONE / 10)["b"]
    assert (small.verdict, small.reasons) == (Verdict.BETTER, (SmallDifference(0.01),))
    unclear = compare(b=RNG.normal(0.0, 0.1, 12))["b"]
    assert unclear.verdict is Verdict.CANNOT_TELL
    # the patients that a t test of 80 % power takes to find 0.01: about 7.85 sd^2 / 0.01^2
    assert unclear.needed.patients == pytest.approx(7.85 * unclear.spread**2 / 0.01**2, rel=0.05)


def test_several_sets_are_corrected_together():
    p = stats.ttest_1samp(CLEAR / 3, 0.0).pvalue
    assert compare(b=CLEAR / 3, c=NONE)["b"].p == pytest.approx(2 * p, rel=1e-9)
    barely = np.array([0.4, 0.1, 0.3, 0.2, 0.5, -0.1])
    assert 0.025 < stats.ttest_1samp(barely, 0.0).pvalue < 0.05
    alone, beside = compare(b=barely)["b"], compare(b=barely, c=NONE[:6])["b"]
    assert (alone.verdict, beside.verdict) == (Verdict.BETTER, Verdict.CANNOT_TELL)
    assert beside.reasons == (LostByCorrection(2),)


@pytest.mark.parametrize("number", [0, 1, 4])
def test_fewer_than_five_patients_have_no_verdict_and_no_interval(number):
    row = compare(b=CLEAR[:number])["b"]
    assert (row.verdict, row.interval, row.p, row.needed) == (Verdict.CANNOT_TELL, None, None, None)
    assert row.reasons == (FewPatients(number, 5),)
    assert "fewer than 5" in spell_reasons(row)
    assert row.difference == (pytest.approx(CLEAR[:number].mean()) if number else None)


def test_equal_predictions_are_no_different():
    row = compare(b=np.zeros(6))["b"]
    assert (row.verdict, row.difference, row.interval) == (Verdict.NO_DIFFERENCE, 0.0, (0.0, 0.0))


def test_normal_differences_have_five_percent_false_alarms():
    differences = NOISES["normal"](np.random.default_rng(0), (20_000, 2, 10))
    estimate = over_patients_alone(differences)
    assert false_alarms(estimate) < 0.055
    assert coverage(estimate, 0.0) == pytest.approx(0.95, abs=0.005)


def test_a_person_counts_with_the_mean_of_the_cases_and_a_case_with_the_classes_that_both_have():
    first = {"a1": {"x": 0.8, "y": 0.6}, "a2": {"x": 0.5}, "b": {"y": 0.4}, "c": {"x": 0.9}}
    second = {"a1": {"x": 0.9}, "a2": {"x": 0.7, "y": 0.1}, "b": {"x": 0.3}, "c": {"x": 0.8}}
    mine, other = person_values(first, second, {"a1": "anna", "a2": "anna"})
    assert mine == pytest.approx([0.65, 0.9])  # anna's x; b has no class in both
    assert other == pytest.approx([0.8, 0.8])


# the command


def dice_of(path):
    """Case -> mean Dice over its classes, of a table that was written."""
    values = {}
    with Path(path).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            values.setdefault(row["case"], []).append(float(row["dice"]))
    return {case: np.mean(of) for case, of in values.items()}


def test_the_verdicts_of_the_command_are_those_worked_out_from_its_tables(dlx):
    folders(Path(), {"rough": 0.5, "fine": 0.2}, num_cases=8)
    result = dlx("evaluate", "-p", "rough", "-p", "fine", "-t", "truth")
    document = strict_json(dlx("evaluate", "-p", "rough", "-p", "fine", "-t", "truth", "--json").stdout)
    rough, fine = (dice_of(f"{name}/cases.csv") for name in ("rough", "fine"))
    found = stats.ttest_rel([fine[case] for case in rough], [*rough.values()])
    (compared,) = document["comparisons"]
    dice = compared["metrics"]["dice"]
    assert (compared["reference"], compared["label"]) == ("rough", "fine")
    assert dice["p"] == pytest.approx(found.pvalue, rel=1e-6)
    assert dice["interval"] == pytest.approx(tuple(found.confidence_interval()), rel=1e-6)
    assert dice["value"] - dice["reference"] == pytest.approx(dice["difference"])
    assert dice["verdict"] == compared["metrics"]["hd95"]["verdict"] == "better"
    assert compared["metrics"]["hd95"]["difference"] < 0  # lower is better
    assert set(dice["per_class"]) == {"1", "2"}
    lines = result.stdout.splitlines()
    assert any(line.startswith("mean: better for new patients (p ") for line in lines)
    largest = max(rough, key=lambda case: abs(fine[case] - rough[case]))
    after = lines[next(i for i, line in enumerate(lines) if line.startswith("cases with the largest difference")) :]
    assert next(line for line in after if line.startswith("  c") and line[3].isdigit()).split()[0] == largest


def test_cases_of_one_person_are_one_patient(dlx):
    folders(Path(), {"a": 0.5, "b": 0.2}, num_cases=8)
    persons = {f"c{number}": f"person {number // 3}" for number in range(1, 9)}
    Path("truth/groups.json").write_text(json.dumps(persons))
    result = dlx("evaluate", "-p", "a", "-p", "b", "-t", "truth")
    assert "cannot tell for new patients (3 patients, fewer than 5: nothing follows" in result.stdout
    Path("groups.json").write_text(json.dumps({"c1": "x", "c2": "x", "c0": "x"}))
    text = " ".join(dlx("evaluate", "-p", "a", "-p", "b", "-t", "truth", "--groups", "groups.json").stdout.split())
    assert "8 cases of 7 patients" in text
    assert "no true mask has the name 'c0'" in text
    Path("groups.json").write_text(json.dumps({"c0": "x"}))
    with pytest.raises(DataError, match="names none of the cases"):
        dlx("evaluate", "-p", "a", "-p", "b", "-t", "truth", "--groups", "groups.json")


def test_names_of_several_scans_of_a_person_are_warned_of(dlx):
    for scan in ("p01_s1", "p01_s2", "p02_s1", "p03_s1", "p04_s1", "p05_s1"):
        save(f"t/{scan}.nii.gz", blobs(1))
        save(f"a/{scan}.nii.gz", blobs(1, 0.1))
        save(f"b/{scan}.nii.gz", blobs(1, 0.2))
    text = " ".join(dlx("evaluate", "-p", "a", "-p", "b", "-t", "t").stdout.split())
    assert "several scans of 1 person (p01: 'p01_s1', 'p01_s2')" in text
    assert "--groups FILE" in text
    assert "--groups FILE" not in dlx("evaluate", "-p", "a", "-t", "t").stdout  # nobody is compared


def test_sets_are_compared_on_the_cases_that_all_have_and_missing_structures_are_counted(dlx):
    folders(Path(), {"a": 0.2, "b": 0.2, "c": 0.3}, num_cases=7)
    Path("b/c3.nii.gz").unlink()
    mask = blobs(2)
    save("c/c2.nii.gz", np.where(mask == 2, 0, mask))
    result = dlx("evaluate", "-p", "a", "-p", "x=b", "-p", "c", "-t", "truth", "--allow-missing", "-o", "out")
    text = " ".join(result.stdout.split())
    assert "measured 6 of 7 true masks: no prediction of 'c3' in some set" in text
    assert "of 12 structures (a class in a case) 0 of a, 1 of c" in text
    assert "Holm-corrected for 2 sets" in text
    compared = {entry["label"]: entry for entry in strict_json(Path("out/comparison.json").read_text())["comparisons"]}
    assert [*compared] == ["x", "c"]
    assert compared["c"]["metrics"]["hd95"]["structures_missed"] == {"reference": 0, "value": 1}
    assert compared["c"]["metrics"]["dice"]["structures_missed"] == {"reference": 0, "value": 0}
    assert {case["case"] for case in compared["x"]["cases"]} == {"c1", "c2", "c4", "c5", "c6", "c7"}


def test_what_one_set_alone_predicts_where_there_is_nothing_is_pointed_out(dlx):
    folders(Path(), {"a": 0.2, "b": 0.2}, num_cases=6)
    mask = blobs(3)
    save("truth/c3.nii.gz", np.where(mask == 2, 0, mask))
    save("b/c3.nii.gz", np.where(mask == 2, 0, mask))
    text = " ".join(dlx("evaluate", "-p", "a", "-p", "b", "-t", "truth").stdout.split())
    assert "one set alone predicts a class that the true mask lacks" in text
    assert "of 12 structures (a class in a case) 1 of a, 0 of b" in text


def test_equal_sets_are_pointed_out(dlx):
    folders(Path(), {"a": 0.2, "b": 0.2}, num_cases=5)
    result = dlx("evaluate", "-p", "a", "-p", "b", "-t", "truth")
    assert "All scores of b equal those of a" in result.stdout
    assert "no difference larger than 0.01 for new patients" in result.stdout
