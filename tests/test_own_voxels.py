"""A scan saved in any of four orientations and three spacings gets the Dice that it has on the voxels of its file.

The true mask is coarse in coarse voxels, so a predictor that decides voxel by voxel has another Dice on each spacing by
itself (0.845, 0.842 and 0.835 for class 2 here). That Dice is what resampling there and back must keep.
"""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from dlx.data.batches.voxels import VoxelStore
from dlx.data.cases import Dataset
from dlx.data.dataset import open_dataset
from dlx.scoring.outputs import Outputs
from dlx.scoring.overlap import dice_from_counts
from dlx.settings.spec import DataSpec
from small import small_job

FIELD_MM = (48.0, 40.0, 60.0)  # x, y, z of nibabel: to the right, to the front, upwards
SPACINGS = ((1.0, 1.0, 1.0), (0.8, 1.25, 0.5), (0.5, 0.5, 2.0))
CODES = ("RAS", "LPS", "PIR", "SLA")


def level(spacing: tuple[float, float, float]) -> np.ndarray[Any, Any]:
    """1 in the middle of an ellipsoid, 0 on its surface, at the centres of voxels (x, y, z)."""
    sizes = [round(extent / step) for extent, step in zip(FIELD_MM, spacing, strict=True)]
    points = np.meshgrid(*((np.arange(n) + 0.5) * step for n, step in zip(sizes, spacing, strict=True)), indexing="ij")
    middle, radius = (22.0, 21.0, 33.0), (19.0, 15.0, 22.0)
    scaled = [(axis - at) / size for axis, at, size in zip(points, middle, radius, strict=True)]
    return np.asarray(1 - np.sqrt(sum(axis**2 for axis in scaled)), np.float32)


def write(folder: Path, *, has_ignored: bool = False) -> Path:
    """`case-I-J`: spacing number I, saved in orientation number J. Of ignored voxels there are two fifths."""
    for place in ("imagesTr", "labelsTr"):
        (folder / place).mkdir(parents=True)
    for (i, spacing), (j, code) in product(enumerate(SPACINGS), enumerate(CODES)):
        image = level(spacing)
        mask = (image > 0.15).astype(np.uint8) + (image > 0.5)
        if has_ignored:
            mask[: round(0.4 * len(mask))] = 3
        to_code = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(code)
        )
        for array, name in ((image, f"imagesTr/case-{i}-{j}_0000"), (mask.astype(np.uint8), f"labelsTr/case-{i}-{j}")):
            volume = nib.Nifti1Image(array, np.diag([*spacing, 1.0])).as_reoriented(to_code)
            nib.save(volume, folder / f"{name}.nii.gz")
    labels = {"background": 0, "one": 1, "two": 2} | ({"ignore": 3} if has_ignored else {})
    table = {"channel_names": {"0": "T1"}, "labels": labels, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(table | {"numTraining": len(SPACINGS) * len(CODES)}))
    return folder


class Thresholds(nn.Module):
    """Predicts class 1 above 0.1 and class 2 above 0.55, a little beside the true 0.15 and 0.5."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = 10 * (image[:, :1] - 0.1)
        return torch.cat([torch.zeros_like(first), first, first + 10 * (image[:, :1] - 0.55)], 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("own") / "data")


def opened(folder: Path) -> Dataset:
    settings = {"source": str(folder), "normalize": "none", "spacing_mm": [1, 1, 1]}
    return open_dataset(DataSpec.model_validate(settings), cache_dir=None)


class RegionThresholds(nn.Module):
    """Predicts two nested regions, above the thresholds of `Thresholds`."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 10 * torch.cat([image[:, :1] - 0.1, image[:, :1] - 0.55], 1)


def dice_of(prediction: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> list[float]:
    both = [((prediction == k) & (mask == k)).sum() for k in (1, 2)]
    return [2 * both[k - 1] / ((prediction == k).sum() + (mask == k).sum()) for k in (1, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
def test_a_scan_keeps_the_dice_of_its_own_voxels_however_it_is_saved(folder: Path, dims: int) -> None:
    changes = {} if dims == 2 else {"model": {"dims": 3}, "batch": {"patch_size_px": [32, 32, 32]}}
    store = VoxelStore(opened(folder).cases)
    evaluator = replace(small_job(changes).evaluator, store=store, outputs=Outputs(3))
    measured = evaluator.measure(Thresholds(), range(len(store.ids)), keep_predictions=True)
    dice = dice_from_counts(measured.counts)[:, 1:]
    assert (dice < 0.97).all()  # a wrong geometry could not hide behind a perfect score
    assert (dice > 0.8).all()
    alike = dice.view(len(SPACINGS), len(CODES), 2)
    assert (alike - alike[:, :1]).abs().max() < 1e-12  # turning changes nothing at all
    for case, name in enumerate(store.ids):
        image = np.asarray(nib.load(folder / f"imagesTr/{name}_0000.nii.gz").dataobj).transpose(2, 1, 0)
        prediction = store.as_stored(measured.predictions[case].numpy(), case)
        direct = (image > 0.1).astype(int) + (image > 0.55)
        assert prediction.shape == image.shape  # the voxels of the file
        assert (prediction == direct).mean() > 0.985
        np.testing.assert_allclose(dice[case], dice_of(direct, true_mask(image)), atol=0.005)
        mask = store.as_stored(store.measured_mask(case).numpy(), case)
        np.testing.assert_array_equal(mask, true_mask(image))


def true_mask(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray((image > 0.15).astype(int) + (image > 0.5))


def voxels_of(path: Path) -> np.ndarray[Any, Any]:
    """(D, H, W), as stored."""
    return np.asarray(nib.load(path).dataobj).transpose(2, 1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["regions", "ignored", "mirrored"])
def test_regions_ignored_voxels_and_mirroring_are_measured_on_the_files_voxels_too(tmp_path: Path, kind: str) -> None:
    folder = write(tmp_path / "data", has_ignored=kind == "ignored")
    store = VoxelStore(opened(folder).cases)
    outputs = Outputs(3, has_ignored=kind == "ignored", regions=((1, 2), (2,)) if kind == "regions" else ())
    axes = (0, 1) if kind == "mirrored" else ()
    evaluator = replace(small_job().evaluator, store=store, outputs=outputs, mirrored_axes=axes)
    model = RegionThresholds() if kind == "regions" else Thresholds()
    dice = dice_from_counts(evaluator.measure(model, range(len(store.ids))).counts)[:, 1:]
    for case, name in enumerate(store.ids):
        image, mask = voxels_of(folder / f"imagesTr/{name}_0000.nii.gz"), voxels_of(folder / f"labelsTr/{name}.nii.gz")
        counted = mask != 3
        direct = ((image > 0.1).astype(int) + (image > 0.55))[counted]
        expected = dice_of(direct, mask[counted])
        if kind == "regions":
            overlap = 2 * ((direct > 0) & (mask[counted] > 0)).sum()
            expected[0] = overlap / ((direct > 0).sum() + (mask[counted] > 0).sum())
        np.testing.assert_allclose(dice[case], expected, atol=0.005)
