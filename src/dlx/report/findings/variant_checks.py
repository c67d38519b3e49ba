"""Checks of a variant's records: its setting had no effect, or evaluation differs from training."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from dlx.records.archive import TrialHistory
from dlx.records.schema import StudyHeader, TrialRecord
from dlx.report.findings.variants import Placed, VariantSummary
from dlx.statistics.collapse import MIN_LEARNED
from dlx.statistics.reasons import SameRecords
from dlx.study.results import EpochResult, SetScores
from dlx.study.run_id import RunId, spell_runs

# By how much the Dice of the last epoch's batches may exceed that of the evaluated training subjects. In the 65
# trials of experiments/*.jsonl, with the bound that their losses give: at most 0.028 in the 55 healthy ones (both
# controls, hippocampus p = 0.1, the whole phantom sweep); 0.27 to 0.47 in four trials of hippocampus p = 0.3 and 0.18
# to 0.25 in all five of p = 0.6, which BatchNorm's statistics spoil (docs/log.md); 0.095 in the fifth of p = 0.3.
MAX_LOST_IN_EVALUATION = 0.1

NONNEGATIVE_LOSSES = {"dice", "ce", "focal", "lovasz"}


def find_same_records(label: str, control: str, placed: Placed, header: StudyHeader) -> SameRecords | None:
    """The reason that a variant has no effect; None unless all its epochs and final weights equal the control's."""
    pairs = [(trial, placed[control].get(seed)) for seed, trial in placed[label].items()]
    ended = [(a, b) for a, b in pairs if a.record and a.record.result and b and b.record and b.record.result]
    if not ended or not all(_is_same(a, b) for a, b in ended):
        return None
    schedulers = {variant.label: variant.scheduler for variant in header.variants}
    return SameRecords(is_plateau=schedulers[label] == "plateau" and schedulers[control] != "plateau")


def _is_same(a: TrialHistory, b: TrialHistory) -> bool:
    assert a.record is not None
    assert b.record is not None
    assert a.record.result is not None
    assert b.record.result is not None
    same_weights = a.record.result.weights_hash == b.record.result.weights_hash
    return same_weights and [e.result for e in a.epochs] == [e.result for e in b.epochs]


def evaluated_unlike_trained(variant: VariantSummary) -> tuple[str, ...]:
    """A warning if trials learned their batches, but score far lower on the same subjects in evaluation.

    Such a variant does learn; evaluation mode shows another fault, usually BatchNorm's running statistics.
    """
    found: dict[RunId, tuple[float, float]] = {}
    for seed, record in variant.records.items():
        reached = dice_of_batches(record, variant.epochs[seed])
        train = record.result.train if record.result else None
        if reached is None or train is None or train.dice is None:
            continue
        if reached - _dice_of_learned(train) > MAX_LOST_IN_EVALUATION:
            found[seed] = (reached, train.dice)
    if not found:
        return ()
    reached, evaluated = (mean(column) for column in zip(*found.values(), strict=True))
    networks = [_arguments(variant.records[seed]) for seed in found]
    guess = "BatchNorm statistics? " * any(args.get("norm", "batch") == "batch" for args in networks)
    return (
        f"evaluation differs from training ({spell_runs([*found])}): the last epoch's batches reach Dice {reached:.2f} "
        f"or more, the training subjects evaluated {evaluated:.2f}. {guess}See docs/studies.md",
    )


def _dice_of_learned(train: SetScores) -> float:
    """The mean over the classes that were learned; over all if none was. Patches often lack a rare class, and then
    their Dice is of the other classes only. So a class that only evaluation spoils, to below MIN_LEARNED, is missed if
    another one is learned. Some class has a Dice.
    """
    values = [value for value in train.dice_per_class.values() if value is not None]
    return mean([value for value in values if value >= MIN_LEARNED] or values)


def dice_of_batches(record: TrialRecord, epochs: Sequence[EpochResult]) -> float | None:
    """A lower bound of the soft Dice of the last epoch's batches; None if there is none.

    If it was not measured, the loss gives the bound: no term is negative, so the soft Dice term is at most the whole
    loss. This needs a Dice term over the whole batch and over the foreground classes only. With deep supervision the
    loss is a weighted mean over resolutions, so that of the full one is at most the mean divided by its weight.
    """
    if not epochs:
        return None
    if epochs[-1].train_soft_dice_running is not None:
        return epochs[-1].train_soft_dice_running
    terms: list[Mapping[str, object]] = record.settings.get("loss", [])
    if any(term["name"] not in NONNEGATIVE_LOSSES for term in terms):
        return None
    if any(term["name"] == "dice" and _is_of_foreground_batches(term["args"]) for term in terms):
        return 1.0 - epochs[-1].loss / _full_size_weight(record)
    return None


def _full_size_weight(record: TrialRecord) -> float:
    """The weight of the full resolution in the loss of a trial: 1 without deep supervision, else more than 1/2.

    Of weights 1, 1/2, 1/4 ... divided by their sum (`training/deep_supervision.py`). Where levels without a labelled
    voxel are left out, it is no smaller.
    """
    num_coarser = _arguments(record).get("deep_supervision", 0)
    return 1.0 / sum(0.5**level for level in range(num_coarser + 1))


def _arguments(record: TrialRecord) -> dict[str, Any]:
    """The arguments of a trial's network; none of a network of the user's own, whose names mean what it likes."""
    model = record.settings.get("model", {})
    return {} if "code" in model else dict(model.get("args", {}))


def _is_of_foreground_batches(args: object) -> bool:
    return isinstance(args, dict) and args.get("batch") is True and args.get("include_background") is False
