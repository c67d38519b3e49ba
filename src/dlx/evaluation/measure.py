"""Measures one predicted mask against the true one: counts of voxels and surface distances of each class.

Classes are the same as in training (`scoring.outputs`): voxels under the ignore label count in no mask. Each class is
looked at only within a box around it, so that many small classes take little time and memory.
"""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from dlx.evaluation.label_volume import LabelVolume
from dlx.evaluation.labels import LabelClass
from dlx.scoring.counts import dice
from dlx.scoring.surface import SurfaceScores, surface_scores, surface_threads
from dlx.study.results import CaseScores, OverlapCounts
from dlx.system.threads import thread_pool

Crop = tuple[slice, ...]


class ClassScores(NamedTuple):
    """What was measured of one class in one case."""

    counts: OverlapCounts
    surface: SurfaceScores


ABSENT = ClassScores(OverlapCounts(overlap=0, predicted=0, true=0), SurfaceScores(None, None))


class CaseMeasures(NamedTuple):
    """What was measured of one case: of each class that is in one of the masks, and the voxels not ignored."""

    classes: dict[LabelClass, ClassScores]
    num_voxels: int

    def scores(self, classes: Sequence[LabelClass]) -> CaseScores:
        """The scores of these classes; of one that is in neither mask they are None."""
        found = {one.name: self.classes.get(one, ABSENT) for one in classes}
        return CaseScores(
            dice={name: _dice(scores.counts) for name, scores in found.items()},
            hd95_mm={name: scores.surface.hd95_mm for name, scores in found.items()},
            surface_dice={name: scores.surface.surface_dice for name, scores in found.items()},
            counts={name: scores.counts for name, scores in found.items()},
            num_voxels=self.num_voxels,
        )


def _dice(counts: OverlapCounts) -> float | None:
    if counts.predicted + counts.true == 0:
        return None
    return float(dice(float(counts.overlap), float(counts.predicted), float(counts.true)))


def measure(
    prediction: LabelVolume,
    truth: LabelVolume,
    classes: Sequence[LabelClass],
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float,
    *,
    ignored_value: int | None = None,
    threads: int = 1,
) -> CaseMeasures:
    """Measures the classes of two masks of one size; `spacing_mm` is (d, h, w). One thread scores a class."""
    ignored = None if ignored_value is None else truth.index_of(ignored_value)
    boxes = [_boxes(volume) for volume in (prediction, truth)]
    places: dict[LabelClass, tuple[list[int], list[int], Crop]] = {}
    for one in classes:
        found = [
            [i for value in one.values if (i := volume.index_of(value)) is not None] for volume in (prediction, truth)
        ]
        around = [box for of, own in zip(boxes, found, strict=True) for i in own if (box := of[i]) is not None]
        if around:
            places[one] = found[0], found[1], _around(around, truth.indices.shape)

    def score(place: tuple[list[int], list[int], Crop]) -> ClassScores:
        predicted_indices, true_indices, box = place
        predicted = _where(prediction.indices[box], predicted_indices)
        true = _where(truth.indices[box], true_indices)
        if ignored is not None:
            predicted &= truth.indices[box] != ignored
        counts = OverlapCounts(
            overlap=int(np.count_nonzero(predicted & true)),
            predicted=int(np.count_nonzero(predicted)),
            true=int(np.count_nonzero(true)),
        )
        return ClassScores(counts, surface_scores(predicted, true, spacing_mm, tolerance_mm))

    largest = max((_size(box) for _, _, box in places.values()), default=1)
    with thread_pool(surface_threads(threads, largest)) as pool:
        scores = dict(zip(places, pool.map(score, places.values()), strict=True))
    num_ignored = 0 if ignored is None else int(np.count_nonzero(truth.indices == ignored))
    present = {one: found for one, found in scores.items() if found.counts.predicted + found.counts.true}
    return CaseMeasures(present, truth.indices.size - num_ignored)


def _boxes(volume: LabelVolume) -> list[Crop | None]:
    """The smallest box around the voxels of each index; None for the background."""
    return [None, *find_objects(volume.indices, max_label=max(1, len(volume.values) - 1))]


def _around(boxes: Sequence[Crop], shape: tuple[int, ...]) -> Crop:
    """The box around boxes, one voxel larger on each side within the volume.

    So a box that is one voxel thick is not taken for a 2D mask, whose surface is another (`scoring.surface`).
    """
    spans = []
    for axis, size in enumerate(shape):
        start, stop = min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)
        spans.append(slice(max(0, start - 1), min(size, stop + 1)))
    return tuple(spans)


def _where(indices: NDArray[Any], chosen: Sequence[int]) -> NDArray[np.bool_]:
    """Where the indices are any of the chosen ones."""
    if not chosen:
        return np.zeros(indices.shape, np.bool_)
    found: NDArray[np.bool_] = reduce(or_, [indices == i for i in chosen])
    return found


def _size(box: Crop) -> int:
    return int(np.prod([span.stop - span.start for span in box]))
