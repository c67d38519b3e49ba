"""nnU-Net's channel names choose a normaliser, unless the user did; other data keep zscore, their numbers and ids."""

import json
from pathlib import Path

import numpy as np
import pytest

from dlx.data.cache import load_cache
from dlx.data.dataset import Dataset, open_dataset
from dlx.data.layouts.channel_schemes import choose_normalizer
from dlx.settings.binding import bind_part
from dlx.settings.part import Part
from dlx.settings.spec import DataSpec
from dlx.system.errors import DataError
from small import small_resolved
from test_same_voxels import IMAGE, MASK, write


def bound(text: str) -> Part:
    return bind_part("normalizer", Part.model_validate(text))


@pytest.mark.parametrize(
    ("channels", "chosen"),
    [
        (["CT"], "ct:low=0.5,high=99.5"),
        (["ct"], "ct:low=0.5,high=99.5"),
        (["noNorm"], "none"),
        (["rescale_to_0_1"], "minmax:over=all"),
        (["rgb_to_0_1"] * 3, "rgb"),
        (["CT", "PET"], 'mixed:schemes=["ct","zscore"]'),
        (["noNorm", "rescale_to_0_1", "CT"], 'mixed:schemes=["none","minmax","ct"]'),
    ],
)
@pytest.mark.parametrize("layout", ["nnunet", "msd"])
def test_names_choose_as_in_nnunet_and_the_choice_is_reported(channels: list[str], chosen: str, layout: str) -> None:
    normalizer, (line,) = choose_normalizer(bound("auto"), layout, channels)
    assert str(normalizer) == chosen
    assert bound(str(normalizer)) == normalizer
    assert f"data.normalize={chosen}" in line
    for scheme in ("zscore", "minmax"):
        assert (f"{scheme} over all voxels" in line) == (scheme in chosen)
    assert choose_normalizer(normalizer, layout, channels) == (normalizer, ())


@pytest.mark.parametrize(
    ("channels", "lost"),
    [
        (["CT"], {"all"}),  # `ct` has no `over`: that its default is not used is no news
        (["noNorm", "CT"], {"all"}),
        (["CT", "PET"], {"foreground"}),
        (["rescale_to_0_1"], {"foreground"}),
        (["rescale_to_0_1", "CT"], {"foreground"}),
        (["T1"], set()),
    ],
)
@pytest.mark.parametrize("over", ["foreground", "all"])
def test_an_argument_that_the_chosen_normaliser_does_not_use_is_reported(
    channels: list[str], lost: set[str], over: str
) -> None:
    _, lines = choose_normalizer(bound(f"auto:over={over}"), "nnunet", channels)
    assert any(f"data.normalize.over={over} has no effect" in line for line in lines) == (over in lost)
    assert sum("no effect" in line for line in lines) == (over in lost)


@pytest.mark.parametrize("name", ["T1", "zscore", "cta", "CT1", "MRI", ""])
@pytest.mark.parametrize("over", ["foreground", "all"])
def test_other_names_are_z_scored_without_a_remark(name: str, over: str) -> None:
    assert choose_normalizer(bound(f"auto:over={over}"), "nnunet", [name]) == (bound(f"zscore:over={over}"), ())


def test_names_mean_nothing_in_layouts_that_are_not_nnunets() -> None:
    assert choose_normalizer(bound("auto"), "iseg", ["CT"]) == (bound("zscore"), ())


def test_a_setting_of_the_user_is_kept_with_a_remark() -> None:
    normalizer, (line,) = choose_normalizer(bound("zscore"), "nnunet", ["T1", "CT"])
    assert normalizer == bound("zscore")
    assert "data.normalize=zscore:over=foreground, as set" in line
    assert '--set data.normalize=mixed:schemes=["zscore","ct"]' in line


def opened(folder: Path, normalize: str = "auto", cache_dir: Path | None = None, **description: object) -> Dataset:
    labels = {"background": 0, "a": 1, "b": 2}
    table = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"} | description
    (folder / "dataset.json").write_text(json.dumps(table))
    spec = DataSpec.model_validate({"source": str(folder), "normalize": normalize})
    return open_dataset(spec, cache_dir=cache_dir)


def test_ct_keeps_its_values_and_other_channels_theirs(tmp_path: Path) -> None:
    write(tmp_path / "imagesTr/c_0000.nii.gz", IMAGE)
    write(tmp_path / "labelsTr/c.nii.gz", MASK)
    ct, plain = opened(tmp_path), opened(tmp_path, channel_names={"0": "T1"})
    assert ct.normalize == "ct:low=0.5,high=99.5"
    np.testing.assert_array_equal(ct.cases[0].image[..., 0], IMAGE)
    assert plain.remarks == ()
    assert plain.fingerprint == opened(tmp_path, "zscore", channel_names={"0": "T1"}).fingerprint


def test_a_prepared_file_is_opened_only_with_the_normaliser_that_its_channels_choose(tmp_path: Path) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    write(data / "imagesTr/c_0000.nii.gz", IMAGE)
    write(data / "labelsTr/c.nii.gz", MASK)
    opened(data, cache_dir=cache)
    (file,) = cache.glob("*.safetensors")
    assert load_cache(file, normalize=bound("auto")).normalize.startswith("ct:")
    with pytest.raises(DataError, match=r"prepared with data\.normalize=ct.*--set data\.normalize=ct:low=0\.5,high"):
        load_cache(file, normalize=bound("zscore"))


def test_auto_and_zscore_are_one_trial_where_no_name_chooses() -> None:
    auto, zscore = (small_resolved({"data": {"normalize": name}}) for name in ("auto", "zscore"))
    assert auto.trial_id(0) == zscore.trial_id(0)
    assert auto.spec.data.normalize == zscore.spec.data.normalize
