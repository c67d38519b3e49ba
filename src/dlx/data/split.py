"""Splits cases into training and validation by name, fold, fraction or file, never dividing a person's cases.

Persons are split, and all cases of a person go to one side; without groups each case is its own person. The order of
persons comes from hashes of their names, so a split is the same with every version of Python and numpy. Images are
compared only by the hashes of their contents.
"""

import difflib
import hashlib
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlx.data.cache_file import read_groups
from dlx.data.layouts.dataset_json import kind_of
from dlx.data.layouts.listing import name_some, natural_key
from dlx.settings.spec import ALL_FOLDS, SPLIT_WAYS, SplitSpec
from dlx.settings.text import counted
from dlx.system.errors import DataError, SettingError, nearest
from dlx.system.files import read_json

GROUPS = "groups.json"
DEFAULT_VAL_FRACTION = 0.2
DEFAULT_FOLDS = 5


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
    id -> person; a case that is missing there is its own person. `folds` assigns the shuffled persons to folds in turn,
    or as `assign_folds` does by the `classes` (id -> names) of the cases. `train_subjects` keeps n of the shuffled
    training persons from a start that depends on the fold, so a smaller training set is always a subset of a larger one
    of this fold, and the folds do not all train on the same persons.

    Raises SettingError for more than one way to split, for an unknown name, or for a fold or number that the data do
    not have. Raises DataError if a side would be empty, or if a person or an image would be on both sides.
    """
    ids = sorted(dataset_ids, key=natural_key)
    if len(ids) < 2:
        raise DataError("a split needs at least two cases: one for training and one for validation")
    _check_groups(groups, ids, spec)
    person = {case: groups.get(case, case) for case in ids}
    remarks: list[str] = []
    train, val, place = _sides(ids, person, spec, classes or {}, remarks)
    _refuse_overlap(train, val, person, value_hashes, prepared_hashes or {})
    neither = [case for case in ids if case not in train and case not in val]
    if neither:
        remarks.append(f"{len(neither)} of {len(ids)} cases are on neither side of the split: {name_some(neither)}")
    if spec.train_subjects is not None:
        train = _first_persons(train, person, spec.train_subjects, spec.seed, place)
    num_scans = Counter(person.values())
    num_persons = (len({person[case] for case in train}), len({person[case] for case in val}))
    return Split(
        tuple(case for case in ids if case in train),
        tuple(case for case in ids if case in val),
        tuple(remarks),
        num_persons if num_persons != (len(train), len(val)) else None,
        tuple((case, person[case]) for case in ids if num_scans[person[case]] > 1),
    )


def load_groups(spec: SplitSpec, source: Path | None) -> dict[str, str]:
    """Case -> person, from `spec.groups`, else from groups.json in the data folder, else from the prepared file.

    `source` is the data folder, a file of prepared data (which contains the groups.json of its folder), or None.
    Without groups the result is empty, and every case is its own person.
    """
    if spec.groups is not None:
        return read_groups_json(Path(spec.groups))
    if source is None:
        return {}
    return read_groups(source) if source.is_file() else folder_groups(source)


def folder_groups(folder: Path) -> dict[str, str]:
    """Case -> person from the groups.json of a data folder; empty without this file."""
    return read_groups_json(folder / GROUPS) if (folder / GROUPS).exists() else {}


def read_groups_json(path: Path) -> dict[str, str]:
    """Case -> person from a file such as `{"scan-1": "anna", "scan-2": "anna"}`; DataError if it has another form."""
    table = read_json(path)
    if not isinstance(table, dict):
        raise DataError(f"{path}: expected a table of case and person, not {kind_of(table)}")
    for case, person in table.items():
        if not isinstance(person, str):
            raise DataError(f"{path}: the person of {case!r} must be a text, not {kind_of(person)}")
        if not person.isprintable() or not case.isprintable():
            raise DataError(f"{path}: {case!r}: {person!r} holds unprintable characters")
    return table


def _check_groups(groups: Mapping[str, str], ids: list[str], spec: SplitSpec) -> None:
    """Refuses names that match no case: a misspelt name would leave a scan outside its person's group."""
    known = set(ids)
    unknown = sorted((case for case in groups if case not in known), key=natural_key)
    if not unknown:
        return
    hints = []
    for name in unknown[:3]:
        close = difflib.get_close_matches(name, ids, n=1)
        hints.append(f"{name!r} (did you mean {close[0]!r}?)" if close else repr(name))
    more = f" and {len(unknown) - len(hints)} more" if len(unknown) > len(hints) else ""
    what = "a name matches" if len(unknown) == 1 else f"{len(unknown)} names match"
    raise DataError(
        f"{spec.groups or GROUPS}: {what} no case: {', '.join(hints)}{more}; correct or remove them "
        f"(cases: {name_some(ids)})"
    )


def num_folds(spec: SplitSpec) -> int:
    """The number of folds that `spec` describes; those of its file if it names one."""
    if spec.file is not None:
        return len(_entries(Path(spec.file)))
    return DEFAULT_FOLDS if spec.folds is None else spec.folds


Place = tuple[int, int]  # a fold and the number of folds


def _sides(
    ids: list[str],
    person: Mapping[str, str],
    spec: SplitSpec,
    classes: Mapping[str, Collection[str]],
    remarks: list[str],
) -> tuple[set[str], set[str], Place]:
    """The training and the validation cases, and which of how many folds this is (0 of 1 without folds)."""
    given = [way for way in SPLIT_WAYS if getattr(spec, way) is not None]
    if given not in ([], ["fold", "file"], *([way] for way in SPLIT_WAYS)):
        raise SettingError(f"split: {' and '.join(given)} cannot be combined; choose one")
    if spec.fold == ALL_FOLDS:
        raise SettingError(f"split.fold: {ALL_FOLDS} is of a study; a trial has the number of a fold")
    if spec.file is not None:
        return _from_file(ids, Path(spec.file), spec.fold)
    if spec.val is not None:
        val = _named(ids, spec.val)
        return set(ids) - val, val, (0, 1)
    shuffled = _shuffled(set(person.values()), spec.seed)
    if len(shuffled) < 2:
        raise DataError(
            f"all {len(ids)} cases belong to one person ({shuffled[0]!r}), who cannot be on both sides of the split"
        )
    place = (0, 1)
    if spec.fold is not None:
        folds = num_folds(spec)
        place = spec.fold, folds
        _check_fold(spec.fold, folds, "folds")
        if folds > len(shuffled):
            raise SettingError(
                f"split.folds: {folds} folds need at least as many subjects, but there are {len(shuffled)}"
            )
        of_persons: dict[str, set[str]] = {name: set() for name in shuffled}
        for case, names in classes.items():
            of_persons[person[case]].update(names)
        chosen = set(assign_folds(of_persons, folds, remarks)[spec.fold])
    else:
        fraction = DEFAULT_VAL_FRACTION if spec.val_fraction is None else spec.val_fraction
        num_val = math.floor(fraction * len(shuffled) + 0.5)
        chosen = set(shuffled[: min(max(num_val, 1), len(shuffled) - 1)])
    val = {case for case in ids if person[case] in chosen}
    return set(ids) - val, val, place


def assign_folds(classes: Mapping[str, Collection[str]], num_folds: int, remarks: list[str]) -> list[list[str]]:
    """The persons of each fold; `classes` are those of each person, in the shuffled order.

    Persons are dealt out in turn. If that leaves a class out of a fold though as many persons as folds have it, they
    are dealt by class, the rarest first: each to the fold that has the fewest persons of its classes so far, the
    rarest of them first, else the fewest persons. This is greedy: folds may be of unlike size, and a class may still
    miss a fold. Adds a remark for each class that is not in every fold.
    """
    num_persons = Counter(name for names in classes.values() for name in names)
    persons = list(classes)
    folds = [persons[fold::num_folds] for fold in range(num_folds)]
    lacking = _lacking(folds, classes)
    if any(num_persons[name] >= num_folds for name in lacking):
        rarest = sorted(num_persons, key=lambda name: (num_persons[name], name))
        own = {one: [rank for rank, name in enumerate(rarest) if name in classes[one]] for one in persons}
        folds, counts = [[] for _ in range(num_folds)], [Counter[int]() for _ in range(num_folds)]
        for one in sorted(persons, key=lambda one: own[one][:1] or [len(rarest)]):
            fold = min(range(num_folds), key=lambda n: [*(counts[n][rank] for rank in own[one]), len(folds[n])])
            folds[fold].append(one)
            counts[fold].update(own[one])
        lacking = _lacking(folds, classes)
    remarks += [
        f"no case of {counted(len(without), 'fold')} of {num_folds} has the class {name!r}, which "
        f"{counted(num_persons[name], 'subject')} of {len(persons)} {'has' if num_persons[name] == 1 else 'have'}"
        for name, without in lacking.items()
    ]
    return folds


def _lacking(folds: Sequence[Sequence[str]], classes: Mapping[str, Collection[str]]) -> dict[str, list[int]]:
    """The folds in which no person has a class, for each class that some fold lacks."""
    found: dict[str, list[int]] = {}
    names = sorted({name for own in classes.values() for name in own})
    for fold, persons in enumerate(folds):
        present = {name for person in persons for name in classes[person]}
        for name in names:
            if name not in present:
                found.setdefault(name, []).append(fold)
    return found


def _shuffled(persons: Collection[str], seed: int) -> list[str]:
    """The persons ordered by a hash of seed and name, so that the order depends on nothing else."""

    def key(name: str) -> bytes:
        return hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=16).digest()

    return sorted(persons, key=key)


def _check_fold(fold: int, folds: int, what: str) -> None:
    if fold >= folds:
        raise SettingError(
            f"split.fold: {fold} is out of range: there are {folds} {what}, counted from 0 to {folds - 1}"
        )


def _named(ids: list[str], names: Sequence[str]) -> set[str]:
    for name in names:
        if name not in ids:
            raise SettingError(f"split.val: no case {name!r}: {nearest(name, ids)}")
    if len(set(names)) == len(ids):
        raise DataError("split.val names all cases: none is left for training")
    return set(names)


def splits_document(splits: Sequence[Split]) -> list[dict[str, list[str]]]:
    """The splits of all folds in the form of an nnU-Net splits_final.json."""
    return [{"train": list(split.train), "val": list(split.val)} for split in splits]


def _entries(path: Path) -> list[Any]:
    """The folds of an nnU-Net splits_final.json, `[{"train": [...], "val": [...]}, ...]`."""
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: expected a list of folds, not {kind_of(entries) if entries else 'an empty list'}")
    return entries


def _from_file(ids: list[str], path: Path, fold: int | None) -> tuple[set[str], set[str], Place]:
    """One fold of an nnU-Net splits_final.json, used unchanged."""
    entries = _entries(path)
    if fold is None and len(entries) > 1:
        raise SettingError(
            f"{path}: contains {len(entries)} folds; choose one with split.fold (0 to {len(entries) - 1}, or "
            f"{ALL_FOLDS})"
        )
    fold = fold or 0
    _check_fold(fold, len(entries), f"folds in {path}")
    entry = entries[fold]
    return _side(ids, path, entry, fold, "train"), _side(ids, path, entry, fold, "val"), (fold, len(entries))


def _side(ids: list[str], path: Path, entry: Any, fold: int, side: str) -> set[str]:
    names = entry.get(side) if isinstance(entry, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: fold {fold}: '{side}' must be a list of case names with at least one")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: fold {fold}: {twice[0]!r} occurs twice in '{side}'")
    unknown = sorted(set(names) - set(ids), key=natural_key)
    if unknown:
        raise DataError(f"{path}: fold {fold}: '{side}' names cases that are not in the data: {name_some(unknown)}")
    return set(names)


def _refuse_overlap(
    train: set[str],
    val: set[str],
    person: Mapping[str, str],
    value_hashes: Mapping[str, str],
    prepared_hashes: Mapping[str, str],
) -> None:
    """Refuses ids, persons and images on both sides: validation would measure memorisation."""
    both = sorted(train & val, key=natural_key)
    if both:
        raise DataError(f"split: {name_some(both)} would be in both training and validation")
    leave_out = f"leave one out or assign both to one person in {GROUPS}"
    for owner, what, remedy in (
        (person, "belong to one person", "put them on one side"),
        (value_hashes, "hold the same image", leave_out),
        (prepared_hashes, "hold the same image, scaled or stored with other axes", leave_out),
    ):
        trained = {owner[case]: case for case in sorted(train, key=natural_key, reverse=True) if case in owner}
        for case in sorted(val, key=natural_key):
            twin = trained.get(owner[case]) if case in owner else None
            if twin is not None:
                whom = f" ({person[case]!r})" if owner is person else ""
                raise DataError(
                    f"split: {twin!r} is in training and {case!r} in validation, but both {what}{whom}: {remedy}"
                )


def _first_persons(train: set[str], person: Mapping[str, str], num_persons: int, seed: int, place: Place) -> set[str]:
    """The cases of n training persons: the next n of the shuffled ones, from a start that moves on with the fold."""
    shuffled = _shuffled({person[case] for case in train}, seed)
    if num_persons > len(shuffled):
        raise SettingError(f"split.train_subjects: {num_persons} is more than the {len(shuffled)} training subjects")
    fold, folds = place
    start = fold * len(shuffled) // folds
    kept = {*shuffled[start : start + num_persons], *shuffled[: max(0, start + num_persons - len(shuffled))]}
    return {case for case in train if person[case] in kept}
