"""A study's report as a markdown page: verdicts first, then the scores behind them, and how to run it again."""

from dlx.records.archive import StudyRecords
from dlx.report.page import sections
from dlx.report.page.content import Picture, Section
from dlx.report.page.markdown import spell_section
from dlx.report.summary import Summary


def make_page(summary: Summary, records: StudyRecords, figure_name: str | None, levels_name: str | None = None) -> str:
    """The page of a study, finished or running; the names are the figures' paths relative to the page.

    What belongs to one machine (the command, paths in the settings) is taken from `records`.
    """
    figure = Picture("Dice over epochs, after the last epoch, and the differences", figure_name or "")
    found = [
        Section((), (figure,)) if figure_name else None,
        sections.verdicts_section(summary),
        sections.scores_section(summary),
        sections.claims_section(summary),
        sections.notes_section(summary, records),
        sections.classes_section(summary),
        sections.spreads_section(summary),
        sections.hardest_cases_section(summary),
        sections.levels_section(summary, levels_name),
        sections.failures_section(records),
        sections.settings_section(records),
        sections.environment_section(records),
    ]
    head = spell_section(sections.head_section(summary, records), level=1)
    return "\n\n".join([head, *(spell_section(section, level=2) for section in found if section is not None)]) + "\n"
