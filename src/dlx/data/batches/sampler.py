"""The patches of each step: drawn on the host from the order stream, an epoch at a time; gathered on the device.

A 2D network's patches are slices: boxes one voxel thick along the slice axis. With `batch.kind` = `block`, a batch is
all slices of one cube of one subject. Patches of data with an ignore label contain a voxel that is not ignored.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlx.data.batches.valid_voxels import ValidVoxels
from dlx.data.batches.voxels import Extent, VoxelStore
from dlx.data.cases import IGNORED, Box
from dlx.settings.spec import BatchSpec, ForegroundBy
from dlx.system.ranks import ALONE, Ranks

NUM_VALUES = 256  # of a mask, which is uint8


class Foreground:
    """The positions of the labelled voxels of some cases, on the host: a flat index of 4 bytes per voxel.

    The voxels of a case are in memory order; with `by_class` class by class, and in memory order within a class.
    `class_counts` holds the voxels of each class, background first (with 0), and is only there with `by_class`. If
    there are `regions`, sets of classes that may overlap, these are drawn instead of classes.
    """

    def __init__(  # each mask is (D, H, W); sizes may differ
        self, masks: Iterable[Tensor], *, by_class: bool = False, regions: Sequence[Sequence[int]] = ()
    ) -> None:
        flat, shapes, counts = [], [], []
        for mask in masks:
            index = ((mask != 0) & (mask != IGNORED)).flatten().nonzero().squeeze(1)
            if by_class:
                classes = mask.flatten()[index]
                counts.append(torch.bincount(classes.cpu(), minlength=NUM_VALUES))
                index = torch.cat([index[classes == k] for k in counts[-1].nonzero().squeeze(1).tolist()] or [index])
            flat.append(index.to(torch.int32 if mask.numel() < 2**31 else torch.int64).cpu())
            shapes.append(tuple(mask.shape))
        self.counts = torch.tensor([len(index) for index in flat])  # (cases,)
        self.flat = torch.cat(flat)
        self.class_counts: Tensor | None = None  # (cases, classes)
        self._members: Tensor | None = None
        if by_class:
            self.class_counts, self._members = _counts_and_members(counts, regions)
        self._first = self.counts.cumsum(0) - self.counts
        self._shapes = torch.tensor(shapes)

    def draw(
        self, case: Int[Tensor, " n"], voxel: Float[Tensor, " n"], class_: Float[Tensor, " n"] | None
    ) -> Int[Tensor, " n"]:
        """The number of a labelled voxel of each case, which must have one, from uniform draws in [0, 1).

        Without `class_`, any labelled voxel by `voxel`; with it (and `by_class`) one of the classes that the case has
        by `class_`, then one of its voxels by `voxel`.
        """
        if class_ is None or self.class_counts is None or self._members is None:
            return (voxel * self.counts[case]).long()
        is_there = (self.class_counts @ self._members.T > 0)[case]  # (n, sets)
        nth = (class_ * is_there.sum(1)).long()  # of the sets that the case has, from 0
        chosen = (is_there.cumsum(1) <= nth.unsqueeze(1)).sum(1)
        counts = self.class_counts[case]  # (n, classes)
        within = counts * self._members[chosen]
        at = (voxel * within.sum(1)).long().unsqueeze(1)  # the number of the voxel in its set, class by class
        class_at = (within.cumsum(1) <= at).sum(1, keepdim=True)
        skipped = (counts - within).cumsum(1).gather(1, class_at)  # of classes before it that are not in the set
        return (at + skipped).squeeze(1)

    def position(self, case: Int[Tensor, " n"], which: Int[Tensor, " n"]) -> Int[Tensor, "n 3"]:
        """The (D, H, W) position of labelled voxel number `which` (counted from 0, in memory order) of each case."""
        flat = self.flat[self._first[case] + which].long()
        _, height, width = self._shapes[case].unbind(1)
        return torch.stack([flat // (height * width), flat // width % height, flat % width], 1)


def _counts_and_members(
    counts: list[Tensor], regions: Sequence[Sequence[int]]
) -> tuple[Int[Tensor, "cases classes"], Int[Tensor, "sets classes"]]:
    """The voxels of each class in each case, and which classes (1) belong to which set: a region, or one class."""
    highest = max([1, *(int(k) for of_case in counts for k in of_case.nonzero()), *(k for one in regions for k in one)])
    sets = regions or [[k] for k in range(1, highest + 1)]
    members = torch.zeros(len(sets), highest + 1, dtype=torch.int64)
    for row, classes in zip(members, sets, strict=True):
        row[list(classes)] = 1
    return torch.stack(counts)[:, : highest + 1], members


@dataclass(frozen=True)
class PatchSampler:
    """Draws the positions of patches of one extent (D, H, W): from which `cases`, and within which box of each.

    `boxes` are half-open bounds per case and axis. A patch stays inside its box; along an axis on which the box is
    smaller than the patch, the patch is centred on the box and reaches beyond it.
    """

    extent: Extent
    cases: tuple[int, ...]
    boxes: tuple[Box, ...]
    foreground_fraction: float = 0.0
    foreground_by: ForegroundBy = "voxel"
    regions: tuple[tuple[int, ...], ...] = ()
    has_ignored: bool = False

    def draw_epoch(
        self,
        num_steps: int,
        batch_size: int,
        order: torch.Generator,
        foreground: Foreground | None = None,
        valid: ValidVoxels | None = None,
    ) -> tuple[Int[Tensor, "S B"], Int[Tensor, "S B 3"]]:
        """Case indices and start corners for every patch of an epoch, drawn on the host from `order`.

        Cases are drawn uniformly. `foreground` holds the labelled voxels of each entry of `cases`. It is needed if
        `foreground_fraction` is above zero: this fraction of the patches is centred on a labelled voxel, which
        `foreground_by` draws from all of the case, or from a class that is drawn first. The draws of `class` come last:
        all others, and so cases and other patches, are the same for both.

        `valid` holds the voxels within the box of each entry of `cases` that are not ignored, for data with an ignore
        label: the other patches are then centred on one of these, drawn uniformly, as nnU-Net does (its
        base_data_loader.py). A case without one is drawn from as if nothing were ignored.
        """
        shape = (num_steps, batch_size)
        picked = torch.randint(len(self.cases), shape, generator=order)
        low = torch.tensor([[bounds[0] for bounds in box] for box in self.boxes])[picked]
        size = torch.tensor([[bounds[1] - bounds[0] for bounds in box] for box in self.boxes])[picked]
        room = size - torch.tensor(self.extent)  # (S, B, 3): negative where the box is smaller
        uniform = torch.rand((*shape, 3), generator=order, dtype=torch.float64)
        start = low + torch.where(room >= 0, (uniform * (room + 1)).long(), room // 2)
        if valid is not None:
            chosen = valid.counts[picked] > 0
            start = self._centre(start, chosen, valid.draw(picked[chosen], uniform[chosen][:, 0]), low, room)
        if self.foreground_fraction > 0 and foreground is not None:
            start = self._centre_on_foreground(start, picked, low, room, order, foreground)
        return torch.tensor(self.cases)[picked], start

    def _centre_on_foreground(
        self, start: Tensor, picked: Tensor, low: Tensor, room: Tensor, order: torch.Generator, foreground: Foreground
    ) -> Tensor:
        counts = foreground.counts[picked]
        chance = torch.rand(picked.shape, generator=order, dtype=torch.float64)
        voxel = torch.rand(picked.shape, generator=order, dtype=torch.float64)
        is_by_class = self.foreground_by == "class"
        class_ = torch.rand(picked.shape, generator=order, dtype=torch.float64) if is_by_class else None
        chosen = (chance < self.foreground_fraction) & (counts > 0)
        which = foreground.draw(picked[chosen], voxel[chosen], None if class_ is None else class_[chosen])
        return self._centre(start, chosen, foreground.position(picked[chosen], which), low, room)

    def _centre(self, start: Tensor, chosen: Tensor, position: Tensor, low: Tensor, room: Tensor) -> Tensor:
        """The starts with the `chosen` patches around voxels at these positions, but inside their boxes."""
        low, room = low[chosen], room[chosen]
        centred = position - torch.tensor(self.extent) // 2
        placed = torch.minimum(torch.maximum(centred, low), low + room.clamp(min=0))
        start = start.clone()
        start[chosen] = torch.where(room >= 0, placed, start[chosen])
        return start


def fit_patch_size(asked: tuple[int, ...] | None, shapes: Sequence[tuple[int, ...]], stride: int) -> tuple[int, ...]:
    """The patch size of a study: `asked` if given, else about the median size of the training subjects.

    Each side is the median size (of the axes the patch spans) rounded up to a multiple of the network's `stride`,
    limited to 64 (2D) or 48 (3D) voxels, or to one stride if that is more. With these limits a step takes a CPU a
    fraction of a second.
    """
    if asked is not None:
        return asked
    limit = max(stride, 64 if len(shapes[0]) == 2 else 48)
    return tuple(min(limit, side) for side in median_patch(shapes, stride))


def median_patch(shapes: Sequence[tuple[int, ...]], stride: int) -> tuple[int, ...]:
    """The median size along each axis, rounded up to a multiple of `stride`."""
    medians = np.median(np.array(shapes), axis=0)
    return tuple(-(-int(np.ceil(median)) // stride) * stride for median in medians)


def slice_sizes(shapes: Sequence[tuple[int, ...]], axis: int) -> list[tuple[int, ...]]:
    """The size of the slices of each shape (D, H, W) along an axis."""
    return [shape[:axis] + shape[axis + 1 :] for shape in shapes]


def box_extent(patch_size_px: tuple[int, ...], batch: BatchSpec) -> Extent:
    """The box (D, H, W) of a patch: along the slice axis a 2D patch is one voxel thick, a block `size` voxels."""
    if len(patch_size_px) == 3:
        return patch_size_px[0], patch_size_px[1], patch_size_px[2]
    sides = list(patch_size_px)
    sides.insert(batch.fitted_slice_axis, batch.fitted_size if batch.kind == "block" else 1)
    return sides[0], sides[1], sides[2]


class PatchSource:
    """The batches of one trial: `begin_epoch` draws them, `seek` selects one, `gather` returns it on the device.

    `gather` reads only device tensors that are never reallocated, so it can be captured in a CUDA graph. If the voxels
    are on the host, `seek` copies the batch to the device and `gather` returns this copy.
    """

    def __init__(
        self,
        store: VoxelStore,
        sampler: PatchSampler,
        batch: BatchSpec,
        dims: int,
        device: torch.device,
        num_steps: int,
        ranks: Ranks = ALONE,
    ) -> None:
        """`ranks`: all draw the same batches, of which `gather` returns this rank's part."""
        self.ranks = ranks
        self.store, self.sampler, self.dims, self.device, self.num_steps = store, sampler, dims, device, num_steps
        self.slice_axis = batch.fitted_slice_axis
        self.num_boxes = 1 if batch.kind == "block" and dims == 2 else batch.fitted_size
        self.is_block = batch.kind == "block" and dims == 2
        self.foreground = None
        if sampler.foreground_fraction:
            masks = (store.mask(case) for case in sampler.cases)
            self.foreground = Foreground(masks, by_class=sampler.foreground_by == "class", regions=sampler.regions)
        self.valid = None
        if sampler.has_ignored:
            self.valid = ValidVoxels((store.mask(case) for case in sampler.cases), sampler.boxes)
        self.drawn: tuple[Tensor, Tensor] | None = None  # on the host
        self.cases = torch.zeros(num_steps, self.num_boxes, dtype=torch.int64, device=store.device)
        self.starts = torch.zeros(num_steps, self.num_boxes, 3, dtype=torch.int64, device=store.device)
        self.at = torch.zeros(1, dtype=torch.int64, device=store.device)
        self.copied: tuple[Tensor, Tensor] | None = None

    def begin_epoch(self, order: torch.Generator) -> None:
        """Draws all patches of the next epoch and copies their indices to the store's device, once per epoch."""
        cases, starts = self.sampler.draw_epoch(self.num_steps, self.num_boxes, order, self.foreground, self.valid)
        self.drawn = (cases, starts)
        self.cases.copy_(cases)
        self.starts.copy_(starts)

    def index_bytes(self) -> bytes:
        """The epoch's cases and corners as bytes: two trials with the same bytes saw the same batches.

        A case is identified by its position among the trial's cases, so other cases in the store make no difference.
        """
        assert self.drawn is not None
        cases, starts = self.drawn
        position = torch.zeros(max(self.sampler.cases) + 1, dtype=torch.int64)
        position[list(self.sampler.cases)] = torch.arange(len(self.sampler.cases))
        return position[cases].numpy().tobytes() + starts.numpy().tobytes()

    def batch(self, step: int) -> tuple[Float[Tensor, "B C *S"], Int[Tensor, "B *S"]]:
        """Images (channels last in memory) and masks of one step; `begin_epoch` must have been called."""
        self.seek(step)
        return self.gather()

    def seek(self, step: int) -> None:
        """Selects the step that `gather` returns."""
        assert self.drawn is not None
        self.at.fill_(step)
        if self.store.device != self.device:
            batch = self._from_store()
            if self.copied is None:
                image, mask = batch
                self.copied = (torch.empty_like(image, device=self.device), torch.empty_like(mask, device=self.device))
            for target, tensor in zip(self.copied, batch, strict=True):
                target.copy_(tensor, non_blocking=True)

    def gather(self) -> tuple[Float[Tensor, "B C *S"], Int[Tensor, "B *S"]]:
        """Images and masks of the selected step, on the training device."""
        return self._from_store() if self.copied is None else self.copied

    def _from_store(self) -> tuple[Float[Tensor, "B C *S"], Int[Tensor, "B *S"]]:
        cases, starts = (drawn.index_select(0, self.at)[0] for drawn in (self.cases, self.starts))
        if self.ranks.size > 1 and not self.is_block:
            part = self.ranks.part(self.num_boxes)
            cases, starts = cases[part], starts[part]
        image, mask = self.store.gather(cases, starts, self.sampler.extent)
        if self.is_block:  # (1, d, h, w, C): the slices of the one cube become the batch
            image, mask = (box[0].movedim(self.slice_axis, 0).contiguous() for box in (image, mask))
            if self.ranks.size > 1:
                image, mask = (slices[self.ranks.part(len(slices))] for slices in (image, mask))
        elif self.dims == 2:
            image, mask = (box.squeeze(1 + self.slice_axis) for box in (image, mask))
        return image.movedim(-1, 1), mask
