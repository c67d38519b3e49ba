"""Layouts: which one a folder has, which cases it lists, and what is refused, from names and dataset.json alone."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlx.data.layouts import msd, nnunet
from dlx.data.layouts.listing import folder, natural_key
from dlx.settings import registry
from dlx.system.errors import DataError, SettingError

NNUNET: dict[str, Any] = {
    "channel_names": {"0": "T1", "1": "T2"},
    "labels": {"background": 0, "left": 1, "right": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
MSD: dict[str, Any] = {
    "modality": {"0": "MRI"},
    "labels": {"0": "background", "1": "Anterior"},
    "numTraining": 2,
    "training": [
        {"image": "./imagesTr/b_10.nii.gz", "label": "./labelsTr/b_10.nii.gz"},
        {"image": "./imagesTr/b_2.nii.gz", "label": "./labelsTr/b_2.nii.gz"},
    ],
}


def lay(root: Path, description: Any, *files: str) -> Path:
    """A folder with a dataset.json and empty files: listing opens none of them."""
    for file in files:
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).touch()
    (root / "dataset.json").write_text(description if isinstance(description, str) else json.dumps(description))
    return root


def nnunet_folder(root: Path, description: Any = NNUNET, ending: str = ".nii.gz", channels: int = 2) -> Path:
    files = [f"imagesTr/{case}_{c:04d}{ending}" for case in ("a_10", "a_2") for c in range(channels)]
    return lay(root, description, *files, *(f"labelsTr/{case}{ending}" for case in ("a_10", "a_2")))


def msd_folder(root: Path, description: Any = MSD) -> Path:
    return lay(root, description, *(f"{where}Tr/b_{n}.nii.gz" for where in ("images", "labels") for n in (10, 2)))


def test_numbers_in_names_sort_by_value() -> None:
    names = ["subject-10", "subject-2", "10", "9", "a", "subject-1b", "subject-1", "subject-02"]
    ordered = ["9", "10", "a", "subject-1", "subject-1b", "subject-02", "subject-2", "subject-10"]
    assert sorted(names, key=natural_key) == ordered


@settings(max_examples=50)
@given(st.lists(st.text("a019-²", max_size=6)))
def test_any_names_can_be_sorted_and_only_equal_ones_tie(names: list[str]) -> None:
    assert len({natural_key(name) for name in sorted(names, key=natural_key)}) == len(set(names))


@settings(max_examples=50)
@given(st.integers(0), st.integers(0))
def test_natural_order_is_the_order_of_numbers(a: int, b: int) -> None:
    assert (natural_key(f"x{a}") < natural_key(f"x{b}")) == (a < b)


# --- any folder ---


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        folder(path=str(tmp_path / "none"))
    with pytest.raises(DataError, match="the folder is empty"):
        folder(path=str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="expected a folder"):
        folder(path=str(tmp_path / "file"))


def test_a_folder_of_no_known_layout_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="no known layout") as refused:
        folder(path=str(tmp_path))
    message = str(refused.value)
    assert "\n" not in message
    assert all(f"{name}: " in message for name in sorted(registry.PARTS["layout"]))
    assert "imagesTr/CASE_0000" in message


@pytest.mark.parametrize(
    ("description", "missing"),
    [
        (None, "there is imagesTr, but no dataset.json"),
        ("{}", "dataset.json has neither channel_names and labels (nnU-Net) nor modality"),
    ],
)
def test_images_without_a_description_of_them_are_refused_with_what_is_missing(
    tmp_path: Path, description: str | None, missing: str
) -> None:
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr/a_0000.nii.gz").touch()
    if description is not None:
        (tmp_path / "dataset.json").write_text(description)
    with pytest.raises(DataError, match="no known layout: ") as refused:
        folder(path=str(tmp_path))
    assert missing in str(refused.value)
    for page in re.findall(r"docs/[\w-]+\.md", str(refused.value)):
        assert "dataset.json" in (Path(__file__).parents[1] / page).read_text(encoding="utf-8")
    assert "iseg" not in str(refused.value)


@pytest.mark.parametrize("layout", ["nnunet", "msd"])
def test_a_description_with_the_keys_of_two_layouts_is_read_as_the_one_that_fits(tmp_path: Path, layout: str) -> None:
    if layout == "nnunet":
        nnunet_folder(tmp_path, {**MSD, **NNUNET})
    else:
        msd_folder(tmp_path, {**NNUNET, **MSD})
    listing = folder(path=str(tmp_path))
    assert listing.layout == layout
    (remark,) = listing.remarks
    other = "msd" if layout == "nnunet" else "nnunet"
    assert "fits more than one layout (nnunet, msd)" in remark
    assert f"read as {layout}" in remark
    assert f"--set data.source.layout={other}" in remark
    assert folder(path=str(tmp_path), layout=layout).cases == listing.cases
    with pytest.raises(DataError):
        folder(path=str(tmp_path), layout=other)


def test_a_folder_that_fits_two_layouts_wholly_is_read_as_the_first_and_says_so(tmp_path: Path) -> None:
    nnunet_folder(tmp_path)
    for part in ("T1", "T2", "label"):
        (tmp_path / f"subject-1-{part}.nii").touch()
    listing = folder(path=str(tmp_path))
    assert listing.layout == "iseg"
    assert "--set data.source.layout=nnunet" in listing.remarks[-1]
    assert folder(path=str(tmp_path), layout="nnunet").layout == "nnunet"


def test_a_folder_that_two_layouts_claim_and_none_can_read_is_refused_with_both_causes(tmp_path: Path) -> None:
    lay(tmp_path, {**MSD, **NNUNET}, "imagesTr/x.nii.gz", "labelsTr/x.nii.gz")
    with pytest.raises(DataError, match=r"as nnunet: .*no file CASE_0000.*as msd: .*--set data\.source\.layout="):
        folder(path=str(tmp_path))


def test_an_unknown_layout_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="unknown layout 'nnunett': did you mean 'nnunet'"):
        folder(path=str(tmp_path), layout="nnunett")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("{", "not valid JSON .*line 1, column 2"),
        ("", "not valid JSON"),
        ("[1]", r"expected a table \{...\}, not a list"),
        ('{"channel_names": 1, "channel_names": 2}', "'channel_names' occurs twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "integer string conversion"),
    ],
)
def test_a_dataset_json_that_is_broken_is_refused_in_one_line(tmp_path: Path, text: str, cause: str) -> None:
    with pytest.raises(DataError, match=cause) as refused:
        folder(path=str(lay(tmp_path, text)))
    assert "\n" not in str(refused.value)


def test_a_dataset_json_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_bytes(b'{"name": "\xff"}')
    with pytest.raises(DataError, match="byte 10 is not UTF-8"):
        folder(path=str(tmp_path))
    (tmp_path / "dataset.json").unlink()
    (tmp_path / "dataset.json").mkdir()
    with pytest.raises(DataError, match=r"dataset\.json: no such file"):
        folder(path=str(tmp_path))


def test_a_dataset_json_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    nnunet_folder(tmp_path)
    (tmp_path / "dataset.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(NNUNET).encode())
    assert folder(path=str(tmp_path)).layout == "nnunet"


# --- nnU-Net ---


def test_an_nnunet_folder_is_found_and_listed_in_natural_order(tmp_path: Path) -> None:
    listing = folder(path=str(nnunet_folder(tmp_path)))
    assert listing.layout == "nnunet"
    assert listing.channels == ("T1", "T2")
    assert (listing.class_names, listing.label_values) == (("background", "left", "right"), (0, 1, 2))
    assert [case.id for case in listing.cases] == ["a_2", "a_10"]
    assert listing.cases[0].images == (tmp_path / "imagesTr/a_2_0000.nii.gz", tmp_path / "imagesTr/a_2_0001.nii.gz")
    assert listing.cases[0].mask == tmp_path / "labelsTr/a_2.nii.gz"
    assert (listing.allow_rgb, listing.allow_4d, listing.remarks) == (False, False, ())


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha", ".png", ".tif"])
def test_nnunet_files_may_have_other_endings(tmp_path: Path, ending: str) -> None:
    listing = folder(path=str(nnunet_folder(tmp_path, {**NNUNET, "file_ending": ending}, ending)))
    assert [case.mask.name for case in listing.cases] == [f"a_2{ending}", f"a_10{ending}"]
    assert not listing.allow_rgb


def test_one_file_may_hold_three_declared_channels_as_rgb(tmp_path: Path) -> None:
    rgb = {**NNUNET, "channel_names": {"0": "R", "1": "G", "2": "B"}, "file_ending": ".png"}
    listing = folder(path=str(nnunet_folder(tmp_path, rgb, ".png", channels=1)))
    assert listing.allow_rgb
    assert [len(case.images) for case in listing.cases] == [1, 1]


def test_nifti_cannot_hold_the_channels_of_an_nnunet_case_in_one_file(tmp_path: Path) -> None:
    three = {**NNUNET, "channel_names": {"0": "R", "1": "G", "2": "B"}}
    with pytest.raises(DataError, match=r"4 missing: 'imagesTr/a_2_0001.nii.gz', 'imagesTr/a_2_0002.nii.gz'"):
        folder(path=str(nnunet_folder(tmp_path, three, channels=1)))


def test_a_missing_channel_or_label_is_named(tmp_path: Path) -> None:
    nnunet_folder(tmp_path)
    (tmp_path / "imagesTr/a_10_0001.nii.gz").unlink()
    (tmp_path / "labelsTr/a_2.nii.gz").unlink()
    with pytest.raises(DataError, match=r"2 missing: 'labelsTr/a_2.nii.gz', 'imagesTr/a_10_0001.nii.gz'"):
        folder(path=str(tmp_path))


def test_a_channel_beyond_the_declared_ones_is_refused(tmp_path: Path) -> None:
    lay(nnunet_folder(tmp_path), NNUNET, "imagesTr/a_2_0002.nii.gz")
    with pytest.raises(DataError, match=r"'a_2_0002.nii.gz' is channel 2, but dataset.json declares 2 \(0 to 1\)"):
        folder(path=str(tmp_path))


def test_harmless_irregularities_give_a_remark(tmp_path: Path) -> None:
    nnunet_folder(tmp_path, {**NNUNET, "numTraining": 3})
    for name in ("imagesTr/._a_2_0000.nii.gz", "imagesTr/notes.nii.gz", "imagesTr/readme.txt", "labelsTr/.DS_Store"):
        (tmp_path / name).touch()
    listing = folder(path=str(tmp_path))
    assert len(listing.cases) == 2
    assert len(listing.remarks) == 2
    assert "'notes.nii.gz'" in listing.remarks[0]
    assert "declares 3 training cases (numTraining), but the folder has 2" in listing.remarks[1]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"labels": {"background": 0, "tumour": [1, 2]}}, "is missing: .* such as .1."),
        ({"labels": {"background": 0, "a": [1, 2]}, "regions_class_order": [1, 2]}, "each of the 1 regions"),
        ({"labels": {"background": 0, "a": [1, 2]}, "regions_class_order": [3]}, "3 is not a value of region 'a'"),
        ({"labels": {"background": 0, "a": [0, 1]}, "regions_class_order": [1]}, "'a' contains the background"),
        ({"labels": {"background": 0, "a": [1, 2, 2]}, "regions_class_order": [1]}, "or a value twice"),
        ({"labels": {"background": 0, "a": ["b"], "b": 1}}, "a region lists values, not names"),
        ({"labels": {"a": [1, 2], "b": 2}, "regions_class_order": [1, 2]}, "no background"),
        ({"labels": {"background": 0, "a": []}}, "'a' is a region without values"),
        ({"labels": {"background": 0, "a": 1, "ignore": [2, 3]}}, "'ignore' must have one value, and has 2"),
        (
            {
                "labels": {"background": 0, **{f"r{n}": [n, n + 1] for n in range(1, 10)}},
                "regions_class_order": list(range(1, 10)),
            },
            "9 regions; expected 8 or fewer",
        ),
        ({"labels": {"background": 0, "ignore": 1}}, "1 classes"),
        ({"labels": {"background": 0, "left": 2, "ignore": 1}}, "'ignore' has the value 1; .*'left' has 2"),
        (
            {"labels": {"0": "background", "1": "left"}},
            "label '0' must have a whole number, not a text .*name -> value",
        ),
        (
            {"labels": {"background": 0, "left": 1.0}},
            "label 'left' must have a whole number, not a number",
        ),
        ({"labels": {"background": 0, "left": True}}, "not true or false"),
        ({"labels": {"background": 0, "left": -1}}, "has the value -1"),
        ({"labels": {"left": 1, "right": 2}}, "have no background"),
        ({"labels": {"background": 0, "left": 1, "right": 1}}, "label value 1 occurs twice"),
        ({"labels": {"background": 0}}, "1 classes"),
        ({"labels": {str(n): n for n in range(257)}}, "257 classes"),
        ({"labels": {"background": 0, "a\nb": 1}}, "unprintable"),
        ({"labels": []}, "'labels' must be a table with entries, and is a list"),
        ({"labels": {}}, "and is empty"),
        ({"channel_names": ["T1"]}, "'channel_names' must be a table"),
        ({"channel_names": {"1": "T1", "2": "T2"}}, "'channel_names' must count from 0, and are '1', '2'"),
        ({"channel_names": {"0": "T1", "1": 3}}, "must be a text, not a number"),
        ({"file_ending": ".bmp"}, "file_ending '.bmp' is not supported"),
        ({"file_ending": None}, "'file_ending' must be a text such as .nii.gz, and is missing"),
        ({"file_ending": ".nii"}, "no file CASE_0000.nii"),
        ({"numTraining": "2"}, "'numTraining' must be a whole number, not a text"),
        ({"dataset": {}}, "'dataset'"),
    ],
)
def test_an_nnunet_description_that_is_wrong_is_refused(tmp_path: Path, change: dict[str, Any], cause: str) -> None:
    with pytest.raises(DataError, match=cause) as refused:
        folder(path=str(nnunet_folder(tmp_path, {**NNUNET, **change})))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("where", ["imagesTr", "labelsTr"])
def test_an_nnunet_folder_needs_both_of_its_folders(tmp_path: Path, where: str) -> None:
    nnunet_folder(tmp_path)
    (tmp_path / where).rename(tmp_path / "away")
    with pytest.raises(DataError, match=f"{where}: no such folder"):
        folder(path=str(tmp_path))


def test_labels_may_have_gaps_between_their_values(tmp_path: Path) -> None:
    labels = {"right": 250, "left": 10, "background": 0}
    listing = folder(path=str(nnunet_folder(tmp_path, {**NNUNET, "labels": labels})))
    assert (listing.class_names, listing.label_values) == (("background", "left", "right"), (0, 10, 250))


# --- Decathlon ---


def test_a_decathlon_folder_is_found_and_listed_in_natural_order(tmp_path: Path) -> None:
    listing = folder(path=str(msd_folder(tmp_path)))
    assert (listing.layout, listing.channels) == ("msd", ("MRI",))
    assert (listing.class_names, listing.label_values) == (("background", "Anterior"), (0, 1))
    assert [case.id for case in listing.cases] == ["b_2", "b_10"]
    assert listing.cases[0].images == (tmp_path / "imagesTr/b_2.nii.gz",)
    assert listing.cases[0].mask == tmp_path / "labelsTr/b_2.nii.gz"
    assert (listing.allow_4d, listing.remarks) == (False, ())


def test_the_files_of_several_modalities_may_have_four_axes(tmp_path: Path) -> None:
    listing = folder(path=str(msd_folder(tmp_path, {**MSD, "modality": {"0": "T2", "1": "ADC"}})))
    assert (listing.channels, listing.allow_4d) == (("T2", "ADC"), True)


def test_the_real_hippocampus_folder_has_260_cases(hippocampus: Path) -> None:
    listing = folder(path=str(hippocampus))
    assert (listing.layout, len(listing.cases), listing.remarks) == ("msd", 260, ())
    assert (listing.cases[0].id, listing.cases[-1].id) == ("hippocampus_001", "hippocampus_394")


@pytest.mark.parametrize("path", ["../other/b_2.nii.gz", "/etc/b_2.nii.gz", "imagesTr/../../b_2.nii.gz", "", "."])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    for key in ("image", "label"):
        entry = {**MSD["training"][0], key: path}
        with pytest.raises(DataError, match=r"entry 0: the path .* does not lie inside the folder"):
            folder(path=str(msd_folder(tmp_path, {**MSD, "training": [entry]})))


def test_the_doubles_that_macos_leaves_are_passed_over(tmp_path: Path) -> None:
    double = {"image": "./imagesTr/._b_2.nii.gz", "label": "./labelsTr/._b_2.nii.gz"}
    listing = folder(path=str(msd_folder(tmp_path, {**MSD, "training": [double, *MSD["training"]]})))
    assert [case.id for case in listing.cases] == ["b_2", "b_10"]
    assert listing.remarks == ()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"training": [*MSD["training"], MSD["training"][0]]}, "'imagesTr/b_10.nii.gz' is listed twice"),
        (
            {"training": [MSD["training"][0], {**MSD["training"][1], "label": "labelsTr/b_10.nii.gz"}]},
            "'labelsTr/b_10.nii.gz' is listed twice",
        ),
        ({"training": [{"image": "imagesTr/c.nii.gz", "label": "labelsTr/b_2.nii.gz"}]}, "1 missing: 'imagesTr/c.nii"),
        ({"training": [{"image": "imagesTr/b_2.nii.gz"}]}, "training entry 0 must be of the form"),
        ({"training": ["imagesTr/b_2.nii.gz"]}, "training entry 0 must be of the form"),
        ({"training": {}}, "'training' must be a list, not a table"),
        ({"training": []}, "no labelled case"),
        ({"labels": {"background": 0}}, "label 'background' must be a whole number"),
        ({"labels": {"0": "background", "01": "x"}}, "label '01' must be a whole number"),
        ({"labels": {"0": "background", "1": 5}}, "the name of label 1 must be a text, not a number"),
        ({"labels": {"1": "a", "2": "b"}}, "have no background"),
        ({"labels": {"0": "a", "1": "a"}}, "class name 'a' occurs twice"),
        ({"modality": {"1": "MRI"}}, "'modality' must count from 0"),
        ({"modality": "MRI"}, "'modality' must be a table with entries, and is a text"),
    ],
)
def test_a_decathlon_description_that_is_wrong_is_refused(tmp_path: Path, change: dict[str, Any], cause: str) -> None:
    with pytest.raises(DataError, match=cause) as refused:
        folder(path=str(msd_folder(tmp_path, {**MSD, **change})))
    assert "\n" not in str(refused.value)


def test_two_images_of_one_name_in_two_folders_are_refused(tmp_path: Path) -> None:
    lay(tmp_path, MSD, "other/b_2.nii.gz", "other/l.nii.gz")
    double = {"image": "other/b_2.nii.gz", "label": "other/l.nii.gz"}
    with pytest.raises(DataError, match="case 'b_2' is listed twice"):
        folder(path=str(msd_folder(tmp_path, {**MSD, "training": [*MSD["training"], double]})))


def test_another_number_of_cases_than_declared_gives_a_remark(tmp_path: Path) -> None:
    listing = folder(path=str(msd_folder(tmp_path, {**MSD, "numTraining": 20})))
    assert "declares 20 training cases" in listing.remarks[0]


def test_an_nnunet_v1_folder_is_recognised_in_the_refusal(tmp_path: Path) -> None:
    lay(tmp_path, MSD, *(f"imagesTr/b_{n}_0000.nii.gz" for n in (2, 10)), "labelsTr/b_2.nii.gz", "labelsTr/b_10.nii.gz")
    with pytest.raises(DataError, match=r"b_2_0000.nii.gz exists: nnU-Net v1 is not supported"):
        folder(path=str(tmp_path))


def test_a_layout_asked_for_by_name_needs_its_dataset_json(tmp_path: Path) -> None:
    (tmp_path / "subject-1-T1.nii.gz").touch()
    for module in (nnunet, msd):
        assert not module.is_layout(tmp_path)
        with pytest.raises(DataError, match=r"dataset\.json: no such file"):
            module.list_cases(tmp_path)
