"""Whitening: the channels of an image made uncorrelated, and how much they were and are correlated."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlx.data.cases import Case
from dlx.data.normalize import Image, Over, PadValue, check_range, foreground_of
from dlx.system.errors import DataError

SINGULAR = (
    1e-6  # of the correlations' eigenvalues: below it a channel is the others' echo, and only noise would be left
)


def whiten(image: NDArray[Any], *, over: Over = "foreground") -> tuple[Image, PadValue]:
    """The channels with mean 0, variance 1 and no correlation between them, each as near to its own as can be.

    ZCA-cor whitening (Kessy et al. 2018, The American Statistician 72): the channels' z-scores times the inverse root
    of their correlation matrix. Statistics in float64, over the voxels that `zscore` takes them over; `image` is (C, D,
    H, W). Raises DataError as `zscore` does, and where a channel is a mixture of the others.
    """
    foreground = foreground_of(image) if over == "foreground" else None
    values = _values(image, foreground)
    mean, std = values.mean(1), values.std(1)
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise DataError("a channel has values that are not finite")
    if constant := [str(c) for c, row in enumerate(values) if row.min() == row.max()]:
        raise DataError(f"channel {', '.join(constant)} is constant in the voxels that it is normalised over")
    correlation = np.atleast_2d(np.corrcoef(values))
    eigenvalues, vectors = np.linalg.eigh(correlation)
    if eigenvalues[0] < SINGULAR:
        raise DataError("its channels cannot be told apart (one is a mixture of the others): whitening needs more")
    mixing = vectors / np.sqrt(eigenvalues) @ vectors.T / std  # (C, C): of raw values less their means
    centred = image.reshape(len(image), -1).astype(np.float64) - mean[:, None]
    whitened = (mixing @ centred).reshape(image.shape).astype(np.float32)
    pad_value = np.zeros(len(image), np.float32) if foreground is None else (mixing @ -mean).astype(np.float32)
    check_range(whitened, "the background lies too far from the foreground: try --set data.normalize.over=all")
    return whitened, pad_value


def strongest_correlation(image: NDArray[Any], foreground: NDArray[np.bool_] | None) -> float | None:
    """The correlation of the two channels of (C, D, H, W) that have the strongest one; None where there is none."""
    values = _values(image, foreground)
    if len(values) < 2 or values.shape[1] < 2 or (values.min(1) == values.max(1)).any():
        return None
    correlation = np.atleast_2d(np.corrcoef(values))[np.triu_indices(len(values), 1)]
    return float(correlation[np.abs(correlation).argmax()])


def describe_correlations(cases: Sequence[Case]) -> list[str]:
    """For the user: how the channels of these cases correlate before and after they were whitened, if they were."""
    known = [case.correlations for case in cases if case.correlations is not None]
    if not known:
        return []
    before, after = zip(*known, strict=True)
    weakest, strongest = min(before, key=abs), max(before, key=abs)
    return [
        f"whitened: in the foreground the channels of {len(known)} cases correlate at {weakest:.2f} to {strongest:.2f} "
        f"before and at most {max(map(abs, after)):.4f} after"
    ]


def _values(image: NDArray[Any], foreground: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """(C, n): the voxels that count, channel by channel."""
    flat = image.reshape(len(image), -1) if foreground is None else image[:, foreground]
    return flat.astype(np.float64)
