"""Whitening: a normaliser that decorrelates the channels of an image, and the correlations before and after."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlx.data.cases import Case
from dlx.data.intensities.normalize import Image, Over, PadValue, check_range, foreground_of
from dlx.system.errors import DataError

SINGULAR = 1e-6  # eigenvalue of the correlation matrix; below it one channel is a mixture of the others and noise


def whiten(image: NDArray[Any], *, over: Over = "foreground") -> tuple[Image, PadValue]:
    """Uncorrelated channels with mean 0 and variance 1, each as close as possible to the original channel.

    ZCA-cor whitening (Kessy et al. 2018, The American Statistician 72): the channels' z-scores times the inverse square
    root of their correlation matrix. `image` is (C, D, H, W); statistics are in float64 over the same voxels as for
    `zscore`. Raises DataError as `zscore` does, and if a channel is a mixture of the others.
    """
    foreground = foreground_of(image) if over == "foreground" else None
    values = _values(image, foreground)
    mean, std = values.mean(1), values.std(1)
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise DataError("a channel has values that are not finite")
    if constant := [str(c) for c, row in enumerate(values) if row.min() == row.max()]:
        raise DataError(f"channel {', '.join(constant)} is constant in the voxels used for its statistics")
    correlation = np.atleast_2d(np.corrcoef(values))
    eigenvalues, vectors = np.linalg.eigh(correlation)
    if eigenvalues[0] < SINGULAR:
        raise DataError("a channel is a mixture of the others, so the channels cannot be whitened: try zscore")
    mixing = vectors / np.sqrt(eigenvalues) @ vectors.T / std  # (C, C), applied to raw values minus their means
    centred = image.reshape(len(image), -1).astype(np.float64) - mean[:, None]
    whitened = (mixing @ centred).reshape(image.shape).astype(np.float32)
    pad_value = np.zeros(len(image), np.float32) if foreground is None else (mixing @ -mean).astype(np.float32)
    check_range(whitened, "the background lies too far from the foreground (data.normalize.over=all takes all voxels)")
    return whitened, pad_value


def strongest_correlation(image: NDArray[Any], foreground: NDArray[np.bool_] | None) -> float | None:
    """The strongest correlation of any two channels of (C, D, H, W); None if it is not defined."""
    values = _values(image, foreground)
    if len(values) < 2 or values.shape[1] < 2 or (values.min(1) == values.max(1)).any():
        return None
    correlation = np.atleast_2d(np.corrcoef(values))[np.triu_indices(len(values), 1)]
    return float(correlation[np.abs(correlation).argmax()])


def describe_correlations(cases: Sequence[Case]) -> list[str]:
    """A line on the channels' correlations before and after whitening; empty if the cases were not whitened."""
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
    """(C, n): the values of the foreground (None: of all voxels) for each channel."""
    flat = image.reshape(len(image), -1) if foreground is None else image[:, foreground]
    return flat.astype(np.float64)
