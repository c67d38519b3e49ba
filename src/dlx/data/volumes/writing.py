"""Writes label volumes in the format of an image and with its geometry; `writers` has a module for each format."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlx.data.volumes.header import BadFile
from dlx.data.volumes.nifti import header_path
from dlx.data.volumes.opening import show_path
from dlx.data.volumes.reading import split_ending
from dlx.data.volumes.writers.metaimage import encode_metaimage
from dlx.data.volumes.writers.nifti import encode_nifti, encode_pair
from dlx.data.volumes.writers.nrrd import encode_nrrd
from dlx.data.volumes.writers.png import encode_png
from dlx.data.volumes.writers.tiff import encode_tiff
from dlx.system.errors import DataError
from dlx.system.files import replacing

LabelFiles = dict[str, Iterator[bytes]]  # by ending; the last one makes the volume complete
ENCODERS = {
    ".nii.gz": encode_nifti,
    ".nii": encode_nifti,
    ".nrrd": encode_nrrd,
    ".mha": encode_metaimage,
    ".png": encode_png,
    ".tif": encode_tiff,
    ".tiff": encode_tiff,
}
LABEL_TYPES = (np.uint8, np.uint16, np.uint32, np.uint64)
MAX_LABEL = {".png": 2**16 - 1, ".tif": 2**32 - 1, ".tiff": 2**32 - 1, ".hdr": 2**31 - 1}  # of the others: 2^64 - 1


def label_type(values: Sequence[int]) -> np.dtype[Any]:
    """The smallest unsigned type that holds these label values, none of which is below 0."""
    highest = max(values)
    for one in LABEL_TYPES:
        if highest <= np.iinfo(one).max:
            return np.dtype(one)
    raise DataError(f"the label value {highest} is beyond 64 bits")


def label_endings(like: Path) -> tuple[str, ...]:
    """The endings of the files that `encode_labels` makes, spelled as in the name of the image: one, or `.img` and
    `.hdr`. DataError for a file of no known format.
    """
    _, ending = split_ending(like.name)
    if ending is None:
        raise DataError(f"{show_path(like)}: unknown file format")
    if ending.lower() in (".hdr", ".img"):
        return (".IMG", ".HDR") if ending.isupper() else (".img", ".hdr")
    return (ending,)


def check_label_values(values: Sequence[int], like: Path) -> None:
    """DataError if the format of an image cannot store these label values."""
    ending = label_endings(like)[-1]
    limit, highest = MAX_LABEL.get(ending.lower(), 2**64 - 1), max(values)
    if highest > limit:
        raise DataError(
            f"{show_path(like)}: labels are written in the format of the image, and {ending} has no whole numbers for "
            f"the label value {highest} (at most {limit}): convert the image to .nii.gz first"
        )


def encode_labels(labels: NDArray[Any], like: Path) -> LabelFiles:
    """The bytes of the files of a label volume (D, H, W), by their endings, in pieces.

    `like` is a file that `read_volume` has read, of the same size; its format, byte order and geometry are taken over:
    what its header says about where voxels lie is copied, not computed. `labels` are of an unsigned type; Analyze,
    which has none beyond 8 bits, stores signed ones. Raises DataError if the file changed, or cannot hold the labels.
    """
    endings = label_endings(like)
    try:
        encoded = (
            encode_pair(labels, header_path(like))
            if len(endings) == 2
            else {endings[0].lower(): ENCODERS[endings[0].lower()](labels, like)}
        )
    except BadFile as bad:
        raise DataError(f"{show_path(like)}: {bad}") from None
    return {ending: _naming_file(encoded[ending.lower()], like) for ending in endings}


def _naming_file(pieces: Iterator[bytes], like: Path) -> Iterator[bytes]:
    try:
        yield from pieces
    except BadFile as bad:
        raise DataError(f"{show_path(like)}: {bad}") from None


def write_labels(stem: Path, labels: NDArray[Any], like: Path) -> list[Path]:
    """Writes a label volume at `stem` with the ending of `like` (see `encode_labels`); each file atomically."""
    written = []
    for ending, pieces in encode_labels(labels, like).items():
        path = stem.with_name(stem.name + ending)
        with replacing(path) as file:
            for piece in pieces:
                file.write(piece)
        written.append(path)
    return written
