"""The classes Case and Dataset: prepared arrays in memory with their hashes and fingerprint.

`prepare` makes them from files, `cache` stores them on disk, and `dataset` chooses between the two.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlx.data.intensities.measures import ChannelIntensities
from dlx.data.notes import FileNote
from dlx.data.thumbnails import Thumbnail
from dlx.settings.part import Part, Section
from dlx.settings.spec import Orientation, SpacingMm
from dlx.study.results import DistanceUnit

# Increase this when preparation gives other values for the same files: caches are rebuilt and fingerprints change.
DATA_VERSION = 2
COUNTED_AT_ONCE = 2**20  # voxels of a mask; np.bincount's copy of them, 8 MiB, fits the processor's cache

# The value of voxels under an ignore label in all prepared masks; no class has it. They count in no loss and no metric.
IGNORED = 255

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


class Grid(Section):
    """To which voxels the cases of a set were brought, and new scans are to be brought before they are predicted.

    `orientation` is a code as in `orientation_of`; empty if the axes are left as they are, or unknown. `spacing_mm` is
    (d, h, w) in that orientation; None if spacings are left as they are. `slice_axis` is the array axis across which
    the slices of most cases lie as stored; None if cases have no slices, or if all are turned. The `asked_` fields are
    the settings.
    """

    asked_orientation: Orientation = "common"
    asked_spacing_mm: SpacingMm = "auto"
    orientation: str = ""
    spacing_mm: tuple[float, float, float] | None = None
    slice_axis: int | None = None


@dataclass(frozen=True, eq=False)
class Original:
    """The mask of a case before it was resampled, (D, H, W) uint8, with its spacing (d, h, w).

    Its axes run as those of the prepared image: it was turned with the image, if at all.
    """

    mask: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Case:
    """One labelled image, prepared; it takes 2 C + 1 bytes per voxel, or 4 C + 1.

    `image` is (D, H, W, C) float16, or float32 if `is_wide`, and `mask` (D, H, W) uint8 with classes 0..K-1 or IGNORED,
    both C-contiguous; `spacing_mm` is (d, h, w); `pad_value` (C,) float32 fills the image outside the volume (0 fills
    the mask). `content_hash` is the hash of the decoded image (all channels) before normalisation, `mask_hash` that of
    the mask, `value_hash` that of the image's values, independent of the voxel type. `correlations` are those of the
    two channels that correlate most in the foreground, before and after whitening; None without whitening. `notes` list
    ambiguities in the headers of the files. `foreground` holds the values of some labelled voxels (C, n), if the
    normaliser takes its statistics from the training cases (`ct`); those channels are then not normalised yet.

    `stored_orientation` is that of the files if the axes were turned, else empty. `original` is the mask on which the
    case is measured if it was resampled; None if that is `mask`.

    The other fields are empty if unknown, as in prepared data written by an older dlx: `orientation` of the prepared
    image (see `orientation_of`), and for warnings only `rounding_error` of float16 as a share of the noise (None also
    if a value is beyond float16), `prepared_hash` of the prepared image in canonical orientation, `intensities` of each
    channel and `negative_fraction` of the first channel before normalisation, and `thumbnail`.
    """

    id: str
    image: NDArray[np.float16] | NDArray[np.float32]
    mask: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    pad_value: NDArray[np.float32]
    content_hash: str
    mask_hash: str = ""
    value_hash: str = ""
    correlations: tuple[float, float] | None = None
    notes: tuple[FileNote, ...] = ()
    foreground: NDArray[np.float32] | None = None
    rounding_error: float | None = None
    orientation: str = ""
    prepared_hash: str = ""
    intensities: tuple[ChannelIntensities, ...] = ()
    negative_fraction: float = 0.0
    thumbnail: Thumbnail | None = None
    stored_orientation: str = ""
    original: Original | None = None

    @property
    def is_wide(self) -> bool:
        """Whether the image is stored as float32."""
        return self.image.dtype == np.float32

    @cached_property
    def class_voxels(self) -> tuple[int, ...]:
        """The number of mask voxels of each class, up to the largest class in the mask; ignored ones are not counted.

        Empty if all voxels are ignored.
        """
        return _count_classes(self.mask)

    @property
    def measured_mask(self) -> NDArray[np.uint8]:
        """The mask on which the case is measured: `original`, if it was resampled."""
        return self.mask if self.original is None else self.original.mask

    @property
    def measured_spacing_mm(self) -> tuple[float, float, float]:
        """The spacing (d, h, w) of `measured_mask`."""
        return self.spacing_mm if self.original is None else self.original.spacing_mm

    @cached_property
    def measured_voxels(self) -> tuple[int, ...]:
        """`class_voxels` of `measured_mask`."""
        return self.class_voxels if self.original is None else _count_classes(self.original.mask)

    @property
    def ignored_fraction(self) -> float:
        """The share of the voxels that are ignored."""
        return 1.0 - sum(self.class_voxels) / self.mask.size

    @cached_property
    def classes(self) -> frozenset[int]:
        """The classes that the mask holds."""
        return frozenset(k for k, voxels in enumerate(self.class_voxels) if voxels)

    @cached_property
    def label_box(self) -> Box:
        """The half-open bounds of the voxels of classes 1 and up along D, H, W; the whole volume if there are none."""
        labelled = (self.mask != 0) & (self.mask != IGNORED)
        spans = []
        for axis, size in enumerate(labelled.shape):
            others = tuple(other for other in range(3) if other != axis)
            at = np.flatnonzero(labelled.any(axis=others))
            spans.append((int(at[0]), int(at[-1]) + 1) if at.size else (0, size))
        return spans[0], spans[1], spans[2]


def _count_classes(mask: NDArray[np.uint8]) -> tuple[int, ...]:
    voxels, counts = mask.ravel(), np.zeros(256, np.int64)
    for start in range(0, voxels.size, COUNTED_AT_ONCE):  # np.bincount makes a copy of 8 bytes per voxel
        counts += np.bincount(voxels[start : start + COUNTED_AT_ONCE], minlength=256)
    counts[IGNORED] = 0
    return tuple(np.trim_zeros(counts, "b").tolist())


@dataclass(frozen=True, eq=False)
class Dataset:
    """All cases of a data set, in natural order of their ids.

    `channels` and `classes` are names (class 0 is the background). With `regions`, the classes after the first are
    regions, which may overlap: `regions[r]` are the classes of the masks that make up region r, `region_order[r]` is
    the class that is written into a mask for it, later regions over earlier ones. `layout` is that of the folder (or
    `phantom`), `source` is what the user named. `fingerprint` depends on everything about the data that can change a
    trial's numbers, but not on paths or times. `remarks` are lines for the user.
    """

    layout: str
    source: str
    channels: tuple[str, ...]
    classes: tuple[str, ...]
    cases: tuple[Case, ...]
    fingerprint: str
    remarks: tuple[str, ...] = ()
    label_values: tuple[int, ...] = ()  # the value of each class in the mask files
    ignored_value: int | None = None  # the value of the ignore label in the mask files, IGNORED in prepared masks
    regions: tuple[tuple[int, ...], ...] = ()
    region_order: tuple[int, ...] = ()
    normalize: str = ""  # the normaliser with its arguments, as a user would type it
    distance_unit: DistanceUnit = "mm"  # px if the image files have no spacing
    grid: Grid | None = None  # None before the cases are brought to one grid (`common_grid`)
    cache_file: Path | None = None  # that holds these very cases, if there is one

    @classmethod
    def of(
        cls, declared: "Declaration", source: str, cases: tuple[Case, ...], fingerprint: str, unit: DistanceUnit = "mm"
    ) -> "Dataset":
        """The data set of these cases, as it was declared."""
        return cls(
            layout=declared.layout,
            source=source,
            channels=declared.channels,
            classes=declared.class_names,
            cases=cases,
            fingerprint=fingerprint,
            label_values=declared.label_values,
            ignored_value=declared.ignored_value,
            regions=declared.regions,
            region_order=declared.region_order,
            normalize=str(declared.normalize),
            distance_unit=unit,
        )

    def cases_of(self, ids: Iterable[str]) -> list[Case]:
        """The cases with these ids, in the order of `cases`."""
        wanted = set(ids)
        return [case for case in self.cases if case.id in wanted]

    def class_voxels(self, case: Case) -> tuple[int, ...]:
        """The number of a case's voxels in each of `classes`; those of a region in each of its classes together."""
        return self._of_classes(case.class_voxels)

    def classes_of(self, case: Case) -> tuple[str, ...]:
        """The names of those of `classes` that are in the mask on which a case is measured."""
        voxels = self._of_classes(case.measured_voxels)
        return tuple(name for name, number in zip(self.classes, voxels, strict=True) if number)

    @property
    def label_names(self) -> tuple[str, ...]:
        """What each value of the prepared masks is called: `classes`, or with regions the value in the mask files and
        the regions that it is part of, as `2 (whole tumour, core)`.
        """
        if not self.regions:
            return self.classes
        named = list(zip(self.classes[1:], self.regions, strict=True))
        of_label = [", ".join(name for name, labels in named if k in labels) for k in range(len(self.label_values))]
        values = zip(self.label_values, of_label, strict=True)
        return (self.classes[0], *[f"{value} ({names})" if names else f"{value}" for value, names in values][1:])

    def _of_classes(self, of_labels: tuple[int, ...]) -> tuple[int, ...]:
        voxels = (*of_labels, *[0] * len(self.label_values or self.classes))
        regions = [(0,), *self.regions] if self.regions else [(k,) for k in range(len(self.classes))]
        return tuple(sum(voxels[k] for k in region) for region in regions)

    def values_of_classes(self) -> dict[str, tuple[int, ...]]:
        """The values in mask files of each of `classes`, without the background."""
        values = self.label_values or tuple(range(len(self.classes)))
        return values_of_classes(self.classes, values, self.regions)

    def with_remarks(self, *remarks: str) -> "Dataset":
        """The same data with more remarks."""
        return replace(self, remarks=(*self.remarks, *remarks))


def values_of_classes(
    classes: Sequence[str], label_values: Sequence[int], regions: Sequence[Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """Class -> its values in mask files, without the background; the arguments are as in `Dataset`."""
    members = regions or [(k,) for k in range(1, len(label_values))]
    return {name: tuple(label_values[k] for k in of) for name, of in zip(classes[1:], members, strict=True)}


class Declaration(Section):
    """What is known about a data set before any voxel is read, and how it is to be prepared."""

    layout: str
    channels: tuple[str, ...]
    class_names: tuple[str, ...]
    label_values: tuple[int, ...]
    normalize: Part
    orientation: Orientation = "common"
    spacing_mm: SpacingMm = "auto"
    ignored_value: int | None = None
    regions: tuple[tuple[int, ...], ...] = ()
    region_order: tuple[int, ...] = ()


def fingerprint(declaration: Declaration, cases: tuple[Case, ...]) -> str:
    """32 hex digits over the decoded contents, ids, spacings, class map, normaliser and DATA_VERSION; and over the ids
    of the cases stored as float32, if there are any.
    """
    identity: dict[str, Any] = {
        "data_version": DATA_VERSION,
        "channels": declaration.channels,
        "classes": declaration.class_names,
        "label_values": declaration.label_values,
        "normalize": str(declaration.normalize),
        "cases": [(case.id, case.mask.shape, case.spacing_mm, case.content_hash, case.mask_hash) for case in cases],
    }
    if wide := [case.id for case in cases if case.is_wide]:
        identity["float32"] = wide
    if declaration.ignored_value is not None:  # not there without one, so that older fingerprints stay
        identity["ignored_value"] = declaration.ignored_value
    if declaration.regions:
        identity |= {"regions": declaration.regions, "region_order": declaration.region_order}
    text = json.dumps(identity, separators=(",", ":"), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
