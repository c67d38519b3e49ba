"""Which classes are measured: those of a dataset.json or a data set, those that the user names, or all that occur."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dlx.data.cases import values_of_classes
from dlx.data.layouts import msd, nnunet
from dlx.data.layouts.dataset_json import NAME, DatasetJson, read_dataset_json
from dlx.data.layouts.listing import Listing, check_labels
from dlx.evaluation.pairs import PredictionFiles, Truths
from dlx.system.errors import SettingError, nearest

EXAMPLES = "--labels 1,2 or liver=1,tumour=2 (several values of one class: whole=1+2)"


@dataclass(frozen=True)
class LabelClass:
    """A class that is measured, and its values in the files; one of several values is a region."""

    name: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class LabelTable:
    """The classes to measure, without the background; None: each value that occurs in a true mask is one.

    `allowed` are the values that true masks may have, None: any. `ignored_value` marks voxels that count nowhere.
    `source` says where the classes come from.
    """

    classes: tuple[LabelClass, ...] | None
    allowed: frozenset[int] | None
    ignored_value: int | None
    source: str


EVERY = LabelTable(None, None, None, f"all values in the true masks (no {NAME})")


def find_table(truths: Truths, sets: Sequence[PredictionFiles], asked: str | None) -> LabelTable:
    """The classes of the data set; else of a dataset.json beside the true masks, in the folder above, or beside the
    predictions, where nnU-Net writes one; else all that occur. Of these, those that `asked` (`--labels`) names.
    """
    if truths.listing is not None:
        table = table_of(truths.listing)
    else:
        beside = [one.path if one.path.is_dir() else one.path.parent for one in sets]
        table = table_from_json([truths.folder, truths.folder.absolute().parent, *beside])
    return table if asked is None else choose_labels(table, asked)


def table_of(listing: Listing) -> LabelTable:
    """The classes of a data set."""
    values = values_of_classes(listing.class_names, listing.label_values, listing.regions)
    return _table(values, listing.label_values, listing.ignored_value, f"the data set ({listing.layout})")


def table_from_json(folders: Iterable[Path]) -> LabelTable:
    """The classes of the first folder that has a dataset.json; without one, all that occur.

    Raises DataError if the file is broken, or its table of labels is wrong.
    """
    for folder in folders:
        if (folder / NAME).is_file():
            description = read_dataset_json(folder)
            labels = _labels_of(description)
            check_labels(description.path, labels.class_names, labels.label_values)
            values = values_of_classes(labels.class_names, labels.label_values, labels.regions)
            return _table(values, labels.label_values, labels.ignored_value, str(description.path))
    return EVERY


def _labels_of(description: DatasetJson) -> nnunet.Labels:
    """The labels in the form of the Decathlon (value -> name) or of nnU-Net (name -> value or values)."""
    table = description.table("labels")
    if all(isinstance(name, str) for name in table.values()):
        return nnunet.Labels(*msd.labels_of(description))
    return nnunet.labels_of(description)


def _table(
    values: dict[str, tuple[int, ...]], declared: Sequence[int], ignored_value: int | None, source: str
) -> LabelTable:
    allowed = {*declared, *([] if ignored_value is None else [ignored_value])}
    return LabelTable(tuple(LabelClass(*item) for item in values.items()), frozenset(allowed), ignored_value, source)


def choose_labels(table: LabelTable, asked: str) -> LabelTable:
    """The classes that a user's `1,2`, `liver,tumour` or `whole=1+2,core=2` names; true masks may have others too.

    A name or value alone is one of the table's classes, or, a value only, a class of that name. `ignore=3` sets the
    ignore label, as in nnU-Net. Raises SettingError for any other text, an unknown name, or a class named twice.
    """
    known = {one.name: one for one in table.classes or ()}
    by_value = {one.values: one for one in table.classes or ()}
    chosen: list[LabelClass] = []
    ignored_value = table.ignored_value
    for entry in (piece.strip() for piece in asked.split(",")):
        name, equals, text = (piece.strip() for piece in entry.partition("="))
        if equals and name == nnunet.IGNORE and len(values := _values(text, asked)) == 1:
            ignored_value = values[0]
        elif equals:
            chosen.append(LabelClass(name, _values(text, asked)))
        elif name in known:
            chosen.append(known[name])
        elif name.isascii() and name.isdecimal():
            values = _values(name, asked)
            chosen.append(by_value.get(values, LabelClass(name, values)))
        elif known and name:
            raise SettingError(f"--labels {asked}: no label '{name}': {nearest(name, known)}")
        else:
            raise SettingError(f"--labels {asked}: '{name}' is not a label; expected {EXAMPLES}")
    _check_chosen(chosen, ignored_value, asked)
    return replace(table, classes=tuple(chosen), allowed=None, ignored_value=ignored_value, source="--labels")


def _values(text: str, asked: str) -> tuple[int, ...]:
    """`1+2` as (1, 2); SettingError unless they are whole numbers above 0, none twice."""
    pieces = [piece.strip() for piece in text.split("+")]
    if not all(piece.isascii() and piece.isdecimal() and len(piece) < 16 for piece in pieces):
        raise SettingError(f"--labels {asked}: '{text}' is not a label value; expected {EXAMPLES}")
    values = tuple(sorted({int(piece) for piece in pieces}))
    if values[0] == 0 or len(values) != len(pieces):
        what = "0 is the background" if values[0] == 0 else "a value occurs twice"
        raise SettingError(f"--labels {asked}: '{text}': {what}")
    return values


def _check_chosen(chosen: Sequence[LabelClass], ignored_value: int | None, asked: str) -> None:
    twice = [name for name, number in Counter(one.name for one in chosen).items() if number > 1]
    if twice:
        raise SettingError(f"--labels {asked}: '{twice[0]}' is named twice")
    if not chosen:
        raise SettingError(f"--labels {asked}: names no class; expected {EXAMPLES}")
    for one in chosen:
        if not one.name or not one.name.isprintable():
            raise SettingError(f"--labels: the name {one.name!r} is empty or contains unprintable characters")
        if ignored_value in one.values:
            raise SettingError(f"--labels {asked}: {ignored_value} is the value of the ignore label")
