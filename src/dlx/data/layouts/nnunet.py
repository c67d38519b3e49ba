"""nnU-Net v2 raw data: `dataset.json`, `imagesTr/CASE_0000.*` (one file per channel), `labelsTr/CASE.*`.

Only file names and `dataset.json` are read. Labels that are regions (lists) are refused, because
the losses and metrics of dlx need one class per voxel. The format is described in nnU-Net's
documentation/dataset_format.md (github.com/MIC-DKFZ/nnUNet).
"""

import re
from pathlib import Path

from dlx.data.layouts.dataset_json import NAME, DatasetJson, has_keys, kind_of, ordered_labels, read_dataset_json
from dlx.data.layouts.listing import CaseFiles, Listing, name_some, natural_key
from dlx.system.errors import DataError, nearest

LOOKED_FOR = "dataset.json with channel_names, imagesTr/CASE_0000.* and labelsTr/CASE.*"
IGNORE = "ignore"  # the name that nnU-Net reserves for voxels that nobody labelled
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".tif", ".tiff")
RGB_ENDINGS = (".png", ".tif", ".tiff")  # formats whose one file may hold three channels


def is_layout(folder: Path) -> bool:
    """Whether there is a dataset.json with `channel_names`. Raises DataError if it is broken."""
    return has_keys(folder, "channel_names")


def list_cases(folder: Path) -> Listing:
    """The cases of an nnU-Net v2 folder.

    Raises DataError if dataset.json is missing or wrong, or uses regions, and if a case lacks a
    channel or its label, or has an undeclared channel.
    """
    description = read_dataset_json(folder)
    if "dataset" in description.values:
        raise DataError(f"{description.path}: lists file paths under 'dataset', which is not supported")
    channels = description.channel_names("channel_names")
    class_names, label_values, ignored_value = _labels(description)
    ending = _ending(description)
    masks = {name.removesuffix(ending): folder / "labelsTr" / name for name in _files(folder, "labelsTr", ending)}
    images, remarks = _images(folder, ending)
    is_rgb = len(channels) == 3 and ending in RGB_ENDINGS and all(set(numbers) == {0} for numbers in images.values())
    files_per_case = 1 if is_rgb else len(channels)
    _check_complete(folder, ending, images, masks, files_per_case)
    cases = tuple(
        CaseFiles(case, tuple(images[case][number] for number in range(files_per_case)), masks[case])
        for case in sorted(images, key=natural_key)
    )
    return Listing(
        layout="nnunet",
        channels=channels,
        class_names=class_names,
        label_values=label_values,
        cases=cases,
        allow_rgb=is_rgb,
        remarks=(*remarks, *description.count_remark(len(cases))),
        ignored_value=ignored_value,
    )


def _labels(description: DatasetJson) -> tuple[tuple[str, ...], tuple[int, ...], int | None]:
    """Class names and values, and the value of the ignore label, which must be the highest, as in nnU-Net."""
    labels: list[tuple[str, int]] = []
    for name, value in description.table("labels").items():
        where = f"{description.path}: label {name!r}"
        if isinstance(value, list):
            raise DataError(f"{where} is a region (a list of values): regions are not supported")
        if type(value) is not int:
            hint = " (nnU-Net v2 expects name -> value)" if isinstance(value, str) else ""
            raise DataError(f"{where} must have a whole number, not {kind_of(value)}{hint}")
        if value < 0:
            raise DataError(f"{where} has the value {value}; values count from 0 (background)")
        labels.append((name, value))
    ignored = [value for name, value in labels if name == IGNORE]
    highest = max((value for name, value in labels if name != IGNORE), default=0)
    if ignored and ignored[0] <= highest:
        raise DataError(
            f"{description.path}: label '{IGNORE}' has the value {ignored[0]}; it must be the highest (above {highest})"
        )
    class_names, label_values = ordered_labels([label for label in labels if label[0] != IGNORE])
    return class_names, label_values, ignored[0] if ignored else None


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
    masks: dict[str, Path],
    files_per_case: int,
) -> None:
    """Refuses a case that lacks a file: dropping it silently would change the study."""
    missing: list[str] = []
    for case in sorted(images.keys() | masks.keys(), key=natural_key):
        numbers = images.get(case, {})
        missing += [f"imagesTr/{case}_{n:04d}{ending}" for n in range(files_per_case) if n not in numbers]
        if case not in masks:
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
