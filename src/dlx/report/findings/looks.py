"""The looks at a study's verdicts: the earlier ones, the number of seeds at each, and the record of this one."""

from collections.abc import Iterable

from dlx.records.archive import StudyRecords
from dlx.records.schema import Look, StudyHeader
from dlx.statistics.verdict import Verdict


def earlier_looks(records: StudyRecords) -> list[Look]:
    """The looks at this study: at trials of the same control or, for looks recorded without trials, by its name."""
    ours = set(records.header.control_trials)
    return [
        look
        for look in records.looks
        if (ours & set(look.control_trials) if look.control_trials else look.study == records.header.name)
    ]


def fewer_runs(looks: Iterable[Look], header: StudyHeader, *, metric: str | None) -> list[int]:
    """At how many runs of a variant, fewer than now, verdicts by this metric were shown; None: by any, as claims are
    with them.
    """
    found = {look.num_runs for look in looks if metric is None or look.metric == metric}
    return sorted(number for number in found if number < len(header.runs))


def chosen_after(looks: Iterable[Look], header: StudyHeader) -> list[str]:
    """A remark if verdicts were shown for other seeds or variants: the present ones may have been chosen after that."""
    labels = {variant.label for variant in header.variants}
    others = [
        look
        for look in looks
        if look.metric == header.metric and not (set(look.seeds) <= set(header.seeds) and set(look.variants) <= labels)
    ]
    if not others:
        return []
    seen = max(look.num_variants for look in others)
    return [
        f"verdicts were shown before over other seeds or variants (up to {seen}): where seeds or variants were chosen "
        "after that look, these are no longer verdicts at 5 %"
    ]


def this_look(header: StudyHeader, compared: Iterable[str], verdicts: Iterable[Verdict]) -> Look | None:
    """The look to record when these verdicts are shown; None while all of them are open."""
    if all(verdict.is_open for verdict in verdicts):
        return None
    labels = tuple(compared)
    return Look(
        study=header.name,
        metric=header.metric,
        num_seeds=len(header.seeds),
        num_variants=len(labels),
        shown_utc="",
        seeds=header.seeds,
        folds=header.folds,
        variants=labels,
        control_trials=header.control_trials,
    )
