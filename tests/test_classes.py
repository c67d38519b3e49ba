"""Single classes in a study: one that a seed never learned, tables of them, and metrics of one class."""

import json

import pytest

from dlx.records.archive import read_study, write_archive
from dlx.report.findings.summary import summarize_study
from dlx.report.page.page import make_page
from dlx.report.page.sections import page_content
from dlx.report.terminal.trial_tables import seeds_table
from dlx.report.wording.verdicts import spell_collapse, spell_reasons
from dlx.statistics.collapse import find_collapse, runs_without
from dlx.statistics.reasons import NothingLearned
from dlx.statistics.verdict import Verdict
from dlx.study.metrics import check_class, direction_of, known_claim_metric, known_study_metric, split_metric
from dlx.system.errors import DataError, SettingError
from made_records import made_study, with_classes
from small import SMALL_ARGS

LEARNED = {0: 0.75, 1: 0.78, 2: 0.8, 3: 0.72, 4: 0.77}
LABELS = {"p=0": (0.9, 0.8), "p=0.1": (0.9, 0.8)}


def lost_csf(**options):
    """GM and WM at 0.8 in all trials; CSF is lost in seed 2 of p = 0.1: its mean Dice 0.539 is no collapse of a run."""
    return with_classes(made_study(LABELS, **options), {"CSF": {("p=0.1", 2): 0.016}, "GM": 0.8, "WM": 0.8})


def compared(records):
    return next(v for v in summarize_study(records).variants if v.label == "p=0.1")


# the rule


@pytest.mark.parametrize("dice", [0.016, 0.027, 0.0])
def test_a_class_that_one_seed_never_learned_is_found(dice):
    assert runs_without(LEARNED | {2: dice}) == (2,)


@pytest.mark.parametrize(
    "values",
    [
        {0: 0.05, 1: 0.3, 2: 0.0, 3: 0.2, 4: 0.35},  # small lesions: low everywhere
        {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0, 4: 0.0},  # that no seed learns is a difference, or the data's fault
        {0: 0.75, 1: 0.78, 2: 0.12, 3: 0.72, 4: 0.77},  # bad, but learned
        {0: 0.75, 1: 0.78, 2: None, 3: 0.72, 4: 0.77},  # not measured
        {0: 0.01},
    ],
)
def test_a_class_that_is_low_everywhere_learned_badly_or_not_measured_is_no_alarm(values):
    assert runs_without(values) == ()


def test_two_seeds_of_five_may_lose_a_class():
    assert runs_without(LEARNED | {1: 0.0, 3: 0.05}) == (1, 3)


def test_a_class_that_a_variant_learns_badly_on_every_seed_is_a_difference_and_no_loss():
    assert runs_without({0: 0.41, 1: 0.42, 2: 0.05}, reference=0.9) == ()
    assert runs_without({0: 0.41, 1: 0.42, 2: 0.05}, reference=0.8) == (2,)


def test_a_run_that_learned_nothing_is_called_collapsed_and_no_class_of_it_is_named():
    whole = dict.fromkeys(range(4), 0.8) | {4: 0.02}
    classes = dict.fromkeys(("CSF", "GM"), whole)
    found = find_collapse(whole, whole, range(5), classes=classes, control_classes=classes)
    assert (found.runs, found.lost) == ((4,), ())


def test_a_collapsed_run_that_learned_one_of_two_classes_names_the_other():
    whole = dict.fromkeys(range(4), 0.8) | {4: 0.39}
    classes = {"CSF": whole | {4: 0.0}, "GM": whole | {4: 0.78}}
    found = find_collapse(whole, whole, range(5), classes=classes, control_classes=classes)
    assert (found.runs, found.lost) == ((4,), (("CSF", (4,)),))
    assert spell_collapse(found) == "1 of 5 runs collapsed (seed 4); seed 4 never learned CSF"


# in a study


def test_a_lost_class_is_named_with_its_seed_and_the_verdict_is_collapsed():
    found = compared(lost_csf())
    assert spell_collapse(found.collapse) == "seed 2 never learned CSF"
    assert (found.comparison.verdict, found.comparison.interval) == (Verdict.COLLAPSED, None)
    page = make_page(page_content(summarize_study(lost_csf()), lost_csf()), None)
    assert "**p=0.1: seed 2 never learned CSF.**" in page
    assert "| p=0.1 | 0.016 to 0.800 | 0.800 ± 0.000 | 0.800 ± 0.000 |" in page


def test_a_class_that_the_control_lost_leaves_that_seed_out_of_the_noise_floor():
    records = with_classes(made_study(LABELS), {"CSF": {("p=0", 2): 0.0}, "GM": 0.8, "WM": 0.8})
    summary = summarize_study(records)
    assert summary.noise_floor.n == 4
    assert spell_reasons(summary.variants[1].comparison) == "seed 2 of the control never learned CSF"


def test_seeds_that_lost_different_classes_are_listed_separately():
    lost = {"CSF": {("p=0.1", 2): 0.0}, "GM": {("p=0.1", 3): 0.0, ("p=0.1", 2): 0.0}, "WM": 0.8, "skull": 0.8}
    described = spell_collapse(compared(with_classes(made_study(LABELS), lost)).collapse)
    assert described == "seed 2 never learned CSF; seeds 2, 3 never learned GM"


def test_a_claim_about_a_variant_that_lost_a_class_is_not_decided():
    claim = {"text": "c", "kind": "greater", "metric": "val_dice", "variant": "p=0.1"}
    (outcome,) = summarize_study(lost_csf(claims=(claim,))).claims
    assert spell_reasons(outcome.result) == "runs collapsed: p=0.1 (seed 2 never learned CSF)"


# metrics of one class


@pytest.mark.parametrize(
    ("metric", "parts"),
    [
        ("val_dice", ("val_dice", None)),
        ("val_dice:kidney [left]", ("val_dice", "kidney [left]")),
        ("hd95_mm:a:b", ("hd95_mm", "a:b")),
    ],
)
def test_a_class_is_all_that_follows_the_first_colon(metric, parts):
    assert split_metric(metric) == parts


def test_a_metric_of_a_class_has_the_direction_of_that_metric():
    assert direction_of("hd95_mm:CSF") == "lower"
    assert direction_of("val_dice:CSF") == "higher"


@pytest.mark.parametrize("metric", ["jitter:CSF", "best_val_dice:CSF"])
def test_a_metric_that_no_class_has_is_refused(metric):
    with pytest.raises(ValueError, match="val_dice, train_dice, gap, hd95_mm, surface_dice"):
        known_study_metric(metric)


def test_an_unknown_class_is_refused_with_the_names_of_the_classes():
    with pytest.raises(SettingError, match=r"no class 'edem': did you mean 'edema'\? \(known: core, edema\)"):
        check_class("val_dice:edem", ("core", "edema"))


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("val_dice:CSF", 0.7),
        ("train_dice:CSF", 0.7),
        ("gap:CSF", 0.0),
        ("hd95_mm:CSF", 3.0),
        ("surface_dice:CSF", 0.7),
    ],
)
def test_a_study_compares_by_a_metric_of_one_class(metric, value):
    rise = {("p=0.1", seed): 0.7 + 0.001 * seed for seed in range(5)}
    classes = {"CSF": rise, "GM": 0.2}
    summary = summarize_study(with_classes(made_study(LABELS, metric=metric), classes))
    assert "CSF" in summary.metric_title
    assert summary.variants[1].by_run[metric][0] == pytest.approx(value)
    expected = {"val_dice:CSF": -0.098, "gap:CSF": 0.0, "hd95_mm:CSF": 0.98}  # the control has 0.8
    if metric in expected:
        assert summary.variants[1].comparison.difference == pytest.approx(expected[metric])


def test_a_class_that_was_lost_does_not_touch_a_study_of_another():
    assert compared(lost_csf(metric="val_dice:GM")).comparison.verdict is not Verdict.COLLAPSED
    assert compared(lost_csf(metric="val_dice:CSF")).comparison.verdict is Verdict.COLLAPSED


def test_a_claim_may_be_about_one_class_also_within_a_window():
    fields = {"kind": "within", "variant": "p=0.1", "than": "p=0", "margin": 0.5}
    claims = (
        {"text": "end", "metric": "val_dice:GM", **fields},
        {"text": "window", "metric": "val_dice:csf", "window": (9, 10), **fields},  # of the epochs' own classes
    )
    records = with_classes(made_study(LABELS, claims=claims), {"GM": 0.8, "WM": 0.8})
    outcomes = summarize_study(records).claims
    assert [outcome.result.n for outcome in outcomes] == [5, 5]
    assert "val Dice of GM" in outcomes[0].measured
    assert known_claim_metric("train_dice_subset") == "train_dice_subset"


def test_an_archive_of_a_metric_of_one_class_is_read_and_of_a_misspelt_metric_refused(tmp_path):
    path = tmp_path / "made.jsonl"
    write_archive(path, lost_csf(metric="val_dice:GM"))
    assert read_study(path).header.metric == "val_dice:GM"
    path.write_text(path.read_text().replace("val_dice:GM", "vall_dice:GM"))
    with pytest.raises(DataError, match="unknown metric 'vall_dice:GM': did you mean 'val_dice'"):
        read_study(path)


# tables


def test_several_seeds_have_a_table_of_classes_and_a_word_on_the_one_that_was_lost(capsys):
    from dlx.cli.output.console import output

    records = with_classes(
        made_study({"unet2": (0.9, 0.8)}, control=None, axes=()), {"CSF": {("unet2", 2): 0.0}, "GM": 0.8, "WM": 0.8}
    )
    output().show(seeds_table([trial.record for trial in records.trials]))
    shown = " ".join(capsys.readouterr().out.split())
    assert "unet2: seed 2 never learned CSF" in shown
    assert "CSF 0.000 to 0.800" in shown
    assert "GM 0.800" in shown


@pytest.mark.parametrize("unit", ["mm", "px"])
def test_distances_of_each_class_over_seeds_have_the_unit_of_the_records(unit, capsys):
    from dlx.cli.output.console import output

    made = made_study({"unet2": (0.9, 0.8)}, control=None, axes=(), seeds=[0, 1])
    records = [trial.record for trial in made.trials]
    changed = [r.model_copy(update={"result": r.result.model_copy(update={"distance_unit": unit})}) for r in records]
    output().show(seeds_table(changed))
    assert f"val HD95 {unit}" in " ".join(capsys.readouterr().out.split())


def test_a_studys_table_shows_classes_where_asked(dlx, tmp_path):
    write_archive(tmp_path / "made.jsonl", lost_csf())
    assert "validation Dice of each class" not in dlx("report", "made.jsonl").stdout
    shown = dlx("report", "made.jsonl", "--per-class").stdout
    assert "validation Dice of each class" in shown
    assert "p=0.1: seed 2 never learned CSF" in shown
    document = json.loads(dlx("report", "made.jsonl", "--json").stdout)
    entry = document["variants"][1]
    assert entry["lost_classes"] == {"CSF": [{"seed": 2}]}
    assert entry["val_dice_per_class"]["GM"] == {"mean": pytest.approx(0.8), "spread": pytest.approx(0.0), "n": 5}


def test_a_study_file_of_an_unknown_class_is_refused_before_it_runs(dlx, tmp_path):
    (tmp_path / "s.toml").write_text('metric = "val_dice:CFS"\n[axes]\n"dropout.p" = [0, 0.5]\n')
    with pytest.raises(SettingError, match="no class 'CFS': did you mean 'CSF'"):
        dlx("run", "s.toml", *SMALL_ARGS, "--dry-run")


@pytest.mark.parametrize("learned", [False, True])
def test_a_class_that_no_run_learned_is_no_evidence_of_no_difference(learned):
    gm = 0.8 if learned else 0.0
    records = with_classes(made_study(LABELS, metric="val_dice:GM"), {"CSF": 0.8, "GM": gm, "WM": 0.8})
    summary = summarize_study(records)
    comparison = compared(records).comparison
    if learned:
        assert comparison.verdict is Verdict.NO_DIFFERENCE
    else:
        assert (comparison.verdict, comparison.difference) == (Verdict.CANNOT_TELL, 0.0)
        assert comparison.reasons == (NothingLearned("GM"),)
        assert summary.noise_floor.detectable_effect is None
