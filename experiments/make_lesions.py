"""Draws the data of `rare-class.toml`: phantoms with one small lesion each.

    .venv/bin/python experiments/make_lesions.py runs/lesion-phantom [SUBJECTS]

A lesion is a ball of 5 to 7 voxels radius around a voxel of the white or grey matter, about 0.1 % of the volume. In T1
it has the mean of the CSF, in T2 1.5 times that, with noise of a tenth of the brain's standard deviation: it is seen
easily, if a patch has it.
"""

import json
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its usual name

from dlx.data.phantom.anatomy import CSF, GM, WM
from dlx.data.phantom.case import CHANNELS, phantom_case

SUBJECTS = 14  # by default
SIZE_PX = 96
RADII_PX = (5.0, 7.0)
CLASS_NAMES = ("background", "brain", "lesion")
FACTORS = (1.0, 1.5)  # a lesion's intensity in T1 and T2, in units of the mean of the CSF


def main(folder: Path, num_subjects: int) -> None:
    for place in ("imagesTr", "labelsTr"):
        (folder / place).mkdir(parents=True)
    for index in range(num_subjects):
        image, tissue = phantom_case(index, seed=0, size_px=(SIZE_PX,) * 3)
        rng = np.random.default_rng(index)
        lesion = ball(rng, (tissue == WM) | (tissue == GM))
        noise = 0.1 * image[:, tissue > 0].std(axis=1)
        for channel, (factor, volume) in enumerate(zip(FACTORS, image, strict=True)):
            level = factor * volume[tissue == CSF].mean()
            volume[lesion] = level + noise[channel] * rng.standard_normal(lesion.sum())
            save(folder / f"imagesTr/subject-{index + 1}_{channel:04}.nii.gz", volume)
        mask = np.where(lesion, 2, tissue > 0).astype(np.uint8)
        save(folder / f"labelsTr/subject-{index + 1}.nii.gz", mask)
    table = {
        "channel_names": {str(k): name for k, name in enumerate(CHANNELS)},
        "labels": {name: k for k, name in enumerate(CLASS_NAMES)},
        "numTraining": num_subjects,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(table, indent=1))


def ball(rng: np.random.Generator, place: np.ndarray) -> np.ndarray:
    """The voxels of a ball around a voxel of `place`."""
    centre = rng.choice(np.argwhere(place))
    distances = np.linalg.norm(np.indices(place.shape) - centre[:, None, None, None], axis=0)
    return distances <= rng.uniform(*RADII_PX)


def save(path: Path, array: np.ndarray) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(array), path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else SUBJECTS)
