"""Intensities with a unit (Hounsfield units): every image is clipped and scaled by statistics of the training cases.

Those depend on the split, so a case keeps its unscaled values and a sample of the labelled ones; `windows_of` computes
a window for each such channel, and `VoxelStore.windowed` applies it to what it gathers, for training and evaluation.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from dlx.data.cases import IGNORED, Case
from dlx.data.intensities.normalize import Image, PadValue, minmax, none, rgb, zscore
from dlx.settings.part import Part, Section
from dlx.system.errors import DataError

# Labelled voxels of a case from which the statistics are computed. With 20 training cases, 1,000 of them are beyond
# each percentile at its default, so that the share beyond it has a standard error of 3 % of itself.
MAX_FOREGROUND = 10_000
LOW, HIGH = 0.5, 99.5  # as in nnU-Net
Scheme = Literal["ct", "none", "rgb", "minmax", "zscore"]


class Window(Section):
    """What is done to a channel: clip to `low` and `high`, subtract `mean`, divide by `std`; in the image's unit."""

    low: float
    high: float
    mean: float
    std: float


Windows = tuple[Window | None, ...]  # of each channel; None leaves it as it is


def _percentile(value: Any) -> Any:
    if isinstance(value, (int, float)) and not 0 <= value <= 100:
        raise ValueError(f"expected a percentile of the labelled voxels, 0 to 100, not a value in HU (got {value})")
    return value


Percentile = Annotated[float, BeforeValidator(_percentile)]
Low = Annotated[Percentile, Field(ge=0.0, lt=50.0, description="Values below this percentile are clipped to it.")]
High = Annotated[Percentile, Field(gt=50.0, le=100.0, description="Values above this percentile are clipped to it.")]


def ct(
    image: NDArray[Any],
    *,
    low: Low = LOW,  # noqa: ARG001 - `windows_of` reads it from the settings
    high: High = HIGH,  # noqa: ARG001
) -> tuple[Image, PadValue]:
    """For CT (values in HU): each channel is clipped to two percentiles of the labelled voxels of the training cases,
    and standardised by their mean and standard deviation.

    Here values become float32 only; the rest is done when voxels are read (`Window`). The pad value is the image's
    smallest value, which is air. Raises DataError if a value is not finite in float32.
    """
    unchanged, _ = none(image)
    return unchanged, unchanged.reshape(len(unchanged), -1).min(1)


def mixed(
    image: NDArray[Any],
    *,
    schemes: Annotated[tuple[Scheme, ...], Field(description="The normaliser of each channel, in order.")],
) -> tuple[Image, PadValue]:
    """Each channel by a scheme of its own: `ct`, `none`, `rgb`, or `minmax` and `zscore` over all voxels.

    Raises DataError as these do, and if the image has another number of channels than `schemes`.
    """
    if len(schemes) != len(image):
        raise DataError(f"data.normalize=mixed names {len(schemes)} schemes for {len(image)} channels")
    normalized, pad_value = np.empty(image.shape, np.float32), np.empty(len(image), np.float32)
    for c, scheme in enumerate(schemes):
        try:
            one, pad = _by_scheme(image[c : c + 1], scheme)
        except DataError as error:
            raise DataError(f"channel {c} of the image, by {scheme}: {error}") from None
        normalized[c], pad_value[c] = one[0], pad[0]
    return normalized, pad_value


def _by_scheme(channel: NDArray[Any], scheme: Scheme) -> tuple[Image, PadValue]:
    if scheme in ("zscore", "minmax"):
        return (zscore if scheme == "zscore" else minmax)(channel, over="all")
    return {"ct": ct, "none": none, "rgb": rgb}[scheme](channel)


def windowed_channels(normalize: Part, num_channels: int) -> tuple[bool, ...]:
    """Whether each channel is clipped and standardised by the statistics of the training cases."""
    if normalize.name == "mixed":
        return tuple(scheme == "ct" for scheme in normalize.args["schemes"])
    return (normalize.name == "ct",) * num_channels


def sample_foreground(image: NDArray[Any], mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(C, n): the values of up to MAX_FOREGROUND labelled voxels, evenly spaced in memory order."""
    labelled = np.flatnonzero((mask != 0) & (mask != IGNORED))
    labelled = labelled[:: -(-labelled.size // MAX_FOREGROUND) or 1]
    return np.ascontiguousarray(image.reshape(len(image), -1)[:, labelled], np.float32)


def ranges_of(foreground: NDArray[np.float32], has_window: Sequence[bool]) -> tuple[tuple[float, float] | None, ...]:
    """The range of a case's labelled voxels in each channel with a window, about that to which they will be clipped."""
    return tuple(
        (float(values.min()), float(values.max())) if is_windowed and values.size else None
        for values, is_windowed in zip(foreground, has_window, strict=True)
    )


def windows_of(normalize: Part, channels: Sequence[str], training: Sequence[Case]) -> Windows:
    """The window of each channel, from the labelled voxels of the training cases; none for channels without one.

    As nnU-Net's CTNormalization (nnunetv2/preprocessing/normalization), but for mean and standard deviation, which
    are those of the clipped voxels: one metal implant does not change them. DataError if the voxels do not vary.
    """
    has_window = windowed_channels(normalize, len(channels))
    if not any(has_window):
        return ()
    low, high = float(normalize.args.get("low", LOW)), float(normalize.args.get("high", HIGH))
    samples = [case.foreground for case in training if case.foreground is not None]
    values = np.concatenate(samples, 1).astype(np.float64) if samples else np.empty((len(channels), 0))
    return tuple(
        _window(channel, of_channel, low, high) if is_windowed else None
        for channel, of_channel, is_windowed in zip(channels, values, has_window, strict=True)
    )


def _window(channel: str, values: NDArray[np.float64], low: float, high: float) -> Window:
    if not values.size:
        raise DataError(
            f"channel {channel!r}: no training case has a labelled voxel, which data.normalize=ct needs for its "
            "statistics: choose other training cases, or a normaliser such as --set data.normalize=zscore:over=all"
        )
    lowest, highest = (float(bound) for bound in np.percentile(values, [low, high]))
    if lowest == highest:
        raise DataError(
            f"channel {channel!r}: percentiles {low:g} and {high:g} of the training cases' labelled voxels are both "
            f"{lowest:g}: choose another normaliser, such as --set data.normalize=zscore:over=all"
        )
    clipped = values.clip(lowest, highest)
    return Window(low=lowest, high=highest, mean=float(clipped.mean()), std=float(clipped.std()))


def describe_windows(windows: Windows, channels: Sequence[str], num_training: int) -> list[str]:
    """A line for each channel with a window."""
    return [
        f"channel {channel!r}: clipped to {window.low:.4g} to {window.high:.4g}, minus {window.mean:.4g}, divided by "
        f"{window.std:.4g}: statistics of the labelled voxels of the {num_training} training cases"
        for channel, window in zip(channels, windows, strict=False)
        if window is not None
    ]
