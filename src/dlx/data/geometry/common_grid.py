"""Brings the cases of a set to one orientation and one voxel size, after they were read and before anything else.

A set whose cases agree stays as it is, with its fingerprint. Case by case arithmetic is in `orientation` and
`resample`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlx.data.cases import Case, Dataset, Grid, Original
from dlx.data.geometry.orientation import CANONICAL, TURN_VERSION, find_turn, turn
from dlx.data.geometry.resample import (
    MASK_BYTES_PER_VOXEL,
    RESAMPLE_VERSION,
    Size,
    Spacing,
    coarse_axis,
    median_spacing,
    new_size,
    resample_image,
    resample_mask,
    slice_axis,
)
from dlx.data.intensities.ct import windowed_channels
from dlx.data.layouts.listing import name_some
from dlx.settings.binding import bind_part
from dlx.settings.part import Part
from dlx.settings.spec import Orientation, SpacingMm
from dlx.settings.text import counted
from dlx.system.cpu_cores import available_cores
from dlx.system.errors import DataError, SettingError
from dlx.system.memory import host_memory_bytes
from dlx.system.threads import thread_pool

ALIKE = 0.01  # relative: a case whose spacing differs by less from the wanted one is not resampled
SHOWN = 3  # cases in a line
MAX_THREADS = 4  # as in `prepare`: each resamples one case at a time
MAX_RESAMPLING_BYTES = 3 * 2**30  # of all threads together, as for surface distances (`engine/score.py`)


def to_common_grid(dataset: Dataset, orientation: Orientation, spacing_mm: SpacingMm) -> Dataset:
    """The data set with all cases in one orientation and with one voxel size, as the settings ask.

    A case that need not change stays the same object. The voxel size of a resampled case is its field of view by its
    number of voxels, so it may differ from the wanted one by half a voxel in all. Old and new cases are in memory at
    the same time.

    Raises DataError, before any case is resampled, if the new ones would not fit this machine's memory. Raises
    SettingError for a voxel size that would mean different anatomical axes in different cases.
    """
    grid = Grid(
        asked_orientation=orientation,
        asked_spacing_mm=spacing_mm,
        orientation=_target_orientation([case.orientation for case in dataset.cases], orientation),
        slice_axis=_usual_slice_axis(dataset.cases) if orientation == "common" else None,
    )
    grid = grid.model_copy(update={"spacing_mm": _target_spacing(dataset, grid)})
    normalizer = bind_part("normalizer", Part.model_validate(dataset.normalize))
    is_windowed = windowed_channels(normalizer, len(dataset.channels))
    check_resampling_memory(dataset.cases, grid, "leave the cases as they are (data.spacing_mm=none)")
    with thread_pool(_threads(dataset.cases, grid)) as pool:
        cases = tuple(pool.map(lambda case: bring_case(case, grid, is_windowed), dataset.cases))
    return replace(dataset, cases=cases, grid=grid, fingerprint=_fingerprint(dataset, cases, grid))


def bring_case(case: Case, grid: Grid, is_windowed: Sequence[bool]) -> Case:
    """A case, as it was read, in the orientation and with the voxel size of a grid.

    `is_windowed` says of each channel whether it will be clipped later (see `windowed_channels`). It is interpolated
    linearly, as splines would carry what is to be clipped, such as metal, into its neighbours.
    """
    return _resampled(_turned(case, grid), grid.spacing_mm, is_windowed)


def check_resampling_memory(cases: Sequence[Case], grid: Grid, remedy: str = "") -> None:
    """DataError, naming the case that would become largest, if the cases with resampled copies exceed the memory.

    `remedy` is what the message proposes beside a check of the header.
    """
    sizes = {case.id: _size_on(case, grid) for case in cases}
    changed = [case for case in cases if sizes[case.id] != _after_turning(case, grid).size]
    memory = host_memory_bytes()
    if not changed or memory is None or grid.spacing_mm is None:
        return
    largest = max(changed, key=lambda case: prod(sizes[case.id]))
    kept = sum(prod(sizes[case.id]) * (case.image[0, 0, 0].nbytes + 1) for case in changed)
    before = sum(case.image.nbytes + case.mask.nbytes for case in cases)
    needed = before + kept + MASK_BYTES_PER_VOXEL * prod(sizes[largest.id])
    if needed <= memory:
        return
    d, h, w = sizes[largest.id]
    stored = spell_spacing(_after_turning(largest, grid).spacing_mm)
    raise DataError(
        f"case {largest.id!r}: resampled from voxels of {stored} to {spell_spacing(grid.spacing_mm)} it would have "
        f"{w} x {h} x {d} voxels, and resampling all cases would take {needed / 2**30:,.0f} GiB of memory, of which "
        f"there are {memory / 2**30:,.0f} GiB: check the spacing in its header{f', or {remedy}' * bool(remedy)}"
    )


def _threads(cases: Sequence[Case], grid: Grid) -> int:
    """How many cases are resampled at once: fewer where they are large."""
    sizes = [max(case.mask.size, prod(_size_on(case, grid))) for case in cases]
    most = MAX_RESAMPLING_BYTES // (MASK_BYTES_PER_VOXEL * max(sizes))
    return max(1, min(MAX_THREADS, available_cores(), most))


def _size_on(case: Case, grid: Grid) -> Size:
    """The size (d, h, w) that a case, as it was read, has on a grid."""
    turned = _after_turning(case, grid)
    return _resampled_size(turned.size, turned.spacing_mm, grid.spacing_mm) or turned.size


def has_changes(cases: Sequence[Case]) -> bool:
    """Whether any of the cases was turned or resampled."""
    return any(case.stored_orientation or case.original is not None for case in cases)


def describe_grid(dataset: Dataset) -> list[str]:
    """Lines for the user: which cases were turned, and to which voxel size all were resampled, and why."""
    grid, lines = dataset.grid, []
    if grid is None:
        return []
    by_code: dict[str, list[str]] = {}
    for case in dataset.cases:
        if case.stored_orientation:
            by_code.setdefault(case.stored_orientation, []).append(case.id)
    if by_code:
        stored = ", ".join(f"{len(ids)} stored as {code} ({name_some(ids, SHOWN)})" for code, ids in by_code.items())
        total = sum(map(len, by_code.values()))
        why = ", the most common orientation" if grid.asked_orientation == "common" else ""
        lines.append(
            f"data.orientation={grid.asked_orientation}: {total} of {counted(len(dataset.cases), 'case')} were turned "
            f"to {grid.orientation}{why}: {stored}"
        )
    lines += _describe_unturned(dataset.cases, grid)
    resampled = [case for case in dataset.cases if case.original is not None]
    if resampled and grid.spacing_mm is not None:
        before = np.array([case.measured_spacing_mm for case in dataset.cases])
        is_median = isinstance(grid.asked_spacing_mm, str)
        median = ", the median of all cases, validation cases included" if is_median else ""
        names = name_some([case.id for case in resampled], SHOWN)
        lines.append(
            f"data.spacing_mm={_spell_setting(grid.asked_spacing_mm)}: {len(resampled)} of "
            f"{counted(len(dataset.cases), 'case')} ({names}) were resampled to voxels of "
            f"{spell_spacing(grid.spacing_mm)}{median}; stored voxels are {_spell_ranges(before)}. Dice is measured on "
            "the stored voxels"
        )
    return lines


def _describe_unturned(cases: Sequence[Case], grid: Grid) -> list[str]:
    """Lines on cases that turning left as they are stored, though it was asked for."""
    lines = []
    kept = [case for case in cases if case.orientation not in ("", grid.orientation)] if grid.orientation else []
    if kept:
        codes = ", ".join(sorted({case.orientation for case in kept}))
        lines.append(
            f"data.orientation={grid.asked_orientation}: {counted(len(kept), 'case')} stored as {codes} "
            f"({name_some([case.id for case in kept], SHOWN)}) stay so: turned to {grid.orientation}, their slices "
            "would lie across another axis than those of most cases"
        )
    unknown = [case.id for case in cases if not case.orientation]
    is_told = grid.asked_orientation == "LPS" or (grid.asked_orientation == "common" and len(unknown) < len(cases))
    if unknown and is_told:
        lines.append(
            f"data.orientation={grid.asked_orientation}: the headers of {counted(len(unknown), 'case')} give no "
            f"orientation ({name_some(unknown, SHOWN)}): they stay as they are stored"
        )
    return lines


def spell_spacing(spacing_mm: Sequence[float]) -> str:
    """`0.5 x 0.5 x 5 mm`, x first, of a spacing (d, h, w)."""
    return " x ".join(f"{size:.3g}" if size < 1000 else f"{size:.0f}" for size in reversed([*spacing_mm])) + " mm"


def _spell_ranges(spacings_mm: NDArray[np.float64]) -> str:
    """`x 0.5 to 1 mm, y 0.5 mm, z 5 mm` of spacings (n, 3), each (d, h, w)."""
    low, high = spacings_mm.min(axis=0), spacings_mm.max(axis=0)
    sides = zip("xyz", reversed(low), reversed(high), strict=True)
    return ", ".join(f"{axis} {a:.3g} mm" if a == b else f"{axis} {a:.3g} to {b:.3g} mm" for axis, a, b in sides)


def _spell_setting(spacing_mm: SpacingMm) -> str:
    return spacing_mm if isinstance(spacing_mm, str) else f"[{','.join(f'{size:g}' for size in spacing_mm)}]"


def _target_orientation(codes: Sequence[str], orientation: Orientation) -> str:
    """The code to which cases are turned; empty if they stay as they are, or if no case has one."""
    known = Counter(code for code in codes if code)
    if orientation == "stored" or not known:
        return ""
    return CANONICAL if orientation == "LPS" else known.most_common(1)[0][0]  # of equally many, the first case's


def _usual_slice_axis(cases: Sequence[Case]) -> int | None:
    """The array axis across which the slices of most cases lie, as stored; None if no case has slices."""
    axes = [slice_axis(case.spacing_mm, _size(case)) for case in cases]
    found = Counter(axis for axis in axes if axis is not None)
    return found.most_common(1)[0][0] if found else None


def _target_spacing(dataset: Dataset, grid: Grid) -> Spacing | None:
    """The voxel size (d, h, w) to which cases are resampled; None if they stay as they are.

    The median is over all cases, before any split, as in nnU-Net: all folds and variants then train on the same voxels.
    """
    target, spacing_mm = grid.orientation, grid.asked_spacing_mm
    if not target and (spacing_mm == "median" or (isinstance(spacing_mm, tuple) and len({*spacing_mm}) > 1)):
        _check_axes_agree(dataset.cases, spacing_mm)
    if isinstance(spacing_mm, tuple):
        x, y, z = spacing_mm
        return z, y, x
    is_guess = dataset.distance_unit == "px" or any(
        note.kind in ("screen", "resolution") for case in dataset.cases for note in case.notes
    )
    is_mixed = not target and len({case.orientation for case in dataset.cases}) > 1
    if spacing_mm == "none" or (spacing_mm == "auto" and (is_guess or is_mixed)):
        return None
    turned = [_after_turning(case, grid) for case in dataset.cases]
    return median_spacing([one.spacing_mm for one in turned], [one.size for one in turned])


def _check_axes_agree(cases: Sequence[Case], spacing_mm: SpacingMm) -> None:
    """SettingError if the anatomical axes of cases that are not turned differ in order; their directions may differ.

    Cases without a known orientation are not compared.
    """
    known = [case for case in cases if case.orientation]
    others = [case for case in known if find_turn(case.orientation, known[0].orientation)[0] != (0, 1, 2)]
    if others:
        named = name_some([f"{case.id} ({case.orientation})" for case in (known[0], *others)], SHOWN)
        raise SettingError(
            f"data.spacing_mm={_spell_setting(spacing_mm)} with data.orientation=stored: the axes of the cases are in "
            f"unlike anatomical order ({named}), so one voxel size would mean different axes in each; set "
            "data.orientation=common, or data.spacing_mm=none or one size for all axes, as in [1, 1, 1]"
        )


class Turned(NamedTuple):
    """The orientation of a case after turning, with its size and voxel size (d, h, w)."""

    orientation: str
    size: Size
    spacing_mm: Spacing


def _after_turning(case: Case, grid: Grid) -> Turned:
    """What turning to a grid makes of a case, as it was read.

    A case without a known orientation is not turned. Nor is one whose slices lie across the usual axis as it is stored,
    and would lie across another one: slices may be oblique, and near 45 degrees the nearest anatomical axes of two
    alike cases can differ.
    """
    stored = Turned(case.orientation, _size(case), case.spacing_mm)
    if not case.orientation or not grid.orientation:
        return stored
    order, _ = find_turn(case.orientation, grid.orientation)
    axis = slice_axis(case.spacing_mm, stored.size)
    if axis is not None and axis == grid.slice_axis and order[axis] != axis:
        return stored
    d, h, w = order
    size, spacing_mm = stored.size, stored.spacing_mm
    return Turned(grid.orientation, (size[d], size[h], size[w]), (spacing_mm[d], spacing_mm[h], spacing_mm[w]))


def _turned(case: Case, grid: Grid) -> Case:
    after = _after_turning(case, grid)
    if after.orientation == case.orientation:
        return case
    return replace(
        case,
        image=np.ascontiguousarray(turn(case.image, case.orientation, after.orientation)),
        mask=np.ascontiguousarray(turn(case.mask, case.orientation, after.orientation)),
        spacing_mm=after.spacing_mm,
        orientation=after.orientation,
        stored_orientation=case.orientation,
    )


def _size(case: Case) -> Size:
    d, h, w = case.mask.shape
    return d, h, w


def _resampled_size(size: Size, spacing_mm: Spacing, wanted_mm: Spacing | None) -> Size | None:
    """The size that a case is resampled to; None if it stays as it is."""
    if wanted_mm is None or _are_alike(spacing_mm, wanted_mm, size):
        return None
    resampled = new_size(size, spacing_mm, wanted_mm)
    return None if resampled == size else resampled


def _resampled(case: Case, wanted_mm: Spacing | None, is_windowed: Sequence[bool]) -> Case:
    d, h, w = _size(case)
    size = _resampled_size((d, h, w), case.spacing_mm, wanted_mm)
    if wanted_mm is None or size is None:
        return case
    coarse = coarse_axis(case.spacing_mm, (d, h, w))
    apart = coarse_axis(wanted_mm, (d, h, w)) if coarse is None else coarse
    steps = zip((d, h, w), case.spacing_mm, size, strict=True)
    new_d, new_h, new_w = (old * step / new for old, step, new in steps)
    return replace(
        case,
        image=resample_image(case.image, size, apart, is_linear=is_windowed),
        mask=resample_mask(case.mask, size, apart),
        spacing_mm=(new_d, new_h, new_w),
        original=Original(case.mask, case.spacing_mm),
    )


def _are_alike(spacing_mm: Spacing, wanted_mm: Spacing, size: Size) -> bool:
    """Whether spacings agree along all axes of more than one voxel."""
    sizes = zip(spacing_mm, wanted_mm, size, strict=True)
    return all(max(one / other, other / one) <= 1 + ALIKE for one, other, n in sizes if n > 1)


def _fingerprint(dataset: Dataset, cases: Sequence[Case], grid: Grid) -> str:
    """The fingerprint of the set as it was read, and of what was changed; the former alone if nothing was."""
    if not has_changes(cases):
        return dataset.fingerprint
    identity = {
        "read": dataset.fingerprint,
        "grid_version": TURN_VERSION,
        "spacing_mm": grid.spacing_mm,
        "turned": [(case.id, case.stored_orientation, case.orientation) for case in cases if case.stored_orientation],
    }
    if any(case.original is not None for case in cases):
        identity["resample_version"] = RESAMPLE_VERSION
    text = json.dumps(identity, separators=(",", ":"), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
