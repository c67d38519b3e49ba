"""What may be meant and is more often a slip: remarks on data and settings that can be trained all the same."""

from collections.abc import Sequence

import numpy as np

from dlx.data.cases import Case, Dataset
from dlx.data.layouts import name_some
from dlx.data.split import Split
from dlx.specs import Spec

THIN = 4  # slices whose sides are so unlike were hardly meant to be cut along this axis


def odd_data(dataset: Dataset, split: Split) -> list[str]:
    """Classes that no training case has, and images that are there twice on the training side."""
    trained = _training(dataset, split)
    present = frozenset[int]().union(*(case.classes for case in trained))
    absent = [name for k, name in enumerate(dataset.classes) if k not in present]
    remarks = [f"no training case has the class {name_some(absent)}"] if absent else []
    first: dict[str, str] = {}
    for case in trained:
        twin = first.setdefault(case.value_hash, case.id)
        if twin != case.id:
            remarks.append(f"{case.id} holds the same image as {twin}: it trains twice")
    return remarks


def odd_patches(spec: Spec, dataset: Dataset, split: Split, dims: int) -> list[str]:
    """Slices cut along the wrong axis, and patches that are mostly padding."""
    assert spec.batch.patch_size_px is not None
    sizes = np.array([case.mask.shape for case in _training(dataset, split)])
    spanned = sizes
    remarks = []
    if dims == 2:
        median = np.median(sizes, axis=0)
        others = [axis for axis in range(3) if axis != spec.batch.slice_axis]
        thinnest = int(np.argmin(median))
        if thinnest in others and THIN * median[thinnest] < median[others].max() and median[spec.batch.slice_axis] > 1:
            small, large = (f"{median[axis]:.0f}" for axis in sorted(others, key=lambda axis: median[axis]))
            remarks.append(
                f"slices along array axis {spec.batch.slice_axis} are {large} x {small}: "
                f"was batch.slice_axis={thinnest} meant?"
            )
        spanned = sizes[:, others]
    patch = np.array(spec.batch.patch_size_px)
    if (patch >= 2 * spanned.max(axis=0)).any():
        asked, largest = spell_size(patch.tolist()), spell_size(spanned.max(axis=0).tolist())
        remarks.append(f"patches of {asked} are mostly padding: nothing there is larger than {largest}")
    return remarks


def odd_threads(threads: int, cores: int) -> list[str]:
    """More threads than cores: they wait for each other."""
    return [f"{threads} threads on {cores} core(s) train slower than {cores} would"] if threads > cores else []


def spell_size(size: Sequence[int]) -> str:
    """`48 x 36`."""
    return " x ".join(map(str, size))


def _training(dataset: Dataset, split: Split) -> list[Case]:
    wanted = set(split.train)
    return [case for case in dataset.cases if case.id in wanted]
