"""A study's second figure, if it probed its networks: features, gradients and weights by level."""

from pathlib import Path
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from dlx.report.figures.style import SERIES, WIDTH_IN, save, styled
from dlx.report.findings.levels import PROBES, by_level
from dlx.report.findings.summary import Summary
from dlx.system.characters import visible


def draw_levels(summary: Summary, path_svg: Path, path_png: Path | None = None) -> None:
    """Draws each probe by level, a line a variant: the first epoch on the left, the last on the right."""
    with styled():
        figure = Figure(figsize=(WIDTH_IN, 1.75 * len(PROBES) + 0.8), layout="constrained")
        panels = figure.subplots(len(PROBES), 2, sharex=True, sharey="row", squeeze=False)
        for row, (field, (title, is_log)) in zip(panels, PROBES.items(), strict=True):
            for axes, late in zip(row, (False, True), strict=True):
                _draw_probe(axes, summary, field, last=late, is_log=is_log)
            row[0].set_ylabel(title)
        panels[0, 0].set_title("first step of the first epoch")
        panels[0, 1].set_title("first step of the last epoch")
        for axes in panels[-1]:
            axes.tick_params(axis="x", rotation=45)
        figure.align_ylabels()
        handles = [
            Line2D([], [], color=colour, marker=marker, label=fill(visible(variant.label), 40) or " ")
            for variant, (colour, marker) in zip(summary.variants, _styles(summary), strict=True)
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 4))
        save(figure, path_svg, path_png)


def _draw_probe(axes: Axes, summary: Summary, field: str, *, last: bool, is_log: bool) -> None:
    for variant, (colour, marker) in zip(summary.variants, _styles(summary), strict=True):
        values = by_level(variant, last=last, field=field)
        if values:
            axes.plot([*values], [*values.values()], color=colour, marker=marker, markersize=4, linewidth=1.2)
    if is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(-0.03, 1.03)


def _styles(summary: Summary) -> list[tuple[str, str]]:
    return [SERIES[i % len(SERIES)] for i in range(len(summary.variants))]
