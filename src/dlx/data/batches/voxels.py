"""All voxels of a data set in one flat tensor on the device, from which boxes of any case are gathered by index."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from dlx.data.cases import Case
from dlx.data.geometry.orientation import turn
from dlx.data.intensities.ct import Windows
from dlx.system.errors import DataError

Extent = tuple[int, int, int]
TENSORS = ("images", "masks", "shape", "offset", "pad_value", "original_masks")
Windowing = tuple[Tensor, Tensor, Tensor, Tensor]  # low, high, mean and standard deviation, each (C,)


def store_bytes(cases: Sequence[Case]) -> int:
    """The bytes of a store of these cases, known before it is made (`VoxelStore.nbytes`)."""
    channels = int(cases[0].image.shape[-1])
    per_voxel = (4 if any(case.is_wide for case in cases) else 2) * channels + 1
    originals = sum(case.original.mask.size for case in cases if case.original is not None)
    return per_voxel * sum(case.mask.size for case in cases) + originals


class VoxelStore:
    """The voxels of many cases, flat: `images` (N, C) float16 and `masks` (N,) uint8, made on the host.

    It takes 2 C + 1 bytes per voxel and is shared by all trials that use the same cases. If any case needs float32, all
    images are float32, and it takes 4 C + 1; the values of the other cases stay those of float16. Cases that were
    resampled have their original masks beside: one byte per original voxel.
    """

    def __init__(self, cases: Sequence[Case]) -> None:
        if not cases:
            raise DataError("no cases to read voxels from")
        shapes = [case.mask.shape for case in cases]
        sizes = [int(np.prod(shape)) for shape in shapes]
        channels = cases[0].image.shape[-1]
        is_wide = any(case.is_wide for case in cases)
        images = torch.empty((sum(sizes), channels), dtype=torch.float32 if is_wide else torch.float16)
        masks = torch.empty(sum(sizes), dtype=torch.uint8)
        start = 0
        for case, size in zip(cases, sizes, strict=True):
            images[start : start + size] = torch.from_numpy(np.array(case.image).reshape(size, channels))
            masks[start : start + size] = torch.from_numpy(np.array(case.mask).reshape(size))
            start += size
        self.ids = tuple(case.id for case in cases)
        self.index = {case_id: position for position, case_id in enumerate(self.ids)}
        self.shapes: list[Extent] = [(int(d), int(h), int(w)) for d, h, w in shapes]
        self.boxes = [case.label_box for case in cases]
        self.images, self.masks = images, masks
        self.shape = torch.tensor(self.shapes)  # (cases, 3)
        self.offsets = [0, *np.cumsum(sizes)[:-1].tolist()]
        self.offset = torch.tensor(self.offsets)  # (cases,)
        self.pad_value = torch.stack([torch.from_numpy(np.array(case.pad_value)) for case in cases])
        self.channels = channels
        self.windowing: Windowing | None = None
        self._keep_originals(cases)

    def windowed(self, windows: Windows) -> "VoxelStore":
        """A view of the store that clips and standardises the channels that have a window, in all that it gathers.

        The voxels are shared with this store. The view's tensors stay as they are, so a step that reads them can be
        captured.
        """
        if not any(windows):
            return self
        rows = [
            (-math.inf, math.inf, 0.0, 1.0) if one is None else (one.low, one.high, one.mean, one.std)
            for one in windows
        ]
        low, high, mean, std = torch.tensor(rows, dtype=torch.float32, device=self.device).unbind(1)
        view = copy.copy(self)
        view.windowing = (low, high, mean, std)
        return view

    def _keep_originals(self, cases: Sequence[Case]) -> None:
        """The masks on which cases are measured, with their voxel sizes and orientations."""
        originals = [case.original for case in cases]
        self.is_resampled = [original is not None for original in originals]
        measured = [case.measured_mask.shape for case in cases]
        self.measured_shapes: list[Extent] = [(int(d), int(h), int(w)) for d, h, w in measured]
        self.measured_spacings_mm = [case.measured_spacing_mm for case in cases]
        self.orientations = [(case.orientation, case.stored_orientation) for case in cases]
        flat = [np.array(original.mask).reshape(-1) for original in originals if original is not None]
        sizes = [0 if original is None else original.mask.size for original in originals]
        self.original_masks = torch.from_numpy(np.concatenate(flat)) if flat else torch.empty(0, dtype=torch.uint8)
        self._original_offsets = [0, *np.cumsum(sizes)[:-1].tolist()]

    def to(self, device: torch.device) -> "VoxelStore":
        """A copy of the store on a device; the store itself if it is already there."""
        if device == self.device:
            return self
        moved = copy.copy(self)
        for name in TENSORS:
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def to_arrays(self) -> dict[str, Any]:
        """The store as a table of arrays and plain values, which `from_arrays` takes: sent without copies of voxels."""
        return vars(self) | {name: getattr(self, name).cpu().numpy() for name in TENSORS}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "VoxelStore":
        """The store that `to_arrays` took apart, on the host."""
        store = cls.__new__(cls)
        # arrays that were received are read-only; torch warns of those, though nothing writes to voxels
        vars(store).update(
            {
                name: torch.from_numpy(value.copy() if not value.flags.writeable else value)
                if name in TENSORS
                else value
                for name, value in arrays.items()
            }
        )
        return store

    def share_memory(self) -> None:
        """Moves host tensors to shared memory, so that sending the store to worker processes copies no voxels."""
        for name in TENSORS:
            getattr(self, name).share_memory_()

    @property
    def nbytes(self) -> int:
        """The bytes of all voxels, images and masks."""
        return self.images.nbytes + self.masks.nbytes + self.original_masks.nbytes

    @property
    def device(self) -> torch.device:
        return self.images.device

    def voxels(self, case: int) -> int:
        """The number of voxels of a case."""
        depth, height, width = self.shapes[case]
        return depth * height * width

    def measured_voxels(self, case: int) -> int:
        """The number of voxels on which a case is measured: those of its original mask if it was resampled."""
        return math.prod(self.measured_shapes[case])

    def mask(self, case: int) -> UInt8[Tensor, "D H W"]:
        """The whole mask of a case, uint8, as a view of the store."""
        depth, height, width = self.shapes[case]
        start = self.offsets[case]
        return self.masks[start : start + self.voxels(case)].view(depth, height, width)

    def measured_mask(self, case: int) -> UInt8[Tensor, "D H W"]:
        """The mask on which a case is measured: the original one if it was resampled. Its axes run as the image's."""
        if not self.is_resampled[case]:
            return self.mask(case)
        depth, height, width = self.measured_shapes[case]
        start = self._original_offsets[case]
        return self.original_masks[start : start + depth * height * width].view(depth, height, width)

    def as_stored(self, array: NDArray[Any], case: int) -> NDArray[Any]:
        """A view of an array (D, H, W) of measured voxels with the axes of the case's files."""
        orientation, stored = self.orientations[case]
        return turn(array, orientation, stored)

    def as_prepared(self, array: NDArray[Any], case: int) -> NDArray[Any]:
        """A view of an array (D, H, W, ...) on the voxels of the case's files with the axes of the prepared image."""
        orientation, stored = self.orientations[case]
        return turn(array, stored, orientation)

    def gather(
        self, case: Int[Tensor, " B"], start: Int[Tensor, "B 3"], extent: Extent
    ) -> tuple[Float[Tensor, "B d h w C"], Int[Tensor, "B d h w"]]:
        """Reads, from each `case`, the box of `extent` (d, h, w) that starts at `start` (which may be negative).

        Images come as float32 with channels last, masks as int64. Outside the volume the image is the case's
        `pad_value` and the mask 0. A windowed store clips and standardises the image, its pad value too.
        """
        shape = self.shape[case]  # (B, 3)
        inside, flat = None, self.offset[case].view(-1, 1, 1, 1)
        stride = torch.stack([shape[:, 1] * shape[:, 2], shape[:, 2], torch.ones_like(shape[:, 2])], 1)
        for axis in range(3):
            view = [len(case), 1, 1, 1]
            view[axis + 1] = extent[axis]
            position = start[:, axis : axis + 1] + torch.arange(extent[axis], device=self.device)  # (B, extent)
            size = shape[:, axis : axis + 1]
            valid = ((position >= 0) & (position < size)).view(view)
            inside = valid if inside is None else inside & valid
            clamped = torch.minimum(position.clamp(min=0), size - 1)
            flat = flat + (clamped * stride[:, axis : axis + 1]).view(view)
        assert inside is not None
        image = self.images[flat].float()  # (B, d, h, w, C)
        pad = self.pad_value[case].view(-1, 1, 1, 1, self.channels)
        image = torch.where(inside.unsqueeze(-1), image, pad)
        if self.windowing is not None:
            low, high, mean, std = self.windowing
            image = (image.clamp(low, high) - mean) / std
        return image, self.masks[flat].long() * inside
