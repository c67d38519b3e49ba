"""The mean of pieces that several networks cut differently."""

import numpy as np
import torch

from dlx.prediction.mean import mean_pieces

SHAPE = (2, 7, 4, 3)  # K, D, H, W


def pieces(probabilities, axis, sizes, log=None):
    """A volume in pieces of these sizes along an axis; `log` takes a note when one is computed."""
    start = 0
    for size in sizes:
        place = [slice(None)] * 3
        place[axis] = slice(start, start + size)
        if log is not None:
            log.append(start)
        yield tuple(place), probabilities[:, *place]
        start += size


def test_the_mean_of_pieces_cut_differently_covers_the_volume_once():
    volumes = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    for axis, cuts in ((0, ([7], [3, 3, 1], [2, 2, 3])), (1, ([1, 3], [4], [2, 2])), (2, ([1, 1, 1], [3], [2, 1]))):
        streams = [pieces(volume, axis, sizes) for volume, sizes in zip(volumes, cuts, strict=True)]
        found = torch.full(SHAPE, float("nan"))
        for place, mean in mean_pieces(streams, axis):
            assert found[:, *place].isnan().all()
            found[:, *place] = mean
        np.testing.assert_allclose(found, volumes.mean(0), rtol=1e-6)


def test_one_stream_comes_as_it_is():
    volume = torch.rand(SHAPE)
    given = list(pieces(volume, 0, [4, 3]))
    assert all(one[1] is other[1] for one, other in zip(mean_pieces([iter(given)], 0), given, strict=True))


def test_the_pieces_of_a_stream_are_not_changed_and_come_when_they_are_needed():
    volumes, before, log = torch.rand(2, *SHAPE), None, []
    before = volumes.clone()
    streams = [pieces(volumes[0], 0, [1] * 7, log), pieces(volumes[1], 0, [3, 4])]
    for place, _ in mean_pieces(streams, 0):
        assert log[-1] == place[0].start  # none is computed before its turn
    assert torch.equal(volumes, before)
