"""Dice over epochs: a panel a variant, with a band over seeds."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from dlx.report.figures.style import CONTROL, INK, STYLES, TRAIN, VAL
from dlx.report.findings.summary import Summary
from dlx.report.findings.variants import VariantSummary
from dlx.report.plotted.epoch_curves import VariantCurves, curves_of, few_points, has_markers, spell_runs_shown
from dlx.system.characters import visible


def draw_curves(figure: SubFigure, summary: Summary, variants: Sequence[VariantSummary]) -> None:
    """Draws a panel for each of these variants, over the control's curves, and their legend."""
    columns = num_columns(len(variants))
    rows = -(-len(variants) // columns)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    control = next((variant for variant in summary.variants if variant.is_control), None)
    for i, variant in enumerate(variants):
        axes = panels.flat[i]
        if control is not None and not variant.is_control:
            _draw_variant(axes, control, grey=True)
        _draw_variant(axes, variant)
        title = fill(visible(variant.label), 112 // columns, max_lines=2, placeholder=" …")
        count = fill(visible(spell_runs_shown(variant)), 124 // columns, max_lines=3, placeholder=" …")
        is_short = len(title) + len(count) + 2 < 112 // columns
        title = f"{title}  ({count})" if is_short else f"{title}\n{count}"
        axes.set_title(title + "\nevaluation differs from training" * bool(variant.warnings), pad=3)
        if not any(epochs for epochs in variant.epochs.values()):
            axes.text(0.5, 0.5, "no epochs yet", ha="center", color=CONTROL, transform=axes.transAxes)
    for axes in panels.flat[len(variants) :]:
        axes.set_axis_off()
    for axes in panels.flat[: len(variants)]:
        axes.tick_params(labelbottom=axes in panels.flat[max(0, len(variants) - columns) :])
    panels[0, 0].set_xlim(0, summary.header.epochs + max(0.5, 0.02 * summary.header.epochs))
    panels[0, 0].set_ylim(0.0, 1.0)
    panels[0, 0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    hint = few_points(summary)
    figure.supxlabel(f"epoch ({hint})" if hint else "epoch", fontsize=8)
    figure.supylabel("Dice of whole volumes", fontsize=8)
    handles = _curve_handles(summary)
    # 8 points in 9 inches hold some 135 letters, a handle being six of them
    is_long = sum(len(str(handle.get_label())) + 6 for handle in handles) > 135
    columns = -(-len(handles) // (1 + is_long))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, columnspacing=1.2)


def _curve_handles(summary: Summary) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=VAL, label="validation"),
        Line2D([], [], color=TRAIN, linestyle="--", label="training (some of its subjects)"),
    ]
    for control in (variant for variant in summary.variants if variant.is_control and len(summary.variants) > 1):
        label = f"control ({_shorten(visible(control.label), 30)}; {visible(spell_runs_shown(control))})"
        handles.append(Line2D([], [], color=CONTROL, label=label))
    if len(summary.header.seeds) > 1:
        handles.append(
            Patch(
                color=CONTROL, alpha=0.3, linewidth=0, label=f"mean ± 1 standard deviation over {summary.name_of_runs}"
            )
        )
    if any(None in variant.by_run["val_dice"].values() for variant in summary.variants):
        handles.append(Line2D([], [], color=INK, marker="x", linestyle="", label="diverged or failed"))
    return handles


def _draw_variant(axes: Axes, variant: VariantSummary, *, grey: bool = False) -> None:
    """Mean and band of the runs that ended; the others, and all where a run collapsed, as thin lines of their own."""
    for metric, (colour, dashes, _) in STYLES.items():
        curves = curves_of(variant, metric)
        shown = CONTROL if grey else colour
        style: dict[str, Any] = {"color": shown, "linestyle": dashes, "zorder": 2.0 if grey else 3.0}
        for run, curve in curves.alone.items():
            marker = "." if has_markers([*curve]) else ""
            axes.plot([*curve], [*curve.values()], linewidth=0.8, marker=marker, markersize=2.5, **style)
            if run in curves.broken and not grey:
                axes.plot([*curve][-1:], [*curve.values()][-1:], marker="x", color=INK, markersize=6, zorder=4)
        _draw_mean(axes, curves, style, band=not grey)


def _draw_mean(axes: Axes, curves: VariantCurves, style: Mapping[str, Any], *, band: bool) -> None:
    epochs, at = [*curves.mean], [*curves.mean.values()]
    if not epochs:
        return
    means, marker = [estimate.mean or 0.0 for estimate in at], "." if has_markers(epochs) else ""
    axes.plot(epochs, means, linewidth=1.4 if band else 1.1, marker=marker, markersize=3, **style)
    if band and curves.num_together > 1:
        sds = [estimate.sd or 0.0 for estimate in at]
        low = [mean - sd for mean, sd in zip(means, sds, strict=True)]
        high = [mean + sd for mean, sd in zip(means, sds, strict=True)]
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.22, linewidth=0, zorder=1.5)


def num_columns(num_panels: int) -> int:
    return num_panels if num_panels <= 4 else 3 if num_panels in (5, 6, 9) else 4


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
