"""Finds the true masks and the predictions of each case, by file names alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlx.data.layouts import iseg
from dlx.data.layouts.dataset_json import NAME
from dlx.data.layouts.listing import Listing, folder, has_layout, name_some, natural_key
from dlx.data.volumes.reading import CHECKS, DETACHED
from dlx.settings.text import counted
from dlx.system.errors import DataError, files_error

ENDINGS = sorted((*CHECKS, *DETACHED), key=len, reverse=True)  # .nii.gz before .nii
MASKS = "labelsTr"  # the folder of masks in nnU-Net's and most Decathlon data sets
CHANNEL = "_0000"  # the first channel in nnU-Net's names of images


@dataclass(frozen=True)
class Truths:
    """The true mask of each case, in natural order. `listing` is given if they are those of a data set."""

    path: Path
    files: Mapping[str, Path]
    listing: Listing | None = None

    @property
    def folder(self) -> Path:
        """The folder that was named, or that of the file."""
        return self.path if self.path.is_dir() else self.path.parent


@dataclass(frozen=True)
class PredictionFiles:
    """The predictions of one network: the file of each case that has one.

    `missing` are the cases without a prediction, `extra` the names of files without a true mask.
    """

    label: str
    path: Path
    files: Mapping[str, Path]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


def find_truths(path: Path) -> Truths:
    """The true masks of a data set in a known layout, of a folder of masks, or the one of a file."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if not path.is_dir():
        return Truths(path, {stem_of(path) or path.name: path})
    if not _is_data_set(path):
        return Truths(path, mask_files(path))
    if labels := _iseg_labels_alone(path):
        return Truths(path, labels)
    try:
        listing = folder(path=str(path))
    except DataError as error:
        masks = path / MASKS
        hint = f"; its masks alone: -t {masks}" if masks.is_dir() else ""
        raise DataError(f"{error}{hint}") from error
    return Truths(path, {case.id: case.mask for case in listing.cases}, listing)


def _is_data_set(path: Path) -> bool:
    """Whether a folder is a data set in a known layout, not a folder of masks beside a copy of its dataset.json."""
    try:
        has_masks = (path / NAME).is_file() and any(stem_of(file) for file in path.iterdir())
        return has_layout(path) and not (has_masks and not (path / MASKS).is_dir())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _iseg_labels_alone(path: Path) -> dict[str, Path]:
    """The masks of an iSeg-2017 folder in which no subject has an image, by subject; empty for any other folder."""
    masks = mask_files(path) if iseg.is_layout(path) else {}
    is_alone = all(iseg.is_label(file.name) for file in masks.values())
    return {name.removesuffix(iseg.LABEL): file for name, file in masks.items()} if is_alone else {}


def find_predictions(label: str, path: Path, truths: Truths) -> PredictionFiles:
    """The prediction of each true mask that has one, matched by name; of two files they are a pair whatever the names.

    A prediction has the name of its case, of its true mask's file, or either with or without `_0000`; the ending does
    not matter. Raises DataError if no prediction matches.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if not path.is_dir():
        if truths.path.is_dir():
            raise DataError(f"{path} is a file, but {truths.path} a folder: give two folders or two files")
        return PredictionFiles(label, path, dict.fromkeys(truths.files, path))
    left = mask_files(path)
    names = [*left]
    found: dict[str, Path] = {}
    for aliases in (_own_names, _near_names):  # exact names first: a file is the prediction of one case only
        for case, truth in truths.files.items():
            name = next((name for name in aliases(case, truth) if name in left), None)
            if case not in found and name is not None:
                found[case] = left.pop(name)
    if not found:
        cases = [*truths.files]
        raise DataError(
            f"{path}: no prediction has the name of a true mask in {truths.path} (predictions: {name_some(names, 3)}; "
            f"true masks: {name_some(cases, 3)})"
        )
    return PredictionFiles(
        label,
        path,
        {case: found[case] for case in truths.files if case in found},
        missing=tuple(case for case in truths.files if case not in found),
        extra=tuple(file.name for file in left.values()) if truths.path.is_dir() else (),
    )


def check_complete(sets: Sequence[PredictionFiles], truths: Truths) -> None:
    """DataError if a true mask has no prediction: means over the others would not be of what was to be predicted."""
    lines = []
    for one in sets:
        if one.missing:
            left = len(truths.files) - len({case for each in sets for case in each.missing})
            lines.append(
                f"{one.path}: {len(one.missing)} of {counted(len(truths.files), 'true mask')} have no prediction: "
                f"{name_some(one.missing)}; --allow-missing measures the other {counted(left, 'case')}"
            )
    if lines:
        raise files_error(lines)


def _own_names(case: str, truth: Path) -> Iterator[str]:
    yield case
    yield stem_of(truth) or truth.name


def _near_names(case: str, truth: Path) -> Iterator[str]:
    for name in _own_names(case, truth):
        yield f"{name}{CHANNEL}"
        yield name.removesuffix(CHANNEL)


def mask_files(path: Path) -> dict[str, Path]:
    """The volumes of a folder by name without ending, in natural order; a pair is given as its `.hdr`.

    Hidden files and files of other formats are left out. Raises DataError if there is no volume, or two of one name.
    """
    try:
        files = [file for file in path.iterdir() if not file.name.startswith(".") and not file.is_dir()]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    found: dict[str, Path] = {}
    for file in sorted(files, key=lambda file: natural_key(file.name)):
        stem = stem_of(file)
        if stem is None:
            continue
        other = found.get(stem)
        if other is not None and {other.suffix.lower(), file.suffix.lower()} == {".hdr", ".img"}:
            continue  # .hdr is sorted before .img
        if other is not None:
            raise DataError(f"{path}: {other.name} and {file.name} are both of {stem!r}: keep one of them")
        found[stem] = file
    if not found:
        is_run = (path / "study.json").is_file()
        hint = "; it is the folder of a run: dlx predict writes predictions" if is_run else ""
        what = "no file ends in" if files else "it is empty; looked for"
        raise DataError(f"{path}: no masks: {what} {', '.join(CHECKS)}{hint}")
    return found


def stem_of(file: Path) -> str | None:
    """The name of a volume without its ending; None if the file is not in a format of volumes."""
    for ending in ENDINGS:
        if file.name.endswith((ending, ending.upper())) and len(file.name) > len(ending):
            return file.name[: -len(ending)]
    return None
