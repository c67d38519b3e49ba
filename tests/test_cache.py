"""The cache of prepared data: valid as long as the files are, guarded bit by bit, and readable by itself."""

import json
import os
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from dlx.data import cache_file, cases
from dlx.data.cache import load_cache
from dlx.data.checks.remarks import remark_on
from dlx.data.dataset import Case, open_dataset
from dlx.data.splits.split import Split
from dlx.settings.spec import DataSpec
from dlx.system.errors import DataError
from made_folders import (
    CHANGES,
    PHANTOM,
    SHAPE,
    assert_same,
    damage,
    decathlon,
    intensities,
    labels,
    only_file,
    opened,
    save,
    spoil,
)


def test_the_cache_gives_back_the_same_data_bit_for_bit(tmp_path: Path) -> None:
    made = opened(decathlon(tmp_path / "data"), tmp_path / "cache")
    kept = opened(tmp_path / "data", tmp_path / "cache")
    assert_same(made, kept)
    assert made.remarks == kept.remarks == ()
    assert kept.source == made.source


def test_with_the_cache_no_image_is_opened_unless_verifying(tmp_path: Path) -> None:
    made = opened(decathlon(tmp_path / "data"), tmp_path / "cache")
    spoil(tmp_path / "data")
    assert_same(made, opened(tmp_path / "data", tmp_path / "cache"))
    with pytest.raises(DataError, match=r"case-1\.nii\.gz"):
        opened(tmp_path / "data", tmp_path / "cache", verify=True)


def test_with_the_cache_neither_simpleitk_nor_torch_is_imported(tmp_path: Path) -> None:
    opened(decathlon(tmp_path / "data"), tmp_path / "cache")
    program = (
        "import sys; from pathlib import Path; from dlx.data.dataset import open_dataset; "
        "from dlx.settings.spec import DataSpec; "
        "open_dataset(DataSpec(source=sys.argv[1]), cache_dir=Path(sys.argv[2])); "
        "print([name for name in ('SimpleITK', 'torch', 'scipy', 'matplotlib') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "data"), str(tmp_path / "cache")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "[]"


def test_verifying_unchanged_data_says_so_and_leaves_the_file_alone(tmp_path: Path) -> None:
    made = opened(decathlon(tmp_path / "data"), tmp_path / "cache")
    before = only_file(tmp_path / "cache").stat().st_mtime_ns
    verified = opened(tmp_path / "data", tmp_path / "cache", verify=True)
    assert_same(made, verified)
    assert len(verified.remarks) == 1
    assert "nothing has changed" in verified.remarks[0]
    assert only_file(tmp_path / "cache").stat().st_mtime_ns == before


def test_verifying_names_the_case_whose_content_changed_behind_its_time(tmp_path: Path) -> None:
    decathlon(tmp_path / "data")
    images = [tmp_path / f"data/imagesTr/case-{n}.nii" for n in (1, 2, 3)]
    training = [{"image": f"imagesTr/case-{n}.nii", "label": f"labelsTr/case-{n}.nii.gz"} for n in (1, 2, 3)]
    for n, path in enumerate(images):
        save(path, intensities(n))
    table = json.loads((tmp_path / "data/dataset.json").read_text()) | {"training": training}
    (tmp_path / "data/dataset.json").write_text(json.dumps(table))
    made = opened(tmp_path / "data", tmp_path / "cache")
    stat = images[1].stat()
    save(images[1], intensities(77))  # uncompressed: of the same size
    os.utime(images[1], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert_same(made, opened(tmp_path / "data", tmp_path / "cache"))
    verified = opened(tmp_path / "data", tmp_path / "cache", verify=True)
    assert len(verified.remarks) == 1
    assert "'case-2' changed" in verified.remarks[0]
    assert verified.fingerprint != made.fingerprint
    assert_same(verified, opened(tmp_path / "data", tmp_path / "cache"))


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_shows_makes_the_cache_invalid(tmp_path: Path, change: Callable[[Path], None]) -> None:
    before = opened(decathlon(tmp_path / "data"), tmp_path / "cache")
    change(tmp_path / "data")
    for path in (tmp_path / "data").rglob("case-3*"):
        os.utime(path, (1, 1))
    after = opened(tmp_path / "data", tmp_path / "cache")
    assert after.fingerprint != before.fingerprint
    assert_same(after, opened(tmp_path / "data"))
    only_file(tmp_path / "cache")


def test_a_new_case_and_a_lost_one_show(tmp_path: Path) -> None:
    decathlon(tmp_path / "data", 2)
    assert len(opened(tmp_path / "data", tmp_path / "cache").cases) == 2
    decathlon(tmp_path / "data", 3)
    assert len(opened(tmp_path / "data", tmp_path / "cache").cases) == 3
    (tmp_path / "data/imagesTr/case-2.nii.gz").unlink()
    with pytest.raises(DataError, match="1 missing: 'imagesTr/case-2"):
        opened(tmp_path / "data", tmp_path / "cache")


def test_either_half_of_a_pair_makes_the_cache_invalid(tmp_path: Path) -> None:
    """iSeg's pairs are listed by their .hdr; the voxels are in the .img."""
    (tmp_path / "data").mkdir()
    for part in ("T1", "T2"):
        save_pair(tmp_path / f"data/subject-1-{part}.img", intensities(1))
    save_pair(tmp_path / "data/subject-1-label.img", labels(0, (0, 10, 150, 250)))
    before = opened(tmp_path / "data", tmp_path / "cache")
    assert before.label_values == (0, 10, 150, 250)
    changed = intensities(1)
    changed[1, 1, 1] += 1
    save_pair(tmp_path / "data/subject-1-T2.img", changed)
    os.utime(tmp_path / "data/subject-1-T2.img", (1, 1))
    assert opened(tmp_path / "data", tmp_path / "cache").fingerprint != before.fingerprint


def save_pair(path: Path, array: np.ndarray) -> None:
    header = path.with_suffix(".hdr")
    stat = header.stat() if header.exists() else None
    nib.save(nib.Nifti1Pair(array, np.eye(4)), path)
    if stat is not None:
        os.utime(header, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_each_preparation_has_a_file_of_its_own(tmp_path: Path) -> None:
    decathlon(tmp_path / "data")
    for normalize in ("zscore", "none", "zscore:over=all", "zscore:over=foreground"):
        opened(tmp_path / "data", tmp_path / "cache", normalize=normalize)
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_the_phantom_is_kept_too(tmp_path: Path) -> None:
    made = open_dataset(PHANTOM, cache_dir=tmp_path)
    progress: list[int] = []
    kept = open_dataset(PHANTOM, cache_dir=tmp_path, progress=lambda done, total: progress.append(done))
    assert_same(made, kept)
    assert progress == []
    assert kept.source == "phantom:subjects=2,size=24,seed=0"


@pytest.mark.parametrize("part", ["images", "masks", "description", "length", "end", "all", "empty"])
def test_a_damaged_cache_file_is_made_anew_with_a_remark(tmp_path: Path, part: str) -> None:
    made = opened(decathlon(tmp_path / "data"), tmp_path / "cache")
    path = only_file(tmp_path / "cache")
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    num_voxels = 3 * int(np.prod(SHAPE))
    if part in ("images", "masks", "description", "length"):
        places = {"images": start + 5, "masks": start + 2 * num_voxels, "length": 0}
        damage(path, places.get(part, content.index(b"spacing_mm") + 14))
    else:
        path.write_bytes({"end": content[:-1], "all": b"garbage" * 100, "empty": b""}[part])
    again = opened(tmp_path / "data", tmp_path / "cache")
    assert_same(made, again)
    assert len(again.remarks) == 1
    assert again.remarks[0].startswith("the cache file was rebuilt: ")
    assert path.read_bytes() == content
    assert opened(tmp_path / "data", tmp_path / "cache").remarks == ()


def test_every_bit_of_the_cache_file_is_guarded(tmp_path: Path) -> None:
    """Wherever a bit flips, the data are the same or the file is refused."""
    save_path = tmp_path / "cache"
    made = open_dataset(DataSpec.model_validate({"source": "phantom:subjects=1,size=16"}), cache_dir=save_path)
    path = only_file(save_path)
    content = path.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(content), 40).tolist() + list(range(0, 1200, 23)):
        path.write_bytes(content)
        damage(path, at)
        try:
            loaded = load_cache(path)
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
        else:
            assert_same(made, loaded)


def test_a_cache_of_another_data_version_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_dataset(PHANTOM, cache_dir=tmp_path)
    monkeypatch.setattr(cache_file, "DATA_VERSION", cases.DATA_VERSION + 1)
    with pytest.raises(DataError, match="another version"):
        load_cache(only_file(tmp_path))
    assert "another version" in open_dataset(PHANTOM, cache_dir=tmp_path).remarks[0]


def test_a_cache_that_cannot_be_written_gives_a_remark(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    dataset = open_dataset(PHANTOM, cache_dir=tmp_path / "file" / "cache")
    assert len(dataset.cases) == 2
    assert "not kept in the cache" in dataset.remarks[0]
    assert (tmp_path / "file").read_bytes() == b""


def test_writers_at_the_same_time_do_no_harm(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: open_dataset(PHANTOM, cache_dir=tmp_path), range(4)))
    assert [dataset.remarks for dataset in made] == [()] * 4
    assert_same(load_cache(only_file(tmp_path)), made[0])


def in_first_format(file: Path) -> None:
    """Rewrites a file of prepared data as dlx wrote it before it kept orientations, intensities and thumbnails."""
    tensors = safetensors.numpy.load_file(file)
    with safetensors.safe_open(file, framework="numpy") as opened_file:
        description = json.loads(opened_file.metadata()["dlx"])
    del description["file_format"]
    keys = {"id", "shape", "spacing_mm", "pad_value", "content_hash", "mask_hash", "value_hash", "correlations"}
    description["cases"] = [{key: case[key] for key in keys} for case in description["cases"]]
    text = json.dumps(description)
    sums = [zlib.crc32(part) for part in (text.encode(), tensors["images"].data, tensors["masks"].data)]
    metadata = {"dlx": text, "crc32": " ".join(f"{value:08x}" for value in sums)}
    safetensors.numpy.save_file({name: tensors[name] for name in ("images", "masks")}, file, metadata=metadata)


def test_a_file_of_the_first_format_is_read_by_itself_and_made_anew_in_the_cache(tmp_path: Path) -> None:
    folder, store = decathlon(tmp_path / "data"), tmp_path / "cache"
    made = opened(folder, store)
    file = only_file(store)
    in_first_format(file)
    alone = opened(file)
    assert (alone.fingerprint, alone.remarks) == (made.fingerprint, ())
    for old, new in zip(alone.cases, made.cases, strict=True):
        assert (old.orientation, old.prepared_hash, old.intensities, old.thumbnail) == ("", "", (), None)
        np.testing.assert_array_equal(old.image, new.image)
    ids = [case.id for case in alone.cases]
    assert remark_on(alone, Split(tuple(ids[1:]), (ids[0],)), {}) == []
    again = opened(folder, store)
    assert again.remarks == ()
    assert_same(again, made)
    assert_same(opened(only_file(store)), made)


def test_orientation_and_intensities_of_a_case_are_those_of_its_files(tmp_path: Path) -> None:
    case = opened(decathlon(tmp_path)).cases[0]
    raw = intensities(0).astype(np.float64)
    foreground = raw[raw > 0]
    assert case.orientation == "RAS"  # nibabel's identity: x to the right, y to the front, z upwards
    (channel,) = case.intensities
    assert (channel.lowest, channel.highest) == (foreground.min(), foreground.max())
    assert channel.mean == pytest.approx(foreground.mean(), rel=1e-12)
    assert channel.std == pytest.approx(foreground.std(), rel=1e-12)
    assert channel.used_fraction == foreground.size / raw.size
    assert case.negative_fraction == 0.0


def test_the_voxels_of_each_class_are_counted_without_a_wide_copy_of_the_mask() -> None:
    mask = np.zeros((16, 1024, 1024), np.uint8)  # 16 MiB
    mask[3], mask[15, 0, :7] = 2, 5
    zero = np.zeros(1, np.float32)
    case = Case("c", np.zeros((1, 1, 1, 1), np.float16), mask, (1.0, 1.0, 1.0), zero, "")
    tracemalloc.start()
    counts = case.class_voxels
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counts == (15 * 2**20 - 7, 0, 2**20, 0, 0, 7)
    assert case.classes == {0, 2, 5}
    assert peak < mask.nbytes


def test_the_file_is_what_the_safetensors_library_reads(tmp_path: Path) -> None:
    dataset = open_dataset(PHANTOM, cache_dir=tmp_path)
    tensors = safetensors.numpy.load_file(only_file(tmp_path))
    assert set(tensors) == {"images", "masks", "thumbnails"}
    np.testing.assert_array_equal(tensors["images"], np.concatenate([case.image.ravel() for case in dataset.cases]))
    np.testing.assert_array_equal(tensors["masks"], np.concatenate([case.mask.ravel() for case in dataset.cases]))
