"""Prepares cases from files or a phantom, in parallel: reads, checks, maps label values to classes, normalises.

Caching is in `cache`, the checks of single files are in `volumes`.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlx.data.cases import IGNORED, Case, Dataset, Declaration, fingerprint
from dlx.data.geometry.orientation import CANONICAL, find_turn, orientation_of, turn_to_canonical
from dlx.data.geometry.resample import Spacing
from dlx.data.geometry.same_voxels import check_same_voxels
from dlx.data.intensities.ct import Windows, ranges_of, sample_foreground, windowed_channels
from dlx.data.intensities.measures import measure_intensities, negative_fraction
from dlx.data.intensities.normalize import foreground_of
from dlx.data.intensities.rounding import Range, rounding_error, stored_type
from dlx.data.intensities.whiten import strongest_correlation
from dlx.data.layouts.listing import CaseFiles, Listing, name_some
from dlx.data.notes import FileNote
from dlx.data.thumbnails import make_thumbnail
from dlx.data.volumes.header import Note
from dlx.data.volumes.reading import Volume, content_hash, read_volume, value_hash
from dlx.settings import registry
from dlx.settings.part import Part
from dlx.settings.spec import Geometry
from dlx.settings.text import counted
from dlx.system.cpu_cores import available_cores
from dlx.system.errors import DataError, FilesError, files_error
from dlx.system.memory import host_memory_bytes
from dlx.system.threads import thread_pool

ReportProgress = Callable[[int, int], None]

# Only one thread decodes at a time (see `decoder`); meanwhile the others check, hash and normalise without holding the
# GIL. Measured on two cores: two threads are as fast as with parallel decoding. Each holds one subject in memory.
MAX_THREADS = 4


def prepare_all(
    declaration: Declaration,
    source: str,
    num_cases: int,
    prepare: Callable[[int], Case],
    progress: ReportProgress | None,
) -> Dataset:
    """All cases, each made by `prepare(index)`, several in parallel; `progress(done, total)` is called after each.

    Raises DataError after all cases have been tried; its message has a line per problem in the order of cases, at most
    20. Raises it at once if the cases read so far and their copy for training exceed the memory. Each thread needs, in
    bytes per voxel: the image as stored, 4 C, and 12 for statistics (0.16 GiB for 144 x 192 x 256 voxels with two
    channels of 16 bits). A prepared case takes 2 C + 1, or 4 C + 1 as float32.
    """
    cases: list[Case] = []
    wrong: list[str] = []
    kept_bytes = 0

    def attempt(index: int) -> Case | list[str]:
        try:
            return prepare(index)
        except DataError as error:
            return str(error).splitlines()

    with thread_pool(min(MAX_THREADS, available_cores())) as pool:
        for done, outcome in enumerate(pool.map(attempt, range(num_cases)), start=1):
            if isinstance(outcome, Case):
                cases.append(outcome)
                kept_bytes += outcome.image.nbytes + outcome.mask.nbytes
                _check_memory(kept_bytes, len(cases), num_cases)
            else:
                wrong += outcome
            if progress is not None:
                progress(done, num_cases)
    if wrong:
        raise files_error(wrong)
    return Dataset.of(declaration, source, tuple(cases), fingerprint(declaration, tuple(cases)))


def _check_memory(kept_bytes: int, num_read: int, num_cases: int) -> None:
    """DataError if the cases that were read and their copy for training (`VoxelStore`) exceed the memory."""
    memory = host_memory_bytes()
    if memory is None or 2 * kept_bytes <= memory:
        return
    read, both = kept_bytes / 2**30, 2 * kept_bytes * num_cases / num_read / 2**30
    raise DataError(
        f"the first {num_read} of {num_cases} cases take {read:.3g} GiB, and training needs a copy of them; for all "
        f"cases that would be about {both:.3g} GiB of memory, of which there are {memory / 2**30:.3g} GiB: use fewer "
        "cases, or crop or resample the files to fewer voxels"
    )


def prepare_files(listing: Listing, declaration: Declaration, files: CaseFiles, geometry: Geometry = "image") -> Case:
    """One case from its files, with notes on ambiguities in their headers.

    Raises DataError if files cannot be read or do not match each other: a line per unreadable file.
    """
    read = _read_image(
        files.images, listing.channels, files.mask, allow_rgb=listing.allow_rgb, allow_4d=listing.allow_4d,
        geometry=geometry,
    )  # fmt: skip
    assert read.mask is not None
    classes = to_classes(read.mask, listing.label_values, files.mask, listing.ignored_value)
    case = prepare_arrays(files.id, read.array, classes, read.spacing_mm, declaration, read.orientation)
    return replace(case, notes=read.notes)


@dataclass(frozen=True)
class ReadImage:
    """The decoded files of a case: all channels (C, D, H, W), and the mask file (C, D, H, W) if there is one."""

    array: NDArray[Any]
    mask: NDArray[Any] | None
    spacing_mm: Spacing
    orientation: str
    notes: tuple[FileNote, ...]


def read_scan(files: Sequence[Path], channels: Sequence[str], geometry: Geometry = "image") -> ReadImage:
    """The channels of a scan without a mask: a file for each, or one file with all of them, RGB or along a fourth axis.

    Raises DataError as `prepare_files` does.
    """
    has_all = len(files) == 1 and len(channels) > 1
    return _read_image(
        files, channels, None, allow_rgb=has_all and len(channels) == 3, allow_4d=has_all, geometry=geometry
    )


def _read_image(
    images: Sequence[Path],
    channel_names: Sequence[str],
    mask: Path | None,
    *,
    allow_rgb: bool,
    allow_4d: bool,
    geometry: Geometry,
) -> ReadImage:
    volumes: dict[Path, Volume] = {}
    wrong: list[str] = []
    for path in (*images, *([] if mask is None else [mask])):
        is_image = path != mask
        try:
            volumes[path] = read_volume(
                path, allow_rgb=allow_rgb and is_image, allow_4d=allow_4d and is_image, geometry=geometry
            )
        except DataError as error:
            wrong.append(str(error))
    if wrong:
        raise FilesError("\n".join(wrong))
    first, *others = volumes
    notes = {path: [*volume.notes] for path, volume in volumes.items()}
    for path in others:
        notes[path] += check_same_voxels(volumes[first], volumes[path], str(first), path.name, geometry=geometry)
    channels = [volumes[path].array for path in images]
    image = channels[0] if len(channels) == 1 else np.concatenate(channels)
    if len(image) != len(channel_names):
        declared = f"{len(channel_names)} are declared ({name_some(channel_names)})"
        hint = "" if mask is not None or len(image) > 1 else "; a file for each is named CASE_0000, CASE_0001 ..."
        raise DataError(f"{first}: {counted(len(image), 'channel')} in the file, but {declared}{hint}")
    spacing_mm = volumes[first].spacing_mm
    if any(note.kind == "resolution" for found in notes.values() for note in found):
        spacing_mm = (1.0, 1.0, 1.0)  # if the files of a case differ in resolution, it is not that of the sample
        notes = {path: [note for note in found if note.kind != "screen"] for path, found in notes.items()}
    return ReadImage(
        image,
        None if mask is None else volumes[mask].array,
        spacing_mm,
        orientation_of(volumes[first].placement.direction) if volumes[first].has_directions else "",
        tuple(_of_file(path, note) for path, found in notes.items() for note in found),
    )


def _of_file(path: Path, note: Note) -> FileNote:
    return FileNote(note.kind, f"{path.parent.name}/{path.name}", note.detail, note.amount)


def prepare_arrays(
    case_id: str,
    image: NDArray[Any],
    mask: NDArray[np.uint8],
    spacing_mm: Spacing,
    declaration: Declaration,
    orientation: str = "",
) -> Case:
    """A case from its decoded image (C, D, H, W) and mask of classes (D, H, W). Raises DataError, naming the case."""
    part = declaration.normalize
    classes = np.ascontiguousarray(mask, np.uint8)
    has_window = windowed_channels(part, len(image))
    foreground = sample_foreground(image, classes) if any(has_window) else None
    ranges = () if foreground is None else ranges_of(foreground, has_window)
    try:
        channels_last, pad_value, rounding = _normalize(image, part, ranges)
    except DataError as error:
        raise DataError(f"case {case_id!r}: {error}") from error
    turned = turn_to_canonical(channels_last, orientation)
    order, _ = find_turn(orientation, CANONICAL)
    is_masked = part.args.get("over") == "foreground"
    return Case(
        id=case_id,
        image=channels_last,
        mask=classes,
        spacing_mm=spacing_mm,
        pad_value=pad_value,
        content_hash=_joined(content_hash(channel) for channel in image),
        mask_hash=content_hash(classes),
        value_hash=_joined(value_hash(channel) for channel in image),
        correlations=_correlations(image, channels_last) if part.name == "whiten" else None,
        foreground=foreground,
        rounding_error=rounding if rounding is not None and np.isfinite(rounding) else None,
        orientation=orientation,
        prepared_hash=value_hash(turned),
        intensities=measure_intensities(image, foreground_of(image) if is_masked else None),
        negative_fraction=negative_fraction(image[0]),
        thumbnail=make_thumbnail(turned[..., 0], [spacing_mm[axis] for axis in order]),
    )


def prepare_scan(case_id: str, read: ReadImage, normalize: Part, windows: Windows) -> Case:
    """A scan as a case whose mask is background alone, prepared as a training case is.

    `normalize` is bound. `windows` are those of the channels if they are clipped later; training cases, of which the
    mask is known, have the range of their labelled voxels in their place. Hashes and what only warnings need are left
    empty. Raises DataError, naming the scan.
    """
    ranges = [None if window is None else (window.low, window.high) for window in windows]
    try:
        channels_last, pad_value, rounding = _normalize(read.array, normalize, ranges)
    except DataError as error:
        raise DataError(
            f"case {case_id!r} cannot be normalised as the training cases were (data.normalize={normalize}): {error}"
        ) from error
    return Case(
        id=case_id,
        image=channels_last,
        mask=np.zeros(channels_last.shape[:3], np.uint8),
        spacing_mm=read.spacing_mm,
        pad_value=pad_value,
        content_hash="",
        notes=read.notes,
        rounding_error=rounding if rounding is not None and np.isfinite(rounding) else None,
        orientation=read.orientation,
    )


def _normalize(
    image: NDArray[Any], normalize: Part, ranges: Sequence[Range | None]
) -> tuple[NDArray[Any], NDArray[np.float32], float | None]:
    """The normalised image (D, H, W, C) in the type in which it is stored, its pad value, and the rounding error of
    float16, for which channels with a range are clipped to it.
    """
    normalized, pad_value = registry.load("normalizer", normalize.name)(image, **normalize.args)
    rounding = rounding_error(normalized, ranges)
    channels_last = np.empty((*image.shape[1:], len(image)), stored_type(rounding))
    channels_last[...] = np.moveaxis(normalized, 0, -1)
    return channels_last, pad_value, rounding


def _correlations(image: NDArray[Any], stored: NDArray[Any]) -> tuple[float, float] | None:
    """The strongest correlation of two channels in the foreground, before preparation and as stored."""
    foreground = foreground_of(image) if (image[0] > 0).any() else None
    before = strongest_correlation(image, foreground)
    after = strongest_correlation(np.moveaxis(stored, -1, 0), foreground)
    return None if before is None or after is None else (before, after)


def _joined(hashes: Iterable[str]) -> str:
    return hashlib.blake2b("".join(hashes).encode(), digest_size=16).hexdigest()


def to_classes(
    labels: NDArray[Any], label_values: Sequence[int], path: Path, ignored_value: int | None = None
) -> NDArray[np.uint8]:
    """The classes (D, H, W) of a label volume (1, D, H, W): `label_values[k]` becomes k, `ignored_value` IGNORED.

    Raises DataError with file, values and voxel counts if voxels have undeclared values.
    """
    if len(labels) != 1:
        raise DataError(f"{path}: a label file must have one channel, and has {len(labels)}")
    volume = labels[0]
    classes = np.zeros(volume.shape, np.uint8)
    known = volume == label_values[0]
    for k, value in enumerate(
        label_values[1:], start=1
    ):  # one pass per class: fast, and without a copy of the volume in a wider type
        of_class = volume == value
        classes[of_class] = k
        known |= of_class
    if ignored_value is not None:
        is_ignored = volume == ignored_value
        classes[is_ignored] = IGNORED
        known |= is_ignored
    if not known.all():
        _refuse_labels(volume[~known], label_values, path)
    return classes


def _refuse_labels(strange: NDArray[Any], label_values: Sequence[int], path: Path) -> None:
    fractions = strange != np.rint(strange)
    if fractions.any():
        raise not_labels(path, int(fractions.sum()), strange[fractions][0])
    found, counts = np.unique(strange, return_counts=True)
    pairs = zip(found[:5], counts[:5], strict=True)
    shown = ", ".join(f"{float(value):.15g} ({counted(int(count), 'voxel')})" for value, count in pairs)
    more = f" and {len(found) - 5} more values" if len(found) > 5 else ""
    declared = ", ".join(str(value) for value in label_values)
    raise DataError(
        f"{path}: undeclared label values: {shown}{more} (declared: {declared}); declare each as a class, or as the "
        "ignore label if nobody labelled its voxels"
    )


def not_labels(path: Path, number: int, example: Any) -> DataError:
    """The error for a label file in which so many voxels are not whole numbers, as the example."""
    what = "1 voxel is not a whole number" if number == 1 else f"{number} voxels are not whole numbers"
    what += f" ({'it is' if number == 1 else 'such as'} {example!s})"
    return DataError(f"{path}: not a label file: {what}; if these are rounding errors, save the file rounded")
