"""Data sets of every kind that predictions must fit, small networks trained on them, and what their records say."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its usual name

import made_grids
import test_oblique
from dlx.data.volumes.reading import read_volume

# two channels in Analyze pairs, with the label values of iSeg-2017
PHANTOM = ["make-phantom", "data", "--subjects", "3", "--size", "24"]
TRAIN = [
    *("--val-fraction", "0.34", "--threads", "1", "--device", "cpu", "--precision", "float32", "--epochs", "1"),
    *("--steps-per-epoch", "10", "--batch-size", "4", "--lr", "0.03", "--quiet"),
]
IN_2D = ["--model", "unet2:width=4,levels=2", "--set", "batch.patch_size_px=[16,16]"]
IN_3D = ["--model", "unet2:width=4,levels=2,dims=3,norm=instance", "--set", "batch.patch_size_px=[8,12,10]"]
KINDS = {
    "orientations": [*IN_2D, "--ema", "0.9"],
    "resampled": [*IN_2D, "--set", "evaluate.mirror=true"],
    "oblique": IN_2D,
    "tif": IN_2D,
    "rgb": IN_2D,
    "channels": IN_2D,
    "regions": IN_2D,
    "ct": IN_2D,
    "ignored": IN_2D,
    "3d": IN_3D,
    "strong": [
        *("--recipe", "strong", "--set", "model.width=4", "--set", "model.levels=2"),
        *("--set", "batch.max_voxels=2000", "--set", "evaluate.mirror=true", "--set", "batch.size=auto"),
    ],
}


def make_data(kind: str, dlx: Any) -> Path:
    """A data set of a kind in the working folder; `dlx` runs a command line."""
    folder = Path("data").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    if kind == "channels":
        dlx(*PHANTOM)
    elif kind in ("tif", "rgb"):
        _write_pictures(folder, ".png" if kind == "rgb" else f".{kind}", is_rgb=kind == "rgb")
    elif kind == "oblique":
        angles = (test_oblique.OBLIQUE, test_oblique.STEEP, test_oblique.AXIAL)
        volumes = {f"c{k}": (made_grids.smooth((6, 24, 20), k), degrees) for k, degrees in enumerate(angles)}
        test_oblique.write(folder, {name: test_oblique.volume_of(*one) for name, one in volumes.items()})
    else:
        unlike = [(1.0, 1.2, 1.4), (1.0, 1.2, 1.4), (0.7, 1.5, 1.1), (1.0, 1.2, 1.4)]
        spacings = unlike if kind in ("resampled", "strong") else [unlike[0]] * 4
        codes = made_grids.CODES if kind in ("orientations", "strong") else ["LPS"] * 4
        cases = {f"c{k}": pair for k, pair in enumerate(zip(codes, spacings, strict=True))}
        _write_volumes(folder, cases)
    if kind in ("regions", "ct", "ignored"):
        _change_description(folder, kind)
    return folder


def train(dlx: Any, kind: str, data: Path, *options: str, out: str = "run") -> Path:
    """Trains a small network of a kind; returns the folder of the run."""
    settings = list(KINDS[kind])
    given = [*TRAIN]
    if kind == "strong":  # its batch size is that of the recipe
        at = given.index("--batch-size")
        del given[at : at + 2]
    dlx("train", "--data", str(data), *settings, *given, "--out", out, *options)
    return Path(out)


def result_of(run: Path) -> dict[str, Any]:
    """The `result` of the record of a run's only trial."""
    (path,) = run.glob("trials/*/result.json")
    found: dict[str, Any] = json.loads(path.read_text())["result"]
    return found


def dice_of_cases(run: Path) -> dict[str, dict[str, float | None]]:
    """Training and validation cases with the recorded Dice of each class."""
    result = result_of(run)
    return {case: scores["dice"] for part in ("train", "val") for case, scores in result[part]["cases"].items()}


def voxels_of(path: Path) -> np.ndarray[Any, Any]:
    """The voxels (D, H, W) of a file of one channel."""
    array: np.ndarray[Any, Any] = read_volume(path).array[0]
    return array


def dice(prediction: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float | None:
    """The Dice of two masks; None if both are empty."""
    both, sizes = np.count_nonzero(prediction & truth), np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * both / sizes if sizes else None


def _write_volumes(folder: Path, cases: dict[str, tuple[str, tuple[float, float, float]]]) -> None:
    """As `made_grids.write`, with masks that a network learns in a few steps: two thresholds of the image."""
    made_grids.write(folder, cases, shape=(12, 14, 16))
    for name in cases:
        image = sitk.ReadImage(str(folder / f"imagesTr/{name}_0000.nii.gz"))
        mask = sitk.Cast((image > 80) + sitk.Cast(image > 130, sitk.sitkUInt8), sitk.sitkUInt8)
        sitk.WriteImage(mask, str(folder / f"labelsTr/{name}.nii.gz"))


def _write_pictures(folder: Path, ending: str, *, is_rgb: bool) -> None:
    for place in ("imagesTr", "labelsTr"):
        (folder / place).mkdir(parents=True)
    values = (120, 70000) if ending == ".tif" else (120, 240)
    for case in range(3):
        image = made_grids.smooth((3, 20 + case, 24), case).clip(0, 255).astype(np.uint8)
        mask = (image[0] > 80).astype(np.uint8) + (image[0] > 130)
        picture = sitk.GetImageFromArray(np.moveaxis(image, 0, -1), isVector=True) if is_rgb else image[0]
        sitk.WriteImage(
            picture if is_rgb else sitk.GetImageFromArray(picture), str(folder / f"imagesTr/p{case}_0000{ending}")
        )
        labels = np.array([0, *values], np.uint32 if ending == ".tif" else np.uint8)[mask]
        sitk.WriteImage(sitk.GetImageFromArray(labels), str(folder / f"labelsTr/p{case}{ending}"))
    channels = ["R", "G", "B"] if is_rgb else ["grey"]
    labels_of = dict(zip(("background", "a", "b"), (0, *values), strict=True))
    table = {"channel_names": dict(zip("012", channels, strict=False)), "labels": labels_of}
    (folder / "dataset.json").write_text(json.dumps(table | {"file_ending": ending}))


def _change_description(folder: Path, kind: str) -> None:
    table = json.loads((folder / "dataset.json").read_text())
    changes: dict[str, dict[str, Any]] = {
        "regions": {"labels": {"background": 0, "whole": [1, 2], "inner": 2}, "regions_class_order": [1, 2]},
        "ct": {"channel_names": {"0": "CT"}},
        "ignored": {"labels": {"background": 0, "one": 1, "ignore": 2}},
    }
    (folder / "dataset.json").write_text(json.dumps(table | changes[kind]))
