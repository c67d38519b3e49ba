"""A study's report as an HTML page: one file that needs no network and no script, made from the records alone.

It shows the sections of the markdown page, with the verdict in one sentence, charts, pictures of cases and a Methods
section. The templates beside this file escape all text; what is markup already is made by `svg.element`.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from dlx.records.archive import StudyRecords
from dlx.report.findings.summary import Summary
from dlx.report.findings.variants import VariantSummary
from dlx.report.methods.paragraphs import Methods, methods_of
from dlx.report.methods.words import Citation, Sentence
from dlx.report.page.case_figures import CaseGroup, case_groups
from dlx.report.page.line_charts import describe_rates, dice_charts, rate_chart, rate_class, scale_of
from dlx.report.page.run_sections import changes_section, class_scores_section, runs_section
from dlx.report.page.sections import PageContent, progress_lines, subject_lines
from dlx.report.page.strips import StripChart, dice_chart_of_variants, difference_chart
from dlx.report.page.svg import element
from dlx.report.plotted.case_pictures import pictured_trials
from dlx.report.plotted.epoch_curves import CURVES, VariantCurves, curves_of, few_points, has_curves, spell_runs_shown
from dlx.report.plotted.learning_rates import RatePanel, rate_panels
from dlx.report.wording.content import (
    Block,
    Bullets,
    Code,
    Folded,
    Given,
    Inline,
    Paragraph,
    Section,
    Strong,
    Table,
    Words,
    words,
)
from dlx.report.wording.headline import headline
from dlx.system.characters import visible, visible_lines

MAX_COLUMNS = 9  # of a table, beside the names of its rows: a wider one is shown in parts, which fit a printed page
NO_PICTURES = (
    "There are no pictures of cases: these trials were scored without them, by an older dlx or with --no-pictures."
)


@dataclass(frozen=True)
class Chart:
    """One chart of a grid, below its title."""

    title: Words
    note: Words
    drawing: Markup
    legend: tuple[tuple[Markup, Words], ...] = ()


@dataclass(frozen=True)
class ChartGrid:
    """Charts side by side that share a legend."""

    figures: tuple[Chart, ...]
    legend: tuple[tuple[Markup, Words], ...]


@dataclass(frozen=True)
class CaseGallery:
    """Pictures of cases, by trial."""

    groups: tuple[CaseGroup, ...]


HtmlBlock = Block | ChartGrid | StripChart | CaseGallery | Methods


@dataclass(frozen=True)
class HtmlSection:
    """A section with its place on the page and its name in the list of contents."""

    ident: str
    short: str
    title: Words
    blocks: tuple[HtmlBlock, ...]


def make_html_page(content: PageContent, *, has_pictures: bool = True) -> str:
    """The page of a study or a run, finished or running; with `has_pictures` it shows those that were recorded.

    DataError if they are damaged.
    """
    summary, records = content.summary, content.records
    header = records.header
    return (
        environment()
        .get_template("report.html")
        .render(
            name=visible(header.name),
            question=header.question,
            verdict=headline(summary),
            progress=progress_lines(summary, records),
            subjects=subject_lines(records),
            sections=[*_sections(content, has_pictures=has_pictures)],
            style=Markup(_read("style.css")),  # a file of this package
            next_number=itertools.count(1).__next__,
        )
    )


def _sections(content: PageContent, *, has_pictures: bool) -> Iterator[HtmlSection]:
    """The sections in the order of the page, without those that have nothing to show."""
    summary, records = content.summary, content.records
    is_one = len(summary.variants) == 1
    found = (
        ("verdicts", "Differences", _verdicts(content)),
        ("claims", "Claims", content.claims),
        ("scores", "Scores", _scores(content)),
        ("failures", "Failures", content.failures),
        ("curves", "Curves", _curves(summary)),
        ("rates", "Learning rates", _rates(summary)),
        ("cases", "Cases", _cases(summary, records) if has_pictures else None),
        ("hardest", "Hardest cases", content.hardest_cases),
        ("notes", "Notes", content.notes),
        ("runs", "Runs", runs_section(summary, records)),
        ("classes", "Classes", class_scores_section(summary) if is_one else content.classes),
        ("spreads", "Spread", content.spreads),
        ("levels", "Levels", content.levels),
        ("methods", "Methods", _methods(summary, records)),
        ("changes", "Variants", changes_section(summary)),
        ("settings", "Settings", content.settings),
        ("environment", "Where it ran", content.environment),
        ("command", "Command", Section(("Command",), (Code(records.header.command, "sh"),))),
    )
    for ident, short, section in found:
        if section is not None:
            yield HtmlSection(ident, short, section.title, section.blocks)


def _verdicts(content: PageContent) -> HtmlSection | None:
    """The section of the markdown page with its chart; how verdicts are reached is folded."""
    section, chart = content.verdicts, difference_chart("difference", content.summary)
    if section is None or chart is None:
        return None
    table, grounds = section.blocks
    assert isinstance(grounds, Bullets)
    folded = Folded("How these verdicts were reached, and what would settle those that are open", grounds)
    return HtmlSection("", "", section.title, (chart, table, folded))


def _scores(content: PageContent) -> HtmlSection:
    section, chart = content.scores, dice_chart_of_variants("dice", content.summary)
    table, *others = section.blocks
    charts = [chart] if chart is not None and len(content.records.header.trials) > 1 else []
    return HtmlSection("", "", section.title, (table, *charts, *others))


def _curves(summary: Summary) -> HtmlSection:
    """A chart a variant over the control's curves; of a study without curves, why there are none."""
    title: Words = ("Dice over epochs",)
    hint = few_points(summary)
    if len(summary.variants) > 1 and not has_curves(summary):
        return HtmlSection("", "", title, (Paragraph((f"There are no curves over epochs: {hint}.",)),))
    control = next((variant for variant in summary.variants if variant.is_control), None)
    shown = [variant for variant in summary.variants if not variant.is_control] or list(summary.variants)
    drawings = dice_charts("curves-of-control", shown, control, summary.header.epochs)
    charts = tuple(
        Chart(
            (Given(variant.label),),
            words(Given(spell_runs_shown(variant)), "; evaluation differs from training" * bool(variant.warnings)),
            drawn,
        )
        for variant, drawn in zip(shown, drawings, strict=True)
    )
    notes = [Paragraph((f"{hint[0].upper()}{hint[1:]}.",))] if hint else []
    return HtmlSection("", "", title, (ChartGrid(charts, _curve_legend(summary)), *notes))


def _curves_of(variant: VariantSummary) -> list[VariantCurves]:
    return [curves_of(variant, metric) for metric in CURVES]


def _curve_legend(summary: Summary) -> tuple[tuple[Markup, Words], ...]:
    legend: list[tuple[Markup, Words]] = [
        (_swatch("line val"), ("validation",)),
        (_swatch("line train"), ("training (some of its subjects)",)),
    ]
    control = next((v for v in summary.variants if v.is_control), None)
    if control is not None:
        count = spell_runs_shown(control)
        legend.append((_swatch("line control"), ("control (", Given(control.label), "; ", Given(count), ")")))
    if any(len(v.mean) > 0 and v.num_together > 1 for variant in summary.variants for v in _curves_of(variant)):
        band = element("rect", class_="band val", x=0, y=2, width=16, height=12)
        legend.append((_svg_swatch(band), (f"mean ± 1 standard deviation over {summary.name_of_runs}",)))
    if any(None in variant.by_run["val_dice"].values() for variant in summary.variants):
        legend.append((_svg_swatch(element("path", class_="cross", d="M4,4l8,8m0,-8l-8,8")), ("diverged or failed",)))
    return tuple(legend)


def _rates(summary: Summary) -> HtmlSection | None:
    """The learning rates; variants with the same ones share a chart."""
    panels = rate_panels(summary)
    if not panels:
        return None
    charts = tuple(
        Chart(
            (Given(", ".join(panel.labels)),) if len(panels) > 1 else ("All trials",),
            (_say_rates(panel),),
            rate_chart(f"rate-{number}", panel, summary.header.epochs, largest),
            _rate_legend(panel),
        )
        for number, (panel, largest) in enumerate(zip(panels, scale_of(panels), strict=True), 1)
    )
    return HtmlSection("", "", ("Learning rates",), (ChartGrid(charts, ()),))


def _say_rates(panel: RatePanel) -> Inline:
    """The ends of the only course, or how many there are."""
    if len(panel.lines) == 1:
        return Given(describe_rates(panel.lines[0]))
    return "of groups of parameters" if panel.lines[0].groups else f"{len(panel.lines)} courses: runs differ"


def _rate_legend(panel: RatePanel) -> tuple[tuple[Markup, Words], ...]:
    """The groups of parameters that follow unlike courses."""
    return tuple(
        (_swatch(rate_class(number)), (Given(describe_rates(line)),))
        for number, line in enumerate(panel.lines)
        if line.groups
    )


def _cases(summary: Summary, records: StudyRecords) -> HtmlSection | None:
    """Pictures of the hardest, the median and the best validation case; None until a trial is scored."""
    results = [record.result for variant in summary.variants for record in variant.records.values() if record.result]
    if not results:
        return None
    title: Words = ("Hardest, median and best validation case",)
    trials = pictured_trials(summary, records)
    if not trials:
        return HtmlSection("", "", title, (Paragraph((NO_PICTURES,)),))
    note = (
        "Each case in the slice with the most wrongly labelled voxels; chosen by the Dice of the trial that is named. "
        "Missed: labelled as background. Too much: background that was labelled."
    )
    if any(picture.plane for trial in trials for picture in trial.pictures):
        note += " Seen as radiologists do: the patient's right is at the left, or anterior is, in sagittal slices."
    gallery = CaseGallery(case_groups("case", trials, results[0].distance_unit))
    return HtmlSection("", "", title, (Paragraph((note,)), gallery))


def _methods(summary: Summary, records: StudyRecords) -> HtmlSection | None:
    """The Methods, which may be copied."""
    found = methods_of(summary, records)
    if found is None:
        return None
    note = Paragraph(("Made from the records; free to be copied into a paper and changed there.",))
    return HtmlSection("", "", ("Methods",), (note, found))


def _swatch(classes: str) -> Markup:
    return _svg_swatch(element("line", class_=classes, x1=0, x2=22, y1=8, y2=8), width=22)


def _svg_swatch(*children: Markup, width: int = 16) -> Markup:
    view = f"0 0 {width} 16"
    return element("svg", *children, class_="swatch", width=width, height=16, viewBox=view, aria_hidden="true")


# how templates see content


@cache
def environment() -> Environment:
    """The templates with their filters and tests; everything that is no markup is escaped."""
    made = Environment(
        loader=FunctionLoader(_read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {
        "words": _spell_words,
        "text": _plain_text,
        "bidi": _isolated,
        "lines": visible_lines,
        "sentence": _spell_sentence,
        "in_parts": in_parts,
        "kind": lambda block: type(block).__name__.lower(),
    }
    kinds: dict[str, type[Any]] = {
        "paragraph": Paragraph,
        "bullets": Bullets,
        "table": Table,
        "code": Code,
        "folded": Folded,
        "figures": ChartGrid,
        "strips": StripChart,
        "cases": CaseGallery,
        "methods": Methods,
    }
    made.tests |= {name: (lambda block, kind=kind: isinstance(block, kind)) for name, kind in kinds.items()}
    return made


def _read(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def _spell_words(parts: Words | str) -> Markup:
    """Words as markup; what users and files gave is isolated, so that its direction does not change what follows."""
    return Markup("").join(_spell_inline(part) for part in ((parts,) if isinstance(parts, str) else parts))


def _spell_inline(part: str | Given | Strong) -> Markup:
    if isinstance(part, Strong):
        return Markup("<strong>{}</strong>").format(_spell_words(part.words))
    return _isolated(part.text) if isinstance(part, Given) else escape(part)


def _isolated(text: object) -> Markup:
    """Text in an element of its own direction, without control characters and characters that change directions."""
    return Markup("<bdi>{}</bdi>").format(visible(" ".join(str(text).split())))


def _plain_text(parts: Words) -> str:
    """Words without markup, for attributes."""
    return "".join(map(_plain_inline, parts))


def _plain_inline(part: str | Given | Strong) -> str:
    if isinstance(part, Strong):
        return _plain_text(part.words)
    return visible(str(part.text)) if isinstance(part, Given) else part


def _spell_sentence(sentence: Sentence, methods: Methods) -> Markup:
    """A sentence of the Methods with links to the references."""
    shown = []
    for part in sentence:
        if isinstance(part, Citation):
            numbers = [methods.number(key) for key in part.keys]
            links = Markup(", ").join(Markup('<a href="#ref-{0}">{0}</a>').format(number) for number in numbers)
            shown.append(Markup(" [{}]").format(links))
        else:
            shown.append(_spell_inline(part))
    return Markup("").join(shown)


def in_parts(table: Table) -> Iterator[Table]:
    """A table in parts of at most MAX_COLUMNS columns beside the first one, which each part repeats."""
    num_columns = len(table.titles)
    if num_columns <= 1 + MAX_COLUMNS:
        yield table
        return
    for start in range(1, num_columns, MAX_COLUMNS):
        columns = (0, *range(start, min(start + MAX_COLUMNS, num_columns)))
        yield replace(
            table,
            titles=tuple(table.titles[at] for at in columns),
            rows=tuple(tuple(row[at] for at in columns) for row in table.rows),
            num_text=sum(at < table.num_text for at in columns),
        )
