"""Verdicts for new patients, from records: hand-made ones, and those of experiments/samples worked out again."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
from scipy import stats
from typer.testing import CliRunner

from dlx.cli.main import app
from dlx.records.archive import read_study
from dlx.report.files.document import study_document
from dlx.report.findings.patients import patient_values
from dlx.report.findings.planning import plan_study
from dlx.report.findings.scope import headline_scope, scope_remarks
from dlx.report.findings.summary import summarize_study
from dlx.report.wording.plans import design_lines, plan_lines, spell_needed
from dlx.statistics.estimate import FoldComponents
from dlx.statistics.power import FoldDesign, Needed
from dlx.statistics.verdict import Verdict
from dlx.study.scope import Scope
from dlx.system.errors import SettingError

pytestmark = pytest.mark.usefixtures("without_figures")

SAMPLES = Path(__file__).parents[1] / "experiments" / "samples.jsonl"
MANY, FEW = "train_subjects=64", "train_subjects=8"


def differences_of_samples():
    """Seed -> case -> difference in Dice of 64 and 8 training subjects, from the lines of the archive alone."""
    dice = {}
    for line in SAMPLES.read_text(encoding="utf-8").splitlines():
        record = json.loads(line).get("record")
        if record and record["label"] in (MANY, FEW):
            cases = record["result"]["val"]["cases"]
            dice[record["label"], record["seed"]] = {case: mean(s["dice"].values()) for case, s in cases.items()}
    return {s: {case: dice[MANY, s][case] - dice[FEW, s][case] for case in dice[MANY, s]} for s in range(5)}


def test_the_interval_for_new_patients_is_that_worked_out_from_the_records_in_another_way():
    table = differences_of_samples()
    seeds, cases = list(table), list(table[0])
    num_seeds, num_cases = len(seeds), len(cases)
    grand = mean(table[s][c] for s in seeds for c in cases)
    of_seed = {s: mean(table[s].values()) for s in seeds}
    of_case = {c: mean(table[s][c] for s in seeds) for c in cases}
    ms_seeds = num_cases * sum((of_seed[s] - grand) ** 2 for s in seeds) / (num_seeds - 1)
    ms_cases = num_seeds * sum((of_case[c] - grand) ** 2 for c in cases) / (num_cases - 1)
    rest_df = (num_seeds - 1) * (num_cases - 1)
    ms_rest = sum((table[s][c] - of_seed[s] - of_case[c] + grand) ** 2 for s in seeds for c in cases) / rest_df
    total = ms_seeds + ms_cases - ms_rest
    df = total**2 / (ms_seeds**2 / (num_seeds - 1) + ms_cases**2 / (num_cases - 1) + ms_rest**2 / rest_df)
    half = stats.t.ppf(0.975, df) * (total / (num_seeds * num_cases)) ** 0.5

    row = next(v for v in summarize_study(read_study(SAMPLES)).variants if v.label == MANY).comparison
    patients, seeds_alone = row.scopes[Scope.PATIENTS], row.scopes[Scope.SEEDS]
    assert row.scope is Scope.PATIENTS
    assert (patients.n, seeds_alone.n) == (52, 5)
    assert patients.difference == pytest.approx(grand)
    # Satterthwaite's interval is the narrower of the two approximations here
    assert (grand - half, grand + half) == pytest.approx((0.050, 0.086), abs=0.0005)
    assert patients.interval == pytest.approx((grand - half, grand + half), abs=0.001)
    assert patients.interval[0] <= grand - half
    assert seeds_alone.interval == pytest.approx((0.059, 0.077), abs=0.0005)


def test_the_document_has_the_scope_and_the_verdicts_of_all_scopes():
    document = study_document(summarize_study(read_study(SAMPLES)), [])
    assert document["scope"] == "patients"
    many = next(v for v in document["variants"] if v["label"] == MANY)
    assert set(many["scopes"]) == {"seeds", "patients", "procedure"}
    assert many["scopes"]["procedure"] is None
    for key in ("difference", "interval", "verdict"):
        assert many[key] == many["scopes"]["patients"][key]
    assert many["scopes"]["seeds"]["n"] == 5
    assert next(v for v in document["variants"] if v["label"] == FEW)["scopes"] is None


def test_a_metric_without_a_value_for_each_patient_has_a_verdict_for_new_seeds():
    records = read_study(SAMPLES)
    header = records.header.model_copy(update={"metric": "gap"})
    variants = summarize_study(records).variants
    assert headline_scope(header, variants)[0] is Scope.SEEDS
    assert patient_values(variants[:2], "gap", header.runs, {}) is None


def test_a_study_with_few_validation_patients_says_that_nothing_follows_about_new_ones():
    summary = summarize_study(read_study(SAMPLES.with_name("dropout-phantom.jsonl")))
    assert summary.scope is Scope.SEEDS
    assert "1 validation patient" in summary.why_scope


def test_settings_in_which_the_verdicts_are_wrong_more_often_are_warned_of():
    header = read_study(SAMPLES).header  # five variants and a control
    assert scope_remarks(header, Scope.PATIENTS, 52) == []
    assert "7 %" in scope_remarks(header, Scope.PATIENTS, 5)[0]
    assert "fewer than 5" in scope_remarks(header, Scope.PATIENTS, 4)[0]
    assert scope_remarks(header, Scope.PATIENTS, 0) == []  # no run has ended
    two = header.model_copy(update={"seeds": (0, 1)})
    assert "8 %" in scope_remarks(two, Scope.PATIENTS, 52)[0]
    assert scope_remarks(two, Scope.SEEDS, 52) == []
    folds = header.model_copy(update={"folds": (0, 1, 2), "settings": {"split": {"train_subjects": None}}})
    assert "training sets" in scope_remarks(folds, Scope.PROCEDURE, 52)[0]
    assert scope_remarks(folds.model_copy(update={"folds": (0, 1)}), Scope.PROCEDURE, 52) == []  # they share nobody
    assert "2 seeds" in scope_remarks(folds.model_copy(update={"seeds": (0, 1)}), Scope.PROCEDURE, 52)[0]
    few = folds.model_copy(update={"settings": {"split": {"train_subjects": 8}}})
    assert scope_remarks(few, Scope.PROCEDURE, 52) == []


CROSSED = SAMPLES.with_name("cross-validation.jsonl")


def without(records, label, *runs):
    """The records of a study whose trials of this variant and these runs have not ended."""
    trials = [
        replace(t, record=None, epochs=()) if t.entry.label == label and t.entry.run in runs else t
        for t in records.trials
    ]
    return replace(records, trials=tuple(trials))


@pytest.mark.parametrize("scope", list(Scope))
def test_a_study_of_folds_can_be_reported_while_a_fold_is_missing(scope):
    records = read_study(CROSSED)
    records = replace(records, header=records.header.model_copy(update={"scope": scope}))
    row = summarize_study(without(records, "16 subjects", (4, 1))).variants[2].comparison
    assert row.verdict is Verdict.INCOMPLETE
    assert row.num_pairs == 9
    assert row.difference is not None


def test_before_the_last_seed_a_difference_but_no_interval_is_shown():
    summary = summarize_study(without(read_study(SAMPLES), MANY, 4))
    row = next(v for v in summary.variants if v.label == MANY).comparison
    assert (row.scope, row.verdict, row.interval) == (Scope.PATIENTS, Verdict.INCOMPLETE, None)
    assert (row.num_pairs, row.headline.n) == (4, 52)
    assert row.difference == pytest.approx(0.071, abs=0.001)
    assert not any("simulated" in remark for remark in summary.remarks)


def test_a_narrower_scope_that_is_declared_stands_beside_the_wider_ones_of_the_design():
    records = read_study(SAMPLES)
    records = replace(records, header=records.header.model_copy(update={"scope": Scope.SEEDS}))
    row = next(v for v in summarize_study(records).variants if v.label == MANY).comparison
    assert row.scope is Scope.SEEDS
    assert set(row.scopes) == {Scope.SEEDS, Scope.PATIENTS}


def test_a_plan_is_printed_or_given_as_json():
    weight_decay = SAMPLES.with_name("weight-decay.jsonl")
    summary = summarize_study(read_study(weight_decay))
    plan = plan_study(summary)
    assert plan is not None
    (design,) = plan.studies
    assert (design.num_seeds, design.num_patients, design.num_trials) == (22, None, 132)
    result = CliRunner().invoke(app, ["report", str(weight_decay), "--plan", "--json"])
    document = json.loads(result.stdout)
    assert document["designs"][0]["num_seeds"] == 22
    assert any("22 seeds" in line for line in document["plan"])
    assert "Design: 22 seeds" in CliRunner().invoke(app, ["report", str(weight_decay), "--plan"]).stdout


@pytest.mark.parametrize("option", [["--per-case"], ["--per-class"], ["--out", "x"]])
def test_a_plan_refuses_options_that_it_would_ignore(option):
    result = CliRunner().invoke(app, ["report", str(SAMPLES), "--plan", *option])
    assert isinstance(result.exception, SettingError)
    assert option[0] in str(result.exception)


def study_of_patients(*, num_persons=None, train_subjects=None):
    """experiments/initialisation for a smallest effect of 0.03, with so many persons in the data."""
    records = read_study(SAMPLES.with_name("initialisation.jsonl"))
    settings = records.header.settings
    settings = settings | {"split": settings["split"] | {"train_subjects": train_subjects}}
    changes = {"num_persons": num_persons, "smallest_effect": 0.03, "settings": settings}
    return summarize_study(replace(records, header=records.header.model_copy(update=changes)))


def test_cross_validation_is_planned_over_all_persons_for_new_training_sets():
    summary = study_of_patients(num_persons=260)
    plan = plan_study(summary)
    *_, folds = plan.studies
    assert (folds.scope, folds.num_folds, folds.num_patients) == (Scope.PROCEDURE, 5, 260)
    assert folds.num_trials == 5 * folds.num_seeds * len(summary.variants)
    parts, alpha = plan.design.parts, 0.05 / (len(summary.variants) - 1)
    of_folds = FoldComponents(parts.patient / 52, parts.seed + parts.residual / 52)
    fewer, enough = (
        FoldDesign(of_folds, 5, n, 0.25).power(0.03, alpha=alpha) for n in (folds.num_seeds - 1, folds.num_seeds)
    )
    assert fewer < 0.8 <= enough
    assert any(f"5 folds x {folds.num_seeds} seeds over all 260 subjects" in line for line in plan_lines(summary))


def test_the_persons_of_older_records_are_those_of_the_runs_unless_some_were_left_out_of_training():
    everyone = plan_study(study_of_patients()).studies[-1]
    assert (everyone.num_folds, everyone.num_patients) == (5, 60)  # 8 that trained and 52 that validated
    assert all(study.num_folds == 0 for study in plan_study(study_of_patients(train_subjects=16)).studies)


def test_seeds_and_patients_are_planned_together_where_more_of_one_do_not_suffice():
    plan = plan_study(summarize_study(read_study(SAMPLES.with_name("dropout-hippocampus.jsonl"))))
    assert plan.needed == Needed(seeds=None, patients=None)
    (both,) = plan.studies
    assert both.num_seeds > 5
    assert both.num_patients > 52
    design = replace(plan.design, num_seeds=both.num_seeds, num_patients=both.num_patients)
    alpha = 0.05 / 3  # three variants beside the control
    assert design.power(plan.effect, alpha=alpha) >= 0.8
    assert replace(design, num_patients=both.num_patients - 1).power(plan.effect, alpha=alpha) < 0.8


def test_scans_of_one_person_are_averaged_first():
    records = read_study(SAMPLES)
    variants = summarize_study(records).variants
    cases = list(variants[0].records[0].result.val.cases)
    plain, grouped = (
        patient_values(variants[:2], "val_dice", records.header.runs, persons)
        for persons in ({}, {cases[0]: "anna", cases[1]: "anna"})
    )
    assert plain[0].shape == (5, 52)
    assert grouped[0].shape == (5, 51)
    assert grouped[0][:, 0] == pytest.approx(plain[0][:, :2].mean(axis=1))
    assert grouped[1][:, 1:] == pytest.approx(plain[1][:, 2:])


@pytest.mark.parametrize("scope", [Scope.SEEDS, Scope.PATIENTS])
def test_the_plan_of_crossed_folds_for_a_narrower_scope_keeps_their_folds_and_scope(scope):
    records = read_study(CROSSED)
    header = records.header.model_copy(update={"scope": scope, "smallest_effect": 0.03})
    summary = summarize_study(replace(records, header=header))
    plan = plan_study(summary)
    assert {(study.scope, study.num_folds) for study in plan.studies} == {(scope, 5)}
    (line,) = (line for line in plan_lines(summary) if "80 % power" in line)
    assert f"{plan.needed.seeds} seeds in each of these 5 folds" in line
    assert "training sets" not in line


def test_a_plan_of_settled_verdicts_and_one_without_variances_are_told_apart():
    (settled,) = design_lines(summarize_study(read_study(SAMPLES)))
    (unknown,) = design_lines(summarize_study(replace(read_study(SAMPLES), trials=())))
    assert "settled" in settled
    assert "variance" in unknown


def test_one_seed_in_each_fold_leaves_open_what_is_needed_and_a_second_one_shows_it():
    records = read_study(CROSSED)
    trials = tuple(trial for trial in records.trials if trial.entry.seed == 0)
    fields = {"seeds": (0,), "trials": tuple(trial.entry for trial in trials), "smallest_effect": 0.005}
    summary = summarize_study(replace(records, header=records.header.model_copy(update=fields), trials=trials))
    is_open = [not v.comparison.verdict.is_settled for v in summary.variants if v.comparison]
    assert any(is_open)
    assert {spell_needed(v.comparison) for v in summary.variants if v.comparison} == {"-"}
    assert any("second seed" in line for line in plan_lines(summary))


def undecided(variant):
    """The variant, with a headline verdict that cannot tell."""
    row = variant.comparison
    result = replace(row.headline, verdict=Verdict.CANNOT_TELL)
    return replace(variant, comparison=replace(row, scopes=row.scopes | {row.scope: result}))


def test_a_plan_never_asks_for_fewer_patients_than_there_are():
    records = read_study(SAMPLES.with_name("initialisation.jsonl"))
    summary = summarize_study(replace(records, header=records.header.model_copy(update={"smallest_effect": 0.2})))
    control, *others = summary.variants
    plan = plan_study(replace(summary, variants=(control, *map(undecided, others))))
    assert plan.needed.patients < 52
    (present,) = (study for study in plan.studies if study.scope is Scope.PATIENTS)
    assert (present.num_seeds, present.num_patients) == (5, None)
