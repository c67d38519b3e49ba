"""Which files are scans: single files, flat folders, channels by number, and data sets in a layout."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from dlx.data.layouts.listing import ScanFiles
from dlx.data.prepare import read_scan
from dlx.prediction.scans import find_scans
from dlx.system.errors import DataError, FilesError
from test_layouts import NNUNET, nnunet_folder

ONE, TWO, THREE = ["T1"], ["T1", "T2"], ["R", "G", "B"]


def folder_of(root: Path, *names: str) -> Path:
    """A folder of empty files: listing reads none."""
    root.mkdir(exist_ok=True)
    for name in names:
        (root / name).touch()
    return root


def listed(*given: Path, channels: list[str]) -> dict[str, list[str]]:
    """The names of the files of each scan."""
    return {scan.id: [path.name for path in scan.images] for scan in find_scans(given, channels).scans}


def test_each_file_of_a_flat_folder_is_a_scan_in_natural_order(tmp_path):
    root = folder_of(
        tmp_path / "a", "s10.nii.gz", "s2.nrrd", "s1.mha", "t.hdr", "t.img", ".s3.nii", "._s1.mha", "b.c.nii"
    )
    assert listed(root, channels=ONE) == {
        "b.c": ["b.c.nii"], "s1": ["s1.mha"], "s2": ["s2.nrrd"], "s10": ["s10.nii.gz"], "t": ["t.hdr"],
    }  # fmt: skip
    assert list(listed(root, channels=ONE)) == ["b.c", "s1", "s2", "s10", "t"]


def test_numbered_files_are_channels(tmp_path):
    root = folder_of(tmp_path / "a", "p_0000.nii.gz", "p_0001.nii.gz", "q_1_0001.nii.gz", "q_1_0000.nii.gz")
    found = {"p": ["p_0000.nii.gz", "p_0001.nii.gz"], "q_1": ["q_1_0000.nii.gz", "q_1_0001.nii.gz"]}
    assert listed(root, channels=TWO) == found
    for named in ("p_0000.nii.gz", "p_0001.nii.gz"):  # one file is enough
        assert listed(root / named, channels=TWO) == {"p": found["p"]}
    assert listed(root / "p_0001.nii.gz", root / "p_0000.nii.gz", channels=TWO) == {"p": found["p"]}


def test_one_channel_may_be_numbered_0_or_the_numbers_are_those_of_cases(tmp_path):
    root = folder_of(tmp_path / "a", "p_0000.png", "q_0000.png")
    assert listed(root, channels=ONE) == {"p": ["p_0000.png"], "q": ["q_0000.png"]}
    cases = folder_of(tmp_path / "b", "brats_0012.nii.gz", "brats_0013.nii.gz")
    assert list(listed(cases, channels=ONE)) == list(listed(cases, channels=TWO)) == ["brats_0012", "brats_0013"]
    frames = folder_of(tmp_path / "c", *[f"f_{number:04d}.png" for number in range(12)])
    assert len(listed(frames, channels=ONE)) == 12
    with pytest.raises(DataError, match=r"'p_0000.nii', 'p_0001.nii' look like 2 channels of one scan"):
        listed(folder_of(tmp_path / "d", "p_0000.nii", "p_0001.nii"), channels=ONE)


def test_one_file_may_hold_all_channels(tmp_path):
    pictures = folder_of(tmp_path / "a", "p_0000.png", "q_0000.png")
    assert listed(pictures, channels=THREE) == {"p": ["p_0000.png"], "q": ["q_0000.png"]}
    assert listed(folder_of(tmp_path / "b", "p.nii.gz"), channels=TWO) == {"p": ["p.nii.gz"]}
    with pytest.raises(DataError, match=r"'p' lacks _0001 \(G\), _0002 \(B\)"):
        listed(folder_of(tmp_path / "c", "p_0000.nii.gz"), channels=THREE)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["p_0000.nii", "p_0001.nii", "q_0000.nii"], r"'q' lacks _0001 \(T2\) beside 'q_0000.nii'"),
        (
            ["p_0000.nii", "q_0000.nii", "q_0001.nii", "p_0002.nii"],
            r"'p' lacks _0001 \(T2\) beside 'p_0000.nii', 'p_0002",
        ),
        (["p_0000.nii", "p_0001.nii", "p_0002.nii"], r"'p' has 'p_0002.nii', but the runs take 2 channels"),
        (["p_0000.nii", "p_0000.nrrd", "p_0001.nii"], r"'p_0000.nii', 'p_0000.nrrd' are the same channel"),
        (["a.nii", "a.nrrd"], "two scans with the name 'a'"),
        (["a.txt", "b.csv"], r"holds no volumes, only 'a.txt', 'b.csv' \(looked for .nii.gz"),
        ([], "the folder is empty"),
    ],
)
def test_a_folder_that_does_not_fit_is_named_with_what_is_wrong(tmp_path, names, words):
    root = folder_of(tmp_path / "a", *names)
    with pytest.raises(DataError, match=words) as caught:
        find_scans([root], TWO)
    assert str(root) in str(caught.value)


def test_other_files_are_left_out_with_a_remark_and_folders_named(tmp_path):
    root = folder_of(tmp_path / "a", "p.nii", "notes.txt", "plans.json")
    (line,) = find_scans([root], ONE).remarks
    assert line == f"{root}: left out because they are no volumes: 'notes.txt', 'plans.json'"
    folder_of(root / "inner", "q.nii")
    (root / "p.nii").unlink()
    with pytest.raises(DataError, match="these of its folders hold some: 'inner'"):
        find_scans([root], ONE)


@pytest.mark.parametrize(
    ("name", "words"),
    [("no.nii", "no.nii: no such file or folder"), ("a.txt", "a.txt: unknown file format: the name must end in")],
)
def test_a_named_file_has_to_be_a_volume(tmp_path, name, words):
    folder_of(tmp_path, "a.txt")
    with pytest.raises(DataError, match=words):
        find_scans([tmp_path / name], ONE)


def test_files_with_detached_voxels_are_listed_and_say_so_when_read(tmp_path):
    root = folder_of(tmp_path / "a", "p.mhd", "p.raw")
    (scan,) = find_scans([root], ONE).scans
    with pytest.raises(FilesError, match="has its voxels in another file"):
        read_scan(scan.images, ONE)


def test_a_nnunet_folder_needs_no_labels(tmp_path):
    channels = list(NNUNET["channel_names"].values())
    nnunet_folder(tmp_path, NNUNET)
    for path in (tmp_path / "labelsTr").iterdir():
        path.unlink()
    folder_of(tmp_path / "imagesTs", "t_0000.nii.gz")
    found = find_scans([tmp_path], channels)
    assert found.scans
    assert all(path.parent.name == "imagesTr" for scan in found.scans for path in scan.images)
    assert found.remarks[-1] == f"{tmp_path / 'imagesTs'}: holds 1 more file, which -i can name too"
    assert "are named" in find_scans([tmp_path], ["x"] * len(channels)).remarks[0]
    with pytest.raises(DataError, match=f"have {len(channels)} channel.* but the runs take {len(channels) + 1}"):
        find_scans([tmp_path], [*channels, "x"])
    next((tmp_path / "imagesTr").iterdir()).unlink()
    with pytest.raises(DataError, match="1 missing"):
        find_scans([tmp_path], channels)


def test_iseg_subjects_need_no_labels(tmp_path):
    names = [f"subject-{n}-{part}.nii.gz" for n in (2, 10) for part in TWO]
    assert listed(folder_of(tmp_path / "a", *names), channels=TWO) == {"subject-2": names[:2], "subject-10": names[2:]}
    (tmp_path / "a" / names[0]).unlink()
    with pytest.raises(DataError, match="subject-2-T1 missing"):
        find_scans([tmp_path / "a"], TWO)


def test_a_decathlon_folder_needs_no_labels(tmp_path):
    folder_of(tmp_path / "imagesTr", "a_1.nii.gz", "a_2.nii.gz")
    training = [{"image": f"./imagesTr/a_{n}.nii.gz", "label": f"./labelsTr/a_{n}.nii.gz"} for n in (1, 2)]
    table = {"modality": {"0": "T1"}, "labels": {"0": "background", "1": "a"}, "training": training}
    (tmp_path / "dataset.json").write_text(json.dumps(table))
    assert listed(tmp_path, channels=ONE) == {"a_1": ["a_1.nii.gz"], "a_2": ["a_2.nii.gz"]}


def test_a_dataset_json_beside_volumes_makes_no_layout(tmp_path):
    root = folder_of(tmp_path / "a", "p.nii.gz")
    (root / "dataset.json").write_text(json.dumps(NNUNET))  # as nnU-Net writes it beside its predictions
    assert listed(root, channels=ONE) == {"p": ["p.nii.gz"]}


def test_several_files_and_folders_are_listed_together(tmp_path):
    one, other = folder_of(tmp_path / "a", "p.nii"), folder_of(tmp_path / "b", "q.nii", "r.nii")
    assert listed(other / "r.nii", one, channels=ONE) == {"p": ["p.nii"], "r": ["r.nii"]}
    with pytest.raises(DataError, match="two scans with the name 'p'"):
        find_scans([one, folder_of(tmp_path / "c", "p.nii")], ONE)


def test_channels_on_unlike_voxels_are_refused_by_name(tmp_path):
    for name, shape in (("p_0000", (4, 5, 6)), ("p_0001", (4, 5, 7))):
        image = sitk.GetImageFromArray(np.ones(shape, np.int16))
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
    (scan,) = find_scans([tmp_path], TWO).scans
    with pytest.raises(DataError, match=r"p_0000.nii.gz and p_0001.nii.gz do not lie on the same voxels: the size is"):
        read_scan(scan.images, TWO)


@pytest.mark.parametrize(("channels", "shape"), [(TWO, (2, 4, 5, 6)), (THREE, (3, 4, 5, 6))])
def test_channels_along_a_fourth_axis_are_read_from_one_file(tmp_path, channels, shape):
    array = np.random.default_rng(0).integers(0, 99, shape).astype(np.int16)
    image = sitk.JoinSeries([sitk.GetImageFromArray(one) for one in array])
    sitk.WriteImage(image, str(tmp_path / "p.nii.gz"))
    np.testing.assert_array_equal(read_scan([tmp_path / "p.nii.gz"], channels).array, array)
    with pytest.raises(DataError, match=f"{len(channels)} channels in the file, but {len(channels) + 1} are declared"):
        read_scan([tmp_path / "p.nii.gz"], [*channels, "x"])
    with pytest.raises(FilesError, match="has 4 axes"):
        read_scan([tmp_path / "p.nii.gz"], ONE)


def test_one_channel_where_several_are_needed_says_how_they_are_named(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 5, 6), np.int16)), str(tmp_path / "p.nii.gz"))
    with pytest.raises(DataError, match=r"p.nii.gz: 1 channel in the file, but 2 are declared .* CASE_0000, CASE_0001"):
        read_scan([tmp_path / "p.nii.gz"], TWO)


def test_a_scan_is_named_by_its_file(tmp_path):
    folder_of(tmp_path, "A.NII.GZ")
    assert find_scans([tmp_path], ONE).scans == (ScanFiles("A", (tmp_path / "A.NII.GZ",)),)
