"""The axis along which variants stand, and how values are drawn at a variant's position."""

import itertools
from collections.abc import Sequence
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation, Transform

from dlx.report.findings.summary import Summary
from dlx.system.characters import visible


class VariantAxis:
    """The position of each variant: at its number on the horizontal axis (`is_flat`), or in a row of its own.

    Numbers with very unequal distances (0.0001, 0.001, 0.01) are drawn at equal ones.
    """

    def __init__(self, summary: Summary) -> None:
        numbers = numbers_on_axis(summary)
        variants = summary.variants
        self.is_flat = bool(numbers) or len(variants) == 1
        self.control = summary.header.control
        self.at = {variant.label: float(row) for row, variant in enumerate(variants)}
        self.names = {v.label: visible(v.label) + " (control)" * (v.label == self.control) for v in variants}
        self.title = ""
        if numbers:
            known = sorted(set(numbers.values()))
            gaps = [b - a for a, b in itertools.pairwise(known)]
            is_even = max(gaps, default=1.0) >= 10.0 * min(gaps, default=1.0)
            self.at = {label: float(known.index(x)) if is_even else x for label, x in numbers.items()}
            self.names = {label: f"{x:g}" + "\ncontrol" * (label == self.control) for label, x in numbers.items()}
            self.title = visible(summary.header.axes[0]) + " (not to scale)" * is_even

    def point(
        self,
        axes: Axes,
        variant: str,
        mean: float | None,
        interval: tuple[float, float] | None,
        beside: float,
        **style: Any,
    ) -> None:
        """A mean with its interval, `beside` points from the variant's position."""
        if mean is None or variant not in self.at:
            return
        position, move = self.at[variant], self._moved(axes, beside)
        if interval is not None:
            self._plot(axes, [position, position], interval, transform=move, color=style["color"], linewidth=1.3)
        self._plot(
            axes,
            [position],
            [mean],
            transform=move,
            linestyle="",
            zorder=3,
            clip_on=False,
            **{"markersize": 3.8} | style,
        )

    def cut(self, axes: Axes, variant: str, edges: Sequence[float], beside: float, colour: str) -> None:
        """Arrowheads where an interval goes on beyond the edges of the axes, which have zero between them."""
        if variant not in self.at:
            return
        towards_low, towards_high = ("v", "^") if self.is_flat else ("<", ">")
        for edge in edges:
            marker = towards_high if edge > 0 else towards_low
            style: dict[str, Any] = {"marker": marker, "markersize": 4.0, "color": colour, "clip_on": False}
            self._plot(axes, [self.at[variant]], [edge], transform=self._moved(axes, beside), linestyle="", **style)

    def dots(self, axes: Axes, variant: str, values: Sequence[float], beside: float, colour: str) -> None:
        """A dot a value, `beside` points from the variant's position."""
        if variant in self.at and values:
            style: dict[str, Any] = {"color": colour, "alpha": 0.7, "markersize": 5, "markeredgewidth": 0}
            self._plot(
                axes,
                [self.at[variant]] * len(values),
                values,
                transform=self._moved(axes, beside),
                marker=".",
                linestyle="",
                clip_on=False,
                **style,
            )

    def note(self, axes: Axes, variant: str, text: str) -> None:
        """Words instead of a point, in the middle of the axes, so that they stay inside wherever zero is."""
        if variant not in self.at:
            return
        x, y = (self.at[variant], 0.5) if self.is_flat else (0.5, self.at[variant])
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7.5, "fontstyle": "italic"}
        style["transform"] = axes.get_xaxis_transform() if self.is_flat else axes.get_yaxis_transform()
        style["bbox"] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
        axes.text(x, y, text, rotation=90 if self.is_flat else 0, **style)
        self._plot(axes, [self.at[variant]], [0.0], linestyle="")

    def keep_within(self, axes: Axes, low: float, high: float) -> None:
        """Limits the axis of values to the possible range."""
        first, last = axes.get_ylim() if self.is_flat else axes.get_xlim()
        if max(first, low) < min(last, high):
            (axes.set_ylim if self.is_flat else axes.set_xlim)(max(first, low), min(last, high))

    def name_values(self, axes: Axes, name: str) -> None:
        """The title of the axis of values."""
        (axes.set_ylabel if self.is_flat else axes.set_xlabel)(name)

    def label(self, panels: Sequence[Axes]) -> None:
        """The ticks and names of the axis along which the variants stand."""
        positions = [self.at[label] for label in self.names]
        if not self.is_flat:
            names = [fill(name, 34, max_lines=3, placeholder=" …") for name in self.names.values()]
            panels[0].set_yticks(positions, names)
            panels[0].set_ylim(len(positions) - 0.5, -0.5)
            for axes in panels:
                axes.xaxis.set_major_locator(MaxNLocator(6))
            return
        margin = 0.07 * (max(positions) - min(positions)) or 0.5
        panels[0].set_xlim(min(positions) - margin, max(positions) + margin)
        for axes in panels:
            axes.set_xticks(positions, [*self.names.values()])
            if sum(len(name.split("\n")[0]) + 2 for name in self.names.values()) > 64:
                axes.tick_params(axis="x", labelrotation=90)
            axes.set_xlabel(self.title)

    def _plot(self, axes: Axes, positions: Sequence[float], values: Sequence[float], **style: Any) -> None:
        x, y = (positions, values) if self.is_flat else (values, positions)
        axes.plot(x, y, **style)
        axes.plot(x, y, linestyle="")  # invisible: matplotlib ignores shifted artists when it sets the limits

    def _moved(self, axes: Axes, points: float) -> Transform:
        figure = axes.get_figure(root=True)
        assert figure is not None
        x, y = (points / 72, 0.0) if self.is_flat else (0.0, -points / 72)
        return axes.transData + ScaledTranslation(x, y, figure.dpi_scale_trans)


def numbers_on_axis(summary: Summary) -> dict[str, float]:
    """The variants' numbers on the study's one axis; empty unless all, but perhaps for the control, have one."""
    if len(summary.header.axes) != 1 or len(summary.variants) < 2:
        return {}
    values = {v.label: v.values.get(summary.header.axes[0]) for v in summary.variants}
    numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    without = set(values) - set(numbers) - {summary.header.control}
    return {} if without else numbers
