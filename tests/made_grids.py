"""Smooth images with masks of two classes, and nnU-Net folders of them in any orientation and spacing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its usual name
from scipy import ndimage

from dlx.data.dataset import Dataset, open_dataset
from dlx.settings.spec import DataSpec

CODES = ("LPS", "RAS", "PIR", "SLA")
Array = np.ndarray[Any, Any]


def smooth(shape: tuple[int, ...], seed: int = 0) -> Array:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0)
    return np.asarray(100 + 50 * field / field.std(), np.float32)


def boxes(shape: tuple[int, ...]) -> Array:
    """A mask of two classes that touch, neither symmetric in any axis."""
    mask = np.zeros(shape, np.uint8)
    d, h, w = shape
    mask[d // 5 : d // 2, h // 4 : h // 2, w // 3 : w - 2] = 1
    mask[d // 2 : d - 2, h // 4 : h - 3, w // 3 : w // 2] = 2
    return mask


def write(folder: Path, cases: dict[str, tuple[str, tuple[float, float, float]]], shape: Any = (12, 14, 16)) -> Path:
    """An nnU-Net folder: name -> orientation of its files, and spacing (x, y, z) before it was turned."""
    for place in ("imagesTr", "labelsTr"):
        (folder / place).mkdir(parents=True)
    for seed, (name, (code, spacing)) in enumerate(cases.items()):
        for array, path in ((smooth(shape, seed), f"imagesTr/{name}_0000"), (boxes(shape), f"labelsTr/{name}")):
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing(spacing)
            sitk.WriteImage(sitk.DICOMOrient(volume, code), folder / f"{path}.nii.gz")
    table = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "one": 1, "two": 2}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(table | {"numTraining": len(cases)}))
    return folder


def opened(folder: Path, cache_dir: Path | None = None, **settings: Any) -> Dataset:
    return open_dataset(DataSpec.model_validate({"source": str(folder), **settings}), cache_dir=cache_dir)


ONE = (1.0, 1.0, 1.0)
MIXED_CODES = {"c0": ("LPS", ONE), "c1": ("RAS", ONE), "c2": ("LPS", ONE), "c3": ("PIR", ONE)}
MIXED_SPACINGS = {"c0": ("LPS", ONE), "c1": ("RAS", (2.0, 1.0, 0.5)), "c2": ("LPS", ONE)}
