"""What another program must do before and after an exported network to get the labels of `dlx predict`, as JSON.

The description has the numbers by name, and the same as `steps` in words. Array axes are (z, y, x) of the file, as
everywhere in dlx; sizes in millimetres are x, y, z, as in its settings.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlx import __version__
from dlx.data.geometry.common_grid import ALIKE
from dlx.data.intensities.ct import windowed_channels
from dlx.data.intensities.rounding import MAX_ROUNDING_ERROR
from dlx.exporting.network_file import INPUT, OUTPUT, SPATIAL_AXES
from dlx.prediction.trained_network import TrainedNetwork
from dlx.scoring.outputs import THRESHOLD
from dlx.system.errors import DataError
from dlx.system.files import naming
from dlx.trial.factories import model_geometry

FORMAT_KEY, FORMAT = "dlx_export", 1  # by which the description is recognised, and its version
HASHED_BYTES = 1 << 20
AXIS_NAMES = ("z", "y", "x")


def describe_preparation(trained: TrainedNetwork, checkpoint: Path) -> dict[str, Any]:
    """The description of a network that was loaded from a checkpoint.

    DataError if the checkpoint lacks a window of its channels; OSError if the file cannot be read again.
    """
    dims, stride = model_geometry(trained.network)
    axes = ["batch", "channel", *SPATIAL_AXES[dims]]
    intensities = _intensities(trained)
    described = {
        FORMAT_KEY: FORMAT,
        "dlx": __version__,
        "trial": {
            "id": trained.trial,
            "epoch": trained.epoch,
            "checkpoint": checkpoint.name,
            "checkpoint_sha256": file_sha256(checkpoint),
        },
        "network": {"name": trained.spec.model.name, "arguments": trained.spec.model.args, "dims": dims},
        "precision": "float32",
        "input": {
            "name": INPUT,
            "axes": axes,
            "channels": list(trained.dataset.channels),
            "size_multiple": stride,
        },
        "output": {"name": OUTPUT, "axes": axes, **_outputs(trained)},
        "intensities": intensities,
        "image_type": "float16",
        "orientation": _grid_value(trained, "orientation"),
        "spacing_mm": _spacing(trained),
        "cut": _cut(trained, dims),
        "mirrored_axes": list(trained.spec.mirrored_axes(dims)),
    }
    return described | {"steps": _steps(described, trained.dataset.label_values[0])}


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file as hexadecimal digits. OSError if it cannot be read."""
    digest = hashlib.sha256()
    with naming(path), path.open("rb") as file:
        while piece := file.read(HASHED_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _grid_value(trained: TrainedNetwork, name: str) -> Any:
    grid = trained.dataset.grid
    return None if grid is None else getattr(grid, name) or None


def _spacing(trained: TrainedNetwork) -> list[float] | None:
    spacing: Sequence[float] | None = _grid_value(trained, "spacing_mm")
    return None if spacing is None else [*reversed(spacing)]


def _intensities(trained: TrainedNetwork) -> list[dict[str, Any]]:
    """How each channel is normalised: the method with its arguments; of a window, which comes last, the numbers."""
    normalizer, channels = trained.normalizer, trained.dataset.channels
    schemes = normalizer.args.get("schemes") if normalizer.name == "mixed" else None
    is_windowed = windowed_channels(normalizer, len(channels))
    found = []
    for c, channel in enumerate(channels):
        method, args = (schemes[c], {"over": "all"}) if schemes else (normalizer.name, normalizer.args)
        one: dict[str, Any] = {"channel": channel}
        if is_windowed[c]:
            window = trained.windows[c] if trained.windows else None
            if window is None:
                raise DataError(f"{trained.name}: the checkpoint lacks the window of channel {channel!r}")
            one |= {"method": "window", **window.model_dump()}
        else:
            has_args = not schemes or method in ("zscore", "minmax")
            one |= {"method": method, **(args if has_args else {})}
        found.append(one)
    return found


def _outputs(trained: TrainedNetwork) -> dict[str, Any]:
    dataset = trained.dataset
    values = dataset.label_values
    if not dataset.regions:
        labels = [{"name": name, "label": value} for name, value in zip(dataset.classes, values, strict=True)]
        return {"activation": "softmax", "classes": labels}
    pairs = zip(dataset.classes[1:], dataset.regions, dataset.region_order, strict=True)
    regions = [{"name": name, "labels": [values[k] for k in of], "written_as": values[k]} for name, of, k in pairs]
    return {"activation": "sigmoid", "threshold": THRESHOLD, "regions": regions, "background": values[0]}


def _cut(trained: TrainedNetwork, dims: int) -> dict[str, Any]:
    batch = trained.spec.batch
    if dims == 2:
        return {"kind": "slices", "slice_axis": batch.fitted_slice_axis}
    return {
        "kind": "windows",
        "window_px": list(batch.fitted_patch_size_px),
        "overlap_fraction": trained.spec.evaluate.overlap_fraction,
        "weights": {"kind": "gaussian", "sigma_fraction": 0.125, "minimum": 1e-3},
    }


def _steps(described: dict[str, Any], background: int) -> list[str]:
    """The description in words, in the order in which it is to be done."""
    channels = ", ".join(described["input"]["channels"])
    steps = [f"read the image as an array (channel, z, y, x) in the order of the file; channels: {channels}"]
    by_method: dict[str, list[str]] = {}
    for one in described["intensities"]:
        by_method.setdefault(_spell_intensity(one), []).append(one["channel"])
    steps += [f"{', '.join(names)}: {text}" for text, names in by_method.items()]
    steps.append(
        "round to float16 and compute in float32 from here on (dlx does not round an image that this would change by "
        f"more than {MAX_ROUNDING_ERROR:.0%} of its noise)"
    )
    if described["orientation"]:
        steps.append(f"if the header has directions, turn the axes so that x, y, z run to {described['orientation']}")
    if described["spacing_mm"]:
        wanted = " x ".join(f"{size:.6g}" for size in described["spacing_mm"])
        steps.append(
            f"if the spacing (x, y, z) differs by more than {ALIKE:.0%} from {wanted} mm, resample to round(voxels x "
            "spacing / wanted) voxels over the same field of view, by cubic splines (windowed channels linearly), "
            "clipped to the range of the image and rounded to float16; along an axis whose spacing is over three times "
            "the smallest (of the image, or else of the wanted ones), take the nearest slice"
        )
    windows = [one for one in described["intensities"] if one["method"] == "window"]
    steps += [
        f"{one['channel']}: clip to {one['low']:.9g} and {one['high']:.9g}, subtract {one['mean']:.9g}, divide by "
        f"{one['std']:.9g}"
        for one in windows
    ]
    return [*steps, *_cutting_steps(described), *_label_steps(described, background)]


def _spell_intensity(one: dict[str, Any]) -> str:
    """What is done to a channel first, and the value beside the image, the pad value."""
    voxels = {
        "foreground": "the voxels whose first channel is above 0",
        "all": "all voxels",
    }.get(one.get("over", ""), "all voxels")
    pad = "pad value: what 0 becomes; 0 if all voxels are above 0" if one.get("over") == "foreground" else "pad value 0"
    match one["method"]:
        case "zscore" | "auto":
            return f"subtract the mean and divide by the standard deviation (divisor n) of {voxels}; {pad}"
        case "minmax":
            return f"scale so that the range of {voxels} becomes 0 to 1; {pad}"
        case "percentile":
            return (
                f"scale so that percentiles {one['low']:g} and {one['high']:g} of {voxels} become 0 and 1, and clip to "
                f"0 and 1; {pad}"
            )
        case "whiten":
            return (
                f"subtract the means over {voxels}, multiply by the inverse square root of the channels' correlation "
                f"matrix after division by their standard deviations (ZCA-cor); {pad}"
            )
        case "rgb":
            return "divide by 255; pad value 0"
        case "none":
            return "leave as it is; pad value 0"
        case "window":
            return "leave as it is for now; pad value: the smallest of the channel, windowed as the channel is below"
        case other:
            return f"the normaliser {other} with the arguments in `intensities`"


def _cutting_steps(described: dict[str, Any]) -> list[str]:
    cut, multiple = described["cut"], described["input"]["size_multiple"]
    if cut["kind"] == "slices":
        axis = AXIS_NAMES[cut["slice_axis"]]
        pad = f", pad the ends of both axes to multiples of {multiple} with the pad value" if multiple > 1 else ""
        return [f"take the slices along {axis}, each of the other two axes in their order{pad}"]
    d, h, w = cut["window_px"]
    pad = f"; fill each window at its ends with zeros to multiples of {multiple}" if multiple > 1 else ""
    return [
        f"cut windows of {d} x {h} x {w} voxels (z, y, x) that overlap by {cut['overlap_fraction']:g} or more and are "
        f"evenly spaced from end to end; fill what lies outside the image with the pad value{pad}"
    ]


def _label_steps(described: dict[str, Any], background: int) -> list[str]:
    output, is_windowed = described["output"], described["cut"]["kind"] == "windows"
    steps = [f"run the network, cut off the padding of the logits, and take the {output['activation']}"]
    if described["mirrored_axes"]:
        axes = ", ".join(SPATIAL_AXES[described["network"]["dims"]][axis] for axis in described["mirrored_axes"])
        steps.append(f"do so for all flips along {axes} (each choice of axes), flip back, and take the mean")
    if is_windowed:
        steps.append(
            "take the weighted mean of the windows; the weights are a Gaussian about the centre of a window, of which "
            "the standard deviation is an eighth of the window's size, and at least 0.001"
        )
    if described["spacing_mm"]:
        steps.append("if the image was resampled, interpolate the probabilities linearly to the voxels of the file")
    if output["activation"] == "softmax":
        steps.append("each voxel has the label of its largest probability; of equal ones that of the first class")
    else:
        steps.append(
            f"start with {background} everywhere; region by region in their order, write `written_as` where the "
            f"probability of the region is above {output['threshold']:g}"
        )
    if described["orientation"]:
        steps.append("turn the axes back to those of the file")
    return steps
