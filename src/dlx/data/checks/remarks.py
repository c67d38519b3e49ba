"""Warnings about a data set and its split that can be used but probably contain a mistake.

Each function returns lines for the user; it refuses and changes nothing.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from dlx.data.cases import Case, Dataset
from dlx.data.checks.scan_names import guess_persons, scans_of
from dlx.data.geometry.common_grid import spell_spacing
from dlx.data.geometry.resample import median_spacing, slice_axis
from dlx.data.intensities.measures import ChannelIntensities
from dlx.data.layouts.listing import list_some, name_some, natural_key
from dlx.data.splits.groups import GROUPS
from dlx.data.splits.split import Split
from dlx.settings.text import counted

SHOWN = 3  # names, pairs or classes in a line
UNLIKE_SPACING = 0.1  # relative to the median; nominally equal voxel sizes of several scanners differ by less
MANY_NEGATIVE = 0.05  # of a case's voxels; MR images have none, or a few along edges after resampling
# Limits of the standard deviation and of the range (maximum - minimum), each divided by the standard deviation of the
# voxels clipped to their 1st and 99th percentile. Measured: 1.002 to 1.10 and 4.1 to 17.5 on the hippocampus set, 1.01
# and 5.2 to 6.6 on the phantom. CT with bone or metal was not measured.
SQUEEZED_STD, SQUEEZED_RANGE = 3.0, 40.0
MAX_PAIRS = 4_000_000  # compared in the search for copies: 17 s on one core (4000 and 1000 slices)
UNLIKE_SIZES = 10.0  # ratio of a class's voxels per case in training and in validation

_copy_lines: WeakKeyDictionary[Dataset, dict[tuple[tuple[str, ...], ...], list[str]]] = WeakKeyDictionary()


def remark_on(dataset: Dataset, split: Split, groups: Collection[str]) -> list[str]:
    """All warnings about these data; `groups` are the cases whose person the user declared."""
    used = dataset.cases_of([*split.train, *split.val])
    return [
        *untrained_classes(dataset, split),
        *vanished_classes(dataset, split),
        *ignored_voxels(dataset, used),
        *repeated_images(dataset, split),
        *unlike_orientations(dataset, used),
        *unlike_slice_axes(used),
        *unlike_spacings(used),
        *negative_voxels(dataset, used),
        *squeezed_contrast(dataset, used),
        *stored_as_float32(used),
        *scans_on_both_sides(split, groups),
        *copies_on_both_sides(dataset, split),
        *unlike_class_sizes(dataset, split),
    ]


def untrained_classes(dataset: Dataset, split: Split) -> list[str]:
    """Classes that no training case has."""
    present = _classes_of(dataset, split.train)
    absent = [name for name in dataset.classes if name not in present]
    return [f"no training case has the class {name_some(absent)}"] if absent else []


def vanished_classes(dataset: Dataset, split: Split) -> list[str]:
    """Classes that resampling removed from the masks of training cases: validation still measures them."""
    vanished: dict[str, list[str]] = {}
    for case in dataset.cases_of(split.train):
        kept = dict(zip(dataset.classes, dataset.class_voxels(case), strict=True))
        for name in dataset.classes_of(case):
            if not kept[name]:
                vanished.setdefault(name, []).append(case.id)
    return [
        f"data.spacing_mm: resampling removed the class {name!r} from {counted(len(ids), 'training case')} "
        f"({name_some(ids, SHOWN)}), in which it is too small for the new voxels: set smaller ones, or "
        "data.spacing_mm=none"
        for name, ids in vanished.items()
    ]


def ignored_voxels(dataset: Dataset, cases: Sequence[Case]) -> list[str]:
    """How much of the masks has the ignore label."""
    if dataset.ignored_value is None or not cases:
        return []
    shares = [case.ignored_fraction for case in cases]
    line = f"ignore label: {100 * sum(shares) / len(shares):.1f} % of the voxels are left out of losses and metrics"
    without = [case.id for case, share in zip(cases, shares, strict=True) if share == 1.0]
    return [f"{line}; all of {counted(len(without), 'case')} ({name_some(without, SHOWN)})" if without else line]


def repeated_images(dataset: Dataset, split: Split) -> list[str]:
    """Images that occur twice among the training cases."""
    lines = []
    first: dict[str, str] = {}
    for case in dataset.cases_of(split.train):
        twin = first.setdefault(case.value_hash, case.id)
        if twin != case.id:
            lines.append(
                f"{case.id} holds the same image as {twin}, so the image is trained on twice: remove one of them"
            )
    return lines


def unlike_orientations(dataset: Dataset, cases: Sequence[Case]) -> list[str]:
    """Cases that are stored in another orientation than most, if none is to be turned (else `describe_grid` tells)."""
    if dataset.grid is not None and dataset.grid.asked_orientation != "stored":
        return []
    by_code: dict[str, list[str]] = {}
    for case in cases:
        if case.orientation:
            by_code.setdefault(case.orientation, []).append(case.id)
    if len(by_code) < 2:
        return []
    common = max(by_code, key=lambda code: len(by_code[code]))
    others = {code: ids for code, ids in by_code.items() if code != common}
    what = ", ".join(f"{len(ids)} as {code} ({name_some(ids, SHOWN)})" for code, ids in others.items())
    total = sum(map(len, by_code.values()))
    return [
        f"mixed orientation: of {total} cases, {what}; the rest as {common}. With data.orientation=stored the "
        "network sees anatomy in different directions; data.orientation=common, the default, turns the cases to one "
        "orientation"
    ]


def unlike_slice_axes(cases: Sequence[Case]) -> list[str]:
    """Cases whose slices lie across another array axis than those of most cases, before they were resampled."""
    by_axis: dict[int, list[str]] = {}
    for case in cases:
        d, h, w = case.measured_mask.shape
        axis = slice_axis(case.measured_spacing_mm, (d, h, w))
        if axis is not None:
            by_axis.setdefault(axis, []).append(case.id)
    if len(by_axis) < 2:
        return []
    common = max(by_axis, key=lambda axis: len(by_axis[axis]))
    others = ", ".join(
        f"{len(ids)} across axis {axis} ({name_some(ids, SHOWN)})" for axis, ids in by_axis.items() if axis != common
    )
    return [
        f"mixed slices: thick or single slices lie across array axis {common} of (D, H, W) in most cases, and {others}."
        " A 2D network would take strips of these cases: leave them out, or store all slices alike"
    ]


def unlike_spacings(cases: Sequence[Case]) -> list[str]:
    """Cases whose voxel size differs from the median."""
    if not cases:
        return []
    if any(case.original is not None for case in cases):  # resampled: differences come from rounding sizes
        return []
    spacings, sizes = [case.spacing_mm for case in cases], [case.mask.shape for case in cases]
    usual = np.array(median_spacing(spacings, sizes))
    ratios = np.maximum(spacings / usual, usual / spacings)
    ratios = np.where(np.array(sizes) > 1, ratios, 1.0).max(axis=1)
    others = [case for case, ratio in zip(cases, ratios, strict=True) if ratio > 1 + UNLIKE_SPACING]
    if not others:
        return []
    shown = list_some([f"{case.id!r} {spell_spacing(case.spacing_mm)}" for case in others], SHOWN)
    return [
        f"mixed spacing: {len(others)} of {len(cases)} cases differ by more than "
        f"{100 * UNLIKE_SPACING:.0f} % from the "
        f"median {spell_spacing(usual.tolist())} ({shown}), so the network sees the same anatomy in several "
        "sizes; data.spacing_mm=median resamples the cases to one spacing"
    ]


def negative_voxels(dataset: Dataset, cases: Sequence[Case]) -> list[str]:
    """Images whose foreground is not simply the voxels above zero: CT, and images that were z-scored before."""
    if "over=foreground" not in dataset.normalize:
        return []
    negative = [case for case in cases if case.negative_fraction > MANY_NEGATIVE]
    if not negative:
        return []
    shares = [case.negative_fraction for case in negative]
    return [
        f"{len(negative)} of {len(cases)} cases ({name_some([case.id for case in negative], SHOWN)}) are negative in "
        f"{_range([f'{100 * share:.0f} %' for share in (min(shares), max(shares))])} of the voxels of channel "
        f"{dataset.channels[0]!r}, but normalisation treats voxels at or below 0 as air. For CT (Hounsfield units) "
        "use --set data.normalize=ct, for images normalised before --set data.normalize=zscore:over=all"
    ]


def squeezed_contrast(dataset: Dataset, cases: Sequence[Case]) -> list[str]:
    """Channels of cases in which a few outlying voxels (metal, padding) determine the scale; none if these images look
    like CT, for which `negative_voxels` names the remedy.
    """
    name = dataset.normalize.partition(":")[0]
    clipping = f"percentile{':over=all' if 'over=all' in dataset.normalize else ''}"
    if name not in ("zscore", "whiten", "minmax") or negative_voxels(dataset, cases):
        return []
    lines = []
    for c, channel in enumerate(dataset.channels):
        found = [case for case in cases if len(case.intensities) > c and _is_squeezed(case.intensities[c], name)]
        if found:
            ranges = [(case.id, case.intensities[c].lowest, case.intensities[c].highest) for case in found]
            shown = list_some(
                [f"{name!r}: {_spell_intensity(low)} to {_spell_intensity(high)}" for name, low, high in ranges], SHOWN
            )
            lines.append(
                f"channel {channel!r}: in {len(found)} of {len(cases)} cases ({shown}) a few outlying voxels "
                "(metal, padding?) determine the scale and squeeze the contrast of the rest: "
                f"--set data.normalize={clipping} clips them"
            )
    return lines


def _spell_intensity(value: float) -> str:
    """`0.1235`, `30,000`: four digits, or the whole number if it has more."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def stored_as_float32(cases: Sequence[Case]) -> list[str]:
    """Cases whose values float16 would round by too much, or cannot hold."""
    wide = [case for case in cases if case.is_wide]
    errors = [case.rounding_error for case in wide if case.rounding_error is not None]
    if not wide:
        return []
    causes = [f"float16 would round by up to {100 * max(errors):.2g} % of the image's noise"] if errors else []
    causes += ["values are beyond float16 (65504)"] if len(errors) < len(wide) else []
    return [
        f"images are kept as float32, in twice the memory: in {len(wide)} of {len(cases)} cases "
        f"({name_some([case.id for case in wide], SHOWN)}) {', or '.join(causes)}"
    ]


def _is_squeezed(channel: ChannelIntensities, normalizer: str) -> bool:
    if channel.clipped_std <= 0:
        return False
    if normalizer == "minmax":
        return (channel.highest - channel.lowest) / channel.clipped_std > SQUEEZED_RANGE
    return channel.std / channel.clipped_std > SQUEEZED_STD


def scans_on_both_sides(split: Split, groups: Collection[str] = ()) -> list[str]:
    """Persons, guessed from the names of cases that are not in `groups`, with scans on both sides of the split."""
    train, val = ([case for case in side if case not in groups] for side in (split.train, split.val))
    persons = guess_persons(sorted([*train, *val], key=natural_key))
    scans = scans_of(persons)
    both = {persons[case] for case in train if persons} & {persons[case] for case in val if persons}
    if not both:
        return []
    sizes = [len(names) for names in scans.values()]
    first = next(person for person in scans if person in both)
    each = _range([str(min(sizes)), str(max(sizes))])
    return [
        f"case names look like {counted(len(scans), 'person')} with {each} scans each ({first}: "
        f"{name_some(scans[first], 2)}), and {len(both)} of them have scans in both training and validation, which "
        f'makes validation scores too high. Write {GROUPS} ({{"case": "person"}}) into the data folder, or name such a '
        "file with --set split.groups=FILE"
    ]


def copies_on_both_sides(dataset: Dataset, split: Split) -> list[str]:
    """Pairs across the split that look like copies of one image; cached per split, for all variants of a study."""
    known = _copy_lines.setdefault(dataset, {})
    key = (split.train, split.val)
    if key not in known:
        known[key] = _copies(dataset, split)
    return known[key]


def _copies(dataset: Dataset, split: Split) -> list[str]:
    from dlx.data.checks.copies import find_copies  # here, as it loads scipy

    thumbnails = {case.id: case.thumbnail for case in dataset.cases if case.thumbnail is not None}
    train, val = ([case for case in side if case in thumbnails] for side in (split.train, split.val))
    if len(train) * len(val) > MAX_PAIRS:
        return [
            f"no search for copies of images: {len(train)} training and {len(val)} validation cases are more than "
            f"{MAX_PAIRS:,} pairs. Images that are identical after preparation are still refused"
        ]
    copies = find_copies([thumbnails[case] for case in train], [thumbnails[case] for case in val])
    if not copies:
        return []
    doubt = (
        "; most pairs are, so the images may only be too smooth or too alike for this comparison"
        if 2 * len(copies) > len(train) * len(val) > 4
        else ""
    )
    pairs = [f"{train[one.first]!r} and {val[one.second]!r} ({one.correlation:.2f})" for one in copies]
    return [
        f"{counted(len(copies), 'pair')} of a training and a validation case may be copies of one image (correlation): "
        f"{list_some(pairs, SHOWN)}{doubt}. Leave out one of each pair, or assign both to one person in {GROUPS}"
    ]


def unlike_class_sizes(dataset: Dataset, split: Split) -> list[str]:
    """Classes without a validation case, or with ten times as many voxels per case on one side as on the other."""
    sides = [_voxels_per_case(dataset, ids) for ids in (split.train, split.val)]
    lines = []
    trained, validated = (_classes_of(dataset, ids) for ids in (split.train, split.val))
    absent = [name for name in dataset.classes if name in trained - validated]
    if absent:
        lines.append(
            f"no validation case has the class {name_some(absent)}: its validation Dice is 0 if the network predicts "
            "it in any of them, and is left out of the mean otherwise"
        )
    unlike = [
        f"{name!r} {train:,.0f} and {val:,.0f}"
        for name, train, val in zip(dataset.classes, *sides, strict=True)
        if min(train, val) > 0 and max(train / val, val / train) >= UNLIKE_SIZES
    ]
    if unlike:
        lines.append(
            f"class sizes differ between training and validation (voxels per case): {list_some(unlike, SHOWN)}"
        )
    return lines


def _voxels_per_case(dataset: Dataset, ids: Sequence[str]) -> list[float]:
    totals = Counter[int]()
    for case in dataset.cases_of(ids):
        totals.update(dict(enumerate(dataset.class_voxels(case))))
    return [totals[k] / len(ids) for k in range(len(dataset.classes))]


def _classes_of(dataset: Dataset, ids: Sequence[str]) -> set[str]:
    """The classes that any of these cases is measured on."""
    return {name for case in dataset.cases_of(ids) for name in dataset.classes_of(case)}


def _range(bounds: list[str]) -> str:
    return bounds[0] if bounds[0] == bounds[1] else " to ".join(bounds)
