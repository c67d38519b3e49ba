"""How a study's picture looks: colours, line styles, sizes."""

from typing import Any

# Okabe and Ito's palette: told apart by the colour-blind; dashes and markers do it in grey
VAL, TRAIN, CONTROL, INK = "#0072B2", "#D55E00", "#8c8c8c", "#222222"
STYLES = {"val_dice": (VAL, "-", "o"), "train_dice": (TRAIN, "--", "s")}
# where several variants share a panel; a marker each, for grey
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
