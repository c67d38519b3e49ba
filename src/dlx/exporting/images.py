"""The images on which an exported file is checked: those that the user names, or some of the run's own data.

They are prepared and cut as for predictions, so the file is checked on what it will get.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dlx.data.batches.voxels import Extent, VoxelStore
from dlx.data.cases import Case
from dlx.data.geometry.common_grid import bring_case, check_resampling_memory
from dlx.data.intensities.ct import windowed_channels
from dlx.data.layouts.listing import DrawnListing, Listing
from dlx.data.prepare import ReadImage, prepare_scan, read_scan
from dlx.engine.evaluate import window_starts
from dlx.prediction.scans import find_scans
from dlx.prediction.trained_network import TrainedNetwork
from dlx.records.folder import StudyFolder, read_record
from dlx.records.schema import StudyHeader, TrialRecord
from dlx.settings import registry
from dlx.settings.binding import bind_part
from dlx.settings.part import Part
from dlx.system.errors import DataError, DlxError, SettingError
from dlx.trial.factories import model_geometry

MAX_IMAGES = 3  # of the run's own data
MAX_VOXELS = 2**18  # of each, or one slice or window: a full-size network takes some seconds for them
BATCH_VOXELS = 2**18  # computed at once


@dataclass(frozen=True)
class RealImage:
    """An image with its name and a function that reads it."""

    name: str
    read: Callable[[], ReadImage]


@dataclass(frozen=True)
class RealImages:
    """Images to check on, and what they are, for the user; if there are none, why. `max_voxels` of each are enough."""

    images: tuple[RealImage, ...]
    what: str
    max_voxels: int | None = None


def named_images(named: Sequence[str | Path], trained: TrainedNetwork) -> RealImages:
    """The images in files and folders, as `dlx predict -i` takes them. DataError if there is none."""
    scans = find_scans(named, trained.dataset.channels).scans
    channels, geometry = trained.dataset.channels, trained.spec.data.geometry
    images = [
        RealImage(scan.id, lambda scan=scan: read_scan(scan.images, channels, geometry))  # type: ignore[misc]
        for scan in scans
    ]
    return RealImages(tuple(images), "the images that -i names")


def images_of_run(checkpoint: Path, trained: TrainedNetwork) -> RealImages:
    """Up to MAX_IMAGES cases of the data that the run of a checkpoint trained on, validation cases first; none, with
    the reason, if these are not there any more.
    """
    try:
        source, first = _source_of(checkpoint)
        part = bind_part("data", source)
        listing = registry.load("data", part.name)(**part.args)
        images = _cases(listing, trained)
    except (DlxError, OSError) as error:
        return RealImages((), f"the data of the run cannot be read ({error})")
    order = {name: position for position, name in enumerate(first)}
    images.sort(key=lambda image: order.get(image.name, len(order)))
    return RealImages(
        tuple(images[:MAX_IMAGES]), f"the run's data ({source.args.get('path', source.name)})", MAX_VOXELS
    )


def _source_of(checkpoint: Path) -> tuple[Part, tuple[str, ...]]:
    """The data source of the run that a checkpoint lies in, and the names of the trial's validation cases."""
    trial = checkpoint.resolve().parent
    header = StudyFolder(trial.parent.parent).header() if trial.parent.name == "trials" else None
    if header is None:
        raise DataError(f"{trial}: is not in the folder of a run")
    if _varies_data(header):
        raise SettingError("the variants of the study have unlike data")
    record = read_record(TrialRecord, trial / "result.json", "a trial's record")
    split = {} if record is None else record.settings.get("split", {})
    return Part.model_validate(header.settings["data"]["source"]), tuple(split.get("val", ()))


def _varies_data(header: StudyHeader) -> bool:
    return any(key.startswith("data.source") for variant in header.variants for key in variant.values)


def _cases(listing: Listing | DrawnListing, trained: TrainedNetwork) -> list[RealImage]:
    channels, geometry = trained.dataset.channels, trained.spec.data.geometry
    if listing.channels != channels:
        raise DataError("its channels have changed")
    if isinstance(listing, DrawnListing):
        return [
            RealImage(
                name,
                lambda index=index: ReadImage(listing.case(index)[0], None, listing.spacing_mm, "", ()),  # type: ignore[misc]
            )
            for index, name in enumerate(listing.case_ids)
        ]
    return [
        RealImage(case.id, lambda case=case: read_scan(case.images, channels, geometry))  # type: ignore[misc]
        for case in listing.cases
    ]


def cut_inputs(
    image: RealImage, trained: TrainedNetwork, max_voxels: int | None = None
) -> Iterator[Float[Tensor, "B C *S"]]:
    """What the network gets of an image, in batches: its slices or windows. With `max_voxels` evenly spaced ones of as
    many voxels, at least one.

    DataError if the image cannot be read or prepared.
    """
    case = _prepared(image, trained)
    store = VoxelStore([case]).windowed(trained.windows)
    starts, extent = _boxes(store.shapes[0], trained)
    count = len(starts) if max_voxels is None else min(len(starts), max(1, max_voxels // prod(extent)))
    starts = [starts[(2 * position + 1) * len(starts) // (2 * count)] for position in range(count)]
    dims, _ = model_geometry(trained.network)
    axis = trained.spec.batch.fitted_slice_axis
    at_once = max(1, BATCH_VOXELS // prod(extent))
    for first in range(0, len(starts), at_once):
        group = torch.tensor(starts[first : first + at_once])
        boxes, _ = store.gather(torch.zeros(len(group), dtype=torch.int64), group, extent)
        images = boxes.movedim(-1, 1)
        yield images.squeeze(2 + axis) if dims == 2 else images


def _prepared(image: RealImage, trained: TrainedNetwork) -> Case:
    case = prepare_scan(image.name, image.read(), trained.normalizer, trained.windows)
    grid = trained.dataset.grid
    if grid is None:
        return case
    check_resampling_memory([case], grid)
    return bring_case(case, grid, windowed_channels(trained.normalizer, len(trained.dataset.channels)))


def _boxes(shape: Extent, trained: TrainedNetwork) -> tuple[list[Extent], Extent]:
    """Where slices or windows start, and their size (d, h, w); slices are padded to the network's stride."""
    dims, stride = model_geometry(trained.network)
    if dims == 2:
        axis = trained.spec.batch.fitted_slice_axis
        padded = [-(-size // stride) * stride for size in shape]
        padded[axis] = 1
        starts = [tuple(k if other == axis else 0 for other in range(3)) for k in range(shape[axis])]
    else:
        padded = [*trained.spec.batch.fitted_patch_size_px]
        overlap = trained.spec.evaluate.overlap_fraction
        starts = list(product(*(window_starts(n, w, overlap) for n, w in zip(shape, padded, strict=True))))
    return [(d, h, w) for d, h, w in starts], (padded[0], padded[1], padded[2])
