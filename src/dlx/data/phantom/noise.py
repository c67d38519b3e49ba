"""Random numbers and smooth random fields that are bit-identical on every machine.

The rule for all modules of this package: use only elementwise + - x /, square roots, comparisons and integers. IEEE 754
defines their results to the last bit, but not those of exp or sin; and the order of summation in BLAS, FFT and NumPy's
sums differs between machines. The raw words of Philox (Salmon et al. 2011, doi:10.1145/2063384.2063405) follow from its
definition, whereas the streams of `Generator` may change between NumPy versions.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

# A float32 for each voxel, axes D, H, W; NumPy's stubs lose the type in arithmetic with Python's numbers.
Field3 = npt.NDArray[Any]

# Scales a cubic B-spline through uniform numbers in -1..1 to a standard deviation near 1: the numbers have variance
# 1/3, of which the spline keeps 0.48 per axis (between 0.5 at a node and 0.46 half-way).
_TO_UNIT_STD = 5.2


class Stream(IntEnum):
    """The quantities drawn. Each has a separate random stream, so a new one changes no other. Never renumber."""

    POSE = 0
    SIZE = 1
    WARP_X = 2
    WARP_Y = 3
    WARP_Z = 4
    FOLDS = 5
    FOLD_DEPTH = 6
    FOLD_WIDTH = 7
    THICKNESS = 8
    RIM = 9
    VENTRICLES = 10
    DEEP_GREY = 11
    HINDBRAIN = 12
    FOLIA = 13
    CONTRAST = 14
    MYELIN = 15
    BIAS_T1 = 16
    BIAS_T2 = 17
    NOISE_T1 = 18
    NOISE_T2 = 19


@dataclass(frozen=True)
class Draw:
    """The random words of one subject: `seed` (0 .. 2^64 - 1) and `index` (0 .. 2^48 - 1) make the key of Philox."""

    seed: int
    index: int

    def words(self, stream: Stream, count: int) -> npt.NDArray[np.uint64]:
        """`count` raw 64-bit words of a stream, always from its start."""
        key = np.array([self.seed, self.index * 2**16 + int(stream)], dtype=np.uint64)
        words: npt.NDArray[np.uint64] = np.random.Philox(key=key).random_raw(count)
        return words

    def uniform(self, stream: Stream, *bounds: tuple[float, float]) -> list[float]:
        """One number for each (low, high), uniform between the two."""
        words = self.words(stream, len(bounds)).tolist()
        return [low + (high - low) * ((word >> 11) / 2**53) for word, (low, high) in zip(words, bounds, strict=True)]

    def smooth(
        self,
        stream: Stream,
        shape: tuple[int, ...],
        spacing_px: float | tuple[float, ...],
        *,
        band: bool = False,
    ) -> Field3:
        """A smooth field (D, H, W): uniform numbers on a lattice with `spacing_px`, interpolated by cubic B-splines.

        Its mean is near 0 and its standard deviation near 1. With `band`, the mean of its six neighbours is subtracted
        from each number first, which leaves mostly wavelengths near twice the spacing.
        """
        steps = spacing_px if isinstance(spacing_px, tuple) else (spacing_px,) * 3
        border = 1 if band else 0
        nodes = [int(size / step) + 5 + 2 * border for size, step in zip(shape, steps, strict=True)]
        words = self.words(stream, nodes[0] * nodes[1] * nodes[2])
        field = ((words >> np.uint64(40)).astype(np.float32) * 2.0**-23 - 1.0).reshape(nodes)
        if band:
            around = field[2:, 1:-1, 1:-1] + field[:-2, 1:-1, 1:-1] + field[1:-1, 2:, 1:-1]
            around = around + field[1:-1, :-2, 1:-1] + field[1:-1, 1:-1, 2:] + field[1:-1, 1:-1, :-2]
            field = field[1:-1, 1:-1, 1:-1] - around / 6.0
        for axis in (2, 1, 0):  # most of the work is in the last axis, whose planes are contiguous
            field = _upsample(field, axis, shape[axis], steps[axis])
        return field * _TO_UNIT_STD

    def gaussian(self, stream: Stream, shape: tuple[int, ...], count: int) -> list[Field3]:
        """`count` fields of independent numbers, mean 0, variance 1, within 3.47: sums of four 16-bit uniforms."""
        voxels = shape[0] * shape[1] * shape[2]
        words = self.words(stream, voxels * count).reshape(count, *shape)
        return [_sum_of_quarters(part) for part in words]


def _sum_of_quarters(words: npt.NDArray[np.uint64]) -> Field3:
    """The sum of the four 16-bit quarters, scaled: adds neighbouring quarters within the word, then the two halves."""
    quarters = np.uint64(0x0000FFFF0000FFFF)
    pairs = (words & quarters) + ((words >> np.uint64(16)) & quarters)
    total = ((pairs >> np.uint64(32)) + (pairs & np.uint64(0xFFFFFFFF))).astype(np.float32)
    return (total - 131070.0) / 37837.0  # four uniforms 0..65535: mean 131070, standard deviation 65536 / sqrt(3)


def _upsample(field: Field3, axis: int, size: int, step: float) -> Field3:
    """Values at the voxels 0 .. size - 1 of one axis, from lattice values `step` voxels apart."""
    position = np.arange(size, dtype=np.float64) / step
    first = position.astype(np.int64)
    t = position - first
    u = 1.0 - t
    weights = (u * u * u, (3.0 * t - 6.0) * t * t + 4.0, (3.0 * u - 6.0) * u * u + 4.0, t * t * t)
    along = [1, 1, 1]
    along[axis] = size
    result: Field3 | None = None
    for offset, weight in enumerate(weights):
        part = field.take(first + offset, axis=axis)
        part *= (weight / 6.0).astype(np.float32).reshape(along)
        result = part if result is None else np.add(result, part, out=result)
    assert result is not None
    return result


def sample(field: Field3, z: Field3, y: Field3, x: Field3) -> Field3:
    """The field at fractional voxel positions, linear in between; positions outside are clamped to the border."""
    flat = field.ravel()
    cells, shares = [], []
    for position, size in zip((z, y, x), field.shape, strict=True):
        inside = np.minimum(np.maximum(position, np.float32(0.0)), np.float32(size - 1.001))
        cell = inside.astype(np.int32)
        cells.append(cell)
        shares.append(inside - cell.astype(np.float32))
    row, plane = field.shape[2], field.shape[1] * field.shape[2]
    start = cells[0] * np.int32(plane) + cells[1] * np.int32(row) + cells[2]
    planes = []
    for dz in (0, plane):
        rows = []
        for dy in (0, row):
            low = flat.take(start + np.int32(dz + dy))
            rows.append(low + (flat.take(start + np.int32(dz + dy + 1)) - low) * shares[2])
        planes.append(rows[0] + (rows[1] - rows[0]) * shares[1])
    value: Field3 = planes[0] + (planes[1] - planes[0]) * shares[0]
    return value
