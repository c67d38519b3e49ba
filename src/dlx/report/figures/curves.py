"""Dice over epochs: a panel a variant, with a band over seeds."""

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from dlx.report.figures.style import CONTROL, INK, STYLES, TRAIN, VAL
from dlx.report.summary import Summary
from dlx.report.variants import VariantSummary
from dlx.report.words import spell_collapse
from dlx.settings.text import counted
from dlx.statistics.claims import Estimate
from dlx.study.metrics import MIN_POINTS, epoch_value
from dlx.study.results import EpochResult
from dlx.study.run_id import RunId
from dlx.system.characters import visible

MAX_POINTS_WITHOUT_CURVE = 2
CURVES = {"val_dice": "val_dice", "train_dice": "train_dice_subset"}  # metric of a trial -> of an epoch


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
        count = fill(_count(variant), 124 // columns, max_lines=3, placeholder=" …")
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


def has_curves(summary: Summary) -> bool:
    """Whether some trial was validated three times or more, or trials are still to end: two points are no curve."""
    return summary.num_done < len(summary.header.trials) or _most_points(summary) > MAX_POINTS_WITHOUT_CURVE


def few_points(summary: Summary) -> str:
    """Why there are no curves, if the study validated too rarely; else empty."""
    most = _most_points(summary)
    if summary.header.epochs <= MAX_POINTS_WITHOUT_CURVE:
        return f"{counted(summary.header.epochs, 'epoch')}: too few for a curve"
    if most >= min(MIN_POINTS, summary.header.epochs):
        return ""
    every = max(1, summary.header.epochs // MIN_POINTS)
    how_often = "once, after the last epoch" if most == 1 else f"{most} times"
    return f"validated {how_often}: evaluate.every={every} gives a curve"


def _most_points(summary: Summary) -> int:
    """How often at most a finished trial was validated; enough for curves if none has finished."""
    ended = [v.epochs[seed] for v in summary.variants for seed, record in v.records.items() if record.status == "done"]
    return max((sum(epoch.val_dice is not None for epoch in epochs) for epochs in ended), default=MIN_POINTS)


def _curve_handles(summary: Summary) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=VAL, label="validation"),
        Line2D([], [], color=TRAIN, linestyle="--", label="training (some of its subjects)"),
    ]
    for control in (variant for variant in summary.variants if variant.is_control and len(summary.variants) > 1):
        label = f"control ({_shorten(visible(control.label), 30)}; {_count(control)})"
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
    """Mean and band of the seeds that ended; the others, and all where a run collapsed, as thin lines of their own."""
    together = [] if variant.collapse else _ended(variant)
    for metric, (colour, dashes, _) in STYLES.items():
        shown = CONTROL if grey else colour
        curves = {seed: _curve(epochs, CURVES[metric]) for seed, epochs in variant.epochs.items()}
        style: dict[str, Any] = {"color": shown, "linestyle": dashes, "zorder": 2.0 if grey else 3.0}
        for seed, curve in curves.items():
            if seed not in together and curve:
                has_broken = variant.by_run["val_dice"].get(seed, 0.0) is None
                axes.plot([*curve], [*curve.values()], linewidth=0.8, marker=_marker(curve), markersize=2.5, **style)
                if has_broken and not grey:
                    axes.plot([*curve][-1:], [*curve.values()][-1:], marker="x", color=INK, markersize=6, zorder=4)
        _draw_mean(axes, [curves[seed] for seed in together if curves[seed]], style, band=not grey)


def _draw_mean(axes: Axes, curves: Sequence[Mapping[int, float]], style: Mapping[str, Any], *, band: bool) -> None:
    epochs = sorted({epoch for curve in curves for epoch in curve})
    if not epochs:
        return
    at = [Estimate(tuple(curve[epoch] for curve in curves if epoch in curve)) for epoch in epochs]
    means = [estimate.mean or 0.0 for estimate in at]
    axes.plot(epochs, means, linewidth=1.4 if band else 1.1, marker=_marker(epochs), markersize=3, **style)
    if band and len(curves) > 1:
        sds = [estimate.sd or 0.0 for estimate in at]
        low = [mean - sd for mean, sd in zip(means, sds, strict=True)]
        high = [mean + sd for mean, sd in zip(means, sds, strict=True)]
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.22, linewidth=0, zorder=1.5)


def _curve(epochs: Sequence[EpochResult], metric: str) -> dict[int, float]:
    """Epoch -> value, of the epochs that measured the metric."""
    return {epoch.epoch: value for epoch in epochs if (value := epoch_value(epoch, metric)) is not None}


def _marker(epochs: Iterable[int]) -> str:
    """A point for each measured epoch, if they are few: the line between them is no measurement."""
    known = list(epochs)
    is_sparse = len(known) <= 12 or known[-1] - known[0] + 1 >= 2 * len(known)
    return "." if is_sparse and len(known) <= 60 else ""


def num_columns(num_panels: int) -> int:
    return num_panels if num_panels <= 4 else 3 if num_panels in (5, 6, 9) else 4


def _ended(variant: VariantSummary) -> list[RunId]:
    return [run for run, value in variant.by_run["val_dice"].items() if value is not None]


def _count(variant: VariantSummary) -> str:
    """How many runs a panel shows, and how."""
    num_ended, num_begun = len(_ended(variant)), sum(bool(epochs) for epochs in variant.epochs.values())
    if variant.collapse:
        return visible(spell_collapse(variant.collapse))
    return f"n = {num_ended}" + (f", {num_begun - num_ended} running" if num_begun > num_ended else "")


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
