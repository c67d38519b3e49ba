"""Opening a data set: a folder of images, a phantom or a file of prepared data; from the cache where possible.

The classes `Case` and `Dataset` come from `cases`, how cases are read and prepared stands in `prepare`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from dlx.data import cache, prepare
from dlx.data.cache_file import Origin
from dlx.data.cases import Case as Case
from dlx.data.cases import Dataset as Dataset
from dlx.data.cases import Declaration
from dlx.data.layouts.channel_schemes import remarks_on_schemes
from dlx.data.layouts.listing import Listing, name_some
from dlx.data.notes import HARMLESS, describe_notes
from dlx.data.pictures import distance_unit
from dlx.data.split import folder_groups
from dlx.settings import registry
from dlx.settings.binding import bind_parts
from dlx.settings.spec import DataSpec, Geometry, Part
from dlx.system.errors import DataError


class DrawnListing(Protocol):
    """What a data source gives that draws its cases rather than reads them: the phantom."""

    @property
    def version(self) -> int: ...
    @property
    def channels(self) -> tuple[str, ...]: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def case_ids(self) -> tuple[str, ...]: ...
    @property
    def spacing_mm(self) -> tuple[float, float, float]: ...
    def case(self, index: int, /) -> tuple[Any, Any]: ...


@dataclass(frozen=True)
class Plan:
    """How the data would be made: known before a voxel is read."""

    source: str
    place: str  # finds the cache file
    origin: Origin  # tells whether it is still valid
    make: Callable[[prepare.Progress | None], Dataset]
    remarks: tuple[str, ...] = ()
    geometry: Geometry = "image"


def open_dataset(
    spec: DataSpec,
    *,
    cache_dir: Path | None,
    verify: bool = False,
    keep: bool = True,
    progress: prepare.Progress | None = None,
) -> Dataset:
    """The cases of `spec.source`, prepared; from the cache if its files look unchanged. `~` in a path is not expanded.

    `cache_dir=None` looks for nothing and keeps nothing, `keep=False` only looks. `verify` reads everything again and
    remarks on what changed without showing in size or time, or that nothing did. `progress(done, total)` is called
    after each case that is read. A source whose path ends in .safetensors is taken as a prepared data set. Trouble with
    the cache gives a remark, never an error.

    Raises SettingError for an unknown name or argument, DataError when anything about the files is wrong: after
    all were tried, with a line for each, 20 at most. Memory: see `Case` and `prepare.prepare_all`.
    """
    spec = bind_parts(spec)
    source, path = spec.source, spec.path
    if source.name == "folder" and path is not None and path.suffix == cache.ENDING and not path.is_dir():
        dataset = _with_notes(replace(cache.load_cache(path, normalize=spec.normalize), source=str(path)))
        if spec.geometry == "strict" and _has_differences(dataset):
            raise DataError(f"{path}: prepared with data.geometry=image, of files that strict refuses")
        return dataset.with_remarks(f"{path}: of prepared data only checksums can be verified") if verify else dataset
    listing = registry.load("data", source.name)(**source.args)
    plan = (
        _plan_files(path, listing, spec.normalize, spec.geometry)
        if path is not None and isinstance(listing, Listing)
        else _plan_drawn(source, listing, spec.normalize)
    )
    return _open(plan, cache_dir, verify, keep, progress)


def _open(plan: Plan, cache_dir: Path | None, verify: bool, keep: bool, progress: prepare.Progress | None) -> Dataset:
    if cache_dir is None:
        return _with_notes(plan.make(progress)).with_remarks(*plan.remarks)
    file = cache.cache_path(cache_dir, plan.place, plan.origin.declaration)
    kept, remarks = cache.find(file, plan.origin)
    is_refused = kept is not None and plan.geometry == "strict" and _has_differences(kept)
    if kept is not None and not verify and not is_refused:
        return _with_notes(replace(kept, source=plan.source)).with_remarks(*plan.remarks)
    dataset = plan.make(progress)
    if kept is not None and kept.fingerprint != dataset.fingerprint:
        changed = f"the content of {name_some(_changed(kept, dataset))} changed, though size and time did not"
        remarks = (f"{changed}; the cache file was made anew",)
    elif kept is not None and verify:
        remarks = (*remarks, "every file was read again: nothing has changed")
    if keep and (kept is None or kept.fingerprint != dataset.fingerprint):
        remarks += cache.keep(file, dataset, plan.origin)
    return _with_notes(dataset).with_remarks(*plan.remarks, *remarks)


def _with_notes(dataset: Dataset) -> Dataset:
    """The data set with a line for each kind of note on its files."""
    return dataset.with_remarks(*describe_notes(note for case in dataset.cases for note in case.notes))


def _has_differences(dataset: Dataset) -> bool:
    """Whether `geometry="strict"` would refuse one of its files."""
    return any(note.kind not in HARMLESS for case in dataset.cases for note in case.notes)


def _changed(before: Dataset, after: Dataset) -> list[str]:
    """Ids of the cases whose decoded image, mask or spacing is another one."""
    known = {case.id: (case.content_hash, case.mask_hash, case.spacing_mm) for case in before.cases}
    return [case.id for case in after.cases if known[case.id] != (case.content_hash, case.mask_hash, case.spacing_mm)]


def _plan_files(folder: Path, listing: Listing, normalize: Part, geometry: Geometry) -> Plan:
    declaration = Declaration(
        layout=listing.layout,
        channels=listing.channels,
        class_names=listing.class_names,
        label_values=listing.label_values,
        normalize=normalize,
    )
    # Sizes and times are taken before reading, so a file that changes meanwhile makes the cache file invalid.
    files = tuple(state for case in listing.cases for state in cache.state_of(folder, case))

    def make(progress: prepare.Progress | None) -> Dataset:
        def one(index: int) -> Case:
            return prepare.prepare_files(listing, declaration, listing.cases[index], geometry)

        dataset = prepare.prepare_all(declaration, str(folder), len(listing.cases), one, progress)
        unit = distance_unit([file.path for file in files], [case.spacing_mm for case in dataset.cases])
        return replace(dataset, distance_unit=unit)

    origin = Origin(declaration=declaration, files=files, groups=folder_groups(folder))
    schemes = remarks_on_schemes(listing.channels, normalize) if listing.layout == "nnunet" else ()
    return Plan(str(folder), str(folder.resolve()), origin, make, (*listing.remarks, *schemes), geometry)


def _plan_drawn(source: Part, listing: DrawnListing, normalize: Part) -> Plan:
    declaration = Declaration(
        layout=source.name,
        channels=listing.channels,
        class_names=listing.class_names,
        label_values=tuple(range(len(listing.class_names))),
        normalize=normalize,
    )

    def make(progress: prepare.Progress | None) -> Dataset:
        def one(index: int) -> Case:
            image, mask = listing.case(index)
            return prepare.prepare_arrays(listing.case_ids[index], image, mask, listing.spacing_mm, declaration)

        return prepare.prepare_all(declaration, str(source), len(listing.case_ids), one, progress)

    drawn = f"{source} version {listing.version}"
    return Plan(str(source), drawn, Origin(declaration=declaration, phantom=drawn), make)
