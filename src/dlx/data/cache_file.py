"""The file of a prepared data set: one safetensors file, written whole and checked when it is read.

It holds flat tensors `images` (float16, channels last) and `masks` (uint8), case after case, and a description
in its header. When such a file is valid, and where it lies, is decided in `cache`.
"""

import contextlib
import json
import math
import zlib
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open

from dlx.data.cases import DATA_VERSION, Case, Dataset, Declaration
from dlx.data.notes import FileNote
from dlx.data.pictures import distance_unit
from dlx.errors import DataError
from dlx.files import replacing
from dlx.specs import Positive, Section


class FileState(NamedTuple):
    """A file that a case was read from; a change to it shows in size or time (verify=True looks inside)."""

    case: str
    path: str  # as seen from the data folder
    size: int
    mtime_ns: int


class Origin(Section):
    """What a prepared data set was made from: if this is unchanged, so is what would be made."""

    declaration: Declaration
    files: tuple[FileState, ...] = ()
    groups: dict[str, str] = Field(default_factory=dict)  # the folder's groups.json, which must go where the data go
    phantom: str = ""  # its arguments and version, for data that come from no files
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


class Description(Section):
    """The JSON in the header."""

    origin: Origin
    fingerprint: str
    cases: Annotated[tuple[StoredCase, ...], Field(min_length=1)]


def write_cache(path: Path, dataset: Dataset, origin: Origin) -> None:
    """Writes the file whole or not at all.

    Raises OSError. The cases are written one by one, so that no second copy of the voxels is in memory.
    """
    description = Description(
        origin=origin,
        fingerprint=dataset.fingerprint,
        cases=tuple(
            StoredCase(
                id=case.id,
                shape=case.mask.shape,
                spacing_mm=case.spacing_mm,
                pad_value=tuple(float(value) for value in case.pad_value),
                content_hash=case.content_hash,
                mask_hash=case.mask_hash,
                value_hash=case.value_hash,
                correlations=case.correlations,
                notes=case.notes,
            )
            for case in dataset.cases
        ),
    ).model_dump_json()
    images: list[NDArray[Any]] = [case.image for case in dataset.cases]
    masks: list[NDArray[Any]] = [case.mask for case in dataset.cases]
    header = _header(description, images, masks)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for array in images + masks:
            file.write(array.data)


def _header(description: str, images: list[NDArray[Any]], masks: list[NDArray[Any]]) -> bytes:
    """The JSON part of the safetensors format (huggingface.co/docs/safetensors), padded to 8 bytes."""
    num_values, num_voxels = sum(image.size for image in images), sum(mask.size for mask in masks)
    end = 2 * num_values
    header = {
        "__metadata__": {"dlx": description, "crc32": _checksums(description, images, masks)},
        "images": {"dtype": "F16", "shape": [num_values], "data_offsets": [0, end]},
        "masks": {"dtype": "U8", "shape": [num_voxels], "data_offsets": [end, end + num_voxels]},
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _checksums(description: str, images: list[NDArray[Any]], masks: list[NDArray[Any]]) -> str:
    """CRC-32 of description, images and masks: about 1 s for 1 to 3 GB, and any damage to a block shows."""
    sums = [zlib.crc32(description.encode()), 0, 0]
    for position, arrays in enumerate((images, masks), start=1):
        for array in arrays:
            sums[position] = zlib.crc32(array.data, sums[position])
    return " ".join(f"{value:08x}" for value in sums)


def read_cache(path: Path, expected: Origin | None = None) -> Dataset | None:
    """The data set in a file; None if it was not made from `expected` (which is seen before voxels are read).

    Raises DataError when the file is missing, not a prepared data set, damaged, or of another data version.
    """
    with _opened(path) as file:
        text, description = _description(path, file.metadata())
        if expected is not None and description.origin.model_dump_json() != expected.model_dump_json():
            return None
        images, masks = file.get_tensor("images"), file.get_tensor("masks")
        if _checksums(text, [images], [masks]) != file.metadata()["crc32"]:
            raise DataError(f"{path}: damaged: the checksums of its voxels do not agree")
        return _dataset(path, description, images, masks)


def read_groups(path: Path) -> dict[str, str]:
    """Case -> person as the folder's groups.json had it when the file was made; raises DataError as `read_cache`."""
    with _opened(path) as file:
        return _description(path, file.metadata())[1].origin.groups


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The safetensors file; whatever is odd about it, here or in the block, becomes a DataError of one line."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    odd = (SafetensorError, OSError, ValidationError, ValueError, LookupError, TypeError, RecursionError)
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except odd as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: damaged or not a prepared data set: {cause}") from error


def _description(path: Path, metadata: dict[str, str] | None) -> tuple[str, Description]:
    if not metadata or "dlx" not in metadata:
        raise DataError(f"{path}: a safetensors file, but not a prepared data set")
    text = metadata["dlx"]
    if f"{zlib.crc32(text.encode()):08x}" != metadata["crc32"].partition(" ")[0]:
        raise DataError(f"{path}: damaged: the checksum of its description does not agree")
    version = json.loads(text)["origin"]["data_version"]
    if version != DATA_VERSION:
        made = f"data version {version}, and this is {DATA_VERSION}"
        raise DataError(f"{path}: made by another version of dlx ({made}): prepare the data anew")
    return text, Description.model_validate_json(text)


def _dataset(path: Path, description: Description, images: NDArray[Any], masks: NDArray[Any]) -> Dataset:
    declaration, files = description.origin.declaration, description.origin.files
    num_channels = len(declaration.channels)
    ends = list(accumulate(math.prod(case.shape) for case in description.cases))
    if images.dtype != np.float16 or images.shape != (ends[-1] * num_channels,):
        raise DataError(f"{path}: damaged: its images are not those of its description")
    if masks.dtype != np.uint8 or masks.shape != (ends[-1],) or masks.max() >= len(declaration.class_names):
        raise DataError(f"{path}: damaged: its masks are not those of its description")
    per_case = zip(
        description.cases,
        np.split(images, [end * num_channels for end in ends[:-1]]),
        np.split(masks, ends[:-1]),
        strict=True,
    )
    return Dataset(
        layout=declaration.layout,
        source=str(path),
        channels=declaration.channels,
        classes=declaration.class_names,
        cases=tuple(
            Case(
                id=case.id,
                image=image.reshape(*case.shape, num_channels),
                mask=mask.reshape(case.shape),
                spacing_mm=case.spacing_mm,
                pad_value=np.array(case.pad_value, np.float32),
                content_hash=case.content_hash,
                mask_hash=case.mask_hash,
                value_hash=case.value_hash,
                correlations=case.correlations,
                notes=case.notes,
            )
            for case, image, mask in per_case
        ),
        fingerprint=description.fingerprint,
        label_values=declaration.label_values,
        normalize=str(declaration.normalize),
        distance_unit=distance_unit([file.path for file in files], [case.spacing_mm for case in description.cases]),
    )
