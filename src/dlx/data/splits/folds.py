"""Assigns persons to folds of equal size such that each fold has each class, where that is possible.

The order of persons comes from hashes of their names, and the search for folds compares whole numbers only, so folds
are the same with every version of Python and numpy.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dlx.settings.text import counted
from dlx.system.errors import SettingError

# Of 2,365 random data sets (5 to 60 persons, 2 to 10 folds, 1 to 8 classes) in which dealing in turn is not enough, 98
# had less than the optimum (by scipy's exact solver) after 1 start, 6 after 20, 3 after 50 and 1 after 100.
MAX_STARTS = 100
# More persons, fewer starts: with 1,000 persons 20 take half a second. Of 150 data sets with 3 to 8 classes
# that as many persons as folds or one more have, the first start filled all gaps in 148 with 100 to 200 persons, in 149
# with 200 to 400, in all with 400 to 1,000.
MANY_PERSONS = 200

Place = tuple[int, int]  # a fold and the number of folds


def shuffled(names: Collection[str], seed: int) -> list[str]:
    """The names ordered by a hash of seed and name, so that the order depends on nothing else."""

    def key(name: str) -> bytes:
        return hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=16).digest()

    return sorted(names, key=key)


def check_fold(fold: int, num_folds: int, what: str) -> None:
    """Refuses the number of a fold that does not exist."""
    if fold >= num_folds:
        raise SettingError(
            f"split.fold: {fold} is out of range: there are {num_folds} {what}, counted from 0 to {num_folds - 1}"
        )


def assign_folds(classes: Mapping[str, Collection[str]], num_folds: int) -> list[list[str]]:
    """The persons of each fold; `classes` are those of each person, in the shuffled order.

    Persons are dealt out in turn, so the sizes of folds differ by one at most. If a fold then lacks a class that at
    least as many persons as folds have, pairs of persons of two folds are swapped, always the pair that removes most
    gaps (a class that a fold lacks), until none removes any. While gaps are left, this is repeated from up to
    MAX_STARTS other orders of the persons; the first result with the fewest gaps is used. A local search: rarely, folds
    with fewer gaps exist.
    """
    fold_of = _fold_numbers(tuple(frozenset(names) for names in classes.values()), num_folds)
    return [[person for person, own in zip(classes, fold_of, strict=True) if own == fold] for fold in range(num_folds)]


@lru_cache(maxsize=16)  # a study asks once for each variant and fold
def _fold_numbers(classes: tuple[frozenset[str], ...], num_folds: int) -> tuple[int, ...]:
    """The fold of each person, for the classes of each person."""
    num_persons = Counter(name for names in classes for name in names)
    common = sorted(name for name, number in num_persons.items() if number >= num_folds)
    has = np.array([[name in names for name in common] for names in classes], dtype=np.float64)
    positions = [str(position) for position in range(len(classes))]
    best = (len(common) * num_folds + 1, np.empty(0, dtype=np.int64))
    for start in range(max(1, min(MAX_STARTS, MAX_STARTS * MANY_PERSONS // len(classes)))):
        order = shuffled(positions, start) if start else positions
        fold_of = np.empty(len(classes), dtype=np.int64)
        fold_of[[int(position) for position in order]] = np.arange(len(classes)) % num_folds
        best = min(best, _swap_persons(fold_of, has, num_folds), key=lambda found: found[0])
        if best[0] == 0:
            break
    return tuple(best[1].tolist())


def _swap_persons(
    fold_of: NDArray[np.int64], has: NDArray[np.float64], num_folds: int
) -> tuple[int, NDArray[np.int64]]:
    """The number of gaps, and the fold of each person, after all swaps that remove gaps.

    `has` (persons x classes) is 1 where a person has a class. All values are small whole numbers, which float64 adds
    without rounding; float64, as numpy multiplies matrices of integers ten times as slowly. Of equally good pairs the
    first is swapped.
    """
    fold_of, lacks = fold_of.copy(), 1.0 - has
    while True:
        counts = np.stack([has[fold_of == fold].sum(axis=0) for fold in range(num_folds)])
        num_gaps = int((counts == 0).sum())
        if num_gaps == 0:
            return 0, fold_of
        fills = lacks * (counts == 0)[fold_of]  # a person who has this class would fill a gap in the fold
        leaves = has * (counts == 1)[fold_of]  # without this person there would be a gap
        # a swap can remove a gap only if one of the two persons has a class that some fold lacks
        others = np.flatnonzero(has[:, (counts == 0).any(axis=0)].any(axis=1))
        removed = np.hstack([fills, has, -leaves, -lacks]) @ np.hstack([has, fills, lacks, leaves])[others].T
        removed[fold_of[:, None] == fold_of[others]] = 0.0
        first, second = np.unravel_index(removed.argmax(), removed.shape)
        if removed[first, second] <= 0:
            return num_gaps, fold_of
        pair = [first, others[second]]
        fold_of[pair] = fold_of[pair[::-1]]


def remarks_on_classes(folds: Sequence[Sequence[str]], classes: Mapping[str, Collection[str]]) -> list[str]:
    """A remark for each class that is not in every fold."""
    remarks = []
    for name in sorted({name for names in classes.values() for name in names}):
        num_persons = sum(name in names for names in classes.values())
        without = [fold for fold in folds if not any(name in classes[person] for person in fold)]
        if without:
            remarks.append(
                f"no case of {counted(len(without), 'fold')} of {len(folds)} has the class {name!r}, which "
                f"{counted(num_persons, 'subject')} of {len(classes)} {'has' if num_persons == 1 else 'have'}"
            )
    return remarks
