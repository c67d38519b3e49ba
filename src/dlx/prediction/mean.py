"""The mean of the class probabilities of several networks for one scan, as their pieces come."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from dlx.engine.original_grid import Piece


def mean_pieces(streams: Sequence[Iterator[Piece]], axis: int) -> Iterator[Piece]:
    """The mean of pieces that cover the same voxels and follow one another along the same axis of (D, H, W).

    Streams may cut differently: a piece ends where that of any stream ends, and the streams wait for one another. One
    stream alone comes as it is.
    """
    if len(streams) == 1:
        yield from streams[0]
        return
    held: list[Piece | None] = [next(stream, None) for stream in streams]
    done = 0
    while any(piece is not None for piece in held):
        pieces = [piece for piece in held if piece is not None]
        assert len(pieces) == len(streams), "the streams cover unlike voxels"
        end = min(place[axis].stop for place, _ in pieces)
        total: Tensor | None = None
        for place, probabilities in pieces:
            part = probabilities.narrow(1 + axis, done - place[axis].start, end - done)
            total = part.clone() if total is None else total.add_(part)
        assert total is not None
        where = list(pieces[0][0])
        where[axis] = slice(done, end)
        del pieces
        yield (where[0], where[1], where[2]), total.div_(len(streams))
        held = [_after(piece, end, axis, stream) for piece, stream in zip(held, streams, strict=True)]
        done = end


def _after(piece: Piece | None, end: int, axis: int, stream: Iterator[Piece]) -> Piece | None:
    """The piece, or the next one of its stream if it ends here."""
    return piece if piece is not None and piece[0][axis].stop > end else next(stream, None)
