"""Which patches a step sees: drawn on the host, an epoch at once, from the order stream; gathered on the device.

A 2D network's patches are slices: boxes one voxel thick along the slice axis. The notes' batch is one cube of one
subject, all of whose slices are the batch (`block`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlx.data.voxels import Extent, VoxelStore
from dlx.settings.spec import BatchSpec


class Foreground:
    """Where the labelled voxels of some cases lie, on the host: a flat index each, 4 bytes."""

    def __init__(self, masks: Iterable[Tensor]) -> None:  # each (D, H, W), of a size of its own
        flat, shapes = [], []
        for mask in masks:
            index = mask.flatten().nonzero().squeeze(1)
            flat.append(index.to(torch.int32 if mask.numel() < 2**31 else torch.int64).cpu())
            shapes.append(tuple(mask.shape))
        self.counts = torch.tensor([len(index) for index in flat])  # (cases,)
        self.flat = torch.cat(flat)
        self._first = self.counts.cumsum(0) - self.counts
        self._shapes = torch.tensor(shapes)

    def position(self, case: Int[Tensor, " n"], which: Int[Tensor, " n"]) -> Int[Tensor, "n 3"]:
        """Where (D, H, W) the labelled voxel number `which` of each case lies, counted from the corner on."""
        flat = self.flat[self._first[case] + which].long()
        _, height, width = self._shapes[case].unbind(1)
        return torch.stack([flat // (height * width), flat // width % height, flat % width], 1)


@dataclass(frozen=True)
class PatchPlan:
    """How boxes are placed: their extent (D, H, W), the cases drawn from, and where in each they may lie.

    `boxes` are half-open bounds per case and axis; a patch stays inside its box where it fits, and is centred on it
    (so that it reaches beyond) along an axis where the box is smaller than the patch.
    """

    extent: Extent
    cases: tuple[int, ...]
    boxes: tuple[tuple[tuple[int, int], tuple[int, int], tuple[int, int]], ...]
    foreground_fraction: float = 0.0

    def draw_epoch(
        self, num_steps: int, batch_size: int, order: torch.Generator, foreground: Foreground | None = None
    ) -> tuple[Int[Tensor, "S B"], Int[Tensor, "S B 3"]]:
        """Case indices and start corners for every patch of an epoch, drawn on the host from `order`.

        Cases are drawn uniformly. `foreground` holds the labelled voxels of each entry of `cases`; it is needed where
        `foreground_fraction` is above zero: that share of patches is centred on one.
        """
        shape = (num_steps, batch_size)
        picked = torch.randint(len(self.cases), shape, generator=order)
        low = torch.tensor([[bounds[0] for bounds in box] for box in self.boxes])[picked]
        size = torch.tensor([[bounds[1] - bounds[0] for bounds in box] for box in self.boxes])[picked]
        room = size - torch.tensor(self.extent)  # (S, B, 3): negative where the box is smaller
        uniform = torch.rand((*shape, 3), generator=order, dtype=torch.float64)
        start = low + torch.where(room >= 0, (uniform * (room + 1)).long(), room // 2)
        if self.foreground_fraction > 0 and foreground is not None:
            start = self._centre_on_foreground(start, picked, low, room, order, foreground)
        return torch.tensor(self.cases)[picked], start

    def _centre_on_foreground(
        self, start: Tensor, picked: Tensor, low: Tensor, room: Tensor, order: torch.Generator, foreground: Foreground
    ) -> Tensor:
        counts = foreground.counts[picked]
        chance = torch.rand(picked.shape, generator=order, dtype=torch.float64)
        which = (torch.rand(picked.shape, generator=order, dtype=torch.float64) * counts).long()
        chosen = (chance < self.foreground_fraction) & (counts > 0)
        centre = foreground.position(picked[chosen], which[chosen]) - torch.tensor(self.extent) // 2
        low, room = low[chosen], room[chosen]
        placed = torch.minimum(torch.maximum(centre, low), low + room.clamp(min=0))
        start = start.clone()
        start[chosen] = torch.where(room >= 0, placed, start[chosen])
        return start


def fit_patch_size(asked: tuple[int, ...] | None, shapes: Sequence[tuple[int, ...]], stride: int) -> tuple[int, ...]:
    """The patch a study trains on: what was asked, else one of about the training subjects' median size.

    Each side is the median size (of the axes the patch spans) rounded up to a multiple of the network's `stride`,
    and at most 64 (2D) or 48 (3D) voxels, or one stride where that is more: this keeps a step within what a CPU does
    in a fraction of a second.
    """
    if asked is not None:
        return asked
    dims = len(shapes[0])
    limit = max(stride, 64 if dims == 2 else 48)
    medians = np.median(np.array(shapes), axis=0)
    return tuple(min(limit, -(-int(np.ceil(median)) // stride) * stride) for median in medians)


def box_extent(patch_size_px: tuple[int, ...], batch: BatchSpec) -> Extent:
    """The box (D, H, W) a patch fills: a 2D patch is one voxel thick along the slice axis, a block `size` voxels."""
    if len(patch_size_px) == 3:
        return patch_size_px[0], patch_size_px[1], patch_size_px[2]
    sides = list(patch_size_px)
    sides.insert(batch.slice_axis, batch.size if batch.kind == "block" else 1)
    return sides[0], sides[1], sides[2]


class PatchSource:
    """The batches of one trial: `begin_epoch` draws them, `seek` chooses one, `gather` gives it on the training device.

    Everything between is on the device, in tensors that stay where they are, so that `gather` can be part of a captured
    step. Where the voxels are on the host, `seek` brings the batch over and `gather` hands it out.
    """

    def __init__(
        self, store: VoxelStore, plan: PatchPlan, batch: BatchSpec, dims: int, device: torch.device, num_steps: int
    ) -> None:
        self.store, self.plan, self.dims, self.device, self.num_steps = store, plan, dims, device, num_steps
        self.slice_axis = batch.slice_axis
        self.num_boxes = 1 if batch.kind == "block" and dims == 2 else batch.size
        self.is_block = batch.kind == "block" and dims == 2
        self.foreground = None
        if plan.foreground_fraction:
            self.foreground = Foreground(store.mask(case) for case in plan.cases)
        self.drawn: tuple[Tensor, Tensor] | None = None  # on the host
        self.cases = torch.zeros(num_steps, self.num_boxes, dtype=torch.int64, device=store.device)
        self.starts = torch.zeros(num_steps, self.num_boxes, 3, dtype=torch.int64, device=store.device)
        self.at = torch.zeros(1, dtype=torch.int64, device=store.device)
        self.brought: tuple[Tensor, Tensor] | None = None

    def begin_epoch(self, order: torch.Generator) -> None:
        """Draws every patch of the next epoch and sends the indices to the store's device, once."""
        cases, starts = self.plan.draw_epoch(self.num_steps, self.num_boxes, order, self.foreground)
        self.drawn = (cases, starts)
        self.cases.copy_(cases)
        self.starts.copy_(starts)

    def index_bytes(self) -> bytes:
        """The epoch's cases and corners as bytes: two trials with the same bytes saw the same batches.

        A case is written as its position among the trial's own, whatever else the store holds.
        """
        assert self.drawn is not None
        cases, starts = self.drawn
        position = torch.zeros(max(self.plan.cases) + 1, dtype=torch.int64)
        position[list(self.plan.cases)] = torch.arange(len(self.plan.cases))
        return position[cases].numpy().tobytes() + starts.numpy().tobytes()

    def batch(self, step: int) -> tuple[Float[Tensor, "B C *S"], Int[Tensor, "B *S"]]:
        """Images (channels last in memory) and masks of one step; `begin_epoch` must have been called."""
        self.seek(step)
        return self.gather()

    def seek(self, step: int) -> None:
        """Makes `step` the one that is gathered next."""
        assert self.drawn is not None
        self.at.fill_(step)
        if self.store.device != self.device:
            batch = self._from_store()
            if self.brought is None:
                image, mask = batch
                self.brought = (torch.empty_like(image, device=self.device), torch.empty_like(mask, device=self.device))
            for place, tensor in zip(self.brought, batch, strict=True):
                place.copy_(tensor, non_blocking=True)

    def gather(self) -> tuple[Float[Tensor, "B C *S"], Int[Tensor, "B *S"]]:
        """Images and masks of the step that was sought, on the training device."""
        return self._from_store() if self.brought is None else self.brought

    def _from_store(self) -> tuple[Float[Tensor, "B C *S"], Int[Tensor, "B *S"]]:
        cases, starts = (drawn.index_select(0, self.at)[0] for drawn in (self.cases, self.starts))
        image, mask = self.store.gather(cases, starts, self.plan.extent)
        if self.is_block:  # (1, d, h, w, C): the slices of the one cube become the batch
            image, mask = (box[0].movedim(self.slice_axis, 0).contiguous() for box in (image, mask))
        elif self.dims == 2:
            image, mask = (box.squeeze(1 + self.slice_axis) for box in (image, mask))
        return image.movedim(-1, 1), mask
