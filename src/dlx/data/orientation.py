"""Anatomical orientation of array axes: codes of three letters, and reordering to the canonical orientation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

CANONICAL = "LPS"
AXES = ("RL", "AP", "IS")  # anatomical axes; each runs from the first letter towards the second


def orientation_of(direction: NDArray[np.float64]) -> str:
    """The orientation code: `LPS` if x, y, z of the array run to the left, back and up, `RAS` for right, front and up.

    `direction` is as in `Placement`. An oblique axis counts as the nearest anatomical axis; no two axes share one.
    """
    remaining = np.abs(direction)
    letters = [""] * 3
    for _ in range(3):  # the least oblique axis first, so that no two array axes share an anatomical one
        row, column = divmod(int(np.argmax(remaining)), 3)
        letters[column] = AXES[row][int(direction[row, column] > 0)]
        remaining[row, :] = remaining[:, column] = -1.0
    return "".join(letters)


def turn_to_canonical(array: NDArray[Any], orientation: str) -> NDArray[Any]:
    """A view of (D, H, W, ...) whose x, y, z run to the left, back and up; unchanged if `orientation` is empty."""
    if not orientation:
        return array
    order, flips = canonical_turn(orientation)
    return np.flip(array.transpose(*order, *range(3, array.ndim)), flips)


def canonical_turn(orientation: str) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """The order of array axes that makes them canonical, and the axes to flip after reordering."""
    pairs = [next(k for k, pair in enumerate(AXES) if letter in pair) for letter in orientation]
    d, h, w = (2 - pairs.index(k) for k in (2, 1, 0))  # array axis 0 is z
    flips = tuple(position for position, axis in enumerate((d, h, w)) if orientation[2 - axis] not in CANONICAL)
    return (d, h, w), flips
