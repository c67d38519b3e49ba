"""Charts of values over epochs for the HTML page: Dice of a variant over the control's, and learning rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dlx.report.findings.variants import VariantSummary
from dlx.report.page.svg import Point, Range, drawing, element, path_of, thinned, ticks_within
from dlx.report.plotted.epoch_curves import Curve, VariantCurves, curves_of, has_markers
from dlx.report.plotted.learning_rates import RateLine, RatePanel
from dlx.report.wording.formatting import spell
from dlx.statistics.claims import Estimate
from dlx.system.characters import visible

WIDTH, HEIGHT = 340, 212  # in the units of text of 12; a phone shows them about as large as pixels
RIGHT, TOP, BOTTOM = 12, 10, 40
DIGIT = 7.0  # the width of a digit of the axes
MAX_POINTS = 160  # of a curve: more are not seen in a chart of this width, and would make the page heavy
SIDES = {"val_dice": "val", "train_dice": "train"}  # metric -> class in the style sheet
MAX_SAID = 8  # courses of a learning rate that a description lists
NAMES = {"val_dice": "validation", "train_dice": "training"}


@dataclass(frozen=True)
class Plane:
    """Where values are in a chart, whose left margin holds the numbers of its vertical axis."""

    x: Range
    y: Range
    num_ticks: int

    @property
    def left(self) -> float:
        """The left margin."""
        return 8.0 + DIGIT * max(len(f"{value:g}") for value in ticks_within(*self.y, self.num_ticks))

    def at(self, x: float, y: float) -> Point:
        """The place of a value, in units of the chart."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1.0)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1.0)
        return self.left + across * (WIDTH - self.left - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def axes(self) -> Markup:
        """Grid lines with numbers along both axes."""
        shown = []
        for value in ticks_within(*self.y, self.num_ticks):
            _, y = self.at(self.x[0], value)
            shown.append(element("line", class_="grid", x1=self.left, x2=WIDTH - RIGHT, y1=y, y2=y))
            shown.append(element("text", f"{value:g}", x=self.left - 5, y=y + 4, text_anchor="end"))
        for value in ticks_within(*self.x, 6):
            if value != round(value):
                continue
            x, y = self.at(value, self.y[0])
            shown.append(element("line", class_="grid", x1=x, x2=x, y1=y, y2=y + 4))
            shown.append(element("text", f"{value:g}", x=x, y=y + 17, text_anchor="middle"))
        shown.append(element("text", "epoch", x=(self.left + WIDTH - RIGHT) / 2, y=HEIGHT - 4, text_anchor="middle"))
        return Markup("").join(shown)


def dice_charts(
    ident: str, variants: Sequence[VariantSummary], control: VariantSummary | None, epochs: int
) -> list[Markup]:
    """A chart a variant: training and validation Dice over the epochs, with a band over runs.

    The first chart holds the control's means, which the others draw again.
    """
    plane = Plane((0.0, float(max(1, epochs))), (0.0, 1.0), 6)
    lines = [] if control is None else _control_lines(plane, control)
    shared = [element("g", *lines, id=ident), *(element("use", href=f"#{ident}") for _ in variants[1:])]
    return [
        _dice_chart(f"{ident}-{number}", variant, plane, shown)
        for number, (variant, shown) in enumerate(zip(variants, shared, strict=True))
    ]


def _control_lines(plane: Plane, control: VariantSummary) -> list[Markup]:
    shown = []
    for metric, side in SIDES.items():
        curves = curves_of(control, metric)
        shown += _mean_line(plane, curves, f"control {side}", has_band=False)
        shown += _single_lines(plane, curves, f"control {side}", has_crosses=False)
    return shown


def _dice_chart(ident: str, variant: VariantSummary, plane: Plane, control: Markup) -> Markup:
    shown, described = [plane.axes(), control], []
    for metric, side in SIDES.items():
        curves = curves_of(variant, metric)
        shown += _mean_line(plane, curves, side, has_band=True)
        shown += _single_lines(plane, curves, side, has_crosses=True)
        described.append(_describe(curves, NAMES[metric]))
    title = f"{visible(variant.label)}: Dice over {plane.x[1]:g} epochs"
    view = f"0 0 {WIDTH} {HEIGHT}"
    return drawing(ident, title, " ".join(filter(None, described)) or "No epochs yet.", *shown, viewBox=view)


def _describe(curves: VariantCurves, name: str) -> str:
    """`Validation Dice goes from 0.31 in epoch 1 to 0.81 in epoch 20.`"""
    known = {epoch: estimate.mean for epoch, estimate in curves.mean.items()}
    if not known:
        ends = [f"to {spell([*curve.values()][-1])} in epoch {[*curve][-1]}" for curve in curves.alone.values()]
        return f"{name.capitalize()} Dice of single runs goes {', '.join(ends[:5])}." if ends else ""
    (first, start), (last, end) = next(iter(known.items())), [*known.items()][-1]
    return f"{name.capitalize()} Dice goes from {spell(start)} in epoch {first} to {spell(end)} in epoch {last}."


def _mean_line(plane: Plane, curves: VariantCurves, classes: str, *, has_band: bool) -> list[Markup]:
    if not curves.mean:
        return []
    kept = thinned({epoch: estimate.mean or 0.0 for epoch, estimate in curves.mean.items()}, MAX_POINTS)
    shown = []
    if has_band and curves.num_together > 1:
        shown.append(_band(plane, {epoch: curves.mean[epoch] for epoch in kept}, classes))
    return [*shown, *_line(plane, kept, f"line {classes}", has_points=has_markers([*curves.mean]))]


def _band(plane: Plane, at: Mapping[int, Estimate], classes: str) -> Markup:
    ends = [[(e, (v.mean or 0.0) + side * (v.sd or 0.0)) for e, v in at.items()] for side in (1, -1)]
    upper, lower = ([plane.at(e, min(1.0, max(0.0, value))) for e, value in edge] for edge in ends)
    return element("path", class_=f"band {classes}", d=path_of([*upper, *lower[::-1]], closed=True))


def _single_lines(plane: Plane, curves: VariantCurves, classes: str, *, has_crosses: bool) -> list[Markup]:
    """Each run by itself; a cross where it diverged or failed."""
    shown = []
    for run, curve in curves.alone.items():
        shown += _line(plane, thinned(curve, MAX_POINTS), f"line thin {classes}", has_points=has_markers([*curve]))
        if run in curves.broken and has_crosses:
            x, y = plane.at([*curve][-1], [*curve.values()][-1])
            cross = f"M{x - 4:.1f},{y - 4:.1f}l8,8m0,-8l-8,8"
            shown.append(element("path", class_="cross", d=cross))
    return shown


def _line(plane: Plane, curve: Curve, classes: str, *, has_points: bool) -> list[Markup]:
    points = [plane.at(epoch, value) for epoch, value in curve.items()]
    shown = [element("path", class_=classes, d=path_of(points))]
    if has_points or len(points) == 1:
        shown += [element("circle", class_=classes.replace("line", "point"), cx=x, cy=y, r=2.2) for x, y in points]
    return shown


def rate_chart(ident: str, panel: RatePanel, epochs: int, largest: float) -> Markup:
    """The learning rates of a panel over the epochs, up to `largest`."""
    plane = Plane((0.0, float(max(1, epochs))), (0.0, 1.08 * largest or 1.0), 5)
    shown = [plane.axes()]
    for number, line in enumerate(panel.lines):
        curve = thinned(line.rates, MAX_POINTS)
        shown += _line(plane, curve, rate_class(number), has_points=has_markers([*line.rates]))
    title = f"Learning rate of {visible(', '.join(panel.labels[:5]))} over {epochs} epochs"
    return drawing(
        ident, title, "; ".join(map(describe_rates, panel.lines[:MAX_SAID])), *shown, viewBox=f"0 0 {WIDTH} {HEIGHT}"
    )


def rate_class(number: int) -> str:
    """The class of a course in the style sheet, by its number in its panel."""
    return f"line rate rate{number % 4}"


def describe_rates(line: RateLine) -> str:
    """`0.002`, `0.002 to 1e-05`, with the groups of parameters that follow it."""
    rates = [*line.rates.values()]
    of_groups = f"{visible(line.groups)}: " if line.groups else ""
    return f"{of_groups}{rates[0]:.3g}" + (f" to {rates[-1]:.3g}" if len(set(rates)) > 1 else "")


def scale_of(panels: Sequence[RatePanel]) -> list[float]:
    """The largest rate on the axis of each panel: that of all, unless one of them would be too small to see."""
    largest = [max((rate for line in panel.lines for rate in line.rates.values()), default=1.0) for panel in panels]
    is_alike = max(largest, default=1.0) <= 8 * min(largest, default=1.0)
    return [max(largest)] * len(largest) if is_alike else largest
