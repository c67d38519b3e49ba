"""Cross-validation as a dimension of studies: `--fold all`, its records, tables and refusals."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import pytest

from dlx.records.archive import read_study
from dlx.records.merge import merge_studies
from dlx.records.schema import StudyHeader
from dlx.settings.layers import merge
from dlx.study.axes import Axis, make_variants
from dlx.study.scope import Scope
from dlx.study.study import make_study
from dlx.system.errors import DataError, SettingError
from dlx.system.files import read_json
from made_records import made_study
from small import SETTINGS

pytestmark = pytest.mark.usefixtures("without_figures")

SMALL = [
    *("--data", "phantom:subjects=4,size=24", "--threads", "1", "--device", "cpu", "--precision", "float32"),
    *("--model", "unet2:width=4,levels=2", "--batch-size", "4", "--set", "batch.patch_size_px=[16,16]"),
    *("--steps-per-epoch", "20", "--epochs", "1", "--lr", "0.01"),
]
TWO_FOLDS = ["--fold", "all", "--folds", "2"]
SWEEP = ["sweep-dropout", "--p", "0.1,0.3", "--seeds", "2", *TWO_FOLDS, *SMALL, "--epochs", "2"]


def results(folder):
    """Trial id -> what of its records must repeat."""
    found = {}
    for path in (Path(folder) / "trials").glob("*/result.json"):
        record = read_json(path)
        epochs = [json.loads(line)["result"] for line in (path.parent / "epochs.jsonl").read_text().splitlines()]
        found[record["trial"]] = (record["result"], record["settings"], epochs)
    return found


def study(*axes, **split):
    settings = merge(SETTINGS, {"split": split})
    return make_study(name="folds", variants=make_variants(settings, [Axis(**axis) for axis in axes]), seeds=(3, 5))


def test_trials_go_seed_by_seed_then_fold_by_fold():
    crossed = study({"key": "dropout.p", "values": [0, 0.1]}, fold="all", folds=2).model_copy(update={"folds": (0, 1)})
    places = [(trial.seed, trial.fold, trial.label, trial.spec.split.fold) for trial in crossed.trials()]
    assert places == [(seed, fold, label, fold) for seed in (3, 5) for fold in (0, 1) for label in ("p=0", "p=0.1")]


def test_an_axis_of_folds_is_refused_beside_all_of_them():
    for axis in ({"key": "split.fold", "values": ["all", 1]}, {"key": "split.folds", "values": [2, 3]}):
        with pytest.raises(SettingError, match=r"split\.fold"):
            study(axis, fold="all")
    assert len(study({"key": "split.train_subjects", "values": [1, 2]}, fold="all").variants) == 2


@pytest.mark.slow
def test_a_fold_of_all_is_the_trial_of_this_fold_alone(dlx):
    dlx("train", *SMALL, *TWO_FOLDS, "--out", "all")
    for fold in ("0", "1"):
        dlx("train", *SMALL, "--fold", fold, "--folds", "2", "--out", f"fold{fold}")
    together = results("all")
    assert len(together) == 2
    assert together == results("fold0") | results("fold1")
    names = sorted(path.name for path in Path("all/trials").iterdir())
    assert [re.sub("[0-9a-f]{8}$", "ID", name) for name in names] == ["unet2-fold0-seed0-ID", "unet2-fold1-seed0-ID"]
    # a fold that ran alone in this folder is not trained again, and all of them can be read back from their file
    (alone,) = Path("fold1/trials").glob("*/result.json")
    written = alone.stat().st_mtime_ns
    dlx("train", *SMALL, *TWO_FOLDS, "--out", "fold1")
    assert results("fold1") == together
    assert alone.stat().st_mtime_ns == written
    dlx("train", *SMALL, "--fold", "all", "--splits-file", "all/splits_final.json", "--out", "file")
    assert results("file") == together


@pytest.mark.slow
def test_cross_validation_is_a_row_a_fold_with_mean_spread_all_cases_and_interval(dlx):
    command = ["train", *SMALL, *TWO_FOLDS, "--seeds", "2", "--out", "out"]
    shown = dlx(*command)
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    assert re.search(r"fold +seed +train Dice +val Dice", shown.stdout)
    document = json.loads(dlx(*command, "--json").stdout)
    found, trials = document["cross_validation"], document["trials"]
    assert [(trial["seed"], trial["fold"]) for trial in trials] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    of_fold = [mean(trial["val_dice"] for trial in trials if trial["fold"] == fold) for fold in (0, 1)]
    assert found["mean"]["val_dice"] == pytest.approx(mean(of_fold))
    assert found["spread"]["val_dice"] == pytest.approx(stdev(of_fold))
    cases = {}
    for record, *_ in results("out").values():
        for case, scores in record["val"]["cases"].items():
            cases.setdefault(case, []).append(mean(scores["dice"].values()))
    assert {case: len(values) for case, values in cases.items()} == dict.fromkeys(sorted(cases), 2)
    assert (found["cases"], len(cases)) == (4, 4)
    assert found["val_dice_over_cases"] == pytest.approx(mean(mean(values) for values in cases.values()))
    # Nadeau and Bengio: 4 runs, of which each tests on as many subjects as it trains on; t(0.975, 3) = 3.182446
    runs = [trial["val_dice"] for trial in trials]
    half = 3.182446 * stdev(runs) * (1 / 4 + 1) ** 0.5
    assert found["val_dice_interval"] == pytest.approx([mean(runs) - half, mean(runs) + half], abs=1e-6)
    low, high = (f"{end:.3f}" for end in found["val_dice_interval"])
    assert f"{low} to {high}" in shown.stdout
    assert document["study"]["folds"] == [0, 1]
    assert document["study"]["settings"]["split"]["fold"] == "all"
    assert document["study"]["splits"] == read_json(Path("out/splits_final.json"))


def test_persons_are_kept_together_and_recorded_and_each_case_counts_once(dlx):
    Path("groups.json").write_text(json.dumps({"subject-1": "anna", "subject-3": "anna"}))
    groups = ["--set", "split.groups=groups.json"]
    document = json.loads(dlx("train", *SMALL, *TWO_FOLDS, *groups, "--out", "out", "--json").stdout)
    assert document["cross_validation"]["cases"] == 4
    header = StudyHeader.model_validate_json(Path("out/study.json").read_bytes())
    assert header.persons == {"subject-1": "anna", "subject-3": "anna"}
    assert (header.num_persons, header.num_val_persons) == (3, 3)


def test_a_dry_run_counts_the_folds(dlx):
    document = json.loads(dlx(*SWEEP, "--dry-run", "--json").stdout)
    assert document["cost"]["trials"] == len(document["trials"]) == 3 * 2 * 2
    assert [trial["fold"] for trial in document["trials"][:6]] == [0, 0, 0, 1, 1, 1]
    assert len({trial["id"] for trial in document["trials"]}) == 12
    assert "3 variants x 2 folds x 2 seeds" in dlx(*SWEEP, "--dry-run").stdout


@pytest.mark.long
def test_a_sweep_over_folds_that_is_killed_and_resumed_gives_equal_records(dlx):
    command = [sys.executable, "-m", "dlx", *SWEEP, "--out", "out"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=os.environ)
    next(line for line in process.stderr if re.match(" 3/12", line))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    stopped = results("out")
    assert 3 <= len(stopped) < 12
    document = json.loads(dlx(*SWEEP, "--out", "out", "--json").stdout)
    assert [variant["label"] for variant in document["variants"]] == ["p=0", "p=0.1", "p=0.3"]
    assert [variant["n"] for variant in document["variants"]] == [4, 4, 4]
    assert document["scope"] == "procedure"
    dlx(*SWEEP, "--out", "alone", "--max-parallel", "1")
    assert results("out") == results("alone")
    assert len(results("alone")) == 12


@pytest.mark.long
def test_folders_of_a_study_with_folds_merge_by_seed_and_report_alike(dlx):
    whole = json.loads(dlx(*SWEEP, "--out", "whole", "--json").stdout)
    for seed in ("0", "1"):
        dlx(*SWEEP[:3], "--seed", seed, *SWEEP[5:], "--out", f"seed{seed}")
    merged = json.loads(dlx("report", "seed0", "seed1", "--json").stdout)
    assert merged["variants"] == whole["variants"]
    assert merged["study"]["folds"] == [0, 1]
    assert {(t["label"], t["seed"], t["fold"]) for t in merged["trials"]} == {
        (label, seed, fold) for label in ("p=0", "p=0.1", "p=0.3") for seed in (0, 1) for fold in (0, 1)
    }
    (look,) = read_study(Path("whole")).looks
    assert (look.num_seeds, look.folds, look.num_runs) == (2, (0, 1), 4)


@pytest.mark.parametrize(("key", "value"), [("folds", (0, 1)), ("scope", Scope.PATIENTS)])
def test_studies_of_other_folds_or_another_scope_are_not_merged(key, value):
    ours = made_study()
    theirs = replace(ours, header=ours.header.model_copy(update={key: value}))
    with pytest.raises(DataError, match=rf"theirs: not the same study: its {key} is"):
        merge_studies([(Path("ours"), ours), (Path("theirs"), theirs)])


def test_records_that_disagree_about_a_person_are_not_merged():
    anna = {"case 0": "anna", "case 1": "anna"}
    ours, others, none = made_study(persons=anna), made_study(persons=anna | {"case 1": "ben"}), made_study()
    fewer = made_study(persons={"case 0": "anna"})  # case 1 is its own person there
    for theirs in (others, fewer):
        with pytest.raises(DataError, match=r"theirs: case 'case 1'.*'anna'"):
            merge_studies([(Path("ours"), ours), (Path("theirs"), theirs)])
    for both in ([ours, none], [none, ours], [ours, ours]):  # an older record names no persons
        assert merge_studies([(Path(str(n)), study) for n, study in enumerate(both)]).header.persons == anna


def test_folds_of_a_file_that_validate_a_case_twice_or_never_are_reported_at_the_start(dlx):
    sides = [{"train": ["subject-1"], "val": ["subject-2", name]} for name in ("subject-3", "subject-4")]
    Path("splits.json").write_text(json.dumps(sides))
    options = [*SMALL, "--fold", "all", "--splits-file", "splits.json", "--dry-run", "--json"]
    remarks = json.loads(dlx("train", *options).stdout)["study"]["remarks"]
    (twice,) = [remark for remark in remarks if "more than one fold" in remark]
    assert "1 of 4" in twice
    assert "'subject-2'" in twice
    (never,) = [remark for remark in remarks if "no fold" in remark]
    assert "'subject-1'" in never


@pytest.mark.parametrize(
    ("args", "key"),
    [
        (["--fold", "some"], r"split\.fold: .*'some'"),
        (["--fold", "-1"], r"split\.fold: .*-1"),
        (["--fold", "all", "--val", "subject-1"], "val and fold"),
        (["--fold", "all", "--folds", "9"], r"split\.folds: 9"),
        (["--fold", "all", "--folds", "2", "--train-subjects", "3"], r"split\.train_subjects: 3"),
        (["--fold", "all", "--splits-file", "one.json"], r"split\.fold: .*one\.json"),
    ],
)
def test_folds_that_do_not_fit_are_refused(dlx, args, key):
    Path("one.json").write_text(json.dumps([{"train": ["subject-1"], "val": ["subject-2"]}]))
    with pytest.raises(SettingError, match=key):
        dlx("train", *SMALL, *args)
    assert not Path("runs").exists()


STUDY = """
question = "Which rate?"
metric = "METRIC"
scope = "SCOPE"
seeds = SEEDS
[base]
data.source = "phantom:subjects=4,size=24"
split = SPLIT
compute = { device = "cpu", precision = "float32" }
[axes]
"dropout.p" = [0, 0.5]
"""
FOLD = "{ fold = 0, folds = 2 }"


@pytest.mark.parametrize(
    ("scope", "metric", "seeds", "split", "key"),
    [
        ("procedure", "val_dice", "2", FOLD, r"scope 'procedure'.*--fold all"),
        ("patients", "gap", "2", FOLD, r"scope 'patients'.*gap.*val_dice"),
        ("patients", "val_dice", "1", FOLD, r"scope 'patients'.*seed"),
        ("patients", "val_dice", "2", "{ val_fraction = 0.25 }", r"scope 'patients'.*1 validation patient"),
        ("everyone", "val_dice", "2", FOLD, r"scope: .*everyone"),
    ],
)
def test_a_scope_that_the_design_cannot_carry_is_refused(dlx, scope, metric, seeds, split, key):
    text = STUDY.replace("SCOPE", scope).replace("METRIC", metric).replace("SEEDS", seeds).replace("SPLIT", split)
    Path("study.toml").write_text(text)
    with pytest.raises(SettingError, match=key):
        dlx("run", "study.toml")
    assert not Path("runs").exists()


def test_the_scope_of_new_patients_is_refused_where_two_folds_validate_a_case(dlx):
    sides = [{"train": ["subject-1"], "val": ["subject-2", name]} for name in ("subject-3", "subject-4")]
    Path("splits.json").write_text(json.dumps(sides))
    folds = ["--fold", "all", "--splits-file", "splits.json", "--seeds", "2"]
    with pytest.raises(SettingError, match=r"scope 'patients'.*'subject-2'"):
        dlx("sweep-dropout", "--p", "0.5", *SMALL, *folds, "--scope", "patients")


@pytest.mark.slow
def test_a_scope_is_declared_and_late_once_results_are_there(dlx):
    sweep = ["sweep-dropout", "--p", "0.5", "--seeds", "2", *SMALL, "--steps-per-epoch", "2", "--val-fraction", "0.5"]
    document = json.loads(dlx(*sweep, "--out", "out", "--scope", "patients", "--json").stdout)
    assert (document["study"]["scope"], document["scope"]) == ("patients", "patients")
    assert document["study"]["declared_late"] == []
    document = json.loads(dlx(*sweep, "--out", "out", "--scope", "seeds", "--json").stdout)
    assert (document["scope"], document["study"]["declared_late"]) == ("seeds", ["scope: patients -> seeds"])
