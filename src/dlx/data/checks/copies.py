"""Finds copies of an image that hashes cannot detect: noisy, cropped, mirrored, resampled, or with a lost header.

Images are compared by their thumbnails (coarse volumes in canonical orientation) after a high-pass filter. Shifting an
image, for example by cropping, does not change the magnitudes of its spectrum, so one matrix product per orientation
compares all pairs by the correlation of these magnitudes. Pairs with some correlation are then aligned and compared
again. Nothing here needs full images, files or splits. The thresholds were measured: see "copies of an image" in
docs/log.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from dlx.data.thumbnails import LONGEST_2D, LONGEST_3D, Thumbnail, resample

Array = NDArray[np.float32]
Axes = tuple[int, ...]
Turn = tuple[Axes, Axes]  # the order of the axes, and which of them to flip after reordering

MIN_CELLS = 500  # of a thumbnail; the spectra of smaller ones are similar by chance
MAX_GROWTH = 1.5  # an image larger in mm than the others may have up to this factor times LONGEST cells per side
DETAIL = 2.0  # cells, of the high-pass filter: in lower frequencies all heads are alike
BAND_3D, BAND_2D = 8, 16  # compared frequencies on each side of zero, in cycles per 1.5 times the longest side
# Correlations of spectra: from POSSIBLE on a pair is aligned; SURE is a copy without that, if too many are. The largest
# of the 33,670 pairs of the hippocampus set is 0.75 (probably the two sides of one person). Different images that are
# smooth reach 0.9, because their spectra are alike: few of these pass the alignment.
SURE, POSSIBLE = 0.85, 0.6
MIN_ALIGNED = 0.85  # correlation of an aligned pair that counts as a copy; different hippocampi reach at most 0.72
MAX_ALIGNED = 16  # pairs that are aligned, in decreasing order of likelihood; they take half a second
MIN_OVERLAP = 0.5  # of two aligned thumbnails, as a fraction of the smaller one


@dataclass(frozen=True)
class Copy:
    """Two images, as positions in the two compared sequences, and the correlation of their thumbnails."""

    first: int
    second: int
    correlation: float


def find_copies(first: Sequence[Thumbnail], second: Sequence[Thumbnail]) -> list[Copy]:
    """Pairs, one image from each sequence, that are probably copies of one image; the highest correlation first.

    Slices are compared with slices and volumes with volumes; thumbnails of fewer than 500 cells are skipped.
    """
    found: dict[tuple[int, int], float] = {}
    for thin in sorted({one.thin_axes for one in (*first, *second)}):
        sides = [
            [k for k, one in enumerate(side) if one.thin_axes == thin and one.image.size >= MIN_CELLS]
            for side in (first, second)
        ]
        if all(sides):
            pairs = _find_alike([first[k] for k in sides[0]], [second[k] for k in sides[1]], thin)
            found |= {(sides[0][i], sides[1][j]): value for (i, j), value in pairs.items()}
    copies = [Copy(i, j, value) for (i, j), value in found.items()]
    return sorted(copies, key=lambda copy: (-copy.correlation, copy.first, copy.second))


def _find_alike(first: list[Thumbnail], second: list[Thumbnail], thin: Axes) -> dict[tuple[int, int], float]:
    """Pairs and correlations, compared twice: stretched to one shape (finds resampled copies without a spacing) and in
    mm (finds cropped copies).
    """
    step_mm = float(np.median([max(one.cell_mm) for one in (*first, *second)]))
    orders = [order for order in permutations(range(3)) if all(order[axis] == axis for axis in thin)]
    found: dict[tuple[int, int], float] = {}
    for step, turns in ((None, [(0, 1, 2)]), (step_mm, orders)):
        grids, others = ([_details(one, step) for one in side] for side in (first, second))
        for pair, correlation in _aligned_pairs(grids, others, thin, turns):
            found[pair] = max(found.get(pair, -1.0), correlation)
    return found


def _aligned_pairs(
    first: list[Array], second: list[Array], thin: Axes, orders: Sequence[Axes]
) -> Iterator[tuple[tuple[int, int], float]]:
    """The pairs that are probably copies, with their correlation after alignment; with that of their spectra where more
    than MAX_ALIGNED are likely, unless most of the aligned ones turned out to be different images.
    """
    num_confirmed = 0
    for rank, (pair, likeness, (order, flips)) in enumerate(_likely_pairs(first, second, thin, orders)):
        if rank < MAX_ALIGNED:
            turned = np.flip(second[pair[1]].transpose(order), flips)
            correlation = max(aligned_correlation(first[pair[0]], one) for one in (turned, np.flip(turned)))
            num_confirmed += correlation >= MIN_ALIGNED
        elif likeness < SURE or 2 * num_confirmed < MAX_ALIGNED:
            return  # the next pairs are less likely still
        else:
            correlation = likeness
        if correlation >= MIN_ALIGNED:
            yield pair, correlation


def aligned_correlation(first: Array, second: Array) -> float:
    """The largest correlation of two volumes of mean 0 over all shifts with sufficient overlap.

    For every shift, the sum of products and both sums of squares over the overlap come from cross-correlations.
    """
    shape = [fft.next_fast_len(a + b - 1, real=True) for a, b in zip(first.shape, second.shape, strict=True)]
    a, extent_a, squares_a = (fft.rfftn(v, shape) for v in (first, np.ones_like(first), first**2))
    b, extent_b, squares_b = (fft.rfftn(v, shape) for v in (second, np.ones_like(second), second**2))
    products, overlap, energy_a, energy_b = (
        fft.irfftn(one * other.conj(), shape)
        for one, other in ((a, b), (extent_a, extent_b), (squares_a, extent_b), (extent_a, squares_b))
    )
    least = 0.01 * overlap  # energy, which is 1 per cell on average; an overlap without details does not count
    valid = (overlap > MIN_OVERLAP * min(first.size, second.size)) & (energy_a > least) & (energy_b > least)
    if not valid.any():
        return -1.0
    return float((products[valid] / np.sqrt(energy_a[valid] * energy_b[valid])).max())


def _details(thumbnail: Thumbnail, step_mm: float | None) -> Array:
    """A thumbnail resampled to cells of `step_mm` (None: stretched to a cube), high-pass filtered, with variance 1."""
    shape = np.array(thumbnail.image.shape)
    longest = LONGEST_2D if thumbnail.thin_axes else LONGEST_3D
    if step_mm is None:
        cells = np.where(shape == 1, 1, longest * 3 // 4)
        widths = shape / cells
    else:
        widths = np.where(shape == 1, 1.0, step_mm / np.array(thumbnail.cell_mm))
        cells = np.clip((shape / widths + 1e-6).astype(int), 1, int(MAX_GROWTH * longest))
    image = resample(thumbnail.image, widths, cells)
    details = image - ndimage.gaussian_filter(image, DETAIL, mode="nearest")
    details -= details.mean()
    std = float(details.std())
    return np.asarray(details / std if std > 0 else details, np.float32)


def _likely_pairs(
    first: list[Array], second: list[Array], thin: Axes, orders: Sequence[Axes]
) -> Iterator[tuple[tuple[int, int], float, Turn]]:
    """Pairs whose spectra correlate at `POSSIBLE` or more, the likeliest first, with the turn of the second image.

    Opposite frequencies have the same magnitude, so a turn and its point reflection cannot be distinguished here.
    """
    left = np.stack([_unit(_magnitudes(grid, thin)) for grid in first])
    magnitudes = [_magnitudes(grid, thin) for grid in second]
    turns: list[Turn] = [(order, flips) for order in orders for flips in ((), (0,), (1,), (0, 1))]
    best = np.full((len(first), len(second)), -1.0, np.float32)
    which = np.zeros(best.shape, np.uint8)
    for number, (order, flips) in enumerate(turns):
        likeness = left @ np.stack([_unit(np.flip(one.transpose(order), flips)) for one in magnitudes]).T
        which[likeness > best] = number
        np.maximum(best, likeness, out=best)
    likely = np.flatnonzero(best >= POSSIBLE)
    for place in likely[np.argsort(-best.ravel()[likely], kind="stable")]:
        i, j = divmod(int(place), len(second))
        yield (i, j), float(best[i, j]), turns[which[i, j]]


def _magnitudes(grid: Array, thin: Axes) -> Array:
    """High-pass filtered log magnitudes of the low frequencies along all axes except the thin ones."""
    band, period = (BAND_2D, LONGEST_2D) if thin else (BAND_3D, LONGEST_3D)
    spectrum = grid.astype(np.complex64)
    for axis, size in enumerate(grid.shape):
        if axis not in thin:
            waves = _waves(size, band, int(MAX_GROWTH * period))
            spectrum = np.moveaxis(np.tensordot(waves, spectrum, axes=(1, axis)), 0, axis)
    magnitudes = np.abs(spectrum)
    logs = np.log(magnitudes + 1e-3 * magnitudes.max() + 1e-12)
    return np.asarray(logs - ndimage.gaussian_filter(logs, 3.0), np.float32)


@lru_cache(maxsize=64)
def _waves(size: int, band: int, period: int) -> NDArray[np.complex64]:
    """(2 band + 1, size): the waves of a discrete Fourier transform padded to `period`, under a Hann window."""
    frequencies = np.arange(-band, band + 1)[:, None] / period
    waves = np.exp(-2j * np.pi * frequencies * np.arange(size)) * np.hanning(size + 2)[1:-1]
    return np.asarray(waves, np.complex64)


def _unit(values: Array) -> Array:
    """The values flattened, with mean 0 and length 1: the dot product of two such vectors is their correlation."""
    flat = values.ravel() - values.mean()
    length = float(np.linalg.norm(flat))
    return np.asarray(flat / length if length > 0 else flat, np.float32)
