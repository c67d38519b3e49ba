"""The scores of a trial after its last epoch: all training and validation cases, whole volumes, by the same code."""

from collections.abc import Sequence
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dlx.data.cases import IGNORED
from dlx.engine.evaluate import Measured
from dlx.engine.fit import Job
from dlx.scoring.means import class_means
from dlx.scoring.overlap import dice_from_counts, none_if_nan, summarize
from dlx.scoring.surface import SurfaceScores, surface_scores, surface_threads
from dlx.study.results import CaseScores, OverlapCounts, SetScores
from dlx.system.threads import thread_pool


def score_trial(job: Job, surface_tolerance_mm: float) -> tuple[SetScores, SetScores]:
    """Scores the training and the validation set. Predictions of the last epoch's validation are reused; those that
    are made here are left in `job.validated`.
    """
    train = job.evaluator.measure(job.evaluated_model, job.train_cases)
    val = job.validated or job.evaluator.measure(job.evaluated_model, job.val_cases, keep_predictions=True)
    job.validated = val
    return score_set(job, job.train_cases, train), score_set(job, job.val_cases, val, surface_tolerance_mm)


def score_set(
    job: Job, cases: Sequence[int], measured: Measured, surface_tolerance_mm: float | None = None
) -> SetScores:
    """Dice of each case and class, and with a tolerance also HD95 and normalised surface Dice, in mm.

    A tolerance needs predictions that were kept; the counts of voxels are then in the scores too. Per class the mean
    is over the cases that have a value; `dice` is the mean of the foreground classes' means.
    """
    dice = dice_from_counts(measured.counts)  # (n, K)
    names = job.class_names[1:]
    ids = job.evaluator.store.ids
    surfaces = _surfaces(job, cases, measured.predictions, surface_tolerance_mm) if surface_tolerance_mm else None
    scored = {}
    for row, case in enumerate(cases):
        of_case = None if surfaces is None else dict(zip(names, surfaces[row], strict=True))
        scored[ids[case]] = CaseScores(
            dice={name: none_if_nan(float(dice[row, k])) for k, name in enumerate(names, 1)},
            hd95_mm=None if of_case is None else {name: scores.hd95_mm for name, scores in of_case.items()},
            surface_dice=None if of_case is None else {name: scores.surface_dice for name, scores in of_case.items()},
            counts=None if of_case is None else _counts_of(measured.counts[row], names),
            num_voxels=None if of_case is None else _num_voxels(job, case),
        )
    summary = summarize(dice)
    return SetScores(
        dice=summary.mean,
        dice_per_class=dict(zip(names, summary.per_class[1:], strict=True)),
        hd95_mm_per_class=None if surfaces is None else class_means([c.hd95_mm for c in scored.values()], names),
        surface_dice_per_class=(
            None if surfaces is None else class_means([c.surface_dice for c in scored.values()], names)
        ),
        cases=scored,
    )


def _surfaces(
    job: Job, cases: Sequence[int], predictions: Sequence[Tensor], tolerance_mm: float
) -> list[list[SurfaceScores]]:
    """The scores of each case's foreground classes. One thread scores a class of a case from start to end, so the
    number of threads changes no score; numpy and scipy release the GIL most of the time.
    """
    store, outputs = job.evaluator.store, job.evaluator.outputs
    masks = [store.measured_mask(case).cpu().numpy() for case in cases]
    classes = range(1, len(job.class_names))

    def score(one: tuple[int, int]) -> SurfaceScores:
        row, k = one
        predicted: NDArray[np.uint8] = predictions[row].numpy()
        is_there = outputs.is_predicted(predicted, k), outputs.is_true(masks[row], k)
        return surface_scores(*is_there, store.measured_spacings_mm[cases[row]], tolerance_mm)

    with thread_pool(surface_threads(job.compute.threads, max((mask.size for mask in masks), default=1))) as pool:
        scores = pool.map(score, product(range(len(cases)), classes))
        return [list(islice(scores, len(classes))) for _ in cases]


def _counts_of(counts: Tensor, names: Sequence[str]) -> dict[str, OverlapCounts]:
    """The counts (3, K) of a case by the name of the class, without the background."""
    columns = zip(names, counts.T[1:].tolist(), strict=True)
    return {name: OverlapCounts(overlap=both, predicted=p, true=t) for name, (both, p, t) in columns}


def _num_voxels(job: Job, case: int) -> int:
    """The voxels on which a case is measured: those that are not ignored."""
    mask = job.evaluator.store.measured_mask(case)
    return mask.numel() - (int((mask == IGNORED).sum()) if job.evaluator.outputs.has_ignored else 0)
