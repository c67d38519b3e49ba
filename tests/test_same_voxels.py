"""Image and mask whose headers differ: what is read with a warning, what is refused, and what the setting changes."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from PIL import Image
from safetensors import safe_open

from dlx.data import prepare
from dlx.data.cache_file import Description
from dlx.data.dataset import Dataset, open_dataset
from dlx.data.geometry.same_voxels import check_same_voxels
from dlx.data.notes import KINDS, FileNote, describe_notes
from dlx.data.volumes.header import Note, Placement
from dlx.data.volumes.reading import Volume
from dlx.settings.spec import DataSpec, Spec
from dlx.system.errors import DataError

SOUND = Volume(np.zeros((1, 4, 5, 6), np.uint8), Placement((1.0, 1.0, 2.0), (1.0, 2.0, 3.0), np.eye(3)))


def placed(**changes: Any) -> Volume:
    return replace(SOUND, placement=SOUND.placement._replace(**changes))


def turned(degrees: float) -> np.ndarray:
    """About z."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


# what differs -> the other volume, kinds and largest amounts of the notes
SLIGHT: dict[str, tuple[Volume, dict[str, float]]] = {
    "origin 0.08 mm off": (placed(origin_mm=(1.08, 2.0, 3.0)), {"origin": 0.08}),
    "half a voxel": (placed(origin_mm=(1.5, 2.5, 4.0)), {"origin": 1.2247449}),
    "a whole voxel": (placed(origin_mm=(0.0, 1.0, 1.0)), {"origin": 2.4494897}),
    "origin 0": (placed(origin_mm=(0.0, 0.0, 0.0)), {"no origin": 3.7416574}),
    "spacing rounded": (placed(spacing_mm=(1.0, 1.0, 2.1)), {"spacing": 0.05}),
    "direction rounded": (placed(direction=turned(0.07)), {"direction": 0.07}),
    "a turn that was lost": (placed(direction=turned(-30)), {"direction": 30}),
    "all": (
        placed(spacing_mm=(1.0, 1.0, 2.1), origin_mm=(0.0, 0.0, 0.0), direction=turned(3)),
        {"spacing": 0.05, "no origin": 3.7416574, "direction": 3},
    ),
}
APART = {
    "size": (replace(SOUND, array=np.zeros((1, 4, 5, 7), np.uint8)), r"size is \(6, 5, 4\) and \(7, 5, 4\)"),
    "spacing": (placed(spacing_mm=(1.0, 1.0, 2.3)), r"spacing is \(1, 1, 2\) and \(1, 1, 2.3\)"),
    "spacing twice": (placed(spacing_mm=(2.0, 2.0, 2.0)), "spacing"),
    "origin": (placed(origin_mm=(1.0, 4.0, 3.0)), r"origin is \(1, 2, 3\) and \(1, 4, 3\)"),
    "flip": (placed(direction=np.diag([1, -1, 1])), "direction .* run in opposite"),
    "two flips": (placed(direction=np.diag([-1, -1, 1])), "direction"),
    "axes in another order": (placed(direction=np.eye(3)[[1, 0, 2]]), "direction"),
    "a turn by 50 degrees": (placed(direction=turned(50)), "direction"),
    "a flip and no origin": (
        placed(origin_mm=(0.0, 0.0, 0.0), direction=np.diag([-1, -1, 1])), "(direction|origin)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SLIGHT)
def test_slight_differences_are_noted_with_their_amount_either_way_round(name: str) -> None:
    other, amounts = SLIGHT[name]
    notes = check_same_voxels(SOUND, other, "image.nii", "mask.nii")
    assert {note.kind: note.amount for note in notes} == pytest.approx(amounts, rel=1e-5)
    assert {note.kind for note in check_same_voxels(other, SOUND, "a", "b")} == set(amounts)


@pytest.mark.parametrize("name", SLIGHT)
def test_strict_refuses_slight_differences_and_names_the_setting(name: str) -> None:
    with pytest.raises(DataError, match=r"^image\.nii .*mask\.nii .*data\.geometry=image"):
        check_same_voxels(SOUND, SLIGHT[name][0], "image.nii", "mask.nii", geometry="strict")


@pytest.mark.parametrize("geometry", ["image", "strict"])
@pytest.mark.parametrize("name", APART)
def test_arrays_at_clearly_different_places_are_refused_whatever_the_setting(name: str, geometry: Any) -> None:
    other, what = APART[name]
    what = what.removesuffix(" .* run in opposite") if geometry == "strict" else what
    with pytest.raises(DataError, match=rf"^image\.nii .*mask\.nii .*: the {what}"):
        check_same_voxels(SOUND, other, "image.nii", "mask.nii", geometry=geometry)


def test_a_refusal_says_how_to_go_on_where_the_voxels_do_correspond() -> None:
    for name, (other, _) in APART.items():
        if name != "size":
            with pytest.raises(DataError, match="copy the image's geometry"):
                check_same_voxels(SOUND, other, "image.nii", "mask.nii")


def test_geometries_within_a_thousandth_of_a_voxel_are_the_same() -> None:
    other = placed(
        spacing_mm=(0.9995, 1.0, 2.0015), origin_mm=(1.0, 2.0009, 3.0), direction=np.eye(3) + 0.0009 * np.eye(3, k=1)
    )
    other = replace(other, array=np.zeros((3, 4, 5, 6), np.float32))
    for geometry in ("image", "strict"):
        assert check_same_voxels(SOUND, other, "a", "b", geometry=geometry) == ()


def test_a_mask_may_lie_where_the_other_of_two_forms_puts_the_image() -> None:
    away = Placement((1.0, 1.0, 2.0), (50.0, 2.0, 3.0), np.eye(3))
    other = placed(origin_mm=(50.0, 2.0, 3.0))
    with pytest.raises(DataError, match="origin"):
        check_same_voxels(SOUND, other, "a", "b")
    of_two_forms = replace(SOUND, also=(away,), notes=(Note("forms apart, qform", "49 mm"),))
    assert check_same_voxels(of_two_forms, other, "a", "b") == ()
    assert check_same_voxels(other, of_two_forms, "a", "b") == ()


def test_the_thickness_of_a_single_slice_does_not_matter() -> None:
    one_slice = np.zeros((1, 1, 5, 6), np.uint8)
    flat, thick = (replace(volume, array=one_slice) for volume in (SOUND, placed(spacing_mm=(1.0, 1.0, 8.0))))
    notes = check_same_voxels(flat, thick, "a", "b")
    assert [note.kind for note in notes] == ["spacing"]


# --- whole data sets ---

IMAGE = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) + 1
MASK = (IMAGE % 3).astype(np.uint8)


def write(path: Path, array: np.ndarray, *, spacing: Any = (0.8, 0.8, 2.5), origin: Any = (-120, -100, -900)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))


def folder(root: Path, ending: str = ".nii.gz", num_cases: int = 5) -> Path:
    root.mkdir(exist_ok=True)
    table = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ending}
    (root / "dataset.json").write_text(json.dumps(table))
    for case in range(num_cases):
        write(root / f"imagesTr/c{case}_0000{ending}", IMAGE + case)
        write(root / f"labelsTr/c{case}{ending}", MASK)
    return root


def opened(root: Path, cache_dir: Path | None = None, **settings: Any) -> Dataset:
    return open_dataset(DataSpec.model_validate({"source": str(root)} | settings), cache_dir=cache_dir)


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_masks_with_another_origin_train_with_one_line_that_counts_them(tmp_path: Path, ending: str) -> None:
    sound = opened(folder(tmp_path, ending))
    for case, shift in enumerate((0.08, 0.05, 0.08, 0.3)):
        write(tmp_path / f"labelsTr/c{case}{ending}", MASK, origin=(-120 + shift, -100, -900))
    dataset = opened(tmp_path)
    (line,) = dataset.remarks
    assert re.match(r"4 files have another origin than the image of the case, by at most 0\.3 mm", line)
    assert f"'labelsTr/c0{ending}'" in line
    assert f"labelsTr/c3{ending} the origin is" in line
    assert "data.geometry=strict" in line
    assert f"c4{ending}" not in line
    assert "\n" not in line
    assert dataset.fingerprint == sound.fingerprint  # the image's geometry counts, and the voxels are the same
    assert sound.remarks == ()
    with pytest.raises(DataError) as refused:
        opened(tmp_path, geometry="strict")
    assert len(str(refused.value).splitlines()) == 4


def test_the_warning_is_there_again_when_the_data_come_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path / "data")
    write(root / "labelsTr/c1.nii.gz", MASK, origin=(0, 0, 0))
    first = opened(root, tmp_path / "cache")
    with monkeypatch.context() as blind:
        blind.setattr(prepare, "read_volume", None)  # no file is read
        again = opened(root, tmp_path / "cache")
        (file,) = (tmp_path / "cache").iterdir()
        alone = opened(file)
    assert first.remarks == again.remarks == alone.remarks
    assert "an origin of zero" in first.remarks[0]


def test_strict_does_not_take_from_the_cache_what_it_would_refuse(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    opened(root, tmp_path / "cache")
    strict = opened(root, tmp_path / "cache", geometry="strict")
    assert strict.remarks == ()
    write(root / "labelsTr/c1.nii.gz", MASK, origin=(0, 0, 0))
    opened(root, tmp_path / "cache")
    with pytest.raises(DataError, match="c1"):
        opened(root, tmp_path / "cache", geometry="strict")
    (file,) = (tmp_path / "cache").iterdir()
    with pytest.raises(DataError, match=r"strict refuses.*--set data\.geometry=image$"):
        opened(file, geometry="strict")


def test_a_prepared_file_from_before_there_were_notes_is_still_valid(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    opened(root, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    with safe_open(file, framework="numpy") as prepared:
        description = json.loads(prepared.metadata()["dlx"])
    assert [case.pop("notes") for case in description["cases"]] == [[]] * 5
    assert [case.notes for case in Description.model_validate_json(json.dumps(description)).cases] == [()] * 5
    # what decides whether the file is still valid has gained only fields that an older file has at their defaults
    assert set(description["origin"]) == {"declaration", "files", "groups", "phantom", "data_version"}
    origin = Description.model_validate_json(json.dumps(description)).origin
    added = {"orientation": "common", "spacing_mm": "auto", "ignored_value": None, "regions": [], "region_order": []}
    assert {name: description["origin"]["declaration"].pop(name) for name in added} == added
    declared = {"layout", "channels", "class_names", "label_values", "normalize"}
    assert set(description["origin"]["declaration"]) == declared
    assert Description.model_validate_json(json.dumps(description)).origin == origin


def align(path: Path, apart_mm: float = 30.0) -> None:
    """Gives a file an sform "aligned" that is so far from its qform "scanner" along each axis."""
    image = nib.load(path)
    scanner = image.affine.copy()
    header = image.header.copy()
    header.set_qform(scanner, 1)
    header.set_sform(scanner + np.pad([[apart_mm]] * 3, ((0, 1), (3, 0))), 2)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), None, header), path)


def test_qform_and_sform_that_differ_in_a_set_give_one_line(tmp_path: Path) -> None:
    folder(tmp_path)
    for path in sorted(tmp_path.glob("*Tr/*.nii.gz")):
        align(path)
    (line,) = opened(tmp_path).remarks
    assert line.startswith("10 files have a qform and an sform that differ, by at most ")
    assert "qform was used" in line


def test_a_mask_that_nibabel_saved_with_the_sform_alone_fits_its_image(tmp_path: Path) -> None:
    folder(tmp_path)
    align(tmp_path / "imagesTr/c0_0000.nii.gz")
    aligned = nib.load(tmp_path / "imagesTr/c0_0000.nii.gz")
    nib.save(nib.Nifti1Image(MASK.T, aligned.affine), tmp_path / "labelsTr/c0.nii.gz")  # as one does
    (line,) = opened(tmp_path).remarks
    assert line.startswith("1 file has a qform and an sform that differ")


def test_a_mask_at_the_other_of_two_forms_that_hardly_differ_is_noted_and_refused_by_strict(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    align(root / "imagesTr/c0_0000.nii.gz", 0.2)  # a quarter of a voxel: no note on the file itself
    nib.save(nib.Nifti1Image(MASK.T, nib.load(root / "imagesTr/c0_0000.nii.gz").affine), root / "labelsTr/c0.nii.gz")
    (line,) = opened(root, tmp_path / "cache").remarks
    assert line.startswith("1 file has another origin than the image of the case, by at most 0.346 mm")
    for cache_dir in (None, tmp_path / "cache"):
        with pytest.raises(DataError, match="c0"):
            opened(root, cache_dir, geometry="strict")


@pytest.mark.parametrize("image_dpi", [None, 72, 300])
@pytest.mark.parametrize("mask_dpi", [None, 300])
@pytest.mark.parametrize("ending", [".tif", ".png"])
def test_a_resolution_is_no_reason_to_refuse_a_picture(
    tmp_path: Path, ending: str, image_dpi: int | None, mask_dpi: int | None
) -> None:
    folder(tmp_path, ending, num_cases=0)
    for where, array, dpi in (("imagesTr/c_0000", IMAGE[0], image_dpi), ("labelsTr/c", MASK[0], mask_dpi)):
        (tmp_path / where).parent.mkdir(exist_ok=True)
        picture = Image.fromarray(array.astype(np.uint8))
        picture.save(tmp_path / f"{where}{ending}", **({"dpi": (dpi, dpi)} if dpi else {}))
    dataset = opened(tmp_path)
    (case,) = dataset.cases
    if ending == ".png" or image_dpi is None or image_dpi != mask_dpi:
        assert case.spacing_mm == (1.0, 1.0, 1.0)
        assert dataset.distance_unit == "px"
        assert [note.kind for note in case.notes] == ["resolution"] * (ending == ".tif" and image_dpi != mask_dpi)
    else:
        assert case.spacing_mm == pytest.approx((1.0, 25.4 / 300, 25.4 / 300), rel=1e-6)
        assert dataset.distance_unit == "mm"
        assert [note.kind for note in case.notes] == ["screen", "screen"]
    if ending == ".tif" and image_dpi != mask_dpi:
        with pytest.raises(DataError, match="spacing"):
            opened(tmp_path, geometry="strict")
    else:
        opened(tmp_path, geometry="strict")


def test_the_unit_of_pictures_comes_back_from_the_cache(tmp_path: Path) -> None:
    folder(tmp_path / "data", ".png", num_cases=0)
    for name, array in (("imagesTr/c_0000.png", IMAGE[0]), ("labelsTr/c.png", MASK[0])):
        write(tmp_path / "data" / name, array.astype(np.uint8), spacing=(1.0, 1.0), origin=(0.0, 0.0))
    assert [opened(tmp_path / "data", tmp_path / "cache").distance_unit for _ in range(2)] == ["px", "px"]
    (file,) = (tmp_path / "cache").iterdir()
    assert opened(file).distance_unit == "px"
    write(tmp_path / "data/imagesTr/c_0000.png", IMAGE[0].astype(np.uint8), spacing=(0.5, 0.5), origin=(0.0, 0.0))
    write(tmp_path / "data/labelsTr/c.png", MASK[0], spacing=(0.5, 0.5), origin=(0.0, 0.0))
    assert opened(tmp_path / "data", tmp_path / "cache").distance_unit == "mm"  # SimpleITK wrote a scale (sCAL)


def test_volumes_are_measured_in_mm(tmp_path: Path) -> None:
    assert opened(folder(tmp_path)).distance_unit == "mm"
    assert opened(Path("phantom:subjects=1,size=16")).distance_unit == "mm"


def test_the_setting_is_not_in_the_name_of_a_trial_at_its_default() -> None:
    from dlx.settings.binding import identifying_settings

    assert "geometry" not in identifying_settings(Spec())["data"]
    assert identifying_settings(Spec.model_validate({"data": {"geometry": "strict"}}))["data"]["geometry"] == "strict"


def test_every_kind_of_note_that_is_made_is_known_in_words() -> None:
    source = "".join(path.read_text() for path in Path(prepare.__file__).parent.rglob("*.py"))
    made = set(re.findall(r'Note\(\s*"([^"]+)"', source)) | {"forms apart, qform", "forms apart, sform"}
    made |= {"origin", "no origin"}
    assert made == set(KINDS)


def test_a_line_of_many_files_names_three_and_counts_the_rest() -> None:
    notes = [FileNote("origin", f"labelsTr/c{i}.nii.gz", f"the origin is {i}", float(i)) for i in range(50)]
    (line,) = describe_notes(notes)
    assert line.startswith("50 files have")
    assert "at most 49 mm" in line
    assert "and 47 more" in line
    assert len(line) < 400
