"""Prepared data sets on disk: where a file lies, whether it is still valid, and loading one by itself.

The file is found by the folder and the preparation and is valid while every file it was made from has the
same path, size and time; no image file is opened for that. What is in the file stands in `cache_file`.
"""

import hashlib
import os
from pathlib import Path

from dlx.data.cache_file import FileState, Origin, read_cache, write_cache
from dlx.data.cases import Dataset, Declaration
from dlx.data.layouts.listing import CaseFiles
from dlx.settings.spec import Part
from dlx.system.errors import DataError

ENDING = ".safetensors"


def cache_path(cache_dir: Path, place: str, declaration: Declaration) -> Path:
    """The file for data from `place` (a folder's absolute path, or what a phantom is drawn from)."""
    key = "\0".join((place, declaration.layout, str(declaration.normalize)))
    digest = hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=16)
    return cache_dir / f"{digest.hexdigest()}{ENDING}"


def state_of(folder: Path, case: CaseFiles) -> list[FileState]:
    """Size and time of every file of a case; of an Analyze or NIfTI pair, of .hdr and .img both."""
    states = []
    for path in (*case.images, case.mask):
        is_pair = path.suffix in (".hdr", ".img")
        for file in [path.with_suffix(".hdr"), path.with_suffix(".img")] if is_pair else [path]:
            try:
                stat = file.stat()
                size, time_ns = stat.st_size, stat.st_mtime_ns
            except OSError:  # equals no stored state; reading the case then tells what is wrong
                size, time_ns = -1, -1
            states.append(FileState(case.id, os.path.relpath(file, folder), size, time_ns))
    return states


def find(path: Path, origin: Origin) -> tuple[Dataset | None, tuple[str, ...]]:
    """What is kept at `path` if it was made from `origin`; a damaged file gives a remark and is not used."""
    if not os.path.lexists(path):
        return None, ()
    try:
        return read_cache(path, origin), ()
    except DataError as error:
        return None, (f"the cache file was made anew: {error}",)


def keep(path: Path, dataset: Dataset, origin: Origin) -> tuple[str, ...]:
    """Writes the file; a full or read-only disk gives a remark, for the data are there all the same."""
    try:
        write_cache(path, dataset, origin)
    except OSError as error:
        return (f"the prepared data were not kept: {path.parent}: {error.strerror or error}",)
    return ()


def load_cache(path: Path, *, normalize: Part | None = None) -> Dataset:
    """A prepared data set from its file alone; the images that it was made from need not be there.

    Raises DataError when the file is missing, damaged, of another data version, or prepared by another
    normaliser than `normalize` (with its arguments filled in), where that is given.
    """
    dataset = read_cache(path)
    assert dataset is not None  # None answers an expectation, and none was given
    if normalize is not None and dataset.normalize != str(normalize):
        raise DataError(f"{path}: prepared with normalize={dataset.normalize}, and {normalize} is asked for")
    return dataset
