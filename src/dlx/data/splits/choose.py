"""Splits cases into training and validation by name, fold, fraction or file, never dividing a person's cases.

Persons are split, and all cases of a person go to one side; without groups each case is its own person. Images are
compared only by the hashes of their contents.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlx.data.layouts.listing import name_some, natural_key
from dlx.data.splits.folds import Place, assign_folds, check_fold, remarks_on_classes, shuffled
from dlx.data.splits.groups import GROUPS, check_groups
from dlx.data.splits.split import Split
from dlx.data.splits.splits_file import read_entries, read_fold
from dlx.settings.spec import ALL_FOLDS, SPLIT_WAYS, SplitSpec
from dlx.system.errors import DataError, SettingError, nearest

DEFAULT_VAL_FRACTION = 0.2
DEFAULT_FOLDS = 5


@dataclass(frozen=True)
class _Sides:
    """The training and the validation cases, and which of how many folds this is (0 of 1 without folds)."""

    train: set[str]
    val: set[str]
    place: Place = (0, 1)
    remarks: Sequence[str] = ()


def split_cases(
    dataset_ids: Sequence[str],
    value_hashes: Mapping[str, str],
    groups: Mapping[str, str],
    spec: SplitSpec,
    *,
    prepared_hashes: Mapping[str, str] | None = None,
    classes: Mapping[str, Collection[str]] | None = None,
) -> Split:
    """Splits the cases as `spec` describes; by default a fifth of the persons is used for validation.

    `value_hashes` (id -> hash of the image's values) reveal one image under two names; `prepared_hashes` (of the
    prepared image in canonical orientation) reveal an image that was scaled or stored with other axes. `groups` is
    id -> person; a case that is missing there is its own person. Folds are assigned by `assign_folds`, with the
    `classes` (id -> names) of the cases. `train_subjects` keeps n of the shuffled training persons from a start that
    depends on the fold, so a smaller training set is always a subset of a larger one of this fold, and the folds do not
    all train on the same persons.

    Raises SettingError for more than one way to split, for an unknown name, or for a fold or number that the data do
    not have. Raises DataError if a side would be empty, or if a person or an image would be on both sides.
    """
    ids = sorted(dataset_ids, key=natural_key)
    if len(ids) < 2:
        raise DataError("a split needs at least two cases: one for training and one for validation")
    check_groups(groups, ids, spec)
    person = {case: groups.get(case, case) for case in ids}
    sides = _sides(ids, person, spec, classes or {})
    _refuse_overlap(sides, person, value_hashes, prepared_hashes or {})
    train, val = _kept(sides, person, spec), sides.val
    num_persons = (len({person[case] for case in train}), len({person[case] for case in val}))
    num_scans = Counter(person.values())
    return Split(
        tuple(case for case in ids if case in train),
        tuple(case for case in ids if case in val),
        (*sides.remarks, *_remarks_on_neither(ids, sides)),
        num_persons if num_persons != (len(train), len(val)) else None,
        tuple((case, person[case]) for case in ids if num_scans[person[case]] > 1),
    )


def num_folds(spec: SplitSpec) -> int:
    """The number of folds that `spec` describes; those of its file if it names one."""
    if spec.file is not None:
        return len(read_entries(Path(spec.file)))
    return DEFAULT_FOLDS if spec.folds is None else spec.folds


def _sides(
    ids: list[str], person: Mapping[str, str], spec: SplitSpec, classes: Mapping[str, Collection[str]]
) -> _Sides:
    given = [way for way in SPLIT_WAYS if getattr(spec, way) is not None]
    if given not in ([], ["fold", "file"], *([way] for way in SPLIT_WAYS)):
        raise SettingError(f"split: {' and '.join(given)} cannot be combined; choose one")
    if spec.fold == ALL_FOLDS:
        raise SettingError(f"split.fold: {ALL_FOLDS} is of a study; a trial has the number of a fold")
    if spec.file is not None:
        return _Sides(*read_fold(ids, Path(spec.file), spec.fold))
    if spec.val is not None:
        val = _named(ids, spec.val)
        return _Sides(set(ids) - val, val)
    persons = shuffled(set(person.values()), spec.seed)
    if len(persons) < 2:
        raise DataError(
            f"all {len(ids)} cases belong to one person ({persons[0]!r}), who cannot be on both sides of the split"
        )
    place, remarks = (0, 1), list[str]()
    if spec.fold is None:
        fraction = DEFAULT_VAL_FRACTION if spec.val_fraction is None else spec.val_fraction
        num_val = math.floor(fraction * len(persons) + 0.5)
        chosen = persons[: min(max(num_val, 1), len(persons) - 1)]
    else:
        place = (spec.fold, num_folds(spec))
        chosen, remarks = _fold(place, persons, person, classes)
    val = {case for case in ids if person[case] in chosen}
    return _Sides(set(ids) - val, val, place, remarks)


def _fold(
    place: Place, persons: list[str], person: Mapping[str, str], classes: Mapping[str, Collection[str]]
) -> tuple[list[str], list[str]]:
    """The persons of a fold, and remarks on classes that not every fold has."""
    fold, folds = place
    check_fold(fold, folds, "folds")
    if folds > len(persons):
        raise SettingError(f"split.folds: {folds} folds need at least as many subjects, but there are {len(persons)}")
    of_persons: dict[str, set[str]] = {name: set() for name in persons}
    for case, names in classes.items():
        of_persons[person[case]].update(names)
    assigned = assign_folds(of_persons, folds)
    return assigned[fold], remarks_on_classes(assigned, of_persons)


def _named(ids: list[str], names: Sequence[str]) -> set[str]:
    for name in names:
        if name not in ids:
            raise SettingError(f"split.val: no case {name!r}: {nearest(name, ids)}")
    if len(set(names)) == len(ids):
        raise DataError("split.val names all cases: none is left for training")
    return set(names)


def _refuse_overlap(
    sides: _Sides, person: Mapping[str, str], value_hashes: Mapping[str, str], prepared_hashes: Mapping[str, str]
) -> None:
    """Refuses ids, persons and images on both sides: validation would measure memorisation."""
    both = sorted(sides.train & sides.val, key=natural_key)
    if both:
        raise DataError(f"split: {name_some(both)} would be in both training and validation")
    leave_out = f"leave one out or assign both to one person in {GROUPS}"
    for owner, what, remedy in (
        (person, "belong to one person", "put them on one side"),
        (value_hashes, "hold the same image", leave_out),
        (prepared_hashes, "hold the same image, scaled or stored with other axes", leave_out),
    ):
        trained = {owner[case]: case for case in sorted(sides.train, key=natural_key, reverse=True) if case in owner}
        for case in sorted(sides.val, key=natural_key):
            twin = trained.get(owner[case]) if case in owner else None
            if twin is not None:
                whom = f" ({person[case]!r})" if owner is person else ""
                raise DataError(
                    f"split: {twin!r} is in training and {case!r} in validation, but both {what}{whom}: {remedy}"
                )


def _remarks_on_neither(ids: list[str], sides: _Sides) -> list[str]:
    neither = [case for case in ids if case not in sides.train and case not in sides.val]
    if not neither:
        return []
    return [f"{len(neither)} of {len(ids)} cases are on neither side of the split: {name_some(neither)}"]


def _kept(sides: _Sides, person: Mapping[str, str], spec: SplitSpec) -> set[str]:
    """The training cases: of n persons if asked, the next n of the shuffled, from a start that moves with the fold."""
    if spec.train_subjects is None:
        return sides.train
    persons = shuffled({person[case] for case in sides.train}, spec.seed)
    if spec.train_subjects > len(persons):
        raise SettingError(
            f"split.train_subjects: {spec.train_subjects} is more than the {len(persons)} training subjects"
        )
    fold, folds = sides.place
    start = fold * len(persons) // folds
    kept = (persons * 2)[start : start + spec.train_subjects]
    return {case for case in sides.train if person[case] in kept}
