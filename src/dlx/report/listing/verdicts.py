"""The verdicts of a study for a list of studies: only those that were shown before, and without what a report adds."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from dlx.records.archive import StudyRecords
from dlx.records.folder import was_shown
from dlx.records.schema import Look
from dlx.statistics.verdict import Verdict


def verdicts_in_short(records: StudyRecords, read_all: Callable[[], StudyRecords]) -> str:
    """The verdicts of `shown_verdicts` in a few words; a dash for none."""
    found = shown_verdicts(records, read_all)
    if not found:
        return "-"
    from dlx.report.wording.verdicts import spell_in_short

    return spell_in_short(found)


def shown_verdicts(records: StudyRecords, read_all: Callable[[], StudyRecords]) -> list[Verdict]:
    """The verdict of each variant but the control; none unless exactly these verdicts were shown before.

    A list of studies must not become a look at each of them (docs/studies.md): it repeats what a look has shown and
    records nothing. `records` may be without epochs, which few verdicts need; `read_all` then reads them too.
    """
    if not records.looks or records.header.control is None:
        return []
    from dlx.report.findings.summary import summarize_study  # here, as a list without looks needs no statistics

    plain = replace(records, header=records.header.model_copy(update={"claims": ()}))
    summary = summarize_study(plain, with_power=False)
    found = [variant.comparison.verdict for variant in summary.variants if variant.comparison is not None]
    if records.header.metric == "jitter" or Verdict.NO_EFFECT in found:
        summary = summarize_study(read_all(), with_power=False)
        found = [variant.comparison.verdict for variant in summary.variants if variant.comparison is not None]
    return found if summary.look is not None and _was_shown(summary.look, records.looks) else []


def _was_shown(look: Look, looks: Sequence[Look]) -> bool:
    """Whether a look was at the same verdicts; an old one, which names no trials, by its numbers alone."""
    old = [known for known in looks if not known.control_trials]
    numbers = ("study", "metric", "num_seeds", "num_variants")
    return was_shown(look, looks) or any(all(getattr(k, n) == getattr(look, n) for n in numbers) for k in old)
