"""Lists the scans to predict: files, folders of files, and data sets in a layout that dlx knows. Reads no voxels.

In a folder without a layout each file is a scan of its own, unless the names end in the numbers of channels, as in
nnU-Net: `CASE_0000.nii.gz`, `CASE_0001.nii.gz`.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dlx.data.layouts.dataset_json import NAME as DATASET_JSON
from dlx.data.layouts.listing import ScanFiles, ScanListing, list_scans, name_some, natural_key
from dlx.data.layouts.nnunet import RGB_ENDINGS
from dlx.data.volumes.opening import show_path
from dlx.data.volumes.reading import CHECKS, DETACHED, split_ending
from dlx.settings.text import counted
from dlx.system.errors import DataError
from dlx.system.files import expand_home

NUMBERED = re.compile(r"(.+)_([0-9]{4})", re.DOTALL)
MAX_CHANNELS = 8  # names numbered from 0000 up to this many are taken for channels, more for cases
TEST_FOLDERS = ("imagesTs",)


class NamedFile(NamedTuple):
    """A volume file: its path, the name without its ending, and that ending in small letters."""

    path: Path
    stem: str
    ending: str


@dataclass(frozen=True)
class FoundScans:
    """The scans in natural order of their ids, and lines for the user on what was left out or looks like a mistake."""

    scans: tuple[ScanFiles, ...]
    remarks: tuple[str, ...] = ()


def find_scans(given: Sequence[str | Path], channels: Sequence[str]) -> FoundScans:
    """The scans in files and folders, for networks that take these channels.

    Raises DataError, which names the files, if there is none, if a scan lacks a channel or has too many, or if two have
    the same name.
    """
    if not given:
        raise DataError("no image is named: expected a file or a folder of files")
    scans: list[ScanFiles] = []
    remarks: list[str] = []
    files: list[NamedFile] = []
    for one in given:
        path = Path(expand_home(str(one)))
        if path.is_dir():
            found = _in_folder(path, channels)
            scans += found.scans
            remarks += found.remarks
        else:
            files += _with_other_channels(path, channels)
    if files:
        scans += _group(list(dict.fromkeys(files)), channels)
    _check_names(scans)
    return FoundScans(tuple(sorted(scans, key=lambda scan: natural_key(scan.id))), tuple(dict.fromkeys(remarks)))


def _in_folder(folder: Path, channels: Sequence[str]) -> FoundScans:
    listing = _known_layout(folder)
    if listing is not None:
        return _of_layout(folder, listing, channels)
    files, others = _files_in(folder)
    if not files:
        raise DataError(f"{show_path(folder)}: {_why_empty(folder, others)}")
    remarks = [f"{show_path(folder)}: left out because they are no volumes: {name_some(others)}"] if others else []
    return FoundScans(tuple(_group(files, channels)), tuple(remarks))


def _known_layout(folder: Path) -> ScanListing | None:
    """The images of a folder that has a layout; None if it has none. A dataset.json beside volumes, as nnU-Net writes
    it beside its predictions, makes no layout.
    """
    is_beside = (folder / DATASET_JSON).exists() and not (folder / "imagesTr").is_dir()
    return None if is_beside and _files_in(folder)[0] else list_scans(folder)


def _of_layout(folder: Path, listing: ScanListing, channels: Sequence[str]) -> FoundScans:
    """The scans of a layout, checked against the channels of the networks."""
    if len(listing.channels) != len(channels):
        raise DataError(
            f"{show_path(folder)}: its images have {counted(len(listing.channels), 'channel')} "
            f"({name_some(listing.channels)}), but the runs take {len(channels)} ({name_some(channels)})"
        )
    remarks = list(listing.remarks)
    if listing.channels != tuple(channels):
        remarks.append(
            f"{show_path(folder)}: the channels are named {name_some(listing.channels)}, and those that the runs were "
            f"trained on {name_some(channels)}: they are taken in this order"
        )
    for name in TEST_FOLDERS:
        more = len(_files_in(folder / name)[0]) if (folder / name).is_dir() else 0
        if more:
            remarks.append(f"{show_path(folder / name)}: holds {counted(more, 'more file')}, which -i can name too")
    return FoundScans(listing.scans, tuple(remarks))


def _files_in(folder: Path) -> tuple[list[NamedFile], list[str]]:
    """The volumes of a folder in natural order, and the names of its other files; hidden files are not listed.

    Of a pair only the `.hdr` is listed. Files of formats with detached voxels are listed, so that reading them says
    what is wrong.
    """
    try:
        names = sorted((path.name for path in folder.iterdir() if path.is_file()), key=natural_key)
    except OSError as error:
        raise DataError(f"{show_path(folder)}: cannot be read: {error.strerror or error}") from error
    names = [name for name in names if not name.startswith(".")]
    present, files, others = set(names), [], []
    for name in names:
        file = _named(folder / name)
        if file is None:
            others.append(name)
        elif not (file.ending == ".img" and {f"{file.stem}.hdr", f"{file.stem}.HDR"} & present):
            files.append(file)
    return files, others


def _named(path: Path) -> NamedFile | None:
    """A file with its ending; None if it is not that of a volume."""
    stem, ending = split_ending(path.name)
    if ending is None:
        if path.suffix.lower() not in DETACHED:
            return None
        stem, ending = path.stem, path.suffix
    return NamedFile(path, stem, ending.lower())


def _why_empty(folder: Path, others: Sequence[str]) -> str:
    """Why a folder has no scans, with a hint on subfolders that do."""
    seen = f"holds no volumes, only {name_some(others)}" if others else "holds no files"
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    with_files = [path.name for path in inner[:100] if _files_in(path)[0]]
    hint = f"; these of its folders hold some: {name_some(with_files)}" if with_files else ""
    return f"{seen} (looked for {', '.join(CHECKS)}){hint}"


def _with_other_channels(path: Path, channels: Sequence[str]) -> list[NamedFile]:
    """A file that is named itself; with it the other channels beside it, if its name ends in the number of one."""
    file = _named(path)
    if file is None or not path.exists():
        cause = (
            f"unknown file format: the name must end in {', '.join(CHECKS)}"
            if path.exists()
            else "no such file or folder"
        )
        raise DataError(f"{show_path(path)}: {cause}")
    match = NUMBERED.fullmatch(file.stem)
    if match is None or len(channels) == 1:
        return [file]
    _, ending = split_ending(path.name)
    beside = [path.with_name(f"{match[1]}_{number:04d}{ending}") for number in range(len(channels))]
    found = [one for name in beside if name.exists() and (one := _named(name)) is not None]
    return found if beside[0].exists() else [file]


def _group(files: Sequence[NamedFile], channels: Sequence[str]) -> list[ScanFiles]:
    """Scans from files whose names may end in the number of a channel."""
    numbered: dict[str, dict[int, NamedFile]] = defaultdict(dict)
    single: list[NamedFile] = []
    for file in files:
        match = NUMBERED.fullmatch(file.stem)
        if match is None:
            single.append(file)
        elif int(match[2]) in numbered[match[1]]:
            twice = name_some([numbered[match[1]][int(match[2])].path.name, file.path.name])
            raise DataError(f"{show_path(file.path.parent)}: {twice} are the same channel of the same scan")
        else:
            numbered[match[1]][int(match[2])] = file
    if not _are_channels(numbered, len(channels)):
        single = list(files)
        numbered = {}
    scans = [ScanFiles(file.stem, (file.path,)) for file in single]
    if numbered:
        scans += _of_channels(numbered, channels)
    return scans


def _are_channels(numbered: Mapping[str, Mapping[int, NamedFile]], num_channels: int) -> bool:
    """Whether the numbers at the end of names count channels, and not cases: some name then has the number 0.

    For networks of one channel: if all numbers are 0. DataError if they look like several channels.
    """
    counts = {tuple(sorted(numbers)) for numbers in numbered.values()}
    if not any(0 in numbers for numbers in counts):
        return False
    if num_channels > 1 or counts == {(0,)}:
        return True
    (some, *others) = counts
    if not others and some == tuple(range(len(some))) and len(some) <= MAX_CHANNELS:
        names = [file.path.name for file in next(iter(numbered.values())).values()]
        raise DataError(
            f"{name_some(names)} look like {len(some)} channels of one scan, but the runs take 1: name the files of "
            "one channel alone; if they are scans of their own, end their names differently, as in -0000"
        )
    return False


def _of_channels(numbered: Mapping[str, Mapping[int, NamedFile]], channels: Sequence[str]) -> list[ScanFiles]:
    """Scans of one file for each channel; or of one for all, if a colour picture holds three."""
    endings = {file.ending for numbers in numbered.values() for file in numbers.values()}
    is_rgb = (
        len(channels) == 3 and endings <= {*RGB_ENDINGS} and all({*numbers} == {0} for numbers in numbered.values())
    )
    expected = range(1 if is_rgb else len(channels))
    wrong = []
    for stem, numbers in numbered.items():
        names = name_some([file.path.name for file in numbers.values()], 3)
        missing = [f"_{number:04d} ({channels[number]})" for number in expected if number not in numbers]
        beyond = [file.path.name for number, file in numbers.items() if number not in expected]
        if missing:
            wrong.append(f"{stem!r} lacks {', '.join(missing)} beside {names}")
        elif beyond:
            wrong.append(f"{stem!r} has {name_some(beyond, 3)}, but the runs take {len(channels)} channels")
    if wrong:
        folder = next(iter(next(iter(numbered.values())).values())).path.parent
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise DataError(f"{show_path(folder)}: {'; '.join(wrong[:5])}{more}")
    return [ScanFiles(stem, tuple(numbers[n].path for n in expected)) for stem, numbers in numbered.items()]


def _check_names(scans: Sequence[ScanFiles]) -> None:
    """DataError if two scans have the same name, as their predictions would have the same file."""
    known: dict[str, Path] = {}
    for scan in scans:
        first = scan.images[0]
        if scan.id in known:
            both = f"{show_path(known[scan.id])} and {show_path(first)}"
            raise DataError(f"{both}: two scans with the name {scan.id!r}; predict them into folders of their own")
        known[scan.id] = first
        if not scan.id or not scan.id.isprintable():
            raise DataError(f"{show_path(first)}: the name is empty or contains unprintable characters: rename it")
