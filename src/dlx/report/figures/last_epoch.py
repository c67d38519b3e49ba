"""Panels of values after the last epoch: Dice of each variant, and its difference from the control."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D

from dlx.report.figures.style import CONTROL, INK, STYLES, VAL
from dlx.report.figures.variant_axis import VariantAxis
from dlx.report.findings.summary import Summary
from dlx.report.plotted.differences import clipped, cut_ends, range_of_differences, shown_differences
from dlx.report.wording.verdicts import FOR
from dlx.settings.text import counted
from dlx.statistics.claims import Estimate
from dlx.study.metrics import METRICS
from dlx.system.characters import visible

# of scopes narrower than the headline's, from the wider one on
NARROWER: list[dict[str, Any]] = [
    {"color": "#7a7a7a", "marker": "o", "markersize": 2.2},
    {"color": "#b0b0b0", "marker": "o", "markersize": 2.2},
]
DICE = METRICS["val_dice"].value_range

LEGEND_COLUMNS = 7  # more do not fit the width of a figure


def draw_last_epoch(figure: SubFigure, summary: Summary) -> None:
    """Draws both panels and their legend; without a comparison only the first panel."""
    has_control = any(variant.comparison is not None for variant in summary.variants)
    axis = VariantAxis(summary)
    is_one = len(summary.variants) == 1
    panels = figure.subplots(1, 1 + has_control, sharex=axis.is_flat, sharey=not axis.is_flat, squeeze=False)[0]
    _draw_dice(panels[0], summary, axis)
    if has_control:
        _draw_differences(panels[1], summary, axis)
    axis.label(panels)
    handles = [handle for axes in panels for handle in axes.get_legend_handles_labels()[0]]
    if _has_values(summary):
        handles.append(
            Line2D([], [], color=VAL, marker=".", markersize=5, linestyle="", label=f"one {summary.unit_of_runs}")
        )
    by_label = {str(handle.get_label()): handle for handle in handles}
    style: dict[str, Any] = {"handletextpad": 0.4, "columnspacing": 1.2, "borderpad": 0.2}
    num_columns = 2 if is_one else len(by_label) if len(by_label) <= LEGEND_COLUMNS else -(-len(by_label) // 2)
    figure.legend(handles=[*by_label.values()], loc="outside lower left", ncols=num_columns, **style)


def spread_of(estimate: Estimate) -> tuple[float, float] | None:
    """Mean minus and plus one standard deviation."""
    if estimate.mean is None or estimate.sd is None:
        return None
    return estimate.mean - estimate.sd, estimate.mean + estimate.sd


def _draw_dice(axes: Axes, summary: Summary, axis: VariantAxis) -> None:
    """Train and validation Dice of each variant: the mean with its interval (with folds, its spread), and each run.

    Until all declared seeds have ended there is no interval, as it would be a look; where runs collapsed, no mean.
    """
    num_seeds, num_runs = len(summary.header.seeds), len(summary.header.runs)
    for (metric, (colour, dashes, marker)), side in zip(STYLES.items(), (-1.0, 1.0), strict=True):
        name = {"val_dice": "validation", "train_dice": "training"}[metric]
        for variant in summary.variants:
            known = tuple(value for value in variant.by_run[metric].values() if value is not None)
            style: dict[str, Any] = {"color": colour, "marker": marker, "label": name}
            if not variant.collapse:
                estimate = Estimate(known)
                ends = spread_of(estimate) if summary.header.folds else estimate.interval
                interval = clipped(ends, *DICE) if estimate.n >= num_runs else None
                axis.point(axes, variant.label, estimate.mean, interval, side * 4.0, **style)
            axis.dots(axes, variant.label, known, side * 8.5, colour)
            if variant.is_control and known and not variant.collapse and len(summary.variants) > 1:
                line = axes.axhline if axis.is_flat else axes.axvline
                style = {"color": CONTROL, "linestyle": dashes, "linewidth": 1.0, "zorder": 1.2}
                line(Estimate(known).mean or 0.0, label="control's mean" if metric == "val_dice" else None, **style)
    num_folds, seeds = len(summary.header.folds), counted(num_seeds, "seed")
    what = f"mean, 95 % interval, {seeds}" if num_runs > 1 else "one seed"
    if num_folds:  # runs share training subjects: no interval of one variant
        what = f"mean, standard deviation, {num_folds} folds x {seeds}"
    axes.set_title(f"Dice after the last epoch\n{what}")
    if not _has_values(summary):
        (axes.set_ylim if axis.is_flat else axes.set_xlim)(*DICE)
    axis.keep_within(axes, *DICE)
    axis.name_values(axes, "Dice")


def _draw_differences(axes: Axes, summary: Summary, axis: VariantAxis) -> None:
    """The paired differences from the control, with zero and the smallest effect of interest for comparison."""
    effect = summary.header.smallest_effect
    low, high = range_of_differences(summary)
    band, line = (axes.axhspan, axes.axhline) if axis.is_flat else (axes.axvspan, axes.axvline)
    band(
        -effect, effect, color="#F0E442", alpha=0.35, linewidth=0, label=f"±{effect:g}, the smallest effect of interest"
    )
    line(0.0, color=CONTROL, linewidth=1.0, zorder=1.2)
    for row in shown_differences(summary):
        if row.note:
            axis.note(axes, row.label, row.note)
            continue
        style: dict[str, Any] = {
            "color": INK,
            "marker": "D",
            "markerfacecolor": INK if row.is_shown_to_differ else "white",
        }
        name = "shown to differ" if row.is_shown_to_differ else "not shown to differ"
        axis.point(axes, row.label, row.difference, row.interval, 0.0, label=name, **style)
        for number, (scope, (difference, ends)) in enumerate(row.narrower.items(), 1):
            style = NARROWER[number - 1] | {"label": FOR[scope]}
            axis.point(axes, row.label, difference, clipped(ends, low, high), 4.5 * number, **style)
            axis.cut(axes, row.label, cut_ends(ends, low, high), 4.5 * number, style["color"])
    has_interval = len(summary.header.runs) > 1
    what = f"mean, 95 % interval {FOR[summary.scope]} (not corrected)" if has_interval else "one seed"
    axes.set_title(f"Difference from the control, paired by {summary.unit_of_runs}\n{what}")
    axis.keep_within(axes, low, high)
    axis.name_values(axes, f"difference in {visible(summary.metric_title)}\n({summary.direction} is better)")


def _has_values(summary: Summary) -> bool:
    return any(variant.estimates["val_dice"].n for variant in summary.variants)
