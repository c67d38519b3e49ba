"""Dice of whole volumes, train and validation alike: evaluation mode, hard masks, uncropped, nothing drawn at random.

A 2D network sees the whole slices of a case in large batches; a 3D one a sliding window whose probabilities are
averaged with Gaussian weights. Cases never share a batch, so what a case scores does not depend on its company.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from dlx.data.voxels import Extent, VoxelStore
from dlx.engine.device import Compute
from dlx.metrics import overlap_counts, soft_overlap


@dataclass(frozen=True)
class Measured:
    """What was measured of some cases, in their order, on the host."""

    counts: Int[Tensor, "n 3 K"]  # overlap counts
    soft: Float[Tensor, "n 3 K"] | None  # the sums of the soft Dice, where they were asked for
    predictions: tuple[UInt8[Tensor, "D H W"], ...] = ()  # of each case, where they were kept


@dataclass(frozen=True)
class Evaluator:
    """How cases are predicted and scored; holds no state between calls."""

    store: VoxelStore
    compute: Compute
    num_classes: int
    dims: int
    stride: int
    slice_axis: int
    window: tuple[int, ...]  # the size of a 3D network's window
    batch_size: int
    overlap_fraction: float
    with_soft_dice: bool = False

    def measure(self, model: nn.Module, cases: Sequence[int], *, keep_predictions: bool = False) -> "Measured":
        """Measures each case, the model in evaluation mode meanwhile. Counts cross to the host once, at the end;
        predictions that are to be kept at once, so that the device holds those of one case.
        """
        counts, soft, predictions = [], [], []
        with evaluating(model):
            for case in cases:
                probabilities = self.probabilities(model, case)  # (K, D, H, W)
                prediction = probabilities.argmax(0)
                mask = self.store.mask(case).to(self.compute.device)
                counts.append(overlap_counts(prediction, mask, self.num_classes))
                if self.with_soft_dice:
                    soft.append(soft_overlap(probabilities[None], mask[None]))
                if keep_predictions:
                    predictions.append(prediction.to(torch.uint8).cpu())
        return Measured(torch.stack(counts).cpu(), torch.stack(soft).cpu() if soft else None, tuple(predictions))

    def probabilities(self, model: nn.Module, case: int) -> Float[Tensor, "K D H W"]:
        """Class probabilities of one whole case, on the training device."""
        if self.dims == 2:
            return self._by_slices(model, case)
        return self._by_windows(model, case)

    def _gather(self, case: int, starts: Sequence[Extent], extent: Extent) -> Float[Tensor, "B C d h w"]:
        device = self.store.device
        cases = torch.full((len(starts),), case, device=device)
        image, _ = self.store.gather(cases, torch.tensor(starts, device=device), extent)
        return image.to(self.compute.device).movedim(-1, 1)

    def _by_slices(self, model: nn.Module, case: int) -> Float[Tensor, "K D H W"]:
        shape = self.store.shapes[case]
        padded = [-(-size // self.stride) * self.stride for size in shape]
        padded[self.slice_axis] = shape[self.slice_axis]
        pieces = []
        for first in range(0, shape[self.slice_axis], self.batch_size):
            corner, extent = [0, 0, 0], list(padded)
            corner[self.slice_axis] = first
            extent[self.slice_axis] = min(self.batch_size, shape[self.slice_axis] - first)
            box = self._gather(case, [(corner[0], corner[1], corner[2])], (extent[0], extent[1], extent[2]))
            slices = box[0].movedim(1 + self.slice_axis, 0)  # (n, C, h, w)
            with self.compute.autocast():
                logits = model(slices.contiguous(memory_format=torch.channels_last))
            pieces.append(logits.float().softmax(1))
        whole = torch.cat(pieces).movedim(0, 1 + self.slice_axis)  # (K, D, H, W), padded
        return whole[:, : shape[0], : shape[1], : shape[2]]

    def _by_windows(self, model: nn.Module, case: int) -> Float[Tensor, "K D H W"]:
        shape = self.store.shapes[case]
        extent = (self.window[0], self.window[1], self.window[2])
        grids = [window_starts(n, w, self.overlap_fraction) for n, w in zip(shape, extent, strict=True)]
        starts = [(d, h, w) for d, h, w in product(*grids)]
        padded = [max(n, w) for n, w in zip(shape, extent, strict=True)]
        weight = gaussian_weight(extent).to(self.compute.device)
        total = torch.zeros(self.num_classes, *padded, device=self.compute.device)
        weights = torch.zeros(padded, device=self.compute.device)
        for first in range(0, len(starts), self.batch_size):
            group = starts[first : first + self.batch_size]
            with self.compute.autocast():
                logits = model(self._gather(case, group, extent).contiguous(memory_format=torch.channels_last_3d))
            for (d, h, w), probability in zip(group, logits.float().softmax(1), strict=True):
                place = (slice(d, d + extent[0]), slice(h, h + extent[1]), slice(w, w + extent[2]))
                total[(slice(None), *place)] += probability * weight
                weights[place] += weight
        return (total / weights)[:, : shape[0], : shape[1], : shape[2]]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the model is in its earlier mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def window_starts(size: int, window: int, overlap_fraction: float) -> list[int]:
    """Where windows begin along an axis: evenly spread, at least `overlap_fraction` shared, the last one flush."""
    if size <= window:
        return [0]
    step = max(1, int(window * (1 - overlap_fraction)))
    count = -(-(size - window) // step) + 1
    return [round(index * (size - window) / (count - 1)) for index in range(count)]


def gaussian_weight(extent: Extent) -> Float[Tensor, "d h w"]:
    """A window's weights: a Gaussian of an eighth of its size, as in nnU-Net (Isensee et al. 2021), at least 1e-3.

    The floor keeps voxels that only a corner reaches from dividing by almost nothing.
    """
    weight = torch.ones(extent)
    for axis, size in enumerate(extent):
        position = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
        line = torch.exp(-0.5 * (position / (size / 8)) ** 2)
        view = [1, 1, 1]
        view[axis] = size
        weight = weight * line.view(view)
    return weight.clamp(min=1e-3)
