"""The folder layout of iSeg-2017: `subject-N-T1`, `-T2` and `-label`, as `.hdr`/`.img` pairs, `.nii` or `.nii.gz`.

Lists such a folder, from file names alone, and writes one from phantom subjects. The challenge: Wang et al. 2019,
doi:10.1109/TMI.2019.2901712; label values 0, 10, 150, 250 = background, CSF, GM, WM.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dlx.data.layouts.listing import CaseFiles, Listing, ScanFiles, ScanListing, name_some, natural_key
from dlx.data.layouts.pair_files import PART_ENDING, PairFormat, read_description, write_pair
from dlx.system.errors import DataError

LOOKED_FOR = "subject-N-T1, -T2 and -label as .hdr/.img, .nii or .nii.gz (iSeg-2017)"

CHANNELS = ("T1", "T2")
CLASS_NAMES = ("background", "CSF", "GM", "WM")
LABEL_VALUES = (0, 10, 150, 250)
LABEL = "-label"

_FILE = re.compile(r"(subject-[0-9]+)-(T1|T2|label)\.(hdr|img|nii|nii\.gz)")
_DESCRIPTION = "dlx phantom"  # in the headers of files written here; only such files are ever replaced


def is_layout(folder: Path) -> bool:
    """Whether any file name is that of an iSeg-2017 image or label; OSError if the folder cannot be read."""
    return any(_FILE.fullmatch(path.name) for path in folder.iterdir())


def is_label(name: str) -> bool:
    """Whether a file name is that of a label of a subject."""
    return (named := _FILE.fullmatch(name)) is not None and named[2] == "label"


def list_cases(folder: Path) -> Listing:
    """The labelled subjects of an iSeg-2017 folder, subject-2 before subject-10; pairs are given as their `.hdr`.

    Subjects without a label, as in the challenge's test set, are skipped with a remark. Raises DataError if a subject
    lacks a channel, a pair lacks one of its files, a file exists in two formats, or no subject has a label.
    """
    cases, unlabelled = [], []
    for subject, files in _subjects(folder).items():
        if "label" in files:
            cases.append(CaseFiles(subject, tuple(files[channel] for channel in CHANNELS), files["label"]))
        else:
            unlabelled.append(subject)
    if not cases:
        raise DataError(f"{folder}: no subject has a label (subject-N-label)")
    remarks = (f"left out because they have no label: {name_some(unlabelled)}",) if unlabelled else ()
    return Listing("iseg", CHANNELS, CLASS_NAMES, LABEL_VALUES, tuple(cases), remarks=remarks)


def list_scans(folder: Path) -> ScanListing:
    """All subjects of an iSeg-2017 folder, labelled or not. Raises DataError as `list_cases`."""
    scans = (
        ScanFiles(subject, tuple(files[channel] for channel in CHANNELS))
        for subject, files in _subjects(folder).items()
    )
    return ScanListing("iseg", CHANNELS, tuple(scans))


def _subjects(folder: Path) -> dict[str, dict[str, Path]]:
    """Subject -> T1, T2 and perhaps label -> the file to read, in natural order."""
    found: dict[str, dict[str, list[Path]]] = {}
    for path in sorted(folder.iterdir()):
        if named := _FILE.fullmatch(path.name):
            found.setdefault(named[1], {}).setdefault(named[2], []).append(path)
    subjects = {}
    for subject in sorted(found, key=natural_key):
        subjects[subject] = {part: _one_file(paths) for part, paths in found[subject].items()}
        missing = [channel for channel in CHANNELS if channel not in subjects[subject]]
        if missing:
            raise DataError(f"{folder}: {' and '.join(f'{subject}-{channel}' for channel in missing)} missing")
    return subjects


def _one_file(paths: list[Path]) -> Path:
    """The file to read among those that share a stem: a single NIfTI file, or the header of a complete pair."""
    endings = {path.suffix for path in paths}
    if len(paths) == 1 and endings.isdisjoint({".hdr", ".img"}):
        return paths[0]
    if endings == {".hdr", ".img"} and len(paths) == 2:
        return next(path for path in paths if path.suffix == ".hdr")
    if len(paths) == 1:
        other = ".img" if endings == {".hdr"} else ".hdr"
        raise DataError(f"{paths[0]}: the {other} file that belongs to it is missing")
    raise DataError(
        f"{paths[0].parent}: {name_some([path.name for path in paths])}: keep one format of this file, not several"
    )


def prepare_folder(folder: Path, *, force: bool = False) -> None:
    """Creates the folder, or checks that it is empty.

    With `force`, the files of an earlier `write_iseg_folder` are deleted; they are recognised by their headers. Raises
    DataError, before anything is deleted, if there is any other file, or without `force` any file at all.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
        foreign = [path.name for path in present if not _is_own(path)]
        if foreign:
            raise DataError(
                f"{folder}: contains files that dlx did not write, so nothing was changed: {name_some(foreign)}"
            )
        if present and not force:
            raise DataError(f"{folder}: already contains a phantom; --force replaces it")
        for path in present:
            path.unlink()
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _is_own(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    name = path.name
    if name.startswith(".") and name.endswith(PART_ENDING):  # left by an interrupted writer
        return _FILE.fullmatch(name[1 : -len(PART_ENDING)]) is not None
    header = path.with_suffix(".hdr")
    named = _FILE.fullmatch(name)
    if named is None or named[3] not in ("hdr", "img"):
        return False
    return header.is_file() and read_description(header).startswith(_DESCRIPTION)


def write_iseg_folder(
    folder: Path,
    subjects: Iterable[tuple[str, npt.NDArray[np.float32], npt.NDArray[np.uint8]]],
    *,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    format: PairFormat = "analyze",  # noqa: A002 (the word of the command line)
    force: bool = False,
) -> int:
    """Writes subjects as an iSeg-2017 folder of `.hdr`/`.img` pairs and returns their number.

    A subject is (`subject-N`, image (2, D, H, W) of whole numbers within 16 bits, mask (D, H, W) of classes 0..3).
    `spacing_mm` is (d, h, w). The files of the challenge are Analyze 7.5. Raises DataError as `prepare_folder` does and
    if a file cannot be written; ValueError for a subject that these files cannot store.
    """
    prepare_folder(folder, force=force)
    values = np.array(LABEL_VALUES, dtype=np.uint8)
    written = 0
    for subject, image, mask in subjects:
        whole = image.astype(np.int16)
        if not _FILE.fullmatch(f"{subject}-T1.hdr") or len(image) != len(CHANNELS) or (whole != image).any():
            raise ValueError(f"{subject}: cannot be written as an iSeg-2017 subject")
        # The label is written first: an interrupted subject then lacks a channel, which is an error, and is not taken
        # for an unlabelled subject.
        parts = {"label": values[mask], **dict(zip(CHANNELS, whole, strict=True))}
        for part, array in parts.items():
            write_pair(
                folder / f"{subject}-{part}.hdr",
                array,
                spacing_mm=spacing_mm,
                description=f"{_DESCRIPTION} {subject} {part}",
                format=format,
            )
        written += 1
    return written
