"""Anatomical orientation of array axes: codes of three letters, and reordering from one orientation to another."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

CANONICAL = "LPS"
# Increase this when turning gives other arrays: part of the fingerprint of sets with turned or resampled cases.
TURN_VERSION = 1
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
    return turn(array, orientation, CANONICAL)


def turn(array: NDArray[Any], orientation: str, wanted: str) -> NDArray[Any]:
    """A view of (D, H, W, ...), which is stored as `orientation`, whose x, y, z run as `wanted` says.

    The two exchanged turn it back. If one of the two is empty, the array is unchanged.
    """
    order, flips = find_turn(orientation, wanted)
    return np.flip(array.transpose(*order, *range(3, array.ndim)), flips)


def find_turn(orientation: str, wanted: str) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """The order of array axes (D, H, W) from one orientation to another, and the axes to flip after reordering."""
    if not orientation or not wanted:
        return (0, 1, 2), ()
    stored = [_axis_of(letter) for letter in orientation]
    d, h, w = (2 - stored.index(_axis_of(letter)) for letter in reversed(wanted))  # array axis 0 is z
    flips = tuple(at for at, axis in enumerate((d, h, w)) if orientation[2 - axis] != wanted[2 - at])
    return (d, h, w), flips


def _axis_of(letter: str) -> int:
    return next(k for k, pair in enumerate(AXES) if letter in pair)
