"""Whose pictures of validation cases a page shows and an archive keeps: one trial of the control, and one of the best
other variant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dlx.records.archive import StudyRecords
from dlx.records.pictures import CasePicture
from dlx.records.schema import TrialEntry
from dlx.report.findings.hardest_cases import shown_variants
from dlx.report.findings.summary import Summary
from dlx.study.run_id import spell_run


@dataclass(frozen=True)
class PicturedTrial:
    """A trial whose pictures are shown."""

    entry: TrialEntry
    name: str  # of its variant and run
    pictures: Sequence[CasePicture]


def pictured_trials(summary: Summary, records: StudyRecords) -> list[PicturedTrial]:
    """Of the control and of the best other variant, the first run that has pictures.

    Trials that were scored by an older dlx have none. DataError if pictures are damaged.
    """
    found = []
    for variant in shown_variants(summary):
        for trial in records.trials:
            is_scored = trial.record is not None and trial.record.result is not None
            if trial.entry.label == variant.label and is_scored and (pictures := trial.read_pictures()):
                found.append(PicturedTrial(trial.entry, f"{variant.name}, {spell_run(trial.entry.run)}", pictures))
                break
    return found
