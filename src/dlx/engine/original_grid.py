"""Class probabilities of a resampled case, brought back to its original voxels piece by piece.

The pieces follow one another along one axis, so an original plane is complete as soon as the two prepared planes beside
it are there: only one plane of the previous piece is kept, and no piece is larger than asked.
"""

from collections.abc import Iterable, Iterator
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from dlx.data.batches.voxels import Extent
from dlx.data.geometry.resample import linear_weights

Place = tuple[slice, slice, slice]
Piece = tuple[Place, Float[Tensor, "K d h w"]]


def to_original(
    pieces: Iterable[Piece], axis: int, prepared: Extent, original: Extent, max_size: int
) -> Iterator[Piece]:
    """The pieces of a case of `prepared` size, resampled linearly to the voxels of the `original` size.

    `pieces` follow one another along `axis` of (D, H, W) and cover the case once; so do the results, of at most
    `max_size` probabilities or one plane. Each class is interpolated by itself; the fields of view are the same.
    """
    low, high, fraction = linear_weights(prepared[axis], original[axis])
    across = [size for other, size in enumerate(original) if other != axis]
    kept: Tensor | None = None  # the last prepared planes that later original planes need, along axis 1
    first = done = 0  # the first kept prepared plane; original planes that are complete
    for _, piece in pieces:
        planes = piece.movedim(1 + axis, 1)  # (K, n, h, w)
        kept = planes if kept is None else torch.cat([kept, planes], 1)
        complete = int((high < first + kept.shape[1]).sum())  # `high` increases
        step = max(1, max_size // (len(kept) * max(prod(across), prod(kept.shape[2:]))))
        for at in range(done, complete, step):
            which = slice(at, min(at + step, complete))
            below, above = (torch.from_numpy(side[which] - first).to(kept.device) for side in (low, high))
            weight = torch.from_numpy(fraction[which]).to(kept.device, kept.dtype).view(1, -1, 1, 1)
            mixed = torch.lerp(kept.index_select(1, below), kept.index_select(1, above), weight)
            size = (mixed.shape[1], across[0], across[1])
            resampled = interpolate(mixed[None], size=size, mode="trilinear", align_corners=False)[0]
            place = [slice(None)] * 3
            place[axis] = which
            yield (place[0], place[1], place[2]), resampled.movedim(1, 1 + axis)
        done = complete
        if done < len(low):
            needed = min(int(low[done]) - first, kept.shape[1])
            kept, first = kept[:, needed:].clone(), first + needed
