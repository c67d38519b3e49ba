"""Which layout a folder has, and the two classes in which a layout module says what lies there.

Here nothing is decoded and no layout is known by heart: each registered module (`iseg`, `nnunet`, `msd`) is
asked. It offers `LOOKED_FOR` (a few words, for the message when no layout fits), `is_layout(folder) -> bool`
and `list_cases(folder) -> Listing`.
"""

import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from dlx.settings import registry
from dlx.system.errors import DataError, SettingError, nearest

MAX_CLASSES = 256  # masks are uint8
MAX_FOLDERS = 100  # within a folder of no layout that are looked at for one


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case: one image a channel (or one that holds all channels: RGB, 4D) and the mask."""

    id: str
    images: tuple[Path, ...]
    mask: Path


@dataclass(frozen=True)
class Listing:
    """What a folder holds, from file names and `dataset.json` alone.

    `label_values[k]` is the value that class k has in the mask files, `class_names[k]` its name; class 0 is
    the background, with value 0. `cases` are in natural order of their ids. `remarks` are lines for the user:
    things that are odd and do no harm.
    """

    layout: str
    channels: tuple[str, ...]
    class_names: tuple[str, ...]
    label_values: tuple[int, ...]
    cases: tuple[CaseFiles, ...]
    allow_rgb: bool = False  # the one image file of a case may hold R, G, B as the channels
    allow_4d: bool = False  # the one image file of a case may hold the channels along a fourth axis
    remarks: tuple[str, ...] = ()


def natural_key(text: str) -> tuple[tuple[Any, ...], str]:
    """A sort key by which subject-2 comes before subject-10; equal only for equal texts."""
    pieces = re.split(r"([0-9]+)", text)  # text and digits take turns, so unlike types are never compared
    numbers = [piece.lstrip("0") for piece in pieces[1::2]]
    keys: list[Any] = list(pieces)
    keys[1::2] = [(len(number), number) for number in numbers]  # no int(): it refuses thousands of digits
    return tuple(keys), text


def name_some(names: Sequence[str], most: int = 5) -> str:
    """`'a', 'b' and 7 more`: the first names, quoted so that none can break the line."""
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def folder(
    *,
    path: Annotated[str, Field(description="The folder, or a file of prepared data (.safetensors).")],
    layout: Annotated[str, Field(description="iseg, nnunet or msd; auto looks which one the folder has.")] = "auto",
) -> Listing:
    """Lists the labelled cases of a folder; `layout` names the layout, `auto` finds it by looking.

    Where several fit, as with a dataset.json that has the keys of two, the first whose files are all there is taken,
    and a remark says so. Raises SettingError for an unknown layout name; DataError when the folder is missing, empty
    or unreadable, when no layout fits, or when what the layout module lists cannot be used.
    """
    if layout != "auto" and layout not in registry.PARTS["layout"]:
        raise SettingError(f"unknown layout '{layout}': {nearest(layout, ['auto', *registry.PARTS['layout']])}")
    root = Path(path)
    _check_folder(root)
    fitting = _find_layouts(root) if layout == "auto" else [layout]
    return _list(root, fitting[0]) if len(fitting) == 1 else _list_first(root, fitting)


def _list(root: Path, name: str) -> Listing:
    module: Any = registry.load("layout", name)
    try:
        listing: Listing = module.list_cases(root)
    except OSError as error:
        raise DataError(f"{root}: cannot be listed: {error.strerror or error}") from error
    _check_listing(root, listing)
    return listing


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
            f"{', whose files are all there' if causes else ''}; "
            f"{' or '.join(f'--set data.source.layout={other}' for other in others)} reads it otherwise"
        )
        return replace(listing, remarks=(*listing.remarks, remark))
    raise DataError(
        f"{root}: fits more than one layout ({', '.join(fitting)}), and can be read as none; {'; '.join(causes)}; "
        f"name the one that is meant with --set data.source.layout={fitting[0]}"
    )


def _near_name(root: Path) -> str:
    """`; did you mean 'NAME'?` for a folder of a similar name beside `root`, or for `phantom`; else empty."""
    import difflib

    folders = [path.name for path in root.parent.iterdir() if path.is_dir()] if root.parent.is_dir() else []
    close = difflib.get_close_matches(root.name, [*folders, "phantom"], n=1)
    return f"; did you mean '{close[0] if close[0] == 'phantom' else root.parent / close[0]}'?" if close else ""


def _check_folder(root: Path) -> None:
    try:
        if not root.exists():
            raise DataError(f"{root}: no such folder{_near_name(root)}")
        if not root.is_dir():
            raise DataError(f"{root}: a file, and a folder of cases was expected")
        with os.scandir(root) as entries:
            if next(entries, None) is None:
                raise DataError(f"{root}: the folder is empty")
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error.strerror or error}") from error


def _find_layouts(root: Path) -> list[str]:
    """The layouts that a folder fits, in the order in which they are registered; DataError where there is none."""
    modules: dict[str, Any] = {name: registry.load("layout", name) for name in registry.PARTS["layout"]}
    try:
        found = [name for name, module in modules.items() if module.is_layout(root)]
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error.strerror or error}") from error
    if found:
        return found
    looked = "; ".join(f"{name}: {getattr(module, 'LOOKED_FOR', name)}" for name, module in modules.items())
    raise DataError(f"{root}: no known layout; looked for {looked}{_near_by(root, list(modules.values()))}")


def _near_by(root: Path, modules: Sequence[Any]) -> str:
    """A hint where not this folder has a layout but the one that it lies in, or the only one within it that does."""
    for list_near in (lambda root: [root.absolute().parent], _folders_in):
        with suppress(OSError):
            fitting = [path for path in list_near(root) if any(module.is_layout(path) for module in modules)]
            if len(fitting) == 1:
                return f"; {fitting[0]} has one: --data {shlex.quote(str(fitting[0]))}"
    return ""


def _folders_in(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())[:MAX_FOLDERS]


def _check_listing(root: Path, listing: Listing) -> None:
    """What must hold whatever the layout, so that everything after may rely on it."""
    if not listing.cases:
        raise DataError(f"{root}: the {listing.layout} folder holds no labelled case")
    values = listing.label_values
    if not listing.channels or not values or len(values) != len(listing.class_names):
        raise DataError(f"{root}: no channel or no class is declared")
    if values[0] != 0:
        raise DataError(f"{root}: the labels have no background (value 0)")
    if len(values) > MAX_CLASSES or len(values) < 2:
        raise DataError(f"{root}: {len(values)} classes with the background; 2 to {MAX_CLASSES} can be used")
    for what, items in (
        ("label value", values),
        ("class name", listing.class_names),
        ("case", [case.id for case in listing.cases]),
    ):
        twice = [item for item, count in Counter(items).items() if count > 1]
        if twice:
            raise DataError(f"{root}: {what} {twice[0]!r} is there twice")
    for name in (*listing.channels, *listing.class_names, *(case.id for case in listing.cases)):
        if not name or not name.isprintable():  # would break the lines of tables and messages
            raise DataError(f"{root}: the name {name!r} is empty or holds unprintable characters")
