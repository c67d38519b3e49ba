"""The iSeg-2017 layout: listing a folder, writing one, and the command that does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import typer
from typer.testing import CliRunner

from dlx.cli.commands.make_phantom import make_phantom
from dlx.data.layouts.iseg import LABEL_VALUES, is_layout, list_cases, write_iseg_folder
from dlx.data.phantom.case import phantom
from dlx.system.errors import DataError, SettingError

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ITK calls Analyze deprecated on the standard error output

FORMATS = ("analyze", "nifti")
Format = Literal["analyze", "nifti"]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


def touch_subject(folder: Path, number: int, *parts: str, ending: str = ".nii") -> None:
    touch(folder, *(f"subject-{number}-{part}{ending}" for part in parts or ("T1", "T2", "label")))


def write_one(folder: Path, *, form: Format = "analyze", force: bool = False, seed: int = 1) -> int:
    source = phantom(subjects=1, size=(18, 22, 26), seed=seed)
    return write_iseg_folder(
        folder, [("subject-1", *source.case(0))], spacing_mm=(3.0, 2.0, 1.5), format=form, force=force
    )


# Listing


def test_a_folder_without_iseg_names_is_not_iseg(tmp_path: Path) -> None:
    touch(tmp_path, "dataset.json", "subject-1.nii", "subject-a-T1.nii", "._subject-1-T1.hdr", "subject-1-T1.nii.txt")
    assert not is_layout(tmp_path)


@pytest.mark.parametrize("name", ["subject-1-T1.hdr", "subject-12-T2.nii", "subject-3-label.nii.gz"])
def test_one_file_of_an_iseg_name_makes_it_iseg(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "readme.txt", name)
    assert is_layout(tmp_path)


def test_subjects_are_listed_in_natural_order_with_their_channels(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        touch_subject(tmp_path, number)
    listing = list_cases(tmp_path)
    assert [case.id for case in listing.cases] == ["subject-1", "subject-2", "subject-10"]
    assert [path.name for path in listing.cases[1].images] == ["subject-2-T1.nii", "subject-2-T2.nii"]
    assert listing.cases[1].mask == tmp_path / "subject-2-label.nii"
    assert (listing.layout, listing.channels, listing.remarks) == ("iseg", ("T1", "T2"), ())
    assert dict(zip(listing.label_values, listing.class_names, strict=True)) == {
        0: "background",
        10: "CSF",
        150: "GM",
        250: "WM",
    }


def test_pairs_are_given_as_their_headers_and_may_stand_beside_nifti(tmp_path: Path) -> None:
    for ending in (".hdr", ".img"):
        touch_subject(tmp_path, 1, "T1", "label", ending=ending)
    touch_subject(tmp_path, 1, "T2", ending=".nii.gz")
    (case,) = list_cases(tmp_path).cases
    names = ["subject-1-T1.hdr", "subject-1-T2.nii.gz", "subject-1-label.hdr"]
    assert [path.name for path in (*case.images, case.mask)] == names


def test_unlabelled_subjects_are_left_out_and_named(tmp_path: Path) -> None:
    touch_subject(tmp_path, 1)
    for number in (12, 11):
        touch_subject(tmp_path, number, "T1", "T2")
    listing = list_cases(tmp_path)
    assert [case.id for case in listing.cases] == ["subject-1"]
    assert listing.remarks == ("left out because they have no label: 'subject-11', 'subject-12'",)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["subject-4-T1.nii", "subject-4-label.nii"], "subject-4-T2 missing"),
        (["subject-4-label.nii"], "subject-4-T1 and subject-4-T2 missing"),
        (["subject-4-T1.hdr"], "subject-4-T1.hdr: the .img file that belongs to it is missing"),
        (["subject-4-T1.img"], "subject-4-T1.img: the .hdr file that belongs to it is missing"),
        (["subject-4-T1.nii", "subject-4-T1.nii.gz"], "keep one format"),
        (["subject-4-T1.nii", "subject-4-T1.hdr", "subject-4-T1.img"], "keep one format"),
        (["subject-4-T1.nii", "subject-4-T1.img"], "keep one format"),
        (["subject-4-T1.nii", "subject-4-T2.nii"], "no subject has a label"),
    ],
)
def test_what_is_missing_or_double_is_named(tmp_path: Path, names: list[str], message: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        list_cases(tmp_path)


# Writing


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("part", ["T1", "T2", "label"])
def test_simpleitk_reads_what_was_written(tmp_path: Path, form: Format, part: str) -> None:
    write_one(tmp_path, form=form)
    read = sitk.ReadImage(tmp_path / f"subject-1-{part}.hdr", imageIO="NiftiImageIO")
    assert read.GetSize() == (18, 22, 26)
    assert read.GetSpacing() == (1.5, 2.0, 3.0)
    assert read.GetOrigin() == (0, 0, 0)
    assert read.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert (sitk.GetArrayFromImage(read) == expected_array(part)).all()


@pytest.mark.parametrize(("form", "kind"), [("analyze", "Spm2AnalyzeImage"), ("nifti", "Nifti1Pair")])
@pytest.mark.parametrize("part", ["T1", "T2", "label"])
def test_nibabel_reads_what_was_written(tmp_path: Path, form: Format, kind: str, part: str) -> None:
    write_one(tmp_path, form=form)
    read = nib.load(tmp_path / f"subject-1-{part}.hdr")
    assert type(read).__name__ == kind
    voxels = np.asarray(read.dataobj).reshape(18, 22, 26)
    np.testing.assert_array_equal(voxels.T, expected_array(part))
    assert read.header.get_zooms()[:3] == (1.5, 2.0, 3.0)
    if form == "nifti":  # x runs to the left and y to the back, NIfTI counts to right and front
        assert (read.affine == np.diag([-1.5, -2.0, 3.0, 1.0])).all()
        assert (read.get_qform() == read.get_sform()).all()


def expected_array(part: str) -> np.ndarray:
    image, mask = phantom(subjects=1, size=(18, 22, 26), seed=1).case(0)
    return np.array(LABEL_VALUES)[mask] if part == "label" else image[["T1", "T2"].index(part)]


@pytest.mark.parametrize("form", FORMATS)
def test_headers_are_of_the_kind_that_was_asked_for(tmp_path: Path, form: Format) -> None:
    write_one(tmp_path, form=form)
    header = (tmp_path / "subject-1-T1.hdr").read_bytes()
    assert len(header) == 348
    assert (header[344:348] == b"ni1\0") == (form == "nifti")


def test_a_written_folder_is_listed_whole(tmp_path: Path) -> None:
    source = phantom(subjects=3, size=16)
    subjects = [(case_id, *source.case(index)) for index, case_id in enumerate(source.case_ids)]
    assert write_iseg_folder(tmp_path / "new" / "data", subjects) == 3
    listing = list_cases(tmp_path / "new" / "data")
    assert tuple(case.id for case in listing.cases) == source.case_ids
    assert len(list((tmp_path / "new" / "data").iterdir())) == 3 * 3 * 2


def test_a_phantom_is_replaced_only_by_force_and_then_wholly(tmp_path: Path) -> None:
    source = phantom(subjects=2, size=16)
    write_iseg_folder(tmp_path, [(case_id, *source.case(0)) for case_id in source.case_ids])
    touch(tmp_path, ".subject-2-T1.img.part")  # as a writer leaves it that is killed
    before = (tmp_path / "subject-1-T1.img").read_bytes()
    with pytest.raises(DataError, match="--force"):
        write_one(tmp_path)
    assert (tmp_path / "subject-1-T1.img").read_bytes() == before
    assert write_one(tmp_path, force=True) == 1
    assert {path.name[:10] for path in tmp_path.iterdir()} == {"subject-1-"}
    assert (tmp_path / "subject-1-T1.img").read_bytes() != before


@pytest.mark.parametrize(
    "foreign", ["notes.txt", "subject-7-T1.nii", "subject-7-T1.hdr", "subject-7-T1.img", "folder/x", ".notes.part"]
)
def test_files_of_others_are_never_touched(tmp_path: Path, foreign: str) -> None:
    write_one(tmp_path)
    path = tmp_path / foreign
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(348))
    with pytest.raises(DataError, match=r"dlx did not write.*" + foreign.partition("/")[0]):
        write_one(tmp_path, force=True)
    assert path.read_bytes() == bytes(348)
    assert (tmp_path / "subject-1-label.img").exists()


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    write_one(tmp_path / "mine")
    elsewhere = tmp_path / "else"
    elsewhere.mkdir()
    (elsewhere / "subject-1-T1.hdr").symlink_to(tmp_path / "mine" / "subject-1-T1.hdr")
    with pytest.raises(DataError, match="dlx did not write"):
        write_one(elsewhere, force=True)


@pytest.mark.parametrize("part", ["T1", "T2", "label"])
def test_a_subject_cut_short_is_never_taken_for_an_unlabelled_one(tmp_path: Path, part: str) -> None:
    image, mask = phantom(subjects=1, size=16).case(0)
    folder = tmp_path / "data"

    def with_a_disk_that_refuses_the_second() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        yield "subject-1", image, mask
        (folder / f".subject-2-{part}.img.part").mkdir()
        yield "subject-2", image, mask

    with pytest.raises(DataError, match=rf"subject-2-{part}\.img: cannot be written"):
        write_iseg_folder(folder, with_a_disk_that_refuses_the_second())
    if part == "label":  # the first to be written: nothing of the subject is there
        assert list_cases(folder).remarks == ()
    else:
        with pytest.raises(DataError, match=rf"subject-2.*{part} missing|subject-2-T2 missing"):
            list_cases(folder)


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "data")
    with pytest.raises(DataError, match="data: cannot be written"):
        write_one(tmp_path / "data")


def test_an_image_that_16_bits_cannot_hold_is_refused(tmp_path: Path) -> None:
    image, mask = phantom(subjects=1, size=16).case(0)
    with pytest.raises(ValueError, match="subject-1"):
        write_iseg_folder(tmp_path, [("subject-1", image + 0.5, mask)])


# The command

app = typer.Typer()
app.command()(make_phantom)


def test_the_command_writes_subjects_and_says_how_to_use_them(tmp_path: Path) -> None:
    folder = tmp_path / "two words"
    result = CliRunner().invoke(app, [str(folder), "--subjects", "2", "--size", "16,20,24", "--seed", "3"])
    assert result.exit_code == 0, result.output
    assert "2 subjects of 16 x 20 x 24 voxels" in result.stdout
    assert result.stdout.splitlines()[-1] == f"dlx train --data '{folder}'"
    listing = list_cases(folder)
    assert len(listing.cases) == 2
    read = sitk.GetArrayFromImage(sitk.ReadImage(listing.cases[1].images[1], imageIO="NiftiImageIO"))
    assert (read == phantom(subjects=2, size=(16, 20, 24), seed=3).case(1)[0][1]).all()


def test_the_same_command_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        arguments = [str(tmp_path / name), "--subjects", "1", "--size", "16", "--format", "nifti"]
        assert CliRunner().invoke(app, arguments).exit_code == 0
    written = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert written
    for path in written:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "64,64"], "three whole numbers"),
        (["--size", "64,64,x"], "three whole numbers"),
        (["--size", "64,64,-64"], "three whole numbers"),
        (["--size", ""], "three whole numbers"),
        (["--size", "64,64,15"], "from 16 to 512"),
        (["--size", "513"], "from 16 to 512"),
        (["--subjects", "0"], "--subjects 0"),
        (["--seed", "-1"], "--seed -1"),
    ],
)
def test_bad_values_are_refused_before_anything_is_written(tmp_path: Path, arguments: list[str], message: str) -> None:
    folder = tmp_path / "data"
    result = CliRunner().invoke(app, [str(folder), *arguments])
    assert isinstance(result.exception, SettingError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not folder.exists()
