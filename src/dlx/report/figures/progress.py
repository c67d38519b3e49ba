"""progress.png: how trials went, epoch by epoch: loss, train and validation Dice, learning rate, seconds.

Drawn for one trial, in its own folder, and for all trials of a run or study together. There is no validation loss: dlx
measures whole validation volumes by their Dice.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from textwrap import fill, wrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from dlx.records.archive import StudyRecords, TrialHistory
from dlx.records.schema import EpochRecord
from dlx.report.figures.style import CONTROL, SERIES, TRAIN, VAL, WIDTH_IN, save_png, styled
from dlx.study.run_id import spell_run
from dlx.system.characters import visible

PANELS_IN = 5.9  # inches; with fixed margins, as finding them takes more than half of the time (0.2 of 0.4 s)
LINE_IN, LEFT_IN, RIGHT_IN, BOTTOM_IN = 0.19, 0.9, 0.95, 0.45
LEGEND_COLUMNS = 4
MAX_CLASSES = 12  # names of single classes beside the panel: more hide each other
MIN_GAP = 0.045  # Dice between two names: less would print one over the other
LOG_RATIO = 20.0  # of the highest rate to a small one; a cosine, which is small in its last tenth, stays linear
MIN_SMALL = 0.2  # the share of small rates from which the axis is logarithmic
MAX_MARKED = 60  # points of a curve that are marked: where few epochs are validated, a line alone shows little

Value = Callable[[EpochRecord], float | None]


@dataclass(frozen=True)
class Curve:
    """One or several trials that are drawn as one line, their mean, and its colours, marker and name in the legend."""

    trials: Sequence[TrialHistory]
    val: str = VAL
    train: str = TRAIN
    marker: str = "."
    name: str = ""
    has_classes: bool = False  # whether single classes are drawn too

    def points(self, value: Value) -> dict[int, float]:
        """Epoch -> mean over the trials that have this value there."""
        found: dict[int, list[float]] = {}
        for trial in self.trials:
            for epoch in trial.epochs:
                if (known := value(epoch)) is not None:
                    found.setdefault(epoch.result.epoch, []).append(known)
        return {epoch: mean(found[epoch]) for epoch in sorted(found)}


def draw_trial_progress(trial: TrialHistory, path: Path) -> None:
    """Draws one trial that has recorded an epoch."""
    curve = Curve([trial], has_classes=True)
    _draw([curve], f"{trial.entry.label}, {spell_run(trial.entry.run)}", path)


def draw_progress(records: StudyRecords, path: Path) -> None:
    """Draws a run or study of which an epoch is recorded: each trial, or of several variants each one's mean."""
    begun, header = [trial for trial in records.trials if trial.epochs], records.header
    if len(records.trials) == 1 and begun:
        draw_trial_progress(begun[0], path)
        return
    title = f"{header.question or header.name}"
    if len(header.variants) == 1:
        _draw([Curve([trial]) for trial in begun], f"{title} ({len(begun)} of {len(records.trials)} trials)", path)
        return
    curves = []
    for index, variant in enumerate(header.variants):
        colour, marker = SERIES[index % len(SERIES)][0], SERIES[(index + index // len(SERIES)) % len(SERIES)][1]
        of_variant = [trial for trial in begun if trial.entry.label == variant.label]
        curves.append(Curve(of_variant, colour, colour, marker, f"{variant.label} (n = {len(of_variant)})"))
    _draw(curves, f"{title} (means over the trials of each variant)", path)


def _draw(curves: Sequence[Curve], title: str, path: Path) -> None:
    lines, handles = wrap(visible(title), 100) or [""], _handles(curves)
    top_in = 0.15 + LINE_IN * len(lines)
    bottom_in = BOTTOM_IN + LINE_IN * -(-len(handles) // LEGEND_COLUMNS)
    height_in = PANELS_IN + top_in + bottom_in
    with styled():
        figure = Figure(figsize=(WIDTH_IN, height_in))
        panels = figure.subplots(4, 1, sharex=True, height_ratios=(2.0, 2.6, 1.0, 1.0))
        right_in = RIGHT_IN if any(curve.has_classes for curve in curves) else 0.2
        sides = {"left": LEFT_IN / WIDTH_IN, "right": 1.0 - right_in / WIDTH_IN}
        figure.subplots_adjust(top=1.0 - top_in / height_in, bottom=bottom_in / height_in, hspace=0.12, **sides)
        for curve in curves:
            _plot(panels[0], curve, lambda epoch: epoch.result.loss, curve.train)
            _plot_dice(panels[1], curve)
            for group in _groups(curve):
                _plot(panels[2], curve, partial(_rate_of, group=group), curve.val)
            _plot(panels[3], curve, lambda epoch: epoch.run.train_s + epoch.run.evaluate_s, curve.val)
        _scale_rates(panels[2], curves)
        for axes, name in zip(
            panels, ("training loss", "Dice of whole volumes", "learning rate", "seconds"), strict=True
        ):
            axes.set_ylabel(name)
            axes.yaxis.set_label_coords(-0.09, 0.5)
        panels[1].set_ylim(0.0, 1.0)
        panels[3].set_ylim(bottom=0.0)
        panels[3].set_xlabel("epoch")
        panels[3].xaxis.set_major_locator(MaxNLocator(10, integer=True))
        figure.legend(handles=handles, loc="lower left", ncols=LEGEND_COLUMNS, columnspacing=1.2)
        style: dict[str, Any] = {"fontsize": 10.5, "fontweight": "bold", "ha": "left", "va": "top"}
        figure.suptitle("\n".join(lines), x=0.01, y=1.0 - 0.05 / height_in, **style)
        save_png(figure, path)


def _plot(axes: Axes, curve: Curve, value: Value, colour: str, **style: Any) -> None:
    points = curve.points(value)
    marker = curve.marker if len(points) <= MAX_MARKED else ""
    axes.plot(
        [*points], [*points.values()], color=colour, marker=marker, **({"linewidth": 1.2, "markersize": 3} | style)
    )


def _plot_dice(axes: Axes, curve: Curve) -> None:
    names = _class_names(curve) if curve.has_classes else []
    ends: dict[str, tuple[int, float]] = {}
    for name in names if len(names) > 1 else ():
        value = partial(_dice_of, class_name=name)
        _plot(axes, curve, value, CONTROL, linewidth=0.8)
        points = curve.points(value)
        ends |= {name: [*points.items()][-1]} if points else {}
    for name, height in _apart({name: dice for name, (_, dice) in [*ends.items()][:MAX_CLASSES]}).items():
        axes.annotate(visible(name), (1.01, height), xycoords="axes fraction", color=CONTROL, fontsize=7, va="center")
    _plot(axes, curve, lambda epoch: epoch.result.train_dice_subset, curve.train, linestyle="--")
    _plot(axes, curve, lambda epoch: epoch.result.val_dice, curve.val)


def _class_names(curve: Curve) -> list[str]:
    epochs = (epoch for trial in curve.trials for epoch in trial.epochs)
    return list(dict.fromkeys(name for epoch in epochs for name in epoch.result.val_dice_per_class or {}))


def _dice_of(epoch: EpochRecord, class_name: str) -> float | None:
    return (epoch.result.val_dice_per_class or {}).get(class_name)


def _apart(heights: Mapping[str, float]) -> dict[str, float]:
    """The heights, from 0 to 1, of names beside the ends of curves, moved up where two would be closer than MIN_GAP."""
    moved: dict[str, float] = {}
    for name in sorted(heights, key=heights.__getitem__):
        lowest = max(moved.values(), default=-1.0) + MIN_GAP
        moved[name] = max(heights[name], lowest)
    too_high = max(0.0, max(moved.values(), default=0.0) - 1.0)
    return {name: height - too_high for name, height in moved.items()}


def _groups(curve: Curve) -> list[str]:
    """A parameter group for each course that the rates of groups take: one where all groups have one rate."""
    courses: dict[tuple[float | None, ...], str] = {}
    epochs = [epoch for trial in curve.trials for epoch in trial.epochs]
    for group in dict.fromkeys(group for epoch in epochs for group in epoch.result.lr):
        courses.setdefault(tuple(epoch.result.lr.get(group) for epoch in epochs), group)
    return list(courses.values())


def _rate_of(epoch: EpochRecord, group: str) -> float | None:
    return epoch.result.lr.get(group)


def _scale_rates(axes: Axes, curves: Iterable[Curve]) -> None:
    """A logarithmic axis if none of the rates is zero, and many are small beside the highest."""
    epochs = [epoch for curve in curves for trial in curve.trials for epoch in trial.epochs]
    rates = [rate for epoch in epochs for rate in epoch.result.lr.values()]
    num_small = sum(LOG_RATIO * rate < max(rates) for rate in rates)
    if rates and min(rates) > 0.0 and num_small > MIN_SMALL * len(rates):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _handles(curves: Sequence[Curve]) -> list[Line2D]:
    """The legend: which line is which, and the colour of each variant."""
    of_variants = [
        Line2D(
            [],
            [],
            color=c.val,
            marker=c.marker,
            markersize=4,
            label=fill(visible(c.name), 36, max_lines=1, placeholder=" …") or " ",
        )
        for c in curves
        if c.name
    ]
    val, train = (CONTROL, CONTROL) if of_variants else (VAL, TRAIN)
    handles = [
        Line2D([], [], color=val, label="validation"),
        Line2D([], [], color=train, linestyle="--", label="training (some of its subjects)"),
    ]
    if any(curve.has_classes and len(_class_names(curve)) > 1 for curve in curves):
        handles.append(Line2D([], [], color=CONTROL, linewidth=0.8, label="validation, single classes"))
    return handles + of_variants
