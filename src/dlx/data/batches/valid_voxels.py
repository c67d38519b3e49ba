"""The voxels of data with an ignore label that are not ignored, from which positions of patches are drawn."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlx.data.cases import IGNORED, Box


class ValidVoxels:
    """The voxels of some cases that are not ignored, each case within a box, on the host.

    Kept as runs of voxels that follow one another in memory, 16 bytes per run: few where whole slices or parts of them
    are annotated, and at most 8 bytes per voxel. `counts` are the valid voxels of each case.
    """

    def __init__(self, masks: Iterable[Tensor], boxes: Sequence[Box]) -> None:  # masks are (D, H, W); sizes may differ
        runs, counts, shapes = [], [], []
        for mask, box in zip(masks, boxes, strict=True):
            place = tuple(slice(*bounds) for bounds in box)
            is_valid = torch.zeros_like(mask, dtype=torch.bool)
            is_valid[place] = mask[place] != IGNORED
            outside = is_valid.new_zeros(1)
            edges = torch.cat([outside, is_valid.flatten(), outside]).diff().nonzero()  # starts and ends in turn
            runs.append(edges.view(-1, 2).cpu())
            counts.append(int((runs[-1][:, 1] - runs[-1][:, 0]).sum()))
            shapes.append(tuple(mask.shape))
        starts, ends = torch.cat(runs).unbind(1)
        self.counts = torch.tensor(counts)  # (cases,)
        self._first = self.counts.cumsum(0) - self.counts
        self._run_start = starts
        self._run_first = (ends - starts).cumsum(0) - (ends - starts)
        self._shapes = torch.tensor(shapes)

    def draw(self, case: Int[Tensor, " n"], uniform: Float[Tensor, " n"]) -> Int[Tensor, "n 3"]:
        """The (D, H, W) position of a valid voxel of each case, which must have one, from draws in [0, 1)."""
        number = self._first[case] + (uniform * self.counts[case]).long()
        run = torch.searchsorted(self._run_first, number, right=True) - 1
        flat = self._run_start[run] + number - self._run_first[run]
        _, height, width = self._shapes[case].unbind(1)
        return torch.stack([flat // (height * width), flat // width % height, flat % width], 1)
