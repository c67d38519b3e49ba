"""The labels of an image by a network that `dlx export` wrote, without dlx: numpy, onnxruntime, nibabel for NIfTI.

    python exported_labels.py net.onnx image.nii.gz labels.nii.gz
    python exported_labels.py net.onnx t1.nii.gz t2.nii.gz labels.nii.gz

It does what `steps` in net.json says, for images that have the orientation and spacing of net.json already (others are
refused) and for channels of the methods `zscore` and `window`, in their order in net.json. The functions take and
return arrays (channel, z, y, x).
"""

import json
import sys
from itertools import combinations, product
from pathlib import Path

import nibabel
import numpy as np
import onnxruntime


def normalize(image, intensities):
    """The prepared image (channel, z, y, x), and the value of each channel beside it."""
    inside, values, pad = image[0] > 0, np.empty(image.shape), np.zeros(len(image))
    for c, how in enumerate(intensities):
        if how["method"] == "window":
            values[c], pad[c] = image[c], image[c].min()
        else:
            assert how["method"] == "zscore", f"this script does not know {how['method']}"
            voxels = (image[c][inside] if how["over"] == "foreground" else image[c]).astype(np.float64)
            values[c] = (image[c] - voxels.mean()) / voxels.std()
            pad[c] = 0 if how["over"] == "all" or inside.all() else -voxels.mean() / voxels.std()
    values, pad = values.astype(np.float32).astype(np.float16).astype(np.float32), pad.astype(np.float32)
    for c, how in enumerate(intensities):
        if how["method"] == "window":
            low, high, mean, std = (np.float32(how[key]) for key in ("low", "high", "mean", "std"))
            values[c], pad[c] = ((one.clip(low, high) - mean) / std for one in (values[c], pad[c]))
    return values, pad


def filled(values, sizes, pad):
    """The values (channel, ...), extended at the ends to these sizes by each channel's pad value."""
    result = np.empty((len(values), *sizes), np.float32)
    result.T[...] = pad
    result[(slice(None), *map(slice, values.shape[1:]))] = values
    return result


def predict(path, image):
    """The labels (z, y, x) of an image (channel, z, y, x)."""
    description = json.loads(path.with_suffix(".json").read_text())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    output, multiple = description["output"], description["input"]["size_multiple"]
    mirrored = description["mirrored_axes"]
    flips = [[2 + axis for axis in axes] for n in range(len(mirrored) + 1) for axes in combinations(mirrored, n)]

    def probabilities(batch):
        sizes = batch.shape[2:]
        padded = np.stack([filled(one, [-(-size // multiple) * multiple for size in sizes], 0) for one in batch])
        (logits,) = session.run(["logits"], {"image": padded})
        logits = logits[(slice(None), slice(None), *map(slice, sizes))]
        if output["activation"] == "sigmoid":
            return 1 / (1 + np.exp(-logits))
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    def mirrored_mean(batch):
        return np.mean([np.flip(probabilities(np.flip(batch, flip)), flip) for flip in flips], axis=0)

    values, pad = normalize(image, description["intensities"])
    cut = description["cut"]
    if cut["kind"] == "slices":
        axis = 1 + cut["slice_axis"]
        slices = np.moveaxis(values, axis, 0)  # (slice, channel, height, width)
        height, width = slices.shape[2:]
        sizes = [-(-size // multiple) * multiple for size in (height, width)]
        found = [mirrored_mean(filled(one, sizes, pad)[None])[0, :, :height, :width] for one in slices]
        mean = np.moveaxis(np.stack(found), 0, axis)
    else:
        mean = mean_of_windows(values, pad, cut, mirrored_mean)
    if output["activation"] == "softmax":
        return np.array([one["label"] for one in output["classes"]], np.uint8)[mean.argmax(0)]
    labels = np.full(mean.shape[1:], output["background"], np.uint8)
    for probability, region in zip(mean, output["regions"], strict=True):
        labels[probability > output["threshold"]] = region["written_as"]
    return labels


def mean_of_windows(values, pad, cut, predict_batch):
    """The weighted mean (class, z, y, x) of windows that are evenly spaced from end to end."""
    shape, window = values.shape[1:], cut["window_px"]
    lines = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in window]
    weight = np.maximum(lines[0][:, None, None] * lines[1][:, None] * lines[2], 1e-3)
    starts = []
    for size, n in zip(shape, window, strict=True):
        step = max(1, int(n * (1 - cut["overlap_fraction"])))
        count = max(0, -(-(size - n) // step)) + 1
        starts.append([round(k * (size - n) / (count - 1)) if count > 1 else 0 for k in range(count)])
    extended = filled(values, [max(size, n) for size, n in zip(shape, window, strict=True)], pad)
    total = weights = 0
    for corner in product(*starts):
        place = (slice(None), *(slice(at, at + n) for at, n in zip(corner, window, strict=True)))
        found = predict_batch(extended[place][None])[0]
        if corner == (0, 0, 0):
            total, weights = np.zeros((len(found), *extended.shape[1:])), np.zeros(extended.shape[1:])
        total[place] += weight * found
        weights[place[1:]] += weight
    return (total / weights)[(slice(None), *map(slice, shape))]


def check_grid(image, description):
    """Stops at an image that `dlx predict` would turn or resample first."""
    has_directions = image.header["sform_code"] > 0 or image.header["qform_code"] > 0
    wanted, found = description["orientation"], "".join(nibabel.aff2axcodes(image.affine))
    if wanted and has_directions and found != wanted:
        sys.exit(f"the axes of the image run to {found}, and those of the network to {wanted}: turn the image first")
    wanted, found = description["spacing_mm"], [float(size) for size in image.header.get_zooms()[:3]]
    if wanted and any(max(a / b, b / a) > 1.01 and n > 1 for a, b, n in zip(found, wanted, image.shape, strict=False)):
        sys.exit(f"the spacing of the image is {found} mm, and that of the network {wanted}: resample the image first")


def main(network, *sources, target):
    """Writes the labels of an image that has a file for each channel."""
    description = json.loads(network.with_suffix(".json").read_text())
    names = description["input"]["channels"]
    if len(sources) != len(names):
        sys.exit(f"{len(sources)} images are given, and the network takes {len(names)}: {', '.join(names)}")
    images = [nibabel.load(source) for source in sources]
    for image in images:
        check_grid(image, description)
    # nibabel's axes are x, y, z
    labels = predict(network, np.stack([np.asarray(image.dataobj).T for image in images]))
    nibabel.save(nibabel.Nifti1Image(labels.T, images[0].affine), target)


if __name__ == "__main__":
    first, *others, last = map(Path, sys.argv[1:])
    main(first, *others, target=last)
