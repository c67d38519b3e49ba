"""A study's summary and its claims, from records made by hand whose metrics are worked out here."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from dlx.records.archive import read_study
from dlx.records.schema import TrialRecord
from dlx.report.findings.summary import summarize_study
from dlx.report.findings.variant_checks import dice_of_batches
from dlx.report.wording.plans import spell_needed
from dlx.report.wording.rows import noise_floor_line
from dlx.statistics.power import Needed
from dlx.statistics.reasons import AgainstRivals, EarlierLooks, MissingRuns, SameRecords
from dlx.statistics.verdict import Verdict
from made_records import dropout_sweep, made_look, made_study

T_4 = 2.7764451  # 97.5 % quantile of t with 4 degrees of freedom, from a printed table
FLAT = {"p=0": (0.9, 0.8), "p=0.1": (0.9, 0.8)}
ROUND = [0.0, 0.01, 0.02, 0.03, 0.04]  # mean 0.02, standard deviation sqrt(0.00025) = 0.0158


def study(rises=ROUND, **options):
    """The control at validation Dice 0.8 and train 0.9 in all seeds; p = 0.1 rises by so much, its train Dice falls."""
    finals = {("p=0", seed): (0.9, 0.8) for seed in range(5)}
    finals |= {("p=0.1", seed): (0.9 - rise, 0.8 + rise) for seed, rise in enumerate(rises)}
    return made_study(FLAT, finals=finals, **options)


def variant(records, label="p=0.1"):
    return next(v for v in summarize_study(records).variants if v.label == label)


def claim(records_of=study, **fields):
    records = records_of(claims=({"text": "claimed", "metric": "val_dice", **fields},))
    (outcome,) = summarize_study(records).claims
    return outcome


# metrics and pairing


def test_estimates_are_mean_and_spread_over_seeds():
    estimates = variant(study()).estimates
    assert estimates["val_dice"].mean == pytest.approx(0.82)
    assert estimates["val_dice"].sd == pytest.approx(math.sqrt(0.00025))
    assert estimates["train_dice"].mean == pytest.approx(0.88)
    assert estimates["gap"].mean == pytest.approx(0.06)
    assert estimates["gap"].sd == pytest.approx(2 * math.sqrt(0.00025))
    assert estimates["hd95_mm"].mean == pytest.approx(1.8)  # made as 10 (1 - Dice) mm
    assert estimates["val_dice"].n == 5


@pytest.mark.parametrize("unit", ["mm", "px"])
def test_the_title_of_a_distance_has_the_unit_of_the_records(unit):
    made = made_study(FLAT, metric="hd95_mm", seeds=[0])
    trials = [json.loads(trial.record.model_dump_json()) for trial in made.trials]
    for trial in trials:
        trial["result"]["distance_unit"] = unit
    records = tuple(
        replace(trial, record=TrialRecord.model_validate(changed))
        for trial, changed in zip(made.trials, trials, strict=True)
    )
    assert summarize_study(replace(made, trials=records)).metric_title == f"HD95 ({unit})"


def test_records_from_before_there_was_a_unit_are_in_mm():
    trial = json.loads(made_study(FLAT, seeds=[0]).trials[0].record.model_dump_json())
    del trial["result"]["distance_unit"]
    assert TrialRecord.model_validate(trial).result.distance_unit == "mm"


def test_one_seed_has_no_spread():
    spread = variant(made_study(FLAT, finals={("p=0.1", 0): (0.9, 0.8)}, seeds=[0])).estimates["val_dice"]
    assert (spread.mean, spread.sd, spread.n) == (0.8, None, 1)


def test_the_best_epoch_is_the_highest_of_the_epochs():
    records = study()
    best = [max(e.result.val_dice for e in t.epochs) for t in records.trials if t.entry.label == "p=0.1"]
    assert variant(records).estimates["best_val_dice"].mean == pytest.approx(sum(best) / 5)


def test_spread_over_cases_is_of_their_means_over_seeds():
    assert variant(study()).case_sd == pytest.approx(0.03)  # three cases, 0.03 apart in every seed


def test_a_difference_is_paired_by_seed_with_its_t_interval():
    row = variant(study()).comparison
    half = T_4 * math.sqrt(0.00025) / math.sqrt(5)
    assert row.difference == pytest.approx(0.02)
    assert row.interval == pytest.approx((0.02 - half, 0.02 + half))
    assert row.num_pairs == 5


def test_what_seeds_have_in_common_cancels():
    shift = [0.0, 0.03, -0.02, 0.01, -0.04]
    finals = {("p=0", seed): (0.9, 0.8 + s) for seed, s in enumerate(shift)}
    finals |= {("p=0.1", seed): (0.9, 0.82 + s) for seed, s in enumerate(shift)}
    row = variant(made_study(FLAT, finals=finals)).comparison
    assert row.verdict is Verdict.BETTER
    assert row.spread == pytest.approx(0.0, abs=1e-12)


def test_a_lower_gap_is_better():
    assert variant(study([0.02, 0.021, 0.022, 0.023, 0.024], metric="gap")).comparison.verdict is Verdict.BETTER


def test_the_control_has_no_comparison_and_the_noise_floor_is_its_spread():
    finals = {("p=0", seed): (0.9, 0.8 + rise) for seed, rise in enumerate(ROUND)}
    summary = summarize_study(made_study(FLAT, finals=finals))
    assert summary.variants[0].is_control
    assert summary.variants[0].comparison is None
    assert summary.noise_floor.control_spread == pytest.approx(math.sqrt(0.00025))


def test_trials_on_unlike_devices_are_not_paired():
    summary = summarize_study(study(devices={("p=0.1", 4): "NVIDIA H100"}))
    row = summary.variants[1].comparison
    assert (row.num_pairs, row.verdict) == (4, Verdict.INCOMPLETE)
    assert row.difference == pytest.approx(0.015)  # without the fifth, 0.04
    assert "unlike devices" in summary.remarks[0]


def test_a_contrast_of_variants_on_unlike_devices_is_refused_and_one_on_the_same_is_not():
    three = {"p=0": (0.9, 0.8), "p=0.1": (0.9, 0.82), "p=0.2": (0.9, 0.81)}
    claims = ({"text": "c", "kind": "greater", "metric": "val_dice", "variant": "p=0.1", "than": "p=0.2"},)
    alone = {("p=0.1", 4): "NVIDIA H100"}
    result = summarize_study(made_study(three, devices=alone, claims=claims)).claims[0].result
    assert (result.verdict, result.reasons) == (Verdict.INCOMPLETE, (MissingRuns(4, 5, 1),))
    assert result.interval is None
    together = alone | {("p=0.2", 4): "NVIDIA H100"}  # the control is on neither side of this claim
    assert summarize_study(made_study(three, devices=together, claims=claims)).claims[0].result.n == 5


def test_claims_leave_out_trials_on_unlike_devices_too():
    for window in ({}, {"window": (9, 10)}):
        fields = {"text": "c", "kind": "greater", "metric": "val_dice", "variant": "p=0.1", **window}
        records = study(devices={("p=0.1", 4): "NVIDIA H100"}, claims=(fields,))
        result = summarize_study(records).claims[0].result
        assert (result.n, result.verdict) == (4, Verdict.INCOMPLETE)


# what must be said of a variant


def test_a_variant_equal_to_its_control_is_marked_idle():
    found = variant(study(idle=["p=0.1"]))
    assert (found.comparison.verdict, found.comparison.reasons) == (Verdict.NO_EFFECT, (SameRecords(is_plateau=False),))


def test_equal_epochs_with_other_weights_are_not_idle():
    finals = {(label, seed): (0.9, 0.8) for label in FLAT for seed in range(5)}
    records = made_study(FLAT, finals=finals)
    assert variant(records).comparison.verdict is Verdict.NO_DIFFERENCE


def test_a_plateau_rule_that_never_fired_is_named_as_the_reason():
    records = study(idle=["p=0.1"], schedulers={"p=0.1": "plateau"})
    assert variant(records).comparison.reasons == (SameRecords(is_plateau=True),)


def test_a_dead_knob_beside_a_plateau_of_the_control_is_not_called_the_plateau_rule():
    records = study(idle=["p=0.1"], schedulers={"p=0.1": "plateau", "p=0": "plateau"})
    assert variant(records).comparison.reasons == (SameRecords(is_plateau=False),)


def test_a_diverged_trial_is_a_row_with_its_cause_and_no_interval():
    found = variant(study(diverged=[("p=0.1", 2)]))
    assert found.unfinished == ("seed 2: diverged (the loss is nan in epoch 4)",)
    assert found.by_run["val_dice"][2] is None
    assert found.estimates["val_dice"].n == 4
    assert (found.comparison.verdict, found.comparison.interval) == (Verdict.COLLAPSED, None)


def test_a_collapsed_run_is_named_by_its_seed():
    found = variant(study(collapsed=[("p=0.1", 3)]))
    (reason,) = found.comparison.reasons
    assert reason.variant.runs == (3,)
    assert not reason.control


def test_a_running_study_is_incomplete_and_is_no_look():
    summary = summarize_study(study(running={("p=0.1", 4): 3}))
    assert summary.num_done == 9
    assert summary.variants[1].comparison.verdict is Verdict.INCOMPLETE
    assert len(summary.variants[1].epochs[4]) == 3
    assert summary.look is None


def test_a_verdict_shown_is_a_look_at_the_declared_number_of_seeds():
    look = summarize_study(study()).look
    assert (look.study, look.metric, look.num_seeds, look.num_variants) == ("made", "val_dice", 5, 1)


def test_a_look_at_fewer_seeds_costs_the_verdict_its_five_percent():
    rises = [0.02, 0.021, 0.022, 0.023, 0.024]
    assert variant(study(rises, looks=[made_look(5)])).comparison.reasons == ()
    (reason,) = variant(study(rises, looks=[made_look(3)])).comparison.reasons
    assert reason.num_runs == (3,)
    assert reason.false_alarm_rate > 0.05


def test_before_all_seeds_are_there_no_interval_is_shown_that_would_be_a_look():
    claims = ({"text": "c", "kind": "greater", "metric": "val_dice", "variant": "p=0.1"},)
    summary = summarize_study(study([0.02, 0.021, 0.022, 0.023, 0.024], running={("p=0.1", 4): 3}, claims=claims))
    assert summary.variants[1].comparison.interval is None
    assert summary.claims[0].result.interval is None
    assert summary.look is None


def test_a_look_at_fewer_seeds_costs_claims_their_five_percent_too():
    claims = ({"text": "c", "kind": "greater", "metric": "val_dice", "variant": "p=0.1"},)
    rises = [0.02, 0.021, 0.022, 0.023, 0.024]
    result = summarize_study(study(rises, claims=claims, looks=[made_look(3)])).claims[0].result
    assert result.verdict is Verdict.CONFIRMED
    assert result.reasons[-1].num_runs == (3,)
    assert result.reasons[-1].false_alarm_rate == pytest.approx(0.085, abs=0.005)
    best = ({"text": "c", "kind": "best", "metric": "val_dice", "variant": "p=0.1"},)
    reasons = summarize_study(study(rises, claims=best, looks=[made_look(3)])).claims[0].result.reasons
    assert reasons[-1] == EarlierLooks((3,), None)  # the rate of several tests is not known
    (reason,) = summarize_study(study(rises, claims=claims, looks=[made_look(5)])).claims[0].result.reasons
    assert not isinstance(reason, EarlierLooks)


def test_claims_that_are_shown_without_a_control_are_a_look():
    claims = ({"text": "c", "kind": "less", "variant": "unet2", "metric": "loss", "window": (9, 10), "margin": 0.0},)
    claims[0]["than_window"] = (1, 2)
    one = summarize_study(made_study({"unet2": (0.9, 0.8)}, control=None, axes=(), claims=claims))
    assert (one.look.num_seeds, one.look.num_variants) == (5, 0)


def test_a_study_of_one_variant_has_estimates_and_no_verdict():
    summary = summarize_study(made_study({"unet2": (0.9, 0.8)}, control=None, axes=()))
    assert summary.variants[0].comparison is None
    assert summary.noise_floor is None
    assert summary.look is None


@pytest.mark.parametrize("whose", ["p=0", "p=0.1"])
def test_a_metric_that_was_not_measured_differs_from_one_that_is_still_missing(whose):
    records = study(every=5, metric="jitter", epochs=12)  # of the last 3 epochs the tenth and the last are validated
    row = variant(records).comparison
    assert row.verdict is Verdict.NOT_MEASURED
    assert "every 5 epochs" in row.reasons[0].why
    assert summarize_study(records).look is None
    assert variant(study(metric="jitter", running={(whose, 4): 3})).comparison.verdict is Verdict.INCOMPLETE


def test_a_claim_over_a_window_without_a_validated_epoch_was_not_measured():
    result = claim(lambda **o: study(every=5, **o), kind="greater", variant="p=0.1", window=(6, 8)).result
    assert result.verdict is Verdict.NOT_MEASURED
    assert re.match("p=0: .*every 5 epochs, never in epochs 6-8", result.reasons[0].why)


def test_a_run_of_the_control_that_collapsed_is_left_out_of_the_noise_floor():
    rises = {seed: (0.9, 0.8 + rise) for seed, rise in enumerate(ROUND)}
    finals = {("p=0", seed): pair for seed, pair in rises.items()} | {("p=0", 4): (0.1, 0.1)}
    summary = summarize_study(made_study(FLAT, finals=finals))
    assert summary.control_collapse.runs == (4,)
    assert summary.noise_floor.n == 4
    assert summary.noise_floor.control_spread == pytest.approx(math.sqrt(0.0005 / 3))


def test_a_variant_that_fails_only_when_evaluated_is_warned_of():
    records = made_study({"p=0": (0.9, 0.8), "p=0.3": (0.307, 0.228)}, running_dice={("p=0.3", 0): 0.89})
    control, spoilt = summarize_study(records).variants
    assert control.warnings == ()  # made as 0.97 of what is evaluated
    (warning,) = spoilt.warnings
    assert warning.startswith("evaluation differs from training (seed 0): the last epoch's batches reach Dice 0.89")
    assert "BatchNorm" in warning


def test_a_rare_class_that_no_batch_has_is_not_taken_for_a_fault_of_evaluation():
    records = made_study({"p=0": (0.9, 0.8), "p=0.3": (0.5, 0.5)}, running_dice={("p=0.3", 0): 0.7})

    def warnings(per_class):
        trials = []
        for trial in records.trials:
            result = trial.record.result
            train = result.train.model_copy(
                update={"dice_per_class": per_class} if trial.entry.label == "p=0.3" else {}
            )
            record = trial.record.model_copy(update={"result": result.model_copy(update={"train": train})})
            trials.append(replace(trial, record=record))
        return summarize_study(replace(records, trials=tuple(trials))).variants[1].warnings

    assert warnings({"brain": 0.99, "lesion": 0.01}) == ()
    assert len(warnings({"brain": 0.5, "lesion": 0.5})) == 1


def test_the_loss_bounds_the_dice_of_the_batches_where_that_was_not_measured():
    trial = study().trials[0]
    epochs = [epoch.result.model_copy(update={"train_soft_dice_running": None, "loss": 0.24}) for epoch in trial.epochs]

    def bound(*loss, **model):
        settings = {"loss": loss, "model": {"name": "unet2", "args": model}}
        return dice_of_batches(trial.record.model_copy(update={"settings": settings}), epochs)

    dice = {"name": "dice", "args": {"batch": True, "include_background": False}}
    background = {"name": "dice", "args": {"batch": True, "include_background": True}}
    assert bound(dice, {"name": "ce", "args": {}}) == pytest.approx(0.76)
    assert bound({"name": "ce", "args": {}}) is None
    assert bound(background) is None
    assert bound(dice, {"name": "own", "args": {}}) is None  # which may be negative
    assert bound(dice, deep_supervision=0) == bound(dice) == pytest.approx(0.76)
    # weights 4/7, 2/7, 1/7: where coarser levels are perfect, the loss of the full size is 7/4 of the mean, 0.42
    assert bound(dice, deep_supervision=2) == pytest.approx(0.58)
    assert bound(dice, deep_supervision=1) == pytest.approx(1 - 0.24 * 3 / 2)


def test_only_what_batchnorm_spoils_is_warned_of_in_the_recorded_studies():
    warned = {}
    for name in ("dropout-phantom", "dropout-hippocampus"):
        path = Path(__file__).parents[1] / "experiments" / f"{name}.jsonl"
        warned[name] = [v.label for v in summarize_study(read_study(path)).variants if v.warnings]
    assert warned == {"dropout-phantom": [], "dropout-hippocampus": ["p=0.3", "p=0.6"]}


def test_a_header_without_a_direction_takes_the_metrics_own():
    records = study([0.02, 0.021, 0.022, 0.023, 0.024], metric="gap")
    assert records.header.direction is None
    assert summarize_study(records).direction == "lower"
    assert summarize_study(study(direction="higher")).direction == "higher"


# claims


def test_a_claim_of_greater_is_the_difference_from_the_control():
    outcome = claim(kind="greater", variant="p=0.1")
    half = T_4 * math.sqrt(0.00025) / math.sqrt(5)  # 0.0196
    assert outcome.measured == "p=0.1 minus p=0, val Dice"
    assert outcome.result.verdict is Verdict.CONFIRMED
    assert outcome.result.estimate == pytest.approx(0.02)
    assert outcome.result.interval == pytest.approx((0.02 - half, 0.02 + half))


def test_a_claim_of_greater_needs_more_than_its_margin():
    assert claim(kind="greater", variant="p=0.1", margin=0.01).result.verdict is Verdict.CANNOT_TELL
    assert claim(kind="greater", variant="p=0.1", margin=0.05).result.verdict is Verdict.NOT_CONFIRMED
    assert claim(kind="greater", variant="p=0", than="p=0.1").result.verdict is Verdict.CONTRADICTED


def test_a_claim_of_less_keeps_the_sign_of_what_was_measured():
    result = claim(kind="less", variant="p=0.1", metric="train_dice").result
    half = T_4 * math.sqrt(0.00025) / math.sqrt(5)
    assert result.verdict is Verdict.CONFIRMED
    assert result.estimate == pytest.approx(-0.02)
    assert result.interval == pytest.approx((-0.02 - half, -0.02 + half))


def test_a_claim_of_within_is_an_equivalence():
    assert claim(kind="within", variant="p=0.1", margin=0.05).result.verdict is Verdict.CONFIRMED
    assert claim(kind="within", variant="p=0.1", margin=0.02).result.verdict is Verdict.CANNOT_TELL


def test_a_claim_of_best_names_a_rival_that_is_better():
    assert claim(kind="best", variant="p=0.1").result.verdict is Verdict.CONFIRMED
    result = claim(kind="best", variant="p=0").result
    assert (result.verdict, result.reasons) == (Verdict.CONTRADICTED, (AgainstRivals(("p=0.1",)),))
    assert claim(kind="best", variant="p=0.1", metric="gap").result.verdict is Verdict.CONFIRMED  # the smaller gap


def test_trends_are_slopes_over_the_axis():
    outcome = claim(kind="rises")
    assert outcome.measured == "slope over dropout.p, val Dice"
    assert outcome.result.estimate == pytest.approx(0.2)  # 0.02 on 0.1
    assert outcome.result.verdict is Verdict.CONFIRMED
    falling = claim(kind="falls", metric="train_dice").result
    assert (falling.verdict, falling.estimate) == (Verdict.CONFIRMED, pytest.approx(-0.2))
    assert claim(kind="falls").result.verdict is Verdict.CONTRADICTED


def test_a_trend_may_be_among_some_of_the_variants():
    among = ("p=0", "p=0.1", "p=0.2")
    rising = claim(dropout_sweep, kind="rises", among=among).result
    falling = claim(dropout_sweep, kind="falls").result
    assert rising.verdict is Verdict.CONFIRMED
    assert falling.verdict is Verdict.CONFIRMED  # over all nine


def test_a_window_is_the_mean_of_its_epochs():
    records = study()
    val = {(t.entry.label, t.entry.seed): [e.result.val_dice for e in t.epochs] for t in records.trials}
    expected = [(sum(val["p=0.1", s][7:]) - sum(val["p=0", s][7:])) / 3 for s in range(5)]
    outcome = claim(kind="greater", variant="p=0.1", window=(8, 10))
    assert outcome.measured == "p=0.1 minus p=0, val Dice in epochs 8-10"
    assert outcome.result.estimate == pytest.approx(sum(expected) / 5)


def test_a_second_window_is_of_the_same_variant():
    records = study()
    loss = [[e.result.loss for e in t.epochs] for t in records.trials if t.entry.label == "p=0.1"]
    expected = sum(sum(values[8:]) / 2 - sum(values[:2]) / 2 for values in loss) / 5
    outcome = claim(kind="less", variant="p=0.1", metric="loss", window=(9, 10), than_window=(1, 2))
    assert outcome.measured == "p=0.1, loss in epochs 9-10 minus epochs 1-2"
    assert outcome.result.estimate == pytest.approx(expected)
    assert outcome.result.verdict is Verdict.CONFIRMED


def test_a_metric_of_epochs_without_a_window_is_the_last_and_none_of_a_diverged_trial():
    fields = {"kind": "greater", "variant": "p=0.1", "metric": "train_dice_subset"}
    assert claim(**fields).result.estimate == pytest.approx(-0.02)
    result = claim(lambda **o: study(diverged=[("p=0.1", 2)], **o), **fields).result
    assert (result.verdict, result.n, result.interval) == (Verdict.CANNOT_TELL, 4, None)
    ((label, collapse),) = result.reasons[0].collapses
    assert (label, collapse.runs) == ("p=0.1", (2,))


def test_a_claim_is_incomplete_until_all_seeds_have_reached_its_window():
    result = claim(lambda **o: study(running={("p=0.1", 4): 9}, **o), kind="greater", variant="p=0.1").result
    assert (result.verdict, result.reasons) == (Verdict.INCOMPLETE, (MissingRuns(4, 5),))
    early = {"kind": "greater", "variant": "p=0.1", "window": (2, 4)}
    assert claim(lambda **o: study(running={("p=0.1", 4): 9}, **o), **early).result.n == 5
    assert claim(lambda **o: study(running={("p=0.1", 4): 3}, **o), **early).result.verdict is Verdict.INCOMPLETE


# words


def test_nothing_is_needed_where_the_verdict_is_settled():
    def needed(row):
        return spell_needed(row.comparison)

    assert needed(variant(study([0.02, 0.021, 0.022, 0.023, 0.026]))) == "-"  # better
    assert needed(variant(study([0.0, 0.001, 0.0, 0.001, 0.0]))) == "-"  # no difference larger than 0.01
    unsettled = variant(study([-0.03, 0.03, 0.02, -0.01, 0.0]))
    assert unsettled.comparison.verdict is Verdict.CANNOT_TELL
    assert needed(unsettled) == f"{unsettled.comparison.needed.seeds} seeds"


def test_a_needed_number_that_no_study_reaches_is_not_given_exactly():
    unsettled = variant(study([-0.03, 0.03, 0.02, -0.01, 0.0])).comparison
    assert spell_needed(replace(unsettled, needed=Needed(12, 176_966))) == "12 seeds or over 10,000 patients"
    assert spell_needed(replace(unsettled, needed=Needed(10_000, None))) == "10000 seeds"


def test_a_detectable_difference_beyond_the_range_of_dice_is_called_none():
    wide = summarize_study(study([-0.25, 0.15], seeds=[0, 1]))
    assert wide.noise_floor.detectable_effect > 1.0
    assert "too few to detect any difference" in noise_floor_line(wide)
    assert f"{wide.noise_floor.detectable_effect:.3f}" not in noise_floor_line(wide)
    assert "would have been found" in noise_floor_line(summarize_study(study()))


def test_a_detectable_difference_in_mm_has_no_end():
    assert "would have been found" in noise_floor_line(
        summarize_study(study([-0.25, 0.15], seeds=[0, 1], metric="hd95_mm"))
    )
