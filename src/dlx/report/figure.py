"""A study's picture, SVG and PNG: Dice over epochs, the figures after the last epoch, and the differences measured.

Blue is always validation and vermillion training, the control is always grey: a panel shows one variant over its
control, so that any number of variants stays legible. Drawn with matplotlib's objects; whatever the user has set for
pyplot changes nothing. Equal records give equal bytes.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from statistics import stdev
from textwrap import fill
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation, Transform

from dlx.files import write_atomically
from dlx.records import EpochResult
from dlx.report.summary import Summary, VariantSummary
from dlx.statistics import Estimate, collapsed_seeds

# Okabe and Ito's palette: told apart by the colour-blind; dashes and markers do it in grey
VAL, TRAIN, CONTROL, INK = "#0072B2", "#D55E00", "#8c8c8c", "#222222"
STYLES = {"val_dice": (VAL, "-", "o"), "train_dice": (TRAIN, "--", "s")}
CURVES = {"val_dice": "val_dice", "train_dice": "train_dice_subset"}  # figure -> the field of an epoch
WIDTH_IN = 9.0  # 8 points are 11 pixels where the figure is shown 900 pixels wide
RC: Any = {
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,  # a label may hold a dollar
    "svg.fonttype": "none",
    "svg.hashsalt": "dlx",
}


def draw_study(summary: Summary, path_svg: Path, path_png: Path | None = None) -> None:
    """Draws what there is of a study, finished or running, into these files."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        figure = _figure(summary)
        _save(figure, path_svg, format="svg", metadata={"Date": None, "Creator": None})
        if path_png is not None:
            _save(figure, path_png, format="png", dpi=200, metadata={"Software": None})


def _save(figure: Figure, path: Path, **options: Any) -> None:
    buffer = BytesIO()
    figure.savefig(buffer, **options)
    write_atomically(path, _number_ids(buffer.getvalue()) if path.suffix == ".svg" else buffer.getvalue())


def _number_ids(svg: bytes) -> bytes:
    """The same picture with its clip paths numbered: matplotlib hashes their unrounded sizes, unequal from run to run.

    The layout's solver agrees with itself to the last bits only; what is written is rounded to a millionth of a point.
    """
    found = dict.fromkeys(re.findall(rb'<clipPath id="(\w+)"', svg))
    numbered = {name: b"clip%d" % i for i, name in enumerate(found, 1)}
    return re.sub(rb"(?<=[\"#])p[0-9a-f]{10}(?=[\")])", lambda match: numbered.get(match[0], match[0]), svg)


def _figure(summary: Summary) -> Figure:
    """Curves above, figures of the last epoch below; side by side where there is one variant and nothing to compare."""
    others = [variant for variant in summary.variants if not variant.is_control]
    header = summary.header
    title = fill(header.question or header.name, 100)
    if summary.num_done < len(header.trials):
        title += f"\n{summary.num_done} of {len(header.trials)} trials have ended"
    if len(summary.variants) == 1:
        figure = Figure(figsize=(WIDTH_IN, 3.6), layout="constrained")
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(2.2, 1.0)).flat
        _draw_curves(left, summary, list(summary.variants))
        _draw_finals(right, summary)
    else:
        columns = _num_columns(len(others))
        num_rows = -(-len(others) // columns)
        upper_in = num_rows * max(1.5, 2.6 - 0.35 * columns) + 0.75
        lower_in = 3.0 if _numbers(summary) else 1.4 + max(1.2, 0.3 * len(summary.variants))
        figure = Figure(figsize=(WIDTH_IN, upper_in + lower_in + 0.35), layout="constrained")
        halves = figure.subfigures(2, 1, squeeze=False, height_ratios=(upper_in, lower_in), hspace=0.03)
        upper, lower = halves.flat
        _draw_curves(upper, summary, others)
        _draw_finals(lower, summary)
    figure.suptitle(title, fontsize=10.5, fontweight="bold", x=0.01, ha="left")
    return figure


def _num_columns(num_panels: int) -> int:
    return num_panels if num_panels <= 4 else 3 if num_panels in (5, 6, 9) else 4


# over epochs


def _draw_curves(figure: SubFigure, summary: Summary, variants: Sequence[VariantSummary]) -> None:
    columns = _num_columns(len(variants))
    rows = -(-len(variants) // columns)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    control = next((variant for variant in summary.variants if variant.is_control), None)
    for i, variant in enumerate(variants):
        axes = panels.flat[i]
        if control is not None and not variant.is_control:
            _draw_variant(axes, control, grey=True)
        _draw_variant(axes, variant)
        title, count = fill(variant.label, 112 // columns, max_lines=2, placeholder=" …"), _count(variant)
        is_short = len(title) + len(count) + 2 < 112 // columns
        axes.set_title(f"{title}  ({count})" if is_short else f"{title}\n{count}", pad=3)
        if not any(epochs for epochs in variant.epochs.values()):
            axes.text(0.5, 0.5, "no epochs yet", ha="center", color=CONTROL, transform=axes.transAxes)
    for axes in panels.flat[len(variants) :]:
        axes.set_axis_off()
    for axes in panels.flat[: len(variants)]:
        axes.tick_params(labelbottom=axes in panels.flat[max(0, len(variants) - columns) :])
    panels[0, 0].set_xlim(0, summary.header.epochs + max(0.5, 0.02 * summary.header.epochs))
    panels[0, 0].set_ylim(0.0, 1.0)
    panels[0, 0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.supxlabel("epoch", fontsize=8)
    figure.supylabel("Dice of whole volumes", fontsize=8)
    handles = _curve_handles(summary)
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), columnspacing=1.2)


def _curve_handles(summary: Summary) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=VAL, label="validation"),
        Line2D([], [], color=TRAIN, linestyle="--", label="training (some of its subjects)"),
    ]
    if len(summary.variants) > 1 and summary.header.control is not None:
        handles.append(Line2D([], [], color=CONTROL, label=f"control ({_shorten(summary.header.control, 30)})"))
    if len(summary.header.seeds) > 1:
        handles.append(Patch(color=CONTROL, alpha=0.3, linewidth=0, label="mean ± 1 standard deviation over seeds"))
    if any(None in variant.by_seed["val_dice"].values() for variant in summary.variants):
        handles.append(Line2D([], [], color=INK, marker="x", linestyle="", label="broke off"))
    return handles


def _draw_variant(axes: Axes, variant: VariantSummary, *, grey: bool = False) -> None:
    """Mean and band of the seeds that ended; the others, and all where a run collapsed, as thin lines of their own."""
    together = [] if _is_mixed(variant) else _ended(variant)
    for figure, (colour, dashes, _) in STYLES.items():
        shown = CONTROL if grey else colour
        curves = {seed: _curve(epochs, CURVES[figure]) for seed, epochs in variant.epochs.items()}
        style: dict[str, Any] = {"color": shown, "linestyle": dashes, "zorder": 2.0 if grey else 3.0}
        for seed, curve in curves.items():
            if seed not in together and curve:
                has_broken = variant.by_seed["val_dice"].get(seed, 0.0) is None
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
        sds = [_sd(estimate.values) for estimate in at]
        low = [mean - sd for mean, sd in zip(means, sds, strict=True)]
        high = [mean + sd for mean, sd in zip(means, sds, strict=True)]
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.22, linewidth=0, zorder=1.5)


def _curve(epochs: Sequence[EpochResult], field: str) -> dict[int, float]:
    """Epoch -> figure, of the epochs that measured it."""
    return {epoch.epoch: value for epoch in epochs if (value := getattr(epoch, field)) is not None}


def _marker(epochs: Iterable[int]) -> str:
    """A point for each epoch that was measured, where there are few: the line between them is no measurement."""
    known = list(epochs)
    is_sparse = len(known) <= 12 or known[-1] - known[0] + 1 >= 2 * len(known)
    return "." if is_sparse and len(known) <= 60 else ""


# after the last epoch


def _draw_finals(figure: SubFigure, summary: Summary) -> None:
    has_control = any(variant.comparison is not None for variant in summary.variants)
    place = _Places(summary)
    is_one = len(summary.variants) == 1
    panels = figure.subplots(1, 1 + has_control, sharex=place.is_flat, sharey=not place.is_flat, squeeze=False)[0]
    _draw_levels(panels[0], summary, place)
    if has_control:
        _draw_differences(panels[1], summary, place)
    place.label(panels)
    handles = [handle for axes in panels for handle in axes.get_legend_handles_labels()[0]]
    handles.append(Line2D([], [], color=VAL, marker=".", markersize=5, linestyle="", label="one seed"))
    by_label = {str(handle.get_label()): handle for handle in handles}
    style: dict[str, Any] = {"handletextpad": 0.4, "columnspacing": 1.2, "borderpad": 0.2}
    figure.legend(handles=[*by_label.values()], loc="outside lower left", ncols=2 if is_one else len(by_label), **style)


def _draw_levels(axes: Axes, summary: Summary, place: "_Places") -> None:
    """Train and validation Dice of each variant: the mean with its interval, and each seed beside it."""
    for (figure, (colour, dashes, marker)), side in zip(STYLES.items(), (-1.0, 1.0), strict=True):
        name = {"val_dice": "validation", "train_dice": "training"}[figure]
        for variant in summary.variants:
            known = tuple(value for value in variant.by_seed[figure].values() if value is not None)
            style: dict[str, Any] = {"color": colour, "marker": marker, "label": name}
            if not _is_mixed(variant):
                estimate = Estimate(known)
                place.point(axes, variant.label, estimate.mean, estimate.interval, side * 4.0, **style)
            place.dots(axes, variant.label, known, side * 8.5, colour)
            if variant.is_control and known and len(summary.variants) > 1:
                line = axes.axhline if place.is_flat else axes.axvline
                style = {"color": CONTROL, "linestyle": dashes, "linewidth": 1.0, "zorder": 1.2}
                line(Estimate(known).mean or 0.0, label="control's mean", **style)
    interval = "mean, 95 % interval" if len(summary.variants) == 1 else "mean and its 95 % interval over seeds"
    what = interval if len(summary.header.seeds) > 1 else "one seed"
    axes.set_title(f"Dice after the last epoch\n{what}")
    if not summary.num_done:
        (axes.set_ylim if place.is_flat else axes.set_xlim)(0.0, 1.0)
    place.name_values(axes, "Dice")


def _draw_differences(axes: Axes, summary: Summary, place: "_Places") -> None:
    """The paired differences from the control beside zero and the smallest effect that was declared."""
    effect = summary.header.smallest_effect
    band, line = (axes.axhspan, axes.axhline) if place.is_flat else (axes.axvspan, axes.axvline)
    band(-effect, effect, color="#F0E442", alpha=0.35, linewidth=0, label=f"±{effect:g}, the smallest effect declared")
    line(0.0, color=CONTROL, linewidth=1.0, zorder=1.2)
    for variant in summary.variants:
        row = variant.comparison
        if row is None:
            continue
        is_shown = row.verdict in ("better", "worse")
        if row.verdict == "collapsed" or row.verdict.startswith("no effect") or row.difference is None:
            place.note(axes, variant.label, row.verdict.split(":")[0] if row.difference is not None else "no pair yet")
        else:
            style: dict[str, Any] = {
                "color": INK,
                "marker": "D",
                "markerfacecolor": INK if is_shown else "white",
            }
            name = "shown to differ" if is_shown else "not shown to differ"
            place.point(axes, variant.label, row.difference, row.interval, 0.0, label=name, **style)
    axes.set_title("Difference from the control, paired by seed\nmean and its 95 % interval (not corrected)")
    place.name_values(axes, f"difference in {summary.metric_title}")


class _Places:
    """Where a variant stands: at its number on the horizontal axis (`is_flat`), or in a row of its own.

    Numbers of very unlike distances (0.0001, 0.001, 0.01) stand at equal ones.
    """

    def __init__(self, summary: Summary) -> None:
        numbers = _numbers(summary)
        variants = summary.variants
        self.is_flat = bool(numbers) or len(variants) == 1
        self.control = summary.header.control
        self.at = {variant.label: float(row) for row, variant in enumerate(variants)}
        self.names = {v.label: f"{v.label} (control)" if v.label == self.control else v.label for v in variants}
        self.title = ""
        if numbers:
            known = sorted(set(numbers.values()))
            gaps = [b - a for a, b in itertools.pairwise(known)]
            is_even = max(gaps, default=1.0) >= 10.0 * min(gaps, default=1.0)
            self.at = {label: float(known.index(x)) if is_even else x for label, x in numbers.items()}
            self.names = {label: f"{x:g}" + "\ncontrol" * (label == self.control) for label, x in numbers.items()}
            self.title = summary.header.axes[0] + " (not to scale)" * is_even

    def point(
        self,
        axes: Axes,
        variant: str,
        mean: float | None,
        interval: tuple[float, float] | None,
        beside: float,
        **style: Any,
    ) -> None:
        """A mean with its interval, `beside` points off the variant's place."""
        if mean is None or variant not in self.at:
            return
        place, move = self.at[variant], self._moved(axes, beside)
        if interval is not None:
            self._plot(axes, [place, place], interval, transform=move, color=style["color"], linewidth=1.3)
        self._plot(axes, [place], [mean], transform=move, linestyle="", markersize=3.8, zorder=3, **style)

    def dots(self, axes: Axes, variant: str, values: Sequence[float], beside: float, colour: str) -> None:
        if variant in self.at:
            style: dict[str, Any] = {"color": colour, "alpha": 0.7, "markersize": 5, "markeredgewidth": 0}
            self._plot(
                axes,
                [self.at[variant]] * len(values),
                values,
                transform=self._moved(axes, beside),
                marker=".",
                linestyle="",
                **style,
            )

    def note(self, axes: Axes, variant: str, text: str) -> None:
        """Words in place of a point, on the zero line."""
        if variant not in self.at:
            return
        x, y = (self.at[variant], 0.0) if self.is_flat else (0.0, self.at[variant])
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7.5, "fontstyle": "italic"}
        axes.text(x, y, text, rotation=90 if self.is_flat else 0, **style)

    def name_values(self, axes: Axes, name: str) -> None:
        (axes.set_ylabel if self.is_flat else axes.set_xlabel)(name)

    def label(self, panels: Sequence[Axes]) -> None:
        """The ticks and names of the axis along which the variants stand."""
        places = [self.at[label] for label in self.names]
        if not self.is_flat:
            names = [fill(name, 34, max_lines=3, placeholder=" …") for name in self.names.values()]
            panels[0].set_yticks(places, names)
            panels[0].set_ylim(len(places) - 0.5, -0.5)
            for axes in panels:
                axes.xaxis.set_major_locator(MaxNLocator(6))
            return
        margin = 0.07 * (max(places) - min(places)) or 0.5
        panels[0].set_xlim(min(places) - margin, max(places) + margin)
        for axes in panels:
            axes.set_xticks(places, [*self.names.values()])
            if sum(len(name.split("\n")[0]) + 2 for name in self.names.values()) > 64:
                axes.tick_params(axis="x", labelrotation=90)
            axes.set_xlabel(self.title)

    def _plot(self, axes: Axes, places: Sequence[float], values: Sequence[float], **style: Any) -> None:
        x, y = (places, values) if self.is_flat else (values, places)
        axes.plot(x, y, **style)
        axes.plot(x, y, linestyle="")  # unseen: the limits of the axes pass over what is moved

    def _moved(self, axes: Axes, points: float) -> Transform:
        figure = axes.get_figure(root=True)
        assert figure is not None
        x, y = (points / 72, 0.0) if self.is_flat else (0.0, -points / 72)
        return axes.transData + ScaledTranslation(x, y, figure.dpi_scale_trans)


def _numbers(summary: Summary) -> dict[str, float]:
    """The variants' numbers on the study's one axis; empty unless all, but perhaps for the control, have one."""
    if len(summary.header.axes) != 1 or len(summary.variants) < 2:
        return {}
    values = {v.label: v.values.get(summary.header.axes[0]) for v in summary.variants}
    numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    without = set(values) - set(numbers) - {summary.header.control}
    return {} if without else numbers


def _ended(variant: VariantSummary) -> list[int]:
    return [seed for seed, value in variant.by_seed["val_dice"].items() if value is not None]


def _is_mixed(variant: VariantSummary) -> bool:
    """True where some runs collapsed or diverged and others did not: no mean and interval would describe them."""
    return bool(collapsed_seeds(variant.by_seed["val_dice"]))


def _count(variant: VariantSummary) -> str:
    """How many runs a panel shows, and how."""
    num_ended, num_begun = len(_ended(variant)), sum(bool(epochs) for epochs in variant.epochs.values())
    if _is_mixed(variant):
        return f"each of {num_begun} seeds: some collapsed"
    return f"n = {num_ended}" + (f", {num_begun - num_ended} running" if num_begun > num_ended else "")


def _sd(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
