"""A study's figure, SVG and PNG: Dice over epochs, Dice after the last epoch, and the differences from the control.

Blue is always validation and vermillion training, the control is always grey: a panel shows one variant over its
control, so that any number of variants stays legible.
"""

from pathlib import Path
from textwrap import fill

from matplotlib.figure import Figure

from dlx.report.figures.curves import draw_curves, num_columns
from dlx.report.figures.last_epoch import draw_last_epoch
from dlx.report.figures.style import WIDTH_IN, save, styled
from dlx.report.figures.variant_axis import numbers_on_axis
from dlx.report.findings.summary import Summary
from dlx.report.plotted.epoch_curves import few_points, has_curves
from dlx.system.characters import visible


def draw_study(summary: Summary, path_svg: Path, path_png: Path | None = None) -> None:
    """Draws a study, finished or running, and writes these files."""
    with styled():
        save(_figure(summary), path_svg, path_png)


def _figure(summary: Summary) -> Figure:
    """Curves above, values after the last epoch below; side by side for a single variant. Of several variants that were
    validated too rarely, no curves.
    """
    others = [variant for variant in summary.variants if not variant.is_control]
    header = summary.header
    title = fill(visible(header.question or header.name), 100)
    if summary.num_done < len(header.trials):
        title += f"\n{summary.num_done} of {len(header.trials)} trials have ended"
    if len(summary.variants) == 1:
        figure = Figure(figsize=(WIDTH_IN, 3.6), layout="constrained")
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(2.2, 1.0)).flat
        draw_curves(left, summary, list(summary.variants))
        draw_last_epoch(right, summary)
    elif not has_curves(summary):
        figure = Figure(figsize=(WIDTH_IN, _lower_in(summary) + 0.5), layout="constrained")
        (whole,) = figure.subfigures(1, 1, squeeze=False).flat
        draw_last_epoch(whole, summary)
        if hint := few_points(summary):
            figure.supxlabel(f"No curves over epochs: {hint}.", fontsize=8, x=0.01, ha="left")
    else:
        columns = num_columns(len(others))
        num_rows = -(-len(others) // columns)
        upper_in = num_rows * max(1.5, 2.6 - 0.35 * columns) + 0.75
        upper_in += 0.3 * any(variant.warnings for variant in others)  # they lengthen the titles
        lower_in = _lower_in(summary)
        figure = Figure(figsize=(WIDTH_IN, upper_in + lower_in + 0.35), layout="constrained")
        halves = figure.subfigures(2, 1, squeeze=False, height_ratios=(upper_in, lower_in), hspace=0.03)
        upper, lower = halves.flat
        draw_curves(upper, summary, others)
        draw_last_epoch(lower, summary)
    figure.suptitle(title, fontsize=10.5, fontweight="bold", x=0.01, ha="left")
    return figure


def _lower_in(summary: Summary) -> float:
    return 3.0 if numbers_on_axis(summary) else 1.4 + max(1.2, 0.3 * len(summary.variants))
