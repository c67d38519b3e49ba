"""Overlap of whole volumes, for training and validation cases alike: evaluation mode, hard masks, no random draws.

A 2D network gets the whole slices of a case in large batches; a 3D one gets sliding windows, whose probabilities are
averaged with Gaussian weights. Cases never share a batch, so the score of a case does not depend on other cases.

With mirroring, the probabilities of a batch are the mean over all its flips, summed one flip at a time.

Class probabilities are computed in pieces, and only the predicted class of each voxel is kept: some slices at a time,
or in 3D a slab as deep as one window. So those of a whole case are in memory only if a window is as deep as the case
(or, for the soft Dice, if they are small: `SoftSums`). Cases that were resampled are measured on their original
voxels, to which their probabilities are brought back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, product

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from dlx.data.batches.voxels import Extent, VoxelStore
from dlx.engine.device import Compute
from dlx.engine.original_grid import Place, to_original
from dlx.models.network import evaluation_mode
from dlx.scoring.outputs import Outputs

PIECE_SIZE = 2**24  # probabilities in a piece: 64 MiB, as fast as whole batches where it was measured
MAX_EXACT_SOFT = 2**27  # probabilities (classes times voxels): 512 MiB; four classes of 256 x 256 x 512


@dataclass(frozen=True)
class Measured:
    """The measurements of some cases, in their order, on the host."""

    counts: Int[Tensor, "n 3 K"]  # overlap counts
    soft: Float[Tensor, "n 3 K"] | None  # the sums of the soft Dice, if requested
    predictions: tuple[UInt8[Tensor, "_ _ _"], ...] = ()  # of each case, if kept, on the voxels of its measured mask


@dataclass(frozen=True)
class Evaluator:
    """Predicts and measures cases; holds no state between calls."""

    store: VoxelStore
    compute: Compute
    outputs: Outputs
    dims: int
    stride: int
    slice_axis: int
    window: tuple[int, ...]  # the size of a 3D network's window
    batch_size: int
    overlap_fraction: float
    with_soft_dice: bool = False
    mirrored_axes: tuple[int, ...] = ()  # of a slice or window

    def measure(self, model: nn.Module, cases: Sequence[int], *, keep_predictions: bool = False) -> "Measured":
        """Measures each case with the model in evaluation mode. Counts are copied to the host once, at the end;
        predictions after each case, so that the device holds those of one case only.
        """
        counts, soft, predictions = [], [], []
        with evaluation_mode(model), torch.inference_mode():
            for case in cases:
                shape = self.store.measured_shapes[case]
                prediction = torch.empty(shape, dtype=torch.uint8, device=self.compute.device)
                mask = self.store.measured_mask(case).to(self.compute.device)
                sums = SoftSums(self.outputs, mask.numel()) if self.with_soft_dice else None
                for place, probabilities in self.measured_pieces(model, case):
                    prediction[place] = self.outputs.predict(probabilities)
                    if sums is not None:
                        sums.add(probabilities, mask[place])
                self.outputs.leave_out(prediction, mask)
                counts.append(self.outputs.counts(prediction, mask))
                if sums is not None:
                    soft.append(sums.total(self.piece_axis))
                if keep_predictions:
                    predictions.append(prediction.cpu())
        return Measured(torch.stack(counts).cpu(), torch.stack(soft).cpu() if soft else None, tuple(predictions))

    def measured_pieces(self, model: nn.Module, case: int) -> Iterator[tuple[Place, Float[Tensor, "K d h w"]]]:
        """As `pieces`, on the voxels on which the case is measured: those of its files, with axes as the image's."""
        pieces = self.pieces(model, case)
        if not self.store.is_resampled[case]:
            return pieces
        shape, original = self.store.shapes[case], self.store.measured_shapes[case]
        return to_original(pieces, self.piece_axis, shape, original, PIECE_SIZE)

    def pieces(self, model: nn.Module, case: int) -> Iterator[tuple[Place, Float[Tensor, "K d h w"]]]:
        """The class probabilities of one whole case, on the training device: the position of each piece in (D, H, W)
        and the piece. The pieces follow one another along one axis and cover the case once.
        """
        return self._by_slices(model, case) if self.dims == 2 else self._by_slabs(model, case)

    @property
    def piece_axis(self) -> int:
        """The axis of (D, H, W) along which the pieces of a case follow one another."""
        return self.slice_axis if self.dims == 2 else 0

    def _gather(self, case: int, starts: Sequence[Extent], extent: Extent) -> Float[Tensor, "B C d h w"]:
        device = self.store.device
        cases = torch.full((len(starts),), case, device=device)
        image, _ = self.store.gather(cases, torch.tensor(starts, device=device), extent)
        return image.to(self.compute.device).movedim(-1, 1)

    def _predict(self, model: nn.Module, images: Tensor, part_size: int) -> Float[Tensor, "n K *S"]:
        """The logits of slices or windows; with mirroring, the mean of their probabilities over all flips.

        Mirroring adds the sum and the flipped images to the memory; the probabilities of a flip are computed for
        `part_size` images at a time.
        """
        memory_format = torch.channels_last if self.dims == 2 else torch.channels_last_3d
        if not self.mirrored_axes:
            with self.compute.autocast():
                logits: Tensor = model(images.contiguous(memory_format=memory_format))
            return logits
        total = torch.zeros(len(images), self.outputs.num_outputs, *images.shape[2:], device=images.device)
        flips = subsets(self.mirrored_axes)
        for flip in flips:
            axes = [2 + axis for axis in flip]
            with self.compute.autocast():
                logits = model(images.flip(axes).contiguous(memory_format=memory_format))
            for summed, part in zip(torch.split(total, part_size), torch.split(logits, part_size), strict=True):
                summed += self.outputs.probabilities(part).flip(axes)
        return total.div_(len(flips))

    def _probabilities(self, predicted: Float[Tensor, "n K *S"]) -> Float[Tensor, "n K *S"]:
        return predicted if self.mirrored_axes else self.outputs.probabilities(predicted)

    def _by_slices(self, model: nn.Module, case: int) -> Iterator[tuple[Place, Float[Tensor, "K d h w"]]]:
        shape, axis = self.store.shapes[case], self.slice_axis
        padded = [-(-size // self.stride) * self.stride for size in shape]
        padded[axis] = shape[axis]
        area = padded[0] * padded[1] * padded[2] // padded[axis]
        for first in range(0, shape[axis], self.batch_size):
            corner, extent = [0, 0, 0], list(padded)
            corner[axis] = first
            extent[axis] = min(self.batch_size, shape[axis] - first)
            box = self._gather(case, [(corner[0], corner[1], corner[2])], (extent[0], extent[1], extent[2]))
            slices = box[0].movedim(1 + axis, 0)  # (n, C, h, w)
            part_size = max(1, PIECE_SIZE // (area * self.outputs.num_outputs))
            predicted = self._predict(model, slices, part_size)
            del box, slices
            for part in torch.split(predicted, part_size):
                piece = self._probabilities(part).movedim(0, 1 + axis)[:, : shape[0], : shape[1], : shape[2]]
                place = [slice(None)] * 3
                place[axis] = slice(first, first + len(part))
                first += len(part)
                yield (place[0], place[1], place[2]), piece

    def _by_slabs(self, model: nn.Module, case: int) -> Iterator[tuple[Place, Float[Tensor, "K d h w"]]]:
        """Sliding windows, summed in a slab as deep as one window. Windows are sorted by depth, so planes before the
        first plane of the next window are complete.
        """
        shape = self.store.shapes[case]
        extent = (self.window[0], self.window[1], self.window[2])
        grids = [window_starts(n, w, self.overlap_fraction) for n, w in zip(shape, extent, strict=True)]
        starts = [(d, h, w) for d, h, w in product(*grids)]
        plane = (max(shape[1], extent[1]), max(shape[2], extent[2]))
        slab = Slab(self.outputs.num_outputs, extent, plane, self.compute.device)
        for first in range(0, len(starts), self.batch_size):
            group = starts[first : first + self.batch_size]
            predicted = self._predict(model, self._gather(case, group, extent), 1)
            for start, window in zip(group, predicted, strict=True):
                yield from slab.finish(start[0], shape)
                slab.add(self._probabilities(window[None])[0], start)
        yield from slab.finish(shape[0], shape)


class Slab:
    """Weighted sums of windows' probabilities, for the planes of a case that later windows can still overlap."""

    @staticmethod
    def nbytes(num_classes: int, extent: Extent, plane: tuple[int, int]) -> int:
        """The bytes of the sums and of their weights."""
        return 4 * (num_classes + 1) * extent[0] * plane[0] * plane[1]

    def __init__(self, num_classes: int, extent: Extent, plane: tuple[int, int], device: torch.device) -> None:
        self.first = 0  # the depth of the first plane
        self.extent = extent
        self.weight = gaussian_weight(extent).to(device)
        self.total = torch.zeros(num_classes, extent[0], *plane, device=device)
        self.weights = torch.zeros(extent[0], *plane, device=device)

    def add(self, probability: Float[Tensor, "K d h w"], start: Extent) -> None:
        """Adds a window that starts at the slab's first plane."""
        place = (slice(None), *(slice(at, at + size) for at, size in zip(start[1:], self.extent[1:], strict=True)))
        self.total[(slice(None), *place)] += probability * self.weight
        self.weights[place] += self.weight

    def finish(self, end: int, shape: Extent) -> Iterator[tuple[Place, Float[Tensor, "K d h w"]]]:
        """Yields the planes before `end` in pieces, cropped to the case, and moves the slab on to `end`."""
        done = end - self.first
        step = max(1, PIECE_SIZE // self.total[:, 0].numel())
        for at in range(0, done, step):
            planes = slice(at, min(at + step, done))
            piece = self.total[:, planes] / self.weights[planes]
            place = (slice(self.first + at, self.first + planes.stop), slice(None), slice(None))
            yield place, piece[:, :, : shape[1], : shape[2]]
        if done:
            for sums in (self.total, self.weights.unsqueeze(0)):
                _move_up(sums, done)
            self.first = end


def _move_up(sums: Float[Tensor, "n d h w"], count: int) -> None:
    """Shifts planes by `count` towards the start in place, one class at a time, and fills the end with zeros."""
    for planes in sums:
        kept = planes[count:].clone()
        planes[: len(kept)] = kept
        planes[len(kept) :] = 0


class SoftSums:
    """The sums of the soft Dice, over pieces.

    Sums in float32 depend on their grouping. Small cases are concatenated and summed at once, as all cases were before
    evaluation was done in pieces, so that recorded values repeat; larger ones are summed piece by piece.
    """

    def __init__(self, outputs: Outputs, num_voxels: int) -> None:
        self.outputs = outputs
        self.is_exact = self.keeps(outputs, num_voxels)
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.sums: list[Tensor] = []

    @staticmethod
    def keeps(outputs: Outputs, num_voxels: int) -> bool:
        """Whether the probabilities of a case of this many voxels are kept and summed at once."""
        return outputs.num_outputs * num_voxels <= MAX_EXACT_SOFT

    def add(self, probabilities: Float[Tensor, "K d h w"], mask: UInt8[Tensor, "d h w"]) -> None:
        if self.is_exact:
            self.kept.append((probabilities, mask))
        else:
            self.sums.append(self.outputs.soft_sums(probabilities[None], mask[None]))

    def total(self, axis: int) -> Float[Tensor, "3 K"]:
        """The sums over all pieces, which follow one another along an axis of (D, H, W)."""
        if not self.is_exact:
            return torch.stack(self.sums).sum(0)
        probabilities = torch.cat([piece for piece, _ in self.kept], 1 + axis)
        return self.outputs.soft_sums(probabilities[None], torch.cat([mask for _, mask in self.kept], axis)[None])


def subsets(axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All choices of the axes, from none to all: 2^n of n axes."""
    return list(chain.from_iterable(combinations(axes, count) for count in range(len(axes) + 1)))


def window_starts(size: int, window: int, overlap_fraction: float) -> list[int]:
    """Where windows start along an axis: evenly spaced up to its end, overlapping by `overlap_fraction` or more."""
    if size <= window:
        return [0]
    step = max(1, int(window * (1 - overlap_fraction)))
    count = -(-(size - window) // step) + 1
    return [round(index * (size - window) / (count - 1)) for index in range(count)]


def gaussian_weight(extent: Extent) -> Float[Tensor, "d h w"]:
    """A window's weights: a Gaussian, sigma an eighth of its size as in nnU-Net (Isensee et al. 2021), at least 1e-3.

    The minimum avoids division by almost 0 for voxels that only the corner of a window covers.
    """
    weight = torch.ones(extent)
    for axis, size in enumerate(extent):
        position = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
        line = torch.exp(-0.5 * (position / (size / 8)) ** 2)
        view = [1, 1, 1]
        view[axis] = size
        weight = weight * line.view(view)
    return weight.clamp(min=1e-3)
