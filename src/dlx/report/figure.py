"""A study's picture, SVG and PNG: Dice over epochs, the figures after the last epoch, and the differences measured.

Blue is always validation and vermillion training, the control is always grey: a panel shows one variant over its
control, so that any number of variants stays legible. Drawn with matplotlib's objects; whatever the user has set for
pyplot changes nothing. Equal records give equal bytes.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from dlx.report.curves import draw_curves, num_columns
from dlx.report.finals import draw_finals
from dlx.report.palette import RC, WIDTH_IN
from dlx.report.places import numbers_on_axis
from dlx.report.summary import Summary
from dlx.system.characters import visible
from dlx.system.files import write_atomically


def draw_study(summary: Summary, path_svg: Path, path_png: Path | None = None) -> None:
    """Draws what there is of a study, finished or running, into these files."""
    with styled():
        save(_figure(summary), path_svg, path_png)


@contextmanager
def styled() -> Iterator[None]:
    """Within it matplotlib draws in this package's style, whatever the user has set."""
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font", category=UserWarning)
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def save(figure: Figure, path_svg: Path, path_png: Path | None) -> None:
    _write(figure, path_svg, format="svg", metadata={"Date": None, "Creator": None})
    if path_png is not None:
        _write(figure, path_png, format="png", dpi=200, metadata={"Software": None})


def _write(figure: Figure, path: Path, **options: Any) -> None:
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
    title = fill(visible(header.question or header.name), 100)
    if summary.num_done < len(header.trials):
        title += f"\n{summary.num_done} of {len(header.trials)} trials have ended"
    if len(summary.variants) == 1:
        figure = Figure(figsize=(WIDTH_IN, 3.6), layout="constrained")
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(2.2, 1.0)).flat
        draw_curves(left, summary, list(summary.variants))
        draw_finals(right, summary)
    else:
        columns = num_columns(len(others))
        num_rows = -(-len(others) // columns)
        upper_in = num_rows * max(1.5, 2.6 - 0.35 * columns) + 0.75
        upper_in += 0.3 * any(variant.warnings for variant in others)  # they lengthen the titles
        lower_in = 3.0 if numbers_on_axis(summary) else 1.4 + max(1.2, 0.3 * len(summary.variants))
        figure = Figure(figsize=(WIDTH_IN, upper_in + lower_in + 0.35), layout="constrained")
        halves = figure.subfigures(2, 1, squeeze=False, height_ratios=(upper_in, lower_in), hspace=0.03)
        upper, lower = halves.flat
        draw_curves(upper, summary, others)
        draw_finals(lower, summary)
    figure.suptitle(title, fontsize=10.5, fontweight="bold", x=0.01, ha="left")
    return figure
