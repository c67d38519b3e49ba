"""Warnings about a data set and its split: what can be trained on and is probably not what was meant.

Each function returns lines for the user. Nothing is refused here, and nothing is changed.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from dlx.data.cases import Case, Dataset
from dlx.data.intensities import ChannelIntensities
from dlx.data.layouts import name_some, natural_key
from dlx.data.scan_names import guess_persons, scans_of
from dlx.data.split import GROUPS, Split
from dlx.spelling import counted

SHOWN = 3  # names, pairs or classes that a line gives
UNLIKE_SPACING = 0.1  # of the median; nominally equal voxels of several scanners differ by less
MANY_NEGATIVE = 0.05  # of a case's voxels: MR images have none, or a few about edges where they were resampled
# Times the standard deviation without the outermost 2 % of the voxels. The usual deviation is 1.0 to 1.1 of it (MR of
# the hippocampus set, phantom), 1.2 in CT with bone, 29 with a metal implant; the whole range is 5 to 15 of it in MR.
SQUEEZED_STD, SQUEEZED_RANGE = 3.0, 40.0
UNLIKE_SIZES = 10.0  # between a class's voxels per case in training and in validation

_likenesses: WeakKeyDictionary[Dataset, dict[tuple[tuple[str, ...], ...], list[str]]] = WeakKeyDictionary()


def remark_on(dataset: Dataset, split: Split, groups: Collection[str]) -> list[str]:
    """All warnings about these data; `groups` are the names for which a person was declared."""
    used = [case for case in dataset.cases if case.id in {*split.train, *split.val}]
    return [
        *unlike_orientations(used),
        *unlike_spacings(used),
        *negative_voxels(dataset, used),
        *squeezed_contrast(dataset, used),
        *([] if groups else scans_on_both_sides(split)),
        *copies_on_both_sides(dataset, split),
        *unlike_class_sizes(dataset, split),
    ]


def unlike_orientations(cases: Sequence[Case]) -> list[str]:
    """Cases that are stored with other axes than most."""
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
        f"mixed orientation: of {total} cases, {what}; the rest as {common}. dlx does not turn images, so "
        "anatomy lies in different directions: store all alike (SimpleITK.DICOMOrient, image and mask) before training"
    ]


def unlike_spacings(cases: Sequence[Case]) -> list[str]:
    """Cases whose voxels are of another size than usual."""
    if not cases:
        return []
    spacings = np.array([case.spacing_mm for case in cases])
    usual = np.median(spacings, axis=0)
    ratios = np.maximum(spacings / usual, usual / spacings).max(axis=1)
    others = [case for case, ratio in zip(cases, ratios, strict=True) if ratio > 1 + UNLIKE_SPACING]
    if not others:
        return []
    shown = ", ".join(f"{case.id!r} {_spacing(case.spacing_mm)}" for case in others[:SHOWN])
    more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
    return [
        f"mixed spacing: {len(others)} of {len(cases)} cases differ by more than "
        f"{100 * UNLIKE_SPACING:.0f} % from the "
        f"median {_spacing(usual.tolist())} ({shown}{more}). dlx does not resample, so the network sees the same "
        "anatomy in several sizes: resample before training"
    ]


def _spacing(spacing_mm: Sequence[float]) -> str:
    return " x ".join(f"{size:.3g}" for size in reversed(spacing_mm)) + " mm"


def negative_voxels(dataset: Dataset, cases: Sequence[Case]) -> list[str]:
    """Images for which "above zero" is no sign of the foreground: CT, and what was z-scored before."""
    if "over=foreground" not in dataset.normalize:
        return []
    negative = [case for case in cases if case.negative_fraction > MANY_NEGATIVE]
    if not negative:
        return []
    shares = [case.negative_fraction for case in negative]
    return [
        f"{len(negative)} of {len(cases)} cases ({name_some([case.id for case in negative], SHOWN)}) are negative in "
        f"{_range([f'{100 * share:.0f} %' for share in (min(shares), max(shares))])} of the voxels of channel "
        f"{dataset.channels[0]!r}, and normalisation takes all at or below 0 for air. For CT (Hounsfield units) or "
        "images normalised before use --set data.normalize=zscore:over=all or percentile:over=all"
    ]


def squeezed_contrast(dataset: Dataset, cases: Sequence[Case]) -> list[str]:
    """Channels of cases where few voxels far from all others (metal) set the scale."""
    name = dataset.normalize.partition(":")[0]
    if name not in ("zscore", "whiten", "minmax"):
        return []
    lines = []
    for c, channel in enumerate(dataset.channels):
        found = [case for case in cases if len(case.intensities) > c and _is_squeezed(case.intensities[c], name)]
        if found:
            shown = ", ".join(f"{case.id!r}: up to {case.intensities[c].highest:.4g}" for case in found[:SHOWN])
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            lines.append(
                f"channel {channel!r}: in {len(found)} of {len(cases)} cases ({shown}{more}) few voxels far from all "
                "others (metal?) set the scale and squeeze the contrast of the rest: "
                "--set data.normalize=percentile clips them"
            )
    return lines


def _is_squeezed(channel: ChannelIntensities, normalizer: str) -> bool:
    if channel.clipped_std <= 0:
        return False
    if normalizer == "minmax":
        return (channel.highest - channel.lowest) / channel.clipped_std > SQUEEZED_RANGE
    return channel.std / channel.clipped_std > SQUEEZED_STD


def scans_on_both_sides(split: Split) -> list[str]:
    """Persons, guessed from the names of cases, who have scans on both sides of the split."""
    persons = guess_persons(sorted([*split.train, *split.val], key=natural_key))
    scans = scans_of(persons)
    both = {persons[case] for case in split.train if persons} & {persons[case] for case in split.val if persons}
    if not both:
        return []
    sizes = [len(names) for names in scans.values()]
    first = min(both, key=list(scans).index)
    each = _range([str(min(sizes)), str(max(sizes))])
    return [
        f"names look like {counted(len(scans), 'person')} with {each} scans each ({first}: "
        f"{name_some(scans[first], 2)}), and scans of {len(both)} of them both train and validate, which makes "
        f'validation too good. Write {GROUPS} ({{"case": "person"}}) into the data folder, or name such a file '
        "with --set split.groups=FILE"
    ]


def copies_on_both_sides(dataset: Dataset, split: Split) -> list[str]:
    """Pairs across the split that look like copies of one image. Kept for a split: variants of a study share it."""
    known = _likenesses.setdefault(dataset, {})
    key = (split.train, split.val)
    if key not in known:
        known[key] = _copies(dataset, split)
    return known[key]


def _copies(dataset: Dataset, split: Split) -> list[str]:
    from dlx.data.copies import find_copies  # here, as it loads scipy

    thumbnails = {case.id: case.thumbnail for case in dataset.cases if case.thumbnail is not None}
    train, val = ([case for case in side if case in thumbnails] for side in (split.train, split.val))
    copies = find_copies([thumbnails[case] for case in train], [thumbnails[case] for case in val])
    if not copies:
        return []
    shown = ", ".join(f"{train[one.first]!r} and {val[one.second]!r} ({one.correlation:.2f})" for one in copies[:SHOWN])
    more = f" and {len(copies) - SHOWN} more" if len(copies) > SHOWN else ""
    return [
        f"{counted(len(copies), 'pair')} of a training and a validation case may be copies of one image (correlation): "
        f"{shown}{more}. Leave one of each out, or make the two one person in {GROUPS}"
    ]


def unlike_class_sizes(dataset: Dataset, split: Split) -> list[str]:
    """Classes that no validation case has, or of which one side has ten times as many voxels per case."""
    sides = [_voxels_per_case(dataset, ids) for ids in (split.train, split.val)]
    absent = [name for k, name in enumerate(dataset.classes) if sides[0][k] > 0 and sides[1][k] == 0]
    lines = (
        [f"no validation case has the class {name_some(absent)}: it is not in the validation Dice"] if absent else []
    )
    unlike = [
        f"{name!r} {train:,.0f} and {val:,.0f}"
        for name, train, val in zip(dataset.classes, *sides, strict=True)
        if min(train, val) > 0 and max(train / val, val / train) >= UNLIKE_SIZES
    ]
    if unlike:
        more = f" and {counted(len(unlike) - SHOWN, 'more class')}" if len(unlike) > SHOWN else ""
        lines.append(
            f"class sizes differ between training and validation (voxels per case): {', '.join(unlike[:SHOWN])}{more}"
        )
    return lines


def _voxels_per_case(dataset: Dataset, ids: Sequence[str]) -> list[float]:
    totals = Counter[int]()
    for case in dataset.cases:
        if case.id in set(ids):
            totals.update(dict(enumerate(case.class_voxels)))
    return [totals[k] / len(ids) for k in range(len(dataset.classes))]


def _range(bounds: list[str]) -> str:
    return bounds[0] if bounds[0] == bounds[1] else " to ".join(bounds)
