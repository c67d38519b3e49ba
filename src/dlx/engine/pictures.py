"""Takes the pictures of validation cases when a trial is scored, from the predictions that scoring has in memory."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from dlx.data.batches.voxels import VoxelStore
from dlx.data.cases import COUNTED_AT_ONCE, IGNORED
from dlx.data.geometry.orientation import CANONICAL, find_turn, turn
from dlx.data.geometry.resample import linear_weights
from dlx.engine.evaluate import Evaluator
from dlx.engine.fit import Job
from dlx.records.pictures import GREY_LEVELS, IGNORED_INDEX, MAX_SIDE_PX, CasePicture, Rank, grey_png, indexed_png
from dlx.scoring.outputs import Outputs
from dlx.study.results import CaseScores, SetScores

MARGIN_PX = 8  # around the labels, where a slice is cut to them and scaled down
WINDOW = (0.5, 99.5)  # percentiles of a slice that become black and white: single bright voxels do not darken the rest
PLANES = ("axial", "coronal", "sagittal")  # across the axes z, y, x of an image that runs as LPS


def take_pictures(job: Job, val: SetScores, classes: Sequence[str]) -> list[CasePicture]:
    """The hardest, the median and the best validation case by mean Dice; none if no case has a Dice.

    `val` are the scores of the validation cases, whose predictions `job.validated` holds. `classes` are the names of
    the values of masks (`Dataset.label_names`).
    """
    assert job.validated is not None
    evaluator = job.evaluator
    found = zip(job.val_cases, job.validated.predictions, strict=True)
    known = {evaluator.store.ids[case]: (case, prediction) for case, prediction in found}
    return [
        CasePicture(case=name, rank=rank, dice=dice, classes=tuple(classes), **worst_slice(evaluator, *known[name]))
        for rank, name, dice in ranked_cases(val.cases)
    ]


def ranked_cases(cases: Mapping[str, CaseScores]) -> list[tuple[Rank, str, float]]:
    """The cases of lowest, median and highest Dice, its mean over the classes that have one; of an even number the
    lower of the two medians. Two cases are the hardest and the best; a single one is the hardest.
    """
    dice = {
        name: mean(known)
        for name, scores in cases.items()
        if (known := [value for value in scores.dice.values() if value is not None])
    }
    names = sorted(dice, key=dice.__getitem__)
    places = dict(zip(get_args(Rank), (0, (len(names) - 1) // 2, len(names) - 1), strict=True)) if names else {}
    first_at = {place: rank for rank, place in reversed(places.items())}  # of two ranks of one case the first
    return [(rank, names[place], dice[names[place]]) for place, rank in sorted(first_at.items())]


def worst_slice(evaluator: Evaluator, case: int, prediction: UInt8[Tensor, "D H W"]) -> dict[str, Any]:
    """The fields of a CasePicture that its slice has; the slice runs across the slice axis of the evaluator."""
    store, outputs, axis = evaluator.store, evaluator.outputs, evaluator.slice_axis
    mask = store.measured_mask(case).cpu()
    at = find_worst_slice(outputs, prediction, mask, axis)
    truth = mask.narrow(axis, at, 1)
    predicted = outputs.labels(prediction.narrow(axis, at, 1).clone()).masked_fill(truth == IGNORED, IGNORED_INDEX)
    orientation, stored = store.orientations[case]
    image, true, shown = (
        as_seen(voxels.numpy(), axis, orientation) for voxels in (image_slice(store, case, axis, at), truth, predicted)
    )
    is_labelled = ((true != 0) & (true != IGNORED_INDEX)) | ((shown != 0) & (shown != IGNORED_INDEX))
    cuts = [_cut(is_labelled.any(1 - side)) for side in range(2)]
    (rows, down), (columns, across) = cuts
    order, _ = find_turn(orientation, CANONICAL)
    height, width = (store.measured_spacings_mm[case][of] for of in order if of != axis)
    file_order, flips = find_turn(orientation, stored)
    file_axis, num_slices = file_order.index(axis), mask.shape[axis]
    return {
        "axis": "zyx"[file_axis],
        "slice": num_slices - 1 - at if file_axis in flips else at,
        "num_slices": num_slices,
        "plane": PLANES[order.index(axis)] if orientation and num_slices > 1 else "",
        "pixel_size": (height * down, width * across),
        "is_part": any(cut.stop - cut.start < size for cut, size in zip((rows, columns), image.shape, strict=True)),
        "image": grey_png(_shrunk_image(windowed(image)[rows, columns], down, across)),
        "truth": indexed_png(_shrunk_mask(true[rows, columns], down, across)),
        "prediction": indexed_png(_shrunk_mask(shown[rows, columns], down, across)),
    }


def find_worst_slice(
    outputs: Outputs, prediction: UInt8[Tensor, "D H W"], mask: UInt8[Tensor, "D H W"], axis: int
) -> int:
    """The slice across an axis with the most wrongly labelled voxels; without any, that with the most labelled ones;
    without these, the middle one. Counted in parts of the volume, so that little memory is taken.
    """
    num_slices, plane = mask.shape[axis], mask.shape[1] * mask.shape[2]
    counts = torch.zeros(2, num_slices, dtype=torch.int64)
    step = max(1, COUNTED_AT_ONCE // plane)
    others = [other for other in range(3) if other != axis]
    for first in range(0, len(mask), step):
        true = mask[first : first + step]
        is_wrong = (outputs.labels(prediction[first : first + step]) != true) & (true != IGNORED)
        is_labelled = (true != 0) & (true != IGNORED)
        part = torch.stack([voxels.sum(others) for voxels in (is_wrong, is_labelled)])
        if axis == 0:
            counts[:, first : first + step] = part
        else:
            counts += part
    for row in counts:
        if row.any():
            return int(row.numpy().argmax())  # the first of equal ones
    return num_slices // 2


def image_slice(store: VoxelStore, case: int, axis: int, at: int) -> Float[Tensor, "d h w"]:
    """The first channel of one slice on the voxels on which the case is measured; the axis across it has one voxel.

    A resampled image is interpolated linearly between its voxels, as its class probabilities are.
    """
    prepared, measured = store.shapes[case], store.measured_shapes[case]
    low, high, fraction = linear_weights(prepared[axis], measured[axis])
    start, extent = torch.zeros(2, 3, dtype=torch.int64, device=store.device), list(prepared)
    start[0, axis], start[1, axis], extent[axis] = int(low[at]), int(high[at]), 1
    cases = torch.full((2,), case, device=store.device)
    image, _ = store.gather(cases, start, (extent[0], extent[1], extent[2]))
    below, above = image[..., 0].cpu()
    plane = torch.lerp(below, above, float(fraction[at])).squeeze(axis)
    size = [n for other, n in enumerate(measured) if other != axis]
    if list(plane.shape) != size:
        plane = interpolate(plane[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    return plane.unsqueeze(axis)


def as_seen(voxels: NDArray[Any], axis: int, orientation: str) -> NDArray[Any]:
    """A slice (D, H, W) of one voxel across `axis` as radiologists see it; as it is if the orientation is unknown.

    Axial: anterior above; coronal and sagittal: superior above. The patient's right is at the left, or anterior.
    """
    order, _ = find_turn(orientation, CANONICAL)
    across = order.index(axis)
    plane: NDArray[Any] = turn(voxels, orientation, CANONICAL).take(0, across)
    return plane[::-1] if orientation and across != 0 else plane


def windowed(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The slice in GREY_LEVELS greys from 0 to 255, between the percentiles of WINDOW; a constant one is grey."""
    low, high = np.percentile(image, WINDOW)
    if high <= low:
        low, high = image.min(), image.max()
    share = np.clip((image - low) / (high - low), 0.0, 1.0) if high > low else np.full(image.shape, 0.5)
    levels = GREY_LEVELS - 1
    greys: NDArray[np.uint8] = (np.rint(share * levels) * (255 / levels)).astype(np.uint8)
    return greys


def _cut(is_labelled: NDArray[np.bool_]) -> tuple[slice, int]:
    """The part of a side of a slice that is shown, and by how much it is scaled down: all of a side that is small
    enough, else MAX_SIDE_PX around the labels, or all labels scaled down.
    """
    size = len(is_labelled)
    if size <= MAX_SIDE_PX:
        return slice(0, size), 1
    at = np.flatnonzero(is_labelled)
    first, last = (int(at[0]), int(at[-1])) if at.size else (size // 2, size // 2)
    length = max(MAX_SIDE_PX, last - first + 1)
    if length > MAX_SIDE_PX:
        length = min(size, length + 2 * MARGIN_PX)
    start = min(max(0, (first + last + 1 - length) // 2), size - length)
    return slice(start, start + length), -(-length // MAX_SIDE_PX)


def _shrunk_image(greys: NDArray[np.uint8], down: int, across: int) -> NDArray[np.uint8]:
    """Each pixel is the mean of a block of `down` x `across`; the last blocks continue the edge."""
    return np.rint(_blocks(greys, down, across).mean(axis=(1, 3))).astype(np.uint8) if down * across > 1 else greys


def _shrunk_mask(classes: NDArray[np.uint8], down: int, across: int) -> NDArray[np.uint8]:
    """Each pixel is the class in the middle of a block."""
    return _blocks(classes, down, across)[:, down // 2, :, across // 2]


def _blocks(plane: NDArray[np.uint8], down: int, across: int) -> NDArray[np.uint8]:
    """(rows of blocks, down, columns of blocks, across)"""
    height, width = plane.shape
    plane = np.pad(plane, ((0, -height % down), (0, -width % across)), mode="edge")
    return plane.reshape(plane.shape[0] // down, down, plane.shape[1] // across, across)
