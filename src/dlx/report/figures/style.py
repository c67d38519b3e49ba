"""How figures look and are written: colours, line styles, sizes; SVG and PNG files.

Figures are drawn with matplotlib's objects, so the user's settings of pyplot have no effect. Equal records give equal
bytes.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from dlx.system.files import write_atomically

# Okabe and Ito's palette, which colour-blind readers can tell apart; in grey, dashes and markers differ too
VAL, TRAIN, CONTROL, INK = "#0072B2", "#D55E00", "#8c8c8c", "#222222"
STYLES = {"val_dice": (VAL, "-", "o"), "train_dice": (TRAIN, "--", "s")}
# for variants that share a panel
SERIES = [
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#56B4E9", "v"),
    ("#E69F00", "P"),
    ("#222222", "X"),
    ("#8c8c8c", "*"),
]
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


@contextmanager
def styled() -> Iterator[None]:
    """A context in which matplotlib uses this package's style and none of the user's settings."""
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font", category=UserWarning)
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def save(figure: Figure, path_svg: Path, path_png: Path | None) -> None:
    """Writes a figure as SVG and, where a path is given, as PNG."""
    _write(figure, path_svg, format="svg", metadata={"Date": None, "Creator": None})
    if path_png is not None:
        figure.set_layout_engine("none")  # the layout of the SVG is kept: it takes as long as drawing
        _write(figure, path_png, format="png", dpi=200, metadata={"Software": None})


def save_png(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG alone, coarser than those for a page: it is drawn for every trial."""
    _write(figure, path, format="png", dpi=110, metadata={"Software": None}, pil_kwargs={"compress_level": 3})


def _write(figure: Figure, path: Path, **options: Any) -> None:
    buffer = BytesIO()
    figure.savefig(buffer, **options)
    write_atomically(path, _number_ids(buffer.getvalue()) if path.suffix == ".svg" else buffer.getvalue())


def _number_ids(svg: bytes) -> bytes:
    """The same figure with numbered clip paths.

    matplotlib names them by hashes of their unrounded sizes, of which the layout's solver repeats all but the last
    bits. Coordinates are written rounded to a millionth of a point.
    """
    found = dict.fromkeys(re.findall(rb'<clipPath id="(\w+)"', svg))
    numbered = {name: b"clip%d" % i for i, name in enumerate(found, 1)}
    return re.sub(rb"(?<=[\"#])p[0-9a-f]{10}(?=[\")])", lambda match: numbered.get(match[0], match[0]), svg)
