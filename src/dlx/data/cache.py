"""Prepared data sets on disk: where a file lies, whether it is still valid, and loading one by itself.

The name of a cache file is a hash of the data folder and of the preparation. The file is valid as long as every image
file has the same path, size and modification time; this is checked without opening any image. `cache_file` reads and
writes the file itself.
"""

import hashlib
import os
from pathlib import Path

from dlx.data.cache_file import FileState, Origin, read_cache, write_cache
from dlx.data.cases import Dataset, Declaration
from dlx.data.layouts.channel_schemes import choose_normalizer
from dlx.data.layouts.listing import CaseFiles
from dlx.settings.part import Part
from dlx.system.errors import DataError

ENDING = ".safetensors"


def cache_path(cache_dir: Path, place: str, declaration: Declaration) -> Path:
    """The cache file for data from `place`: a folder's absolute path, or a phantom's name and arguments."""
    grid = (declaration.orientation, str(declaration.spacing_mm))
    added = grid if grid != ("common", "auto") else ()  # not in the names of older files
    key = "\0".join((place, declaration.layout, str(declaration.normalize), *added))
    digest = hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=16)
    return cache_dir / f"{digest.hexdigest()}{ENDING}"


def state_of(folder: Path, case: CaseFiles) -> list[FileState]:
    """Size and modification time of every file of a case; for an Analyze or NIfTI pair, of both .hdr and .img."""
    states = []
    for path in (*case.images, case.mask):
        is_pair = path.suffix in (".hdr", ".img")
        for file in [path.with_suffix(".hdr"), path.with_suffix(".img")] if is_pair else [path]:
            try:
                stat = file.stat()
                size, time_ns = stat.st_size, stat.st_mtime_ns
            except OSError:  # equals no stored state; reading the case then reports the error
                size, time_ns = -1, -1
            states.append(FileState(case.id, os.path.relpath(file, folder), size, time_ns))
    return states


def find(path: Path, origin: Origin) -> tuple[Dataset | None, tuple[str, ...]]:
    """The data set cached at `path` if it was made from `origin`; a damaged file is ignored, with a remark."""
    if not os.path.lexists(path):
        return None, ()
    try:
        return read_cache(path, origin), ()
    except DataError as error:
        return None, (f"the cache file was rebuilt: {error}",)


def keep(path: Path, dataset: Dataset, origin: Origin) -> tuple[str, ...]:
    """Writes the cache file; a full or read-only disk gives a remark, as the data can be used without a cache."""
    try:
        write_cache(path, dataset, origin)
    except OSError as error:
        return (f"the prepared data were not kept in the cache: {path.parent}: {error.strerror or error}",)
    return ()


def load_cache(path: Path, *, normalize: Part | None = None) -> Dataset:
    """A prepared data set read from its file alone; the original images are not needed.

    Raises DataError if the file is missing, damaged, of another data version, or (with `normalize`, whose arguments
    must be filled in) prepared by another normaliser.
    """
    dataset = read_cache(path)
    assert dataset is not None  # read_cache returns None only if an origin is expected
    if normalize is not None:
        chosen, _ = choose_normalizer(normalize, dataset.layout, dataset.channels)
        if dataset.normalize != str(chosen):
            raise DataError(
                f"{path}: prepared with data.normalize={dataset.normalize}, but the setting is {chosen}; open it with "
                f"--set data.normalize={dataset.normalize}"
            )
    return dataset
