"""Folders of small masks for tests of `dlx evaluate`, and the documents that it writes, read strictly."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

AFFINE = np.diag([-1.5, -1.0, 3.0, 1.0])  # x to the left, y to the back: SimpleITK's direction is the identity
AFFINE[:3, 3] = (10.0, 20.0, -30.0)


def save(path: Path | str, mask: NDArray[Any], affine: NDArray[Any] = AFFINE) -> Path:
    """Writes a mask (x, y, z) as NIfTI in its own voxel type."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(mask, affine, dtype=mask.dtype), path)
    return path


def blobs(seed: int, noise: float = 0.0, shape: tuple[int, ...] = (24, 20, 10)) -> NDArray[np.uint8]:
    """Two smooth structures, 1 and 2, whose borders move with the noise; the same at each seed without noise."""
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal(shape), 2.5) for _ in range(2)]
    moved = [gaussian_filter(rng.standard_normal(shape), 1.5) for _ in range(2)]
    first, second = (one / one.std() + noise * other / other.std() for one, other in zip(fields, moved, strict=True))
    mask = np.zeros(shape, np.uint8)
    mask[first > 0.6] = 1
    mask[second > 1.0] = 2
    return mask


def folders(root: Path, noises: Mapping[str, float], num_cases: int = 6) -> dict[int, NDArray[np.uint8]]:
    """`truth` and a folder of predictions for each noise, of cases `c1`, `c2`, ...; returns the true masks."""
    truths = {number: blobs(number) for number in range(1, num_cases + 1)}
    for number, mask in truths.items():
        save(root / f"truth/c{number}.nii.gz", mask)
        for name, noise in noises.items():
            save(root / f"{name}/c{number}.nii.gz", blobs(number, noise))
    return truths


def strict_json(text: str) -> Any:
    """The value of a JSON document; ValueError for NaN and infinity, which are not JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


def read_summary(path: Path | str) -> dict[str, Any]:
    document: dict[str, Any] = strict_json(Path(path).read_text(encoding="utf-8"))
    return document
