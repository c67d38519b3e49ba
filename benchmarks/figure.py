"""Figures of records: bars of a step, Dice against time, cost as work grows. Drawn from records alone."""

import statistics
from pathlib import Path
from typing import Any

OURS, OTHERS, UNEQUAL = "#0072b2", "#8c8c8c", "#d9d9d9"
CURVE_FLOOR = 0.7  # of the Dice that is shown over time: below it curves only show that training began
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "dlx",  # the same record, the same file
}


def draw(document: dict[str, Any], path: Path) -> Path | None:
    """The figure of a record's kind as SVG; None where matplotlib is missing."""
    try:
        import matplotlib as mpl
    except ImportError:
        return None
    mpl.use("svg")
    with mpl.rc_context(STYLE):
        made = DRAWINGS[document["kind"]](document)
        made.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    return path


def draw_step(document: dict[str, Any]) -> Any:
    """A bar a contender with the range over the repeats; the floor is the step's operations at the measured rate."""
    from matplotlib.figure import Figure

    runs = {name: [run["step_s"] for run in runs if "step_s" in run] for name, runs in document["runs"].items()}
    precision = {name: runs[0].get("precision", "") for name, runs in document["runs"].items() if runs}
    runs = {name: steps for name, steps in runs.items() if steps}
    medians = {name: statistics.median(steps) for name, steps in runs.items()}
    figure = Figure(figsize=(7.2, 0.6 + 0.32 * (len(runs) + 2)), layout="constrained")
    axes = figure.subplots()
    for row, (name, steps) in enumerate(runs.items()):
        unequal = name in document.get("notes", {})
        color = OURS if name.startswith("dlx") else UNEQUAL if unequal else OTHERS
        axes.barh(row, medians[name], color=color, height=0.7)
        axes.plot([min(steps), max(steps)], [row, row], color="black", linewidth=1.2)
        offset = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
        offset["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.annotate(f"{medians[name]:.3g}", (max(steps), row), **offset)
    ceilings = document["ceilings"]
    floors = {"the step's operations as bf16 matrix products": ("matmul_bf16_gflops", ":")}
    if "convolution_float32_gflops" in ceilings:
        floors["its convolutions by themselves in float32"] = ("convolution_float32_gflops", "--")
    for label, (rate, style) in floors.items():
        floor = ceilings["step_gflop"] / ceilings[rate]
        axes.axvline(floor, color="black", linestyle=style, linewidth=1, label=label)
    figure.legend(loc="outside lower right", frameon=False)
    axes.set_yticks(range(len(runs)), [_with_precision(name, precision[name]) for name in runs])
    axes.invert_yaxis()
    axes.set_xlabel("seconds a step: median and range (pale: unequal work)")
    axes.set_xlim(0, 1.12 * max(max(steps) for steps in runs.values()))
    return figure


def _with_precision(name: str, precision: str) -> str:
    return name if precision in name else f"{name}, {precision}"


def draw_dice(document: dict[str, Any]) -> Any:
    """Validation Dice at each look, against the time since the command was typed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, runs in document["runs"].items():
        color, is_first = OURS if name == "dlx" else OTHERS, True
        mark = "s--" if name.endswith("recipe") else "o-"
        for run in runs:
            if run.get("looks"):
                at, dice = zip(*run["looks"], strict=True)
                axes.plot(at, dice, mark, color=color, markersize=4, label=name if is_first else None)
                is_first = False
    axes.axhline(document["target"], color="black", linestyle=":", linewidth=1)
    axes.set_ylim(bottom=max(axes.get_ylim()[0], 0.6))
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds since the command was typed")
    axes.set_ylabel("mean hard Dice, 52 held-out volumes")
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    return figure


CURVE_COLORS = {"dlx, strong": "#0072b2", "dlx, quick": "#56b4e9", "MONAI": "#d55e00", "nnU-Net": "#444444"}
MINUTES = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)


def draw_dice_curve(document: dict[str, Any]) -> Any:
    """Validation Dice against the minutes of training, on a logarithmic axis, each curve labelled at its end. A
    look with mirrored prediction is a hollow diamond beside the curve."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.8, 3.6), layout="constrained")
    axes = figure.subplots()
    runs = {name: run for name, run in document["runs"].items() if "looks" in run}
    ends = []
    for name, run in runs.items():
        minutes, dice = zip(*((at / 60, found) for at, found in run["looks"]), strict=True)
        color = next((color for start, color in CURVE_COLORS.items() if name.startswith(start)), OTHERS)
        axes.plot(minutes, dice, "o-", color=color, markersize=3.5, linewidth=1.4)
        if run["mirrored_look"]:
            at, found = run["mirrored_look"]
            axes.plot(at / 60, found, "D", color=color, markersize=5, markerfacecolor="none")
        ends.append((minutes[-1], dice[-1], f"{name} {dice[-1]:.3f}", color))
    axes.set_xscale("log")
    first = min((run["looks"][0][0] / 60 for run in runs.values()), default=1.0)
    last = max((end[0] for end in ends), default=60.0)
    axes.set_xlim(0.8 * first, 1.2 * last)
    shown = [tick for tick in MINUTES if 0.8 * first <= tick <= 1.2 * last]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()
    mirrored = [run["mirrored_look"][1] for run in runs.values() if run["mirrored_look"]]
    axes.set_ylim(CURVE_FLOOR, max([0.9, *(dice + 0.005 for dice in [*mirrored, *(end[1] for end in ends)])]))
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    legend = " (diamond: mirrored prediction)" if mirrored else ""
    axes.set_xlabel(f"minutes from typing the command, evaluation left out{legend}")
    axes.set_ylabel("mean hard Dice, held-out volumes")
    _label_ends(axes, ends)
    return figure


def _label_ends(axes: Any, ends: list[tuple[float, float, str, str]]) -> None:
    """Each text beside the end of its curve; where two would overlap, the lower one moves down until it fits."""
    apart = 0.05 * (axes.get_ylim()[1] - CURVE_FLOOR)  # the height of a line of text
    placed: list[tuple[float, float]] = []
    for minute, dice, text, color in sorted(ends, key=lambda end: -end[1]):
        at = max(dice, CURVE_FLOOR)
        while any(abs(at - other) < apart and 0.5 < minute / when < 2 for when, other in placed):
            at -= apart / 4
        placed.append((minute, at))
        offset = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(text, (minute, at), color=color, annotation_clip=False, **offset)


def draw_scaling(document: dict[str, Any]) -> Any:
    """A column for each thing that grows: seconds above, memory below."""
    from matplotlib.figure import Figure

    axes_of = document["axes"]
    figure = Figure(figsize=(2.5 * len(axes_of), 4.6), layout="constrained")
    grid = figure.subplots(2, len(axes_of), squeeze=False)
    for column, (axis, points) in enumerate(axes_of.items()):
        at = [point["x"] for point in points]
        for row, (key, label) in enumerate((("s", document["seconds"][axis]), ("mib", document["memory"][axis]))):
            axes = grid[row][column]
            values = [point[key] for point in points]
            axes.plot(at, values, "o-", color=OURS, markersize=4)
            axes.set_ylim(0, 1.1 * max(values))
            axes.set_xlim(0, 1.06 * max(at))
            axes.set_ylabel(label)
            axes.set_xlabel(document["labels"][axis] if row else "")
            axes.set_xticks(at, [f"{value:g}" for value in at])
    return figure


DRAWINGS = {
    "step": draw_step,
    "step-3d": draw_step,
    "dice": draw_dice,
    "dice-curve": draw_dice_curve,
    "scaling": draw_scaling,
}
