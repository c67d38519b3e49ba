"""Small random Decathlon folders, changes of them, and what must be the same of two prepared data sets."""

import json
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from dlx.data.dataset import Dataset, open_dataset
from dlx.settings.spec import DataSpec

SHAPE = (4, 5, 6)  # x, y, z
PHANTOM = DataSpec.model_validate({"source": "phantom:subjects=2,size=24"})


def intensities(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """An image with an air border at x = 0 and values from 1 to 1000 elsewhere."""
    image = np.random.default_rng(seed).integers(1, 1000, shape).astype(np.int16)
    image[0] = 0
    return image


def labels(seed: int, values: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    return np.random.default_rng(100 + seed).choice(np.array(values, np.uint8), SHAPE)


def save(path: Path, array: np.ndarray, spacing: tuple[float, ...] = (1.0, 2.0, 3.0), origin: float = 0.0) -> None:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def decathlon(root: Path, num_cases: int = 3, **description: Any) -> Path:
    """A Decathlon folder of small random cases `case-1` ..."""
    names = [f"case-{number}" for number in range(1, num_cases + 1)]
    for seed, name in enumerate(names):
        save(root / f"imagesTr/{name}.nii.gz", intensities(seed))
        save(root / f"labelsTr/{name}.nii.gz", labels(seed))
    training = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    table = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "a", "2": "b"}, "training": training}
    (root / "dataset.json").write_text(json.dumps(table | description))
    return root


def opened(path: Path, cache_dir: Path | None = None, *, normalize: str = "zscore", verify: bool = False) -> Dataset:
    spec = DataSpec.model_validate({"source": str(path), "normalize": normalize})
    return open_dataset(spec, cache_dir=cache_dir, verify=verify)


def assert_same(a: Dataset, b: Dataset) -> None:
    """Everything but the remarks and the source is the same, bit for bit."""
    assert (a.layout, a.channels, a.classes, a.fingerprint) == (b.layout, b.channels, b.classes, b.fingerprint)
    assert (a.label_values, a.normalize) == (b.label_values, b.normalize)
    assert len(a.cases) == len(b.cases)
    for one, other in zip(a.cases, b.cases, strict=True):
        assert (one.id, one.spacing_mm, one.content_hash, one.mask_hash, one.value_hash) == (
            (other.id, other.spacing_mm, other.content_hash, other.mask_hash, other.value_hash)
        )
        for name in ("orientation", "prepared_hash", "intensities", "negative_fraction"):
            assert getattr(one, name) == getattr(other, name)
        assert one.thumbnail is not None
        assert other.thumbnail is not None
        assert one.thumbnail.cell_mm == other.thumbnail.cell_mm
        np.testing.assert_array_equal(one.thumbnail.image, other.thumbnail.image)
        for name in ("image", "mask", "pad_value"):
            left, right = getattr(one, name), getattr(other, name)
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


def change_voxel(root: Path) -> None:
    image = intensities(2)
    image[1, 1, 1] += 1
    save(root / "imagesTr/case-3.nii.gz", image)


def change_label(root: Path) -> None:
    mask = labels(2)
    mask[1, 1, 1] = (mask[1, 1, 1] + 1) % 3
    save(root / "labelsTr/case-3.nii.gz", mask)


def change_spacing(root: Path) -> None:
    save(root / "imagesTr/case-3.nii.gz", intensities(2), spacing=(1.0, 2.0, 4.0))
    save(root / "labelsTr/case-3.nii.gz", labels(2), spacing=(1.0, 2.0, 4.0))


def change_classes(root: Path) -> None:
    table = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(table | {"labels": {"0": "background", "1": "b", "2": "a"}}))


CHANGES = [change_voxel, change_label, change_spacing, change_classes]


def spoil(root: Path) -> None:
    """Every image becomes garbage of the same size and time."""
    for path in root.rglob("*.nii.gz"):
        stat = path.stat()
        path.write_bytes(b"x" * stat.st_size)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def only_file(cache_dir: Path) -> Path:
    (path,) = cache_dir.iterdir()  # and no temporary file is left beside it
    return path


def damage(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
