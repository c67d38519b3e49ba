"""Finds the layout of a folder and lists its cases, without decoding any file.

The layouts are registered modules (`iseg`, `nnunet`, `msd`). Each has `LOOKED_FOR` (a few words for the message that no
layout matches), `is_layout(folder) -> bool`, `list_cases(folder) -> Listing`, and for predictions also
`list_scans(folder) -> ScanListing`, which needs no masks.
"""

import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dlx.settings import registry
from dlx.system.errors import DataError, SettingError, nearest

MAX_CLASSES = 255  # masks are uint8, of which one value is reserved for ignored voxels
MAX_REGIONS = 8  # predicted regions are the bits of a uint8
MAX_FOLDERS = 100  # subfolders in which a layout is searched for, to give a hint


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case: an image per channel (or one with all channels: RGB, 4D) and the mask."""

    id: str
    images: tuple[Path, ...]
    mask: Path


@dataclass(frozen=True)
class Listing:
    """The contents of a folder, from file names and `dataset.json` alone.

    `label_values[k]` is the value of class k in the mask files, `class_names[k]` its name; class 0 is the background,
    with value 0. `ignored_value` is that of the ignore label, None without one. `cases` are in natural order of their
    ids. `remarks` are lines for the user on harmless irregularities. With `regions` and `region_order` the names after
    the first are those of regions, and `label_values` are those of the masks (see `Dataset`).
    """

    layout: str
    channels: tuple[str, ...]
    class_names: tuple[str, ...]
    label_values: tuple[int, ...]
    cases: tuple[CaseFiles, ...]
    allow_rgb: bool = False  # the one image file of a case may hold R, G, B as the channels
    allow_4d: bool = False  # the one image file of a case may hold the channels along a fourth axis
    remarks: tuple[str, ...] = ()
    ignored_value: int | None = None
    regions: tuple[tuple[int, ...], ...] = ()
    region_order: tuple[int, ...] = ()


@dataclass(frozen=True)
class ScanFiles:
    """The image files of one case, which need not have a mask: a file for each channel, or one with all of them."""

    id: str
    images: tuple[Path, ...]


@dataclass(frozen=True)
class ScanListing:
    """The images of a folder, in natural order of their ids; the names of their channels, if the layout has names."""

    layout: str
    channels: tuple[str, ...]
    scans: tuple[ScanFiles, ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class DrawnListing:
    """The cases of a data source that draws them instead of reading files, as the phantom does.

    `case(index)` draws the image (C, D, H, W) and the mask (D, H, W) of `case_ids[index]`, in which voxels may be
    IGNORED if `has_ignored`. `spacing_mm` is (d, h, w). `version` is to increase whenever the source draws other
    values. With `regions` and `region_order` the names after the first are those of regions (see `Dataset`), and
    `label_values` are the masks' classes; by default as many as there are names.
    """

    version: int
    channels: tuple[str, ...]
    class_names: tuple[str, ...]
    case_ids: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    case: Callable[[int], tuple[NDArray[np.float32], NDArray[np.uint8]]]
    has_ignored: bool = False
    label_values: tuple[int, ...] = ()
    regions: tuple[tuple[int, ...], ...] = ()
    region_order: tuple[int, ...] = ()


def natural_key(text: str) -> tuple[tuple[Any, ...], str]:
    """A sort key that puts subject-2 before subject-10; equal only for equal texts."""
    pieces = re.split(r"([0-9]+)", text)  # text and digits alternate, so values of different types are never compared
    numbers = [piece.lstrip("0") for piece in pieces[1::2]]
    keys: list[Any] = list(pieces)
    keys[1::2] = [(len(number), number) for number in numbers]  # no int(): it refuses thousands of digits
    return tuple(keys), text


def name_some(names: Sequence[str], most: int = 5) -> str:
    """`'a', 'b' and 7 more`: the first names, with line breaks and control characters escaped."""
    return list_some([repr(name) for name in names], most)


def list_some(texts: Sequence[str], most: int) -> str:
    """`a, b and 7 more`: the first texts as they are."""
    shown = ", ".join(texts[:most])
    return f"{shown} and {len(texts) - most} more" if len(texts) > most else shown


def folder(
    *,
    path: Annotated[str, Field(description="The folder, or a file of prepared data (.safetensors).")],
    layout: Annotated[str, Field(description="iseg, nnunet or msd; auto detects the layout.")] = "auto",
) -> Listing:
    """Lists the labelled cases of a folder; `layout` names the layout, `auto` detects it.

    If several match, as for a dataset.json with the keys of two, the first one whose files are complete is used, with a
    remark. Raises SettingError for an unknown layout name; DataError if the folder is missing, empty or unreadable, if
    no layout matches, or if the listing cannot be used.
    """
    if layout != "auto" and layout not in registry.PARTS["layout"]:
        raise SettingError(f"unknown layout '{layout}': {nearest(layout, ['auto', *registry.PARTS['layout']])}")
    root = Path(path)
    try:
        _check_folder(root)
        fitting = _find_layouts(root) if layout == "auto" else [layout]
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error.strerror or error}") from error
    return _list(root, fitting[0]) if len(fitting) == 1 else _list_first(root, fitting)


def has_layout(root: Path) -> bool:
    """Whether a folder looks like a data set in a known layout; it may be incomplete. OSError if it is unreadable."""
    modules: list[Any] = [registry.load("layout", name) for name in registry.PARTS["layout"]]
    return any(module.is_layout(root) for module in modules)


def _list(root: Path, name: str) -> Listing:
    module: Any = registry.load("layout", name)
    try:
        listing: Listing = module.list_cases(root)
    except OSError as error:
        raise DataError(f"{root}: cannot be listed: {error.strerror or error}") from error
    _check_listing(root, listing)
    return listing


def list_scans(root: Path) -> ScanListing | None:
    """The images of a folder of a known layout, with or without masks; None if no layout matches.

    If several match, the first one that can be listed is used. Raises DataError if the folder is missing, empty or
    unreadable, or if no matching layout can be listed.
    """
    causes = []
    try:
        _check_folder(root)
        for name in registry.PARTS["layout"]:
            module: Any = registry.load("layout", name)
            if not module.is_layout(root):
                continue
            try:
                return module.list_scans(root) if hasattr(module, "list_scans") else _scans_of(module.list_cases(root))
            except DataError as error:
                causes.append(str(error))
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error.strerror or error}") from error
    if causes:
        raise DataError("; ".join(causes))
    return None


def _scans_of(listing: Listing) -> ScanListing:
    """The images of a layout that lists only labelled cases."""
    scans = tuple(ScanFiles(case.id, case.images) for case in listing.cases)
    return ScanListing(listing.layout, listing.channels, scans)


def _list_first(root: Path, fitting: list[str]) -> Listing:
    """The first of several layouts that can be listed, with a remark on the others; DataError with all causes."""
    causes = []
    for name in fitting:
        try:
            listing = _list(root, name)
        except DataError as error:
            causes.append(f"as {name}: {error}")
            continue
        others = [other for other in fitting if other != name]
        remark = (
            f"{root}: fits more than one layout ({', '.join(fitting)}); read as {name}"
            f"{', whose files are complete' if causes else ''}; "
            f"{' or '.join(f'--set data.source.layout={other}' for other in others)} reads it as the other"
        )
        return replace(listing, remarks=(*listing.remarks, remark))
    raise DataError(
        f"{root}: fits more than one layout ({', '.join(fitting)}), but can be read as none; {'; '.join(causes)}; "
        f"choose the intended one with --set data.source.layout={fitting[0]}"
    )


def _near_name(root: Path) -> str:
    """`; did you mean 'NAME'?` for a folder of a similar name beside `root`, or for `phantom`; else empty."""
    import difflib

    folders = [path.name for path in root.parent.iterdir() if path.is_dir()] if root.parent.is_dir() else []
    close = difflib.get_close_matches(root.name, [*folders, "phantom"], n=1)
    return f"; did you mean '{close[0] if close[0] == 'phantom' else root.parent / close[0]}'?" if close else ""


def _check_folder(root: Path) -> None:
    if not root.exists():
        raise DataError(f"{root}: no such folder{_near_name(root)}")
    if not root.is_dir():
        raise DataError(f"{root}: is a file; expected a folder of cases")
    with os.scandir(root) as entries:
        if next(entries, None) is None:
            raise DataError(f"{root}: the folder is empty")


def _find_layouts(root: Path) -> list[str]:
    """The layouts that match a folder, in the order of registration; DataError if there is none."""
    modules: dict[str, Any] = {name: registry.load("layout", name) for name in registry.PARTS["layout"]}
    found = [name for name, module in modules.items() if module.is_layout(root)]
    if found:
        return found
    if (why := _why_undescribed(root)) is not None:
        raise DataError(f"{root}: no known layout: {why}{_near_by(root, list(modules.values()))}")
    looked = "; ".join(f"{name}: {getattr(module, 'LOOKED_FOR', name)}" for name, module in modules.items())
    raise DataError(f"{root}: no known layout; looked for {looked}{_near_by(root, list(modules.values()))}")


def _why_undescribed(root: Path) -> str | None:
    """What a folder lacks that looks like nnU-Net's or the Decathlon's and has no known layout; None for any other."""
    if (root / "dataset.json").exists():
        return (
            "dataset.json has neither channel_names and labels (nnU-Net) nor modality, labels and training (Decathlon)"
        )
    if (root / "imagesTr").is_dir():
        return (
            "there is imagesTr, but no dataset.json, which names the channels and labels (nnU-Net and Decathlon): "
            "docs/your-data.md shows one"
        )
    return None


def _near_by(root: Path, modules: Sequence[Any]) -> str:
    """A hint if the parent folder has a layout, or exactly one of the subfolders."""
    for list_near in (lambda root: [root.absolute().parent], _folders_in):
        with suppress(OSError):
            fitting = [path for path in list_near(root) if any(module.is_layout(path) for module in modules)]
            if len(fitting) == 1:
                return f"; {fitting[0]} has one: --data {shlex.quote(str(fitting[0]))}"
    return ""


def _folders_in(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())[:MAX_FOLDERS]


def _check_listing(root: Path, listing: Listing) -> None:
    """Checks what all later code relies on, for any layout."""
    if not listing.cases:
        raise DataError(f"{root}: the {listing.layout} folder contains no labelled case")
    values = listing.label_values
    num_named = len(listing.regions) + 1 if listing.regions else len(values)
    if not listing.channels or not values or num_named != len(listing.class_names):
        raise DataError(f"{root}: no channel or no class is declared")
    check_labels(root, listing.class_names, values)
    if len(listing.regions) > MAX_REGIONS:
        raise DataError(f"{root}: {len(listing.regions)} regions; expected {MAX_REGIONS} or fewer")
    ids = [case.id for case in listing.cases]
    _check_names(root, "case", ids)
    _check_names(root, None, listing.channels)


def check_labels(root: Path, class_names: Sequence[str], values: Sequence[int]) -> None:
    """DataError unless there is a background and another class, and each name and value is valid and unique."""
    if values[0] != 0:
        raise DataError(f"{root}: the labels have no background (value 0)")
    if len(values) > MAX_CLASSES or len(values) < 2:
        raise DataError(f"{root}: {len(values)} classes including the background; expected 2 to {MAX_CLASSES}")
    _check_unique(root, "label value", values)
    _check_names(root, "class name", class_names)


def _check_names(root: Path, what: str | None, names: Sequence[str]) -> None:
    """DataError for a name that is empty or unprintable, or that occurs twice, unless `what` they are is None."""
    if what is not None:
        _check_unique(root, what, names)
    for name in names:
        if not name or not name.isprintable():  # would break the lines of tables and messages
            raise DataError(f"{root}: the name {name!r} is empty or contains unprintable characters")


def _check_unique(root: Path, what: str, items: Sequence[Any]) -> None:
    twice = [item for item, count in Counter(items).items() if count > 1]
    if twice:
        raise DataError(f"{root}: {what} {twice[0]!r} occurs twice")
