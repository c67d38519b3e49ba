"""nnU-Net's splits_final.json, `[{"train": [...], "val": [...]}, ...]`: an entry for each fold."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlx.data.layouts.dataset_json import kind_of
from dlx.data.layouts.listing import name_some, natural_key
from dlx.data.splits.folds import Place, check_fold
from dlx.data.splits.split import Split
from dlx.settings.spec import ALL_FOLDS
from dlx.system.errors import DataError, SettingError
from dlx.system.files import read_json


def splits_document(splits: Sequence[Split]) -> list[dict[str, list[str]]]:
    """The splits of all folds in the form of the file."""
    return [{"train": list(split.train), "val": list(split.val)} for split in splits]


def read_entries(path: Path) -> list[Any]:
    """The unchecked entries of the folds, at least one."""
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: expected a list of folds, not {kind_of(entries) if entries else 'an empty list'}")
    return entries


def read_fold(ids: Sequence[str], path: Path, fold: int | None) -> tuple[set[str], set[str], Place]:
    """The training and validation cases of one fold, used unchanged; `fold` may be None for a file of one fold."""
    entries = read_entries(path)
    if fold is None and len(entries) > 1:
        raise SettingError(
            f"{path}: contains {len(entries)} folds; choose one with split.fold (0 to {len(entries) - 1}, or "
            f"{ALL_FOLDS})"
        )
    fold = fold or 0
    check_fold(fold, len(entries), f"folds in {path}")
    entry = entries[fold]
    return _side(ids, path, entry, fold, "train"), _side(ids, path, entry, fold, "val"), (fold, len(entries))


def _side(ids: Sequence[str], path: Path, entry: Any, fold: int, side: str) -> set[str]:
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
