"""Dice and IoU from counts of voxels: the formulas, for floats, numpy arrays and torch tensors alike.

The counts are of a class in a case: voxels in both masks, in the prediction, and in the true mask.
"""

from typing import Any


def dice(overlap: Any, predicted: Any, true: Any) -> Any:
    """2 |P and M| / (|P| + |M|) of floats; 0 / 0 is a class in neither mask: NaN for arrays and tensors."""
    return 2.0 * overlap / (predicted + true)


def iou(overlap: Any, predicted: Any, true: Any) -> Any:
    """|P and M| / |P or M|, likewise."""
    return overlap / (predicted + true - overlap)
