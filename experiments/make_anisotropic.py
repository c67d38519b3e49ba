"""Draws the data of `anisotropic.toml`: thick slices of phantoms, 5 mm apart, some of 0.5 mm pixels and some of 1 mm.

    .venv/bin/python experiments/make_anisotropic.py runs/anisotropic-phantom

Each phantom is drawn with voxels of 0.5 mm. A thick slice is the mean of ten planes, and a pixel of 1 mm that of 2 x 2;
a voxel's label is the most frequent of those that it covers, the lower one if two are.
"""

import json
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its usual name

from dlx.data.phantom.case import CHANNELS, CLASS_NAMES, phantom_case

SIZE_PX, PLANES = 96, 10  # of 0.5 mm
PIXELS = (1, 2, 1, 2, 1, 2, 1, 1, 2, 1, 2, 1)  # for each subject, its pixels in units of 0.5 mm: 0.5 mm is the median


def main(folder: Path) -> None:
    for place in ("imagesTr", "labelsTr"):
        (folder / place).mkdir(parents=True)
    for index, pixel in enumerate(PIXELS):
        image, mask = phantom_case(index, seed=0, size_px=(SIZE_PX,) * 3)
        shares = np.stack([thick((mask == k).astype(np.float32), pixel) for k in range(len(CLASS_NAMES))])
        name = f"subject-{index + 1}"
        for channel, volume in enumerate(image):
            write(folder / f"imagesTr/{name}_{channel:04}.nii.gz", thick(volume, pixel), pixel)
        write(folder / f"labelsTr/{name}.nii.gz", shares.argmax(0).astype(np.uint8), pixel)
    table = {
        "channel_names": {str(k): name for k, name in enumerate(CHANNELS)},
        "labels": {name: k for k, name in enumerate(CLASS_NAMES)},
        "numTraining": len(PIXELS),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(table, indent=1))


def thick(volume: np.ndarray, pixel: int) -> np.ndarray:
    """The means of blocks of PLANES x pixel x pixel voxels; planes that fill no slice are left out."""
    depth = SIZE_PX // PLANES
    side = SIZE_PX // pixel
    blocks = volume[: depth * PLANES].reshape(depth, PLANES, side, pixel, side, pixel)
    return blocks.mean((1, 3, 5), dtype=np.float64).astype(np.float32)


def write(path: Path, array: np.ndarray, pixel: int) -> None:
    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing((pixel / 2, pixel / 2, PLANES / 2))
    sitk.WriteImage(volume, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
