"""The file of a prepared data set: one safetensors file, written whole and checked when it is read.

It holds flat tensors of all cases, one after another: `images` (float16, channels last), `wide_images` (float32, of the
cases that need it), `masks` (uint8), `original_masks` (uint8, of the resampled ones), `thumbnails` (float16) and
`foreground` (float32); and a JSON description in its header. `cache` decides where the file lies and whether it is
valid.
"""

import contextlib
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import accumulate, chain
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open

from dlx.data.cases import DATA_VERSION, IGNORED, Case, Dataset, Declaration, Grid, Original
from dlx.data.geometry.orientation import TURN_VERSION
from dlx.data.geometry.pictures import distance_unit
from dlx.data.geometry.resample import RESAMPLE_VERSION
from dlx.data.intensities.measures import ChannelIntensities
from dlx.data.notes import FileNote
from dlx.data.thumbnails import Thumbnail
from dlx.settings.part import Section
from dlx.settings.spec import Positive
from dlx.system.errors import DataError
from dlx.system.files import replacing

# Increase this when the file stores more about the same data: an older cache file of a folder is then rebuilt, and an
# older file that is opened by itself is read without the additions. 2 added orientation, intensities and thumbnails;
# 3 the rounding error of float16, images as float32, values of labelled voxels (`foreground`), and the common grid with
# the original masks; 4 leaves the orientation empty where a file gives none, and keeps oblique slices whole.
FILE_FORMAT = 4


class FileState(NamedTuple):
    """A file that a case was read from; a change is detected by size or time (by content with verify=True)."""

    case: str
    path: str  # relative to the data folder
    size: int
    mtime_ns: int


class Origin(Section):
    """What a prepared data set was made from; as long as it is unchanged, preparing again gives the same data."""

    declaration: Declaration
    files: tuple[FileState, ...] = ()
    groups: dict[str, str] = Field(
        default_factory=dict
    )  # the folder's groups.json, kept so that a prepared file can be split by persons
    phantom: str = ""  # its arguments and version; empty for data from files
    data_version: int = DATA_VERSION


class StoredCase(Section):
    id: str
    shape: tuple[Positive, Positive, Positive]
    spacing_mm: tuple[float, float, float]
    pad_value: tuple[float, ...]
    content_hash: str
    mask_hash: str
    value_hash: str
    correlations: tuple[float, float] | None = None
    notes: tuple[FileNote, ...] = ()
    is_wide: bool = False
    foreground_voxels: int | None = None
    rounding_error: float | None = None
    orientation: str = ""
    prepared_hash: str = ""
    intensities: tuple[ChannelIntensities, ...] = ()
    negative_fraction: float = 0.0
    thumbnail_cells: tuple[Positive, Positive, Positive] | None = None
    thumbnail_cell_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    stored_orientation: str = ""
    original_shape: tuple[Positive, Positive, Positive] | None = None
    original_spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)


# What a case and its stored form have alike; the other fields are arrays, which are stored as tensors or as numbers.
ALIKE = StoredCase.model_fields.keys() & {field.name for field in fields(Case)} - {"pad_value"}
# The tensors and their types. The last three are left out if they are empty, and a file of format 1 has the first two
# alone.
KINDS = {
    "images": "F16",
    "masks": "U8",
    "thumbnails": "F16",
    "wide_images": "F32",
    "foreground": "F32",
    "original_masks": "U8",
}


class Description(Section):
    """The JSON in the header."""

    origin: Origin
    file_format: int = 1
    fingerprint: str
    grid: Grid | None = None
    turn_version: int = 1
    resample_version: int = 1
    cases: Annotated[tuple[StoredCase, ...], Field(min_length=1)]


def write_cache(path: Path, dataset: Dataset, origin: Origin) -> None:
    """Writes the file atomically; raises OSError.

    The cases are written one by one, so that memory never holds a second copy of all voxels.
    """
    described = tuple(_describe(case) for case in dataset.cases)
    description = Description(
        origin=origin,
        file_format=FILE_FORMAT,
        fingerprint=dataset.fingerprint,
        grid=dataset.grid,
        turn_version=TURN_VERSION,
        resample_version=RESAMPLE_VERSION,
        cases=described,
    ).model_dump_json()
    tensors: dict[str, list[NDArray[Any]]] = {
        "images": [case.image for case in dataset.cases if not case.is_wide],
        "masks": [case.mask for case in dataset.cases],
        "thumbnails": [case.thumbnail.image for case in dataset.cases if case.thumbnail is not None],
    }
    optional: dict[str, list[NDArray[Any]]] = {
        "wide_images": [case.image for case in dataset.cases if case.is_wide],
        "original_masks": [case.original.mask for case in dataset.cases if case.original is not None],
        "foreground": [case.foreground for case in dataset.cases if case.foreground is not None],
    }
    tensors |= {name: arrays for name, arrays in optional.items() if arrays}
    header = _header(description, tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for array in chain.from_iterable(tensors.values()):
            file.write(array.data)


def _describe(case: Case) -> StoredCase:
    d, h, w = case.mask.shape
    stored = StoredCase(
        shape=(d, h, w),
        pad_value=tuple(float(value) for value in case.pad_value),
        is_wide=case.is_wide,
        foreground_voxels=None if case.foreground is None else case.foreground.shape[1],
        **{name: getattr(case, name) for name in ALIKE},
    )
    added: dict[str, Any] = {}
    if case.thumbnail is not None:
        added |= {"thumbnail_cells": case.thumbnail.image.shape, "thumbnail_cell_mm": case.thumbnail.cell_mm}
    if case.original is not None:
        added |= {"original_shape": case.original.mask.shape, "original_spacing_mm": case.original.spacing_mm}
    return stored.model_copy(update=added)


def _header(description: str, tensors: dict[str, list[NDArray[Any]]]) -> bytes:
    """The JSON part of the safetensors format (huggingface.co/docs/safetensors), padded to 8 bytes."""
    header: dict[str, Any] = {"__metadata__": {"dlx": description, "crc32": _checksums(description, tensors)}}
    start = 0
    for name, arrays in tensors.items():
        size = sum(array.size for array in arrays)
        end = start + sum(array.nbytes for array in arrays)
        header[name] = {"dtype": KINDS[name], "shape": [size], "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _checksums(description: str, tensors: dict[str, list[NDArray[Any]]]) -> str:
    """CRC-32 of the description and of each tensor, to detect any damage; takes about 1 s for 1 to 3 GB."""
    sums = [zlib.crc32(description.encode())]
    for arrays in tensors.values():
        checksum = 0
        for array in arrays:
            checksum = zlib.crc32(array.data, checksum)
        sums.append(checksum)
    return " ".join(f"{value:08x}" for value in sums)


def read_cache(path: Path, expected: Origin | None = None) -> Dataset | None:
    """The data set in a file. With `expected`, None if the file has another origin or an older format; this is checked
    before voxels are read.

    Raises DataError if the file is missing, not a prepared data set, damaged, or of another data version; or if cases
    were turned or resampled in another way than this dlx does.
    """
    with _opened(path) as file:
        text, description = _description(path, file.metadata())
        if expected is not None and (
            description.file_format != FILE_FORMAT or description.origin.model_dump_json() != expected.model_dump_json()
        ):
            return None
        names = [name for name in KINDS if name in file.keys()]  # noqa: SIM118 - not a dict
        tensors = {name: [file.get_tensor(name)] for name in names}
        if _checksums(text, tensors) != file.metadata()["crc32"]:
            raise DataError(f"{path}: damaged: the checksum of the voxels does not match")
        return _dataset(path, description, {name: arrays[0] for name, arrays in tensors.items()})


def read_groups(path: Path) -> dict[str, str]:
    """Case -> person, copied from the folder's groups.json when the file was made; DataError as for `read_cache`."""
    with _opened(path) as file:
        return _description(path, file.metadata())[1].origin.groups


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens the safetensors file; any error of its content, here or in the block, becomes a DataError of one line."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    errors = (SafetensorError, OSError, ValidationError, ValueError, LookupError, TypeError, RecursionError)
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except errors as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: damaged or not a prepared data set: {cause}") from error


def _description(path: Path, metadata: dict[str, str] | None) -> tuple[str, Description]:
    if not metadata or "dlx" not in metadata:
        raise DataError(f"{path}: a safetensors file, but not a prepared data set")
    text = metadata["dlx"]
    if f"{zlib.crc32(text.encode()):08x}" != metadata["crc32"].partition(" ")[0]:
        raise DataError(f"{path}: damaged: the checksum of the description does not match")
    _check_version(path, "data version", json.loads(text)["origin"]["data_version"], DATA_VERSION)
    description = Description.model_validate_json(text)
    if any(case.stored_orientation for case in description.cases):
        _check_version(path, "version of turning", description.turn_version, TURN_VERSION)
    if any(case.original_shape for case in description.cases):
        _check_version(path, "version of resampling", description.resample_version, RESAMPLE_VERSION)
    return text, description


def _check_version(path: Path, what: str, found: int, present: int) -> None:
    if found != present:
        versions = f"its {what} is {found}, this dlx has {present}"
        raise DataError(f"{path}: made by another version of dlx ({versions}): prepare the data again")


def _dataset(path: Path, description: Description, tensors: dict[str, NDArray[Any]]) -> Dataset:
    declaration, files, stored = description.origin.declaration, description.origin.files, description.cases
    num_channels = len(declaration.channels)
    images = _images(path, tensors, stored, num_channels)
    masks = _split(path, "masks", tensors["masks"], np.uint8, [case.shape for case in stored])
    if not _has_declared_classes(tensors["masks"], declaration):
        raise DataError(f"{path}: damaged: the masks do not match the description")
    cells = [case.thumbnail_cells or (0,) for case in stored]
    thumbnails = _split(path, "thumbnails", tensors.get("thumbnails", np.empty(0, np.float16)), np.float16, cells)
    sampled = [(num_channels, case.foreground_voxels or 0) for case in stored]
    foregrounds = _split(path, "foreground", tensors.get("foreground", np.empty(0, np.float32)), np.float32, sampled)
    originals = iter(_originals(path, description, tensors))
    cases = tuple(
        Case(
            image=image,
            mask=mask,
            pad_value=np.array(case.pad_value, np.float32),
            thumbnail=Thumbnail(thumbnail, case.thumbnail_cell_mm) if case.thumbnail_cells else None,
            foreground=None if case.foreground_voxels is None else foreground,
            original=Original(next(originals), case.original_spacing_mm) if case.original_shape else None,
            **{name: getattr(case, name) for name in ALIKE},
        )
        for case, image, mask, thumbnail, foreground in zip(stored, images, masks, thumbnails, foregrounds, strict=True)
    )
    unit = distance_unit(
        [file.path for file in files],
        [case.original_spacing_mm if case.original_shape else case.spacing_mm for case in stored],
    )
    dataset = Dataset.of(declaration, str(path), cases, description.fingerprint, unit)
    return replace(dataset, grid=description.grid)


def _originals(path: Path, description: Description, tensors: dict[str, NDArray[Any]]) -> list[NDArray[np.uint8]]:
    """The original masks of the resampled cases, in their order."""
    shapes = [case.original_shape for case in description.cases if case.original_shape]
    if not shapes:
        return []
    if not _has_declared_classes(tensors["original_masks"], description.origin.declaration):
        raise DataError(f"{path}: damaged: the original masks do not match the description")
    return _split(path, "original masks", tensors["original_masks"], np.uint8, shapes)


def _images(
    path: Path, tensors: dict[str, NDArray[Any]], stored: Sequence[StoredCase], num_channels: int
) -> list[NDArray[Any]]:
    """The images of all cases in their order, each in the type in which it was stored."""
    parts = {}
    for is_wide, name, kind in ((False, "images", np.float16), (True, "wide_images", np.float32)):
        shapes = [(*case.shape, num_channels) for case in stored if case.is_wide == is_wide]
        parts[is_wide] = iter(_split(path, name, tensors.get(name, np.empty(0, kind)), kind, shapes))
    return [next(parts[case.is_wide]) for case in stored]


def _has_declared_classes(masks: NDArray[np.uint8], declaration: Declaration) -> bool:
    if declaration.ignored_value is not None:
        masks = masks[masks != IGNORED]
    return bool(masks.max(initial=0) < len(declaration.label_values))


def _split(
    path: Path, name: str, tensor: NDArray[Any], kind: type, shapes: Sequence[tuple[int, ...]]
) -> list[NDArray[Any]]:
    """The arrays of all cases, from the tensor that holds one after another."""
    sizes = [math.prod(shape) for shape in shapes]
    if tensor.dtype != kind or tensor.shape != (sum(sizes),):
        raise DataError(f"{path}: damaged: the {name} do not match the description")
    parts = np.split(tensor, list(accumulate(sizes))[:-1]) if sizes else []
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
