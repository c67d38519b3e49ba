"""Opens a data set: a folder of images, a phantom or a file of prepared data; uses the cache if it is valid.

The classes `Case` and `Dataset` are defined in `cases`; `prepare` reads and prepares the cases.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dlx.data import cache, prepare
from dlx.data.cache_file import Origin
from dlx.data.cases import IGNORED, Declaration
from dlx.data.cases import Case as Case
from dlx.data.cases import Dataset as Dataset
from dlx.data.geometry.common_grid import describe_grid, has_changes, to_common_grid
from dlx.data.geometry.pictures import distance_unit
from dlx.data.layouts.channel_schemes import choose_normalizer
from dlx.data.layouts.listing import DrawnListing, Listing, name_some
from dlx.data.notes import HARMLESS, describe_notes
from dlx.data.splits.groups import folder_groups
from dlx.settings import registry
from dlx.settings.binding import bind_parts, identifying_part
from dlx.settings.part import Part, spell_value
from dlx.settings.spec import DataSpec, Geometry
from dlx.system.errors import DataError


@dataclass(frozen=True)
class Preparation:
    """How the data are prepared; known before any voxel is read."""

    source: str
    place: str  # identifies the cache file
    origin: Origin  # decides whether the cache file is still valid
    make: Callable[[prepare.ReportProgress | None], Dataset]
    remarks: tuple[str, ...] = ()
    geometry: Geometry = "image"


def open_dataset(
    spec: DataSpec,
    *,
    cache_dir: Path | None,
    verify: bool = False,
    keep: bool = True,
    progress: prepare.ReportProgress | None = None,
) -> Dataset:
    """The prepared cases of `spec.source`, from the cache if the files look unchanged. `~` in a path is not expanded.

    `cache_dir=None` neither reads nor writes a cache; `keep=False` does not write one. `verify` reads all files again
    and adds a remark on cases whose content changed although size and time did not, or that nothing changed.
    `progress(done, total)` is called after each case that is read. A source whose path ends in .safetensors is opened
    as a prepared data set. A problem with the cache gives a remark, never an error.

    Raises SettingError for an unknown name or argument. Raises DataError if anything is wrong with the files, after all
    have been tried; its message has a line per problem, at most 20. Memory: see `Case` and `prepare.prepare_all`.
    """
    spec = bind_parts(spec)
    source, path = spec.source, spec.path
    if source.name == "folder" and path is not None and path.suffix == cache.ENDING and not path.is_dir():
        loaded = _on_asked_grid(cache.load_cache(path, normalize=spec.normalize), spec)
        dataset = _with_notes(replace(loaded, source=str(path)))
        dataset = dataset.with_remarks(*choose_normalizer(spec.normalize, dataset.layout, dataset.channels)[1])
        if spec.geometry == "strict" and _has_differences(dataset):
            raise DataError(
                f"{path}: prepared with data.geometry=image from files that data.geometry=strict refuses; open it with "
                "--set data.geometry=image"
            )
        return (
            dataset.with_remarks(f"{path}: only the checksums of prepared data can be verified") if verify else dataset
        )
    listing = registry.load("data", source.name)(**source.args)
    preparation = (
        _preparation_from_files(path, listing, spec)
        if path is not None and isinstance(listing, Listing)
        else _preparation_of_drawn(source, listing, spec)
    )
    return _open(preparation, cache_dir, verify, keep, progress)


def _open(
    preparation: Preparation, cache_dir: Path | None, verify: bool, keep: bool, progress: prepare.ReportProgress | None
) -> Dataset:
    declared = preparation.origin.declaration

    def make() -> Dataset:
        return to_common_grid(preparation.make(progress), declared.orientation, declared.spacing_mm)

    if cache_dir is None:
        return _with_notes(make()).with_remarks(*preparation.remarks)
    file = cache.cache_path(cache_dir, preparation.place, declared)
    kept, remarks = cache.find(file, preparation.origin)
    is_refused = kept is not None and preparation.geometry == "strict" and _has_differences(kept)
    if kept is not None and not verify and not is_refused:
        return _with_notes(replace(kept, source=preparation.source, cache_file=file)).with_remarks(*preparation.remarks)
    dataset = make()
    if kept is not None and kept.fingerprint != dataset.fingerprint:
        changed = f"the content of {name_some(_changed(kept, dataset))} changed, but size and time did not"
        remarks = (f"{changed}; the cache file was rebuilt",)
    elif kept is not None and verify:
        remarks = (*remarks, "all files were read again: nothing has changed")
    if keep and (kept is None or kept.fingerprint != dataset.fingerprint):
        failure = cache.keep(file, dataset, preparation.origin)
        remarks += failure
        kept = None if failure else dataset
    if kept is not None and kept.fingerprint == dataset.fingerprint:
        dataset = replace(dataset, cache_file=file)
    return _with_notes(dataset).with_remarks(*preparation.remarks, *remarks)


def _with_notes(dataset: Dataset) -> Dataset:
    """The data set with a remark for each kind of note on its files, and on cases that were turned or resampled."""
    notes = describe_notes(note for case in dataset.cases for note in case.notes)
    return dataset.with_remarks(*notes, *describe_grid(dataset))


def _on_asked_grid(dataset: Dataset, spec: DataSpec) -> Dataset:
    """A prepared file's data on the grid that the settings ask for; DataError if it was made on another one."""
    grid = dataset.grid
    if grid is None or not has_changes(dataset.cases):
        return to_common_grid(dataset, spec.orientation, spec.spacing_mm)
    made = {"orientation": grid.asked_orientation, "spacing_mm": grid.asked_spacing_mm}
    asked = {"orientation": spec.orientation, "spacing_mm": spec.spacing_mm}
    if made != asked:
        unlike = [key for key in made if made[key] != asked[key]]
        was, now = ([f"data.{key}={spell_value(values[key])}" for key in unlike] for values in (made, asked))
        raise DataError(
            f"{dataset.source}: prepared with {', '.join(was)}, but the settings are {', '.join(now)}; open it with "
            + " ".join(f"--set {setting}" for setting in was)
        )
    return dataset


def _has_differences(dataset: Dataset) -> bool:
    """Whether `geometry="strict"` would refuse any of its files."""
    return any(note.kind not in HARMLESS for case in dataset.cases for note in case.notes)


def _changed(before: Dataset, after: Dataset) -> list[str]:
    """Ids of the cases whose decoded image, mask or spacing differs."""
    known = {case.id: (case.content_hash, case.mask_hash, case.spacing_mm) for case in before.cases}
    return [case.id for case in after.cases if known[case.id] != (case.content_hash, case.mask_hash, case.spacing_mm)]


def _preparation_from_files(folder: Path, listing: Listing, spec: DataSpec) -> Preparation:
    normalize, schemes = choose_normalizer(spec.normalize, listing.layout, listing.channels)
    geometry = spec.geometry
    declaration = Declaration(
        layout=listing.layout,
        channels=listing.channels,
        class_names=listing.class_names,
        label_values=listing.label_values,
        ignored_value=listing.ignored_value,
        regions=listing.regions,
        region_order=listing.region_order,
        normalize=normalize,
        orientation=spec.orientation,
        spacing_mm=spec.spacing_mm,
    )
    # Sizes and times are taken before reading, so that a change during reading invalidates the cache file.
    files = tuple(state for case in listing.cases for state in cache.state_of(folder, case))

    def make(progress: prepare.ReportProgress | None) -> Dataset:
        def one(index: int) -> Case:
            return prepare.prepare_files(listing, declaration, listing.cases[index], geometry)

        dataset = prepare.prepare_all(declaration, str(folder), len(listing.cases), one, progress)
        unit = distance_unit([file.path for file in files], [case.spacing_mm for case in dataset.cases])
        return replace(dataset, distance_unit=unit)

    origin = Origin(declaration=declaration, files=files, groups=folder_groups(folder))
    return Preparation(str(folder), str(folder.resolve()), origin, make, (*listing.remarks, *schemes), geometry)


def _preparation_of_drawn(source: Part, listing: DrawnListing, spec: DataSpec) -> Preparation:
    declaration = Declaration(
        layout=source.name,
        channels=listing.channels,
        class_names=listing.class_names,
        label_values=listing.label_values or tuple(range(len(listing.class_names))),
        normalize=choose_normalizer(spec.normalize, source.name, listing.channels)[0],
        orientation=spec.orientation,
        spacing_mm=spec.spacing_mm,
        ignored_value=IGNORED if listing.has_ignored else None,
        regions=listing.regions,
        region_order=listing.region_order,
    )

    def make(progress: prepare.ReportProgress | None) -> Dataset:
        def one(index: int) -> Case:
            image, mask = listing.case(index)
            return prepare.prepare_arrays(listing.case_ids[index], image, mask, listing.spacing_mm, declaration)

        return prepare.prepare_all(declaration, str(source), len(listing.case_ids), one, progress)

    source = identifying_part("data", source)
    drawn = f"{source} version {listing.version}"
    return Preparation(str(source), drawn, Origin(declaration=declaration, phantom=drawn), make)
