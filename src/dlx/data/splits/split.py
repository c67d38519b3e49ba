"""A split into training and validation cases, and what is said about the splits of all folds together."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dlx.data.layouts.listing import name_some, natural_key


@dataclass(frozen=True)
class Split:
    """The ids of the training and of the validation cases, each in natural order; no id is in both.

    `num_persons` of the two sides is given if groups were given and some person has several cases, and `persons` are
    (case, person) of the cases of such persons.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    num_persons: tuple[int, int] | None = None
    persons: tuple[tuple[str, str], ...] = ()


def validated_twice(folds: Sequence[Split]) -> list[str]:
    """The cases that more than one fold validates."""
    times = Counter(case for fold in folds for case in fold.val)
    return sorted((case for case, number in times.items() if number > 1), key=natural_key)


def remarks_on_folds(folds: Sequence[Split], ids: Collection[str]) -> list[str]:
    """Remarks on cases that several folds validate, or none; folds that are read from a file may have both."""
    several = validated_twice(folds)
    never = sorted(set(ids).difference(*(fold.val for fold in folds)), key=natural_key)
    remarks = []
    if several:
        remarks.append(
            f"{len(several)} of {len(ids)} cases are validated by more than one fold, so there will be no verdict for "
            f"new patients and no mean over all cases: {name_some(several)}"
        )
    if never:
        remarks.append(f"{len(never)} of {len(ids)} cases are validated by no fold: {name_some(never)}")
    return remarks
