"""A study's report as a markdown page: verdicts first, then the scores behind them, and how to run it again."""

from dataclasses import replace

from dlx.report.page.markdown import spell_section
from dlx.report.page.sections import PageContent
from dlx.report.wording.content import Picture, Section


def make_page(content: PageContent, figure_name: str | None, levels_name: str | None = None) -> str:
    """The page of a study, finished or running; the names are the figures' paths relative to the page."""
    figure = Picture("Dice over epochs, after the last epoch, and the differences", figure_name or "")
    found = [
        Section((), (figure,)) if figure_name else None,
        content.verdicts,
        content.scores,
        content.claims,
        content.notes,
        content.classes,
        content.spreads,
        content.hardest_cases,
        _with_figure(content.levels, levels_name),
        content.failures,
        content.settings,
        content.environment,
    ]
    head = spell_section(content.head, level=1)
    return "\n\n".join([head, *(spell_section(section, level=2) for section in found if section is not None)]) + "\n"


def _with_figure(section: Section | None, name: str | None) -> Section | None:
    if section is None or name is None:
        return section
    return replace(section, blocks=(Picture("Features, gradients and weights by level", name), *section.blocks))
