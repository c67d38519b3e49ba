"""Prepares cases from files or a phantom, in parallel: reads, checks, maps label values to classes, normalises.

Caching is in `cache`, the checks of single files are in `volumes`.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlx.data.cases import IGNORED, Case, Dataset, Declaration, fingerprint
from dlx.data.geometry.orientation import CANONICAL, find_turn, orientation_of, turn_to_canonical
from dlx.data.geometry.resample import Spacing
from dlx.data.geometry.same_voxels import check_same_voxels
from dlx.data.intensities.ct import ranges_of, sample_foreground, windowed_channels
from dlx.data.intensities.measures import measure_intensities, negative_fraction
from dlx.data.intensities.normalize import foreground_of
from dlx.data.intensities.rounding import rounding_error, stored_type
from dlx.data.intensities.whiten import strongest_correlation
from dlx.data.layouts.listing import CaseFiles, Listing, name_some
from dlx.data.notes import FileNote
from dlx.data.thumbnails import make_thumbnail
from dlx.data.volumes.header import Note
from dlx.data.volumes.reading import Volume, content_hash, read_volume, value_hash
from dlx.settings import registry
from dlx.settings.spec import Geometry
from dlx.settings.text import counted
from dlx.system.cpu_cores import available_cores
from dlx.system.errors import DataError, FilesError
from dlx.system.memory import host_memory_bytes
from dlx.system.threads import thread_pool

ReportProgress = Callable[[int, int], None]

# Only one thread decodes at a time (see `decoder`); meanwhile the others check, hash and normalise without holding the
# GIL. Measured on two cores: two threads are as fast as with parallel decoding. Each holds one subject in memory.
MAX_THREADS = 4
MAX_LINES = 20  # in a message about many files


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
    if len(wrong) > MAX_LINES:
        wrong[MAX_LINES - 1 :] = [f"... and {len(wrong) - MAX_LINES + 1} more"]
    if wrong:
        raise FilesError("\n".join(wrong))
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
    volumes: dict[Path, Volume] = {}
    wrong: list[str] = []
    for path in (*files.images, files.mask):
        is_image = path != files.mask
        try:
            volumes[path] = read_volume(
                path,
                allow_rgb=listing.allow_rgb and is_image,
                allow_4d=listing.allow_4d and is_image,
                geometry=geometry,
            )
        except DataError as error:
            wrong.append(str(error))
    if wrong:
        raise FilesError("\n".join(wrong))
    first, mask = volumes[files.images[0]], volumes[files.mask]
    notes = {path: [*volume.notes] for path, volume in volumes.items()}
    for path in (*files.images[1:], files.mask):
        notes[path] += check_same_voxels(first, volumes[path], str(files.images[0]), path.name, geometry=geometry)
    classes = to_classes(mask.array, listing.label_values, files.mask, listing.ignored_value)
    channels = [volumes[path].array for path in files.images]
    image = channels[0] if len(channels) == 1 else np.concatenate(channels)
    if len(image) != len(listing.channels):
        declared = f"{len(listing.channels)} are declared ({name_some(listing.channels)})"
        raise DataError(f"{files.images[0]}: {len(image)} channels in the file, but {declared}")
    spacing_mm = first.spacing_mm
    if any(note.kind == "resolution" for found in notes.values() for note in found):
        spacing_mm = (1.0, 1.0, 1.0)  # if the files of a case differ in resolution, it is not that of the sample
        notes = {path: [note for note in found if note.kind != "screen"] for path, found in notes.items()}
    orientation = orientation_of(first.placement.direction) if first.has_directions else ""
    case = prepare_arrays(files.id, image, classes, spacing_mm, declaration, orientation)
    return replace(case, notes=tuple(_of_file(path, note) for path, found in notes.items() for note in found))


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
    try:
        normalized, pad_value = registry.load("normalizer", part.name)(image, **part.args)
    except DataError as error:
        raise DataError(f"case {case_id!r}: {error}") from error
    classes = np.ascontiguousarray(mask, np.uint8)
    has_window = windowed_channels(part, len(image))
    foreground = sample_foreground(image, classes) if any(has_window) else None
    rounding = rounding_error(normalized, () if foreground is None else ranges_of(foreground, has_window))
    channels_last = np.empty((*image.shape[1:], len(image)), stored_type(rounding))
    channels_last[...] = np.moveaxis(normalized, 0, -1)
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
        first = strange[fractions][0]
        what = f"{int(fractions.sum())} voxels are not whole numbers (such as {first!s})"
        raise DataError(f"{path}: not a label file: {what}; if these are rounding errors, save the file rounded")
    found, counts = np.unique(strange, return_counts=True)
    pairs = zip(found[:5], counts[:5], strict=True)
    shown = ", ".join(f"{float(value):.15g} ({counted(int(count), 'voxel')})" for value, count in pairs)
    more = f" and {len(found) - 5} more values" if len(found) > 5 else ""
    declared = ", ".join(str(value) for value in label_values)
    raise DataError(
        f"{path}: undeclared label values: {shown}{more} (declared: {declared}); declare each as a class, or as the "
        "ignore label if nobody labelled its voxels"
    )
