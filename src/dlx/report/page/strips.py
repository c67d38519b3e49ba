"""Strips for the HTML page: a row a variant, with its values on one horizontal axis.

A strip has no size of its own: positions along it are shares of its width, so names of any length stand beside it, or
above it on a phone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite

from markupsafe import Markup

from dlx.report.findings.summary import Summary
from dlx.report.findings.variants import VariantSummary
from dlx.report.page.svg import Range, drawing, element, ticks_within
from dlx.report.plotted.differences import ShownDifference, clipped, cut_ends, range_of_differences, shown_differences
from dlx.report.wording import rows
from dlx.report.wording.content import Words
from dlx.report.wording.formatting import signed, spell, spell_interval
from dlx.report.wording.verdicts import FOR
from dlx.study.metrics import METRICS
from dlx.system.characters import visible

HEIGHT = 30
EDGE = 4.0  # per cent of the width that stay free on both sides, for the numbers of the outermost ticks
ENDED = "val_dice"


@dataclass(frozen=True)
class Strip:
    """A row: a variant's name, its strip, and what is said of it."""

    name: str
    drawing: Markup
    said: Words


@dataclass(frozen=True)
class StripChart:
    """Rows over one axis, whose title stands below it; `legend` are marks with their meaning."""

    strips: tuple[Strip, ...]
    axis: Markup
    title: str
    legend: tuple[tuple[Markup, str], ...] = field(default=())


class Axis:
    """Where values are along a strip, in per cent of its width."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high if high > low else low + 1.0

    def at(self, value: float) -> str:
        """A position as SVG writes it."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return f"{EDGE + share * (100.0 - 2 * EDGE):.2f}%"

    def span(self, low: float, high: float) -> str:
        """A width as SVG writes it."""
        return f"{float(self.at(high)[:-1]) - float(self.at(low)[:-1]):.2f}%"

    def scale(self) -> Markup:
        """The axis with its numbers, which the page hides from assistive technology: each strip says its values."""
        shown = [element("line", class_="rule", x1=f"{EDGE}%", x2=f"{100 - EDGE}%", y1=1, y2=1)]
        for value in ticks_within(self.low, self.high, 5):
            shown.append(element("line", class_="rule", x1=self.at(value), x2=self.at(value), y1=1, y2=6))
            shown.append(element("text", f"{value:g}", x=self.at(value), y=18, text_anchor="middle"))
        return element("svg", *shown, class_="axis", height=22, width="100%", aria_hidden="true")

    def grid(self) -> list[Markup]:
        """Faint lines at the numbers of the scale."""
        return [
            element("line", class_="grid", x1=self.at(value), x2=self.at(value), y1=0, y2=HEIGHT)
            for value in ticks_within(self.low, self.high, 5)
        ]


def difference_chart(ident: str, summary: Summary) -> StripChart | None:
    """The differences from the control with their intervals; None without a comparison."""
    shown = shown_differences(summary)
    if not shown:
        return None
    axis, effect = Axis(*range_of_differences(summary)), summary.header.smallest_effect
    words = {row.name: row for row in rows.verdict_rows(summary)}
    strips = []
    for number, row in enumerate(shown, 1):
        said = f"{words[row.label].words}: {signed(row.difference)}" if row.difference is not None else ""
        if row.interval is not None:
            said += f" ({spell_interval(row.interval)})"
        said = said or row.note
        background = [
            element("rect", class_="effect", x=axis.at(-effect), y=0, width=axis.span(-effect, effect), height=HEIGHT),
            *axis.grid(),
            *(
                element("line", class_=kind, x1=axis.at(value), x2=axis.at(value), y1=0, y2=HEIGHT)
                for value, kind in ((-effect, "bound"), (0.0, "zero"), (effect, "bound"))
            ),
        ]
        marks = _difference_marks(row, axis)
        name = f"{ident}-{number}"
        title = f"Difference of {visible(row.label)} from the control"
        strips.append(
            Strip(row.label, drawing(name, title, said, *background, *marks, height=HEIGHT, width="100%"), (said,))
        )
    title = f"difference in {summary.metric_title} ({summary.direction} is better)"
    return StripChart(tuple(strips), axis.scale(), title, _difference_legend(summary, shown))


def _difference_marks(row: ShownDifference, axis: Axis) -> list[Markup]:
    if row.difference is None:
        return []
    shown, middle = [], 11.0 if row.narrower else HEIGHT / 2
    for number, (difference, interval) in enumerate(row.narrower.values(), 1):
        y = middle + 7.0 * number
        shown += _interval(axis, interval, y, "narrow")
        if difference is not None:
            shown.append(element("circle", class_=_narrow_mark(number), cx=axis.at(difference), cy=y, r=2.5))
    shown += _interval(axis, row.interval, middle, "interval")
    # a square of fixed size at a place in per cent: a nested svg carries its own coordinates
    corner = {"x": axis.at(row.difference), "y": middle - 6.0, "overflow": "visible"}
    kind = "found" if row.is_shown_to_differ else "open"
    return [*shown, element("svg", element("path", class_=f"mark {kind}", d="M0,0L6,6L0,12L-6,6Z"), **corner)]


def _narrow_mark(number: int) -> str:
    """The class of the point of a narrower scope: filled of the first, hollow of the second."""
    return "narrow" if number == 1 else "narrow hollow"


def _interval(axis: Axis, interval: Range | None, y: float, kind: str) -> list[Markup]:
    if interval is None:
        return []
    low, high = clipped(interval, axis.low, axis.high) or interval
    shown = [element("line", class_=kind, x1=axis.at(low), x2=axis.at(high), y1=y, y2=y)]
    for edge in cut_ends(interval, axis.low, axis.high):
        towards = "M0,-3L5,0L0,3Z" if edge == axis.high else "M0,-3L-5,0L0,3Z"
        arrow = element("path", class_=f"arrow {kind}", d=towards)
        shown.append(element("svg", arrow, x=axis.at(edge), y=y, overflow="visible"))
    return shown


def _difference_legend(summary: Summary, shown: Sequence[ShownDifference]) -> tuple[tuple[Markup, str], ...]:
    has_interval = any(row.interval is not None for row in shown)
    what = f"mean and 95 % interval {FOR[summary.scope]}, not corrected" if has_interval else "mean"
    diamond = "M8,2L14,8L8,14L2,8Z"
    line = element("line", class_="interval", x1=0, x2=16, y1=8, y2=8)
    legend = [
        (_swatch(line, element("path", class_="mark found", d=diamond)), f"{what}; filled: shown to differ"),
        (_swatch(line, element("path", class_="mark open", d=diamond)), "not shown to differ"),
    ]
    narrower = list(dict.fromkeys(scope for row in shown for scope in row.narrower))
    for number, scope in enumerate(narrower, 1):
        thin = element("line", class_="narrow", x1=0, x2=16, y1=8, y2=8)
        point = element("circle", class_=_narrow_mark(number), cx=8, cy=8, r=2.5)
        legend.append((_swatch(thin, point), f"the same {FOR[scope]}"))
    band = element("rect", class_="effect", x=0, y=0, width=16, height=16)
    bounds = [element("line", class_="bound", x1=x, x2=x, y1=0, y2=16) for x in (0, 16)]
    effect = f"±{summary.header.smallest_effect:g}, the smallest effect of interest"
    return (*legend, (_swatch(band, *bounds), effect))


def dice_chart_of_variants(ident: str, summary: Summary) -> StripChart | None:
    """Training and validation Dice of each variant after the last epoch: each run, and their means; None before a run
    has ended.
    """
    known = [value for variant in summary.variants for value in _values(variant, "val_dice", "train_dice")]
    if not known:
        return None
    low, high = METRICS[ENDED].value_range
    margin = 0.06 * (max(known) - min(known)) or 0.05
    axis = Axis(max(low, min(known) - margin), min(high, max(known) + margin))
    strips = [_dice_strip(f"{ident}-{n}", variant, axis) for n, variant in enumerate(summary.variants, 1)]
    legend = (
        (_swatch(element("circle", class_="point val", cx=8, cy=8, r=4)), "validation Dice, mean"),
        (_swatch(element("path", class_="point train", d="M4,4h8v8h-8z")), "training Dice, mean"),
        (_swatch(element("circle", class_="dot val", cx=8, cy=8, r=2.5)), f"one {summary.unit_of_runs}"),
        (_swatch(element("line", class_="gap", x1=0, x2=16, y1=8, y2=8)), "the gap between the two"),
    )
    return StripChart(tuple(strips), axis.scale(), "Dice of whole volumes after the last epoch", legend)


def _dice_strip(ident: str, variant: VariantSummary, axis: Axis) -> Strip:
    marks, means = [*axis.grid()], dict[str, float]()
    for metric, side, y in (("train_dice", "train", 8.0), ("val_dice", "val", 22.0)):
        values = _values(variant, metric)
        marks += [element("circle", class_=f"dot {side}", cx=axis.at(value), cy=y, r=2.5) for value in values]
        mean = variant.estimates[metric].mean
        if mean is not None and not variant.collapse:
            means[side] = mean
    if len(means) == 2:
        ends = {"x1": axis.at(means["val"]), "x2": axis.at(means["train"])}
        marks.append(element("line", class_="gap", y1=HEIGHT / 2, y2=HEIGHT / 2, **ends))
    for side, mean in means.items():
        shape = "M-4,-4h8v8h-8z" if side == "train" else "M0,-4.5a4.5,4.5 0 1 1 -0.01,0z"
        corner = {"x": axis.at(mean), "y": HEIGHT / 2, "overflow": "visible"}
        marks.append(element("svg", element("path", class_=f"point {side}", d=shape), **corner))
    train, val = (spell(variant.estimates[metric].mean) for metric in ("train_dice", "val_dice"))
    warning = "; ".join(rows.warnings_of(variant))
    said = f"training {train}, validation {val}" if means else warning or "no run has ended"
    title = f"Dice of {visible(variant.label)} after the last epoch"
    strip = drawing(ident, title, visible(said), *marks, height=HEIGHT, width="100%")
    return Strip(variant.name, strip, (said,))


def _values(variant: VariantSummary, *metrics: str) -> list[float]:
    found: Iterable[float | None] = (value for metric in metrics for value in variant.by_run[metric].values())
    return [value for value in found if value is not None and isfinite(value)]


def _swatch(*children: Markup) -> Markup:
    return element("svg", *children, class_="swatch", width=16, height=16, viewBox="0 0 16 16", aria_hidden="true")
