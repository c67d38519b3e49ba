"""nnU-Net v2 raw data: `dataset.json`, `imagesTr/CASE_0000.*` (one file per channel), `labelsTr/CASE.*`.

Only file names and `dataset.json` are read. The format is described in nnU-Net's
documentation/dataset_format.md (github.com/MIC-DKFZ/nnUNet).
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from dlx.data.layouts.dataset_json import NAME, DatasetJson, has_keys, kind_of, ordered_labels, read_dataset_json
from dlx.data.layouts.listing import CaseFiles, Listing, ScanFiles, ScanListing, name_some, natural_key
from dlx.system.errors import DataError, nearest

LOOKED_FOR = "dataset.json with channel_names, imagesTr/CASE_0000.* and labelsTr/CASE.*"
IGNORE = "ignore"  # the name that nnU-Net reserves for voxels that nobody labelled
ORDER = "regions_class_order"
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".tif", ".tiff")
RGB_ENDINGS = (".png", ".tif", ".tiff")  # formats whose one file may hold three channels


def is_layout(folder: Path) -> bool:
    """Whether there is a dataset.json with `channel_names`. Raises DataError if it is broken."""
    return has_keys(folder, "channel_names")


def list_cases(folder: Path) -> Listing:
    """The cases of an nnU-Net v2 folder.

    Raises DataError if dataset.json is missing or wrong, and if a case lacks a
    channel or its label, or has an undeclared channel.
    """
    description = read_dataset_json(folder)
    if "dataset" in description.values:
        raise DataError(f"{description.path}: lists file paths under 'dataset', which is not supported")
    channels = description.channel_names("channel_names")
    labels = labels_of(description)
    ending = _ending(description)
    masks = {name.removesuffix(ending): folder / "labelsTr" / name for name in _files(folder, "labelsTr", ending)}
    images, remarks = _images(folder, ending)
    is_rgb = _is_rgb(channels, ending, images)
    files_per_case = 1 if is_rgb else len(channels)
    _check_complete(folder, ending, images, files_per_case, masks)
    cases = tuple(
        CaseFiles(case, tuple(images[case][number] for number in range(files_per_case)), masks[case])
        for case in sorted(images, key=natural_key)
    )
    return Listing(
        layout="nnunet",
        channels=channels,
        cases=cases,
        allow_rgb=is_rgb,
        remarks=(*remarks, *description.count_remark(len(cases))),
        **labels._asdict(),
    )


def list_scans(folder: Path) -> ScanListing:
    """The images in `imagesTr`, with or without labels. Raises DataError as `list_cases`."""
    description = read_dataset_json(folder)
    channels, ending = description.channel_names("channel_names"), _ending(description)
    images, remarks = _images(folder, ending)
    files_per_case = 1 if _is_rgb(channels, ending, images) else len(channels)
    _check_complete(folder, ending, images, files_per_case)
    scans = tuple(
        ScanFiles(case, tuple(images[case][number] for number in range(files_per_case)))
        for case in sorted(images, key=natural_key)
    )
    return ScanListing("nnunet", channels, scans, tuple(remarks))


def _is_rgb(channels: tuple[str, ...], ending: str, images: dict[str, dict[int, Path]]) -> bool:
    """Whether the one file of a case holds three channels."""
    return len(channels) == 3 and ending in RGB_ENDINGS and all(set(numbers) == {0} for numbers in images.values())


class Labels(NamedTuple):
    """The labels that a description declares, as a `Listing` has them."""

    class_names: tuple[str, ...]
    label_values: tuple[int, ...]
    ignored_value: int | None = None
    regions: tuple[tuple[int, ...], ...] = ()
    region_order: tuple[int, ...] = ()


def labels_of(description: DatasetJson) -> Labels:
    """The labels, which are regions if one of them has several values. The ignore label must have the highest value."""
    table = {name: _values(description, name, value) for name, value in description.table("labels").items()}
    if len(table.get(IGNORE, [0])) > 1:
        raise DataError(f"{description.path}: label '{IGNORE}' must have one value, and has {len(table[IGNORE])}")
    ignored = table.pop(IGNORE, [None])[0]
    highest, owner = max(((value, name) for name, values in table.items() for value in values), default=(0, ""))
    if ignored is not None and ignored <= highest:
        raise DataError(
            f"{description.path}: label '{IGNORE}' has the value {ignored}; it must be higher than those of all other "
            f"labels ({owner!r} has {highest})"
        )
    if any(len(values) > 1 for values in table.values()):
        return _regions(description, table, ignored)
    class_names, label_values = ordered_labels([(name, values[0]) for name, values in table.items()])
    return Labels(class_names, label_values, ignored)


def _values(description: DatasetJson, name: str, declared: Any) -> list[int]:
    """The values of a label: one, or those of a region."""
    where = f"{description.path}: label {name!r}"
    if declared == []:
        raise DataError(f"{where} is a region without values")
    values = declared if isinstance(declared, list) else [declared]
    for value in values:
        if type(value) is not int:
            hint = ""
            if isinstance(value, str):
                is_region = isinstance(declared, list)
                hint = " (a region lists values, not names)" if is_region else " (nnU-Net v2 expects name -> value)"
            raise DataError(f"{where} must have a whole number, not {kind_of(value)}{hint}")
        if value < 0:
            raise DataError(f"{where} has the value {value}; values count from 0 (background)")
    return values


def _regions(description: DatasetJson, table: dict[str, list[int]], ignored: int | None) -> Labels:
    """Regions in the order in which they are declared, and the class that is written for each."""
    backgrounds = [name for name, values in table.items() if values == [0]]
    regions = {name: values for name, values in table.items() if values != [0]}
    if len(backgrounds) != 1:
        raise DataError(f"{description.path}: the labels have no background (value 0), or several")
    for name, values in regions.items():
        if 0 in values or len(set(values)) != len(values):
            raise DataError(f"{description.path}: region {name!r} contains the background (0), or a value twice")
    label_values = tuple(sorted({0}.union(*regions.values())))
    order = description.values.get(ORDER)
    if not isinstance(order, list) or len(order) != len(regions):
        example = json.dumps([values[0] for values in regions.values()])
        cause = "is missing" if order is None else "does not fit"
        raise DataError(
            f"{description.path}: '{ORDER}' {cause}: it must list a value for each of the {len(regions)} regions, in "
            f"their order, such as {example}"
        )
    for name, value in zip(regions, order, strict=True):
        if type(value) is not int or value not in regions[name]:
            raise DataError(f"{description.path}: '{ORDER}': {value!r} is not a value of region {name!r}")
    return Labels(
        (backgrounds[0], *regions),
        label_values,
        ignored,
        tuple(tuple(sorted(map(label_values.index, values))) for values in regions.values()),
        tuple(map(label_values.index, order)),
    )


def _ending(description: DatasetJson) -> str:
    ending = description.values.get("file_ending")
    if not isinstance(ending, str):
        what = "missing" if ending is None else kind_of(ending)
        raise DataError(f"{description.path}: 'file_ending' must be a text such as .nii.gz, and is {what}")
    if ending not in ENDINGS:
        raise DataError(f"{description.path}: file_ending {ending!r} is not supported: {nearest(ending, ENDINGS)}")
    return ending


def _files(folder: Path, where: str, ending: str) -> list[str]:
    """Names of the files with the ending, without hidden ones (for example `._` files of macOS)."""
    if not (folder / where).is_dir():
        raise DataError(f"{folder / where}: no such folder")
    names = [entry.name for entry in (folder / where).iterdir()]
    return [name for name in names if name.endswith(ending) and not name.startswith(".") and name != ending]


def _images(folder: Path, ending: str) -> tuple[dict[str, dict[int, Path]], list[str]]:
    """Case -> channel number -> file, and a remark if file names lack a channel number."""
    images: dict[str, dict[int, Path]] = {}
    unnumbered: list[str] = []
    for name in _files(folder, "imagesTr", ending):
        match = re.fullmatch(r"(.+)_([0-9]{4})", name.removesuffix(ending), re.DOTALL)
        if match:
            images.setdefault(match[1], {})[int(match[2])] = folder / "imagesTr" / name
        else:
            unnumbered.append(name)
    if not images:
        raise DataError(f"{folder / 'imagesTr'}: no file CASE_0000{ending}")
    remark = f"{folder / 'imagesTr'}: left out because their names have no channel number: "
    return images, [remark + name_some(sorted(unnumbered, key=natural_key))] if unnumbered else []


def _check_complete(
    folder: Path,
    ending: str,
    images: dict[str, dict[int, Path]],
    files_per_case: int,
    masks: dict[str, Path] | None = None,
) -> None:
    """Refuses a case that lacks a file: dropping it silently would change the study. None: masks are not needed."""
    missing: list[str] = []
    for case in sorted(images.keys() | (masks or {}).keys(), key=natural_key):
        numbers = images.get(case, {})
        missing += [f"imagesTr/{case}_{n:04d}{ending}" for n in range(files_per_case) if n not in numbers]
        if masks is not None and case not in masks:
            missing.append(f"labelsTr/{case}{ending}")
    if missing:
        raise DataError(f"{folder}: {len(missing)} missing: {name_some(missing)}")
    for case in sorted(images, key=natural_key):
        beyond = [number for number in images[case] if number >= files_per_case]
        if beyond:
            raise DataError(
                f"{folder}: {images[case][min(beyond)].name!r} is channel {min(beyond)}, "
                f"but {NAME} declares {files_per_case} (0 to {files_per_case - 1})"
            )
