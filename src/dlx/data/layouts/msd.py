"""The Medical Segmentation Decathlon: `dataset.json` lists pairs of an image and a label file.

An image is 3D, or 4D with a channel per declared modality. Only `dataset.json` and file names are read. The format:
medicaldecathlon.com (Antonelli et al. 2022, doi:10.1038/s41467-022-30695-9).
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dlx.data.layouts.dataset_json import DatasetJson, has_keys, kind_of, ordered_labels, read_dataset_json
from dlx.data.layouts.listing import CaseFiles, Listing, ScanFiles, ScanListing, name_some, natural_key
from dlx.system.errors import DataError

LOOKED_FOR = "dataset.json with modality and training (Decathlon)"


def is_layout(folder: Path) -> bool:
    """Whether there is a dataset.json with `modality` and `training`. Raises DataError if it is broken."""
    return has_keys(folder, "modality", "training")


def list_cases(folder: Path) -> Listing:
    """The training cases of a Decathlon folder; a case's id is its image's file name without the ending.

    Raises DataError if dataset.json is missing or wrong, or if a path is absolute, contains `..`, is listed twice or
    names no file.
    """
    description = read_dataset_json(folder)
    channels = description.channel_names("modality")
    class_names, label_values = labels_of(description)
    cases = _cases(folder, description)
    return Listing(
        layout="msd",
        channels=channels,
        class_names=class_names,
        label_values=label_values,
        cases=cases,
        allow_4d=len(channels) > 1,
        remarks=description.count_remark(len(cases)),
    )


def list_scans(folder: Path) -> ScanListing:
    """The images of the training cases of a Decathlon folder. Raises DataError as `list_cases`."""
    description = read_dataset_json(folder)
    channels = description.channel_names("modality")
    cases = _cases(folder, description, needs_masks=False)
    return ScanListing("msd", channels, tuple(ScanFiles(case.id, case.images) for case in cases))


def _cases(folder: Path, description: DatasetJson, *, needs_masks: bool = True) -> tuple[CaseFiles, ...]:
    """The listed pairs in natural order of their ids, whose files exist."""
    cases: dict[str, CaseFiles] = {}
    seen: set[PurePosixPath] = set()
    needed: list[PurePosixPath] = []
    for image, mask in _pairs(description):
        for path in (image, mask):
            if path in seen:
                raise DataError(f"{description.path}: {str(path)!r} is listed twice")
            seen.add(path)
        case = _stem(image)
        if case in cases:
            raise DataError(f"{description.path}: case {case!r} is listed twice")
        cases[case] = CaseFiles(case, (folder / image,), folder / mask)
        needed += [image, mask] if needs_masks else [image]
    missing = sorted((str(path) for path in needed if not (folder / path).exists()), key=natural_key)
    if missing:
        raise DataError(f"{folder}: {len(missing)} missing: {name_some(missing)}{_v1_hint(folder, missing[0])}")
    return tuple(cases[case] for case in sorted(cases, key=natural_key))


def labels_of(description: DatasetJson) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Class names and values, sorted by value. DataError if the table of labels is wrong."""
    labels: list[tuple[str, int]] = []
    for value, name in description.table("labels").items():
        if not (value.isascii() and value.isdecimal() and len(value) < 10 and str(int(value)) == value):
            raise DataError(f'{description.path}: label {value!r} must be a whole number, as in "1": "liver"')
        if not isinstance(name, str):
            raise DataError(f"{description.path}: the name of label {value} must be a text, not {kind_of(name)}")
        labels.append((name, int(value)))
    return ordered_labels(labels)


def _pairs(description: DatasetJson) -> Iterator[tuple[PurePosixPath, PurePosixPath]]:
    entries = description.values.get("training")
    if not isinstance(entries, list):
        raise DataError(f"{description.path}: 'training' must be a list, not {kind_of(entries)}")
    for number, entry in enumerate(entries):
        where = f"{description.path}: training entry {number}"
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("image", "label")):
            raise DataError(f'{where} must be of the form {{"image": "path", "label": "path"}}')
        image, mask = (_inside(where, entry[key]) for key in ("image", "label"))
        if not image.name.startswith("._"):  # macOS metadata, which its archives contain beside each file
            yield image, mask


def _inside(where: str, text: str) -> PurePosixPath:
    """A path below the folder; DataError if it is absolute, contains `..` or names the folder itself."""
    path = PurePosixPath(text)  # "./imagesTr/x" becomes imagesTr/x
    if path.is_absolute() or ".." in path.parts or "\\" in text or "\0" in text or not path.parts:
        raise DataError(f"{where}: the path {text!r} does not lie inside the folder")
    return path


def _stem(path: PurePosixPath) -> str:
    name = path.name.removesuffix(".gz") if path.name.endswith(".nii.gz") else path.name
    return name.rpartition(".")[0] or name


def _v1_hint(folder: Path, missing: str) -> str:
    """A hint on nnU-Net v1, which has the same dataset.json, but image names that end in _0000."""
    path = folder / missing
    v1_name = path.name.replace(".", "_0000.", 1)
    return f" ({v1_name} exists: nnU-Net v1 is not supported)" if (path.parent / v1_name).exists() else ""
