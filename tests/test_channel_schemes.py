"""nnU-Net's channel names that select a normalisation give a warning and change nothing."""

import json
from pathlib import Path

import pytest

from dlx.data.dataset import Dataset, open_dataset
from dlx.data.layouts.channel_schemes import remarks_on_schemes
from dlx.settings.spec import DataSpec, Part
from test_geometry import IMAGE, MASK, write

ZSCORE = Part.model_validate("zscore")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("CT", "percentile:over=all,low=0.5,high=99.5"),
        ("ct", "percentile:over=all,low=0.5,high=99.5"),
        ("noNorm", "none"),
        ("rescale_to_0_1", "minmax"),
        ("rgb_to_0_1", "minmax"),
    ],
)
def test_a_channel_named_after_a_scheme_gives_the_nearest_setting(name: str, nearest: str) -> None:
    (line,) = remarks_on_schemes(["T1", name], ZSCORE)
    assert f"'{name}'" in line
    assert "data.normalize=zscore" in line
    assert f"--set data.normalize={nearest}" in line
    assert "all channels" in line
    filled_in = {"percentile": {"over": "all", "low": 0.5, "high": 99.5}}
    near = Part.model_validate(nearest)
    assert remarks_on_schemes(["T1", name], Part(name=near.name, args=filled_in.get(near.name, {}))) == ()


@pytest.mark.parametrize("name", ["T1", "zscore", "cta", "CT1", "MRI", ""])
def test_other_channel_names_give_no_warning(name: str) -> None:
    assert remarks_on_schemes([name], ZSCORE) == ()


def opened(folder: Path, **description: object) -> Dataset:
    labels = {"background": 0, "a": 1, "b": 2}
    table = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"} | description
    (folder / "dataset.json").write_text(json.dumps(table))
    return open_dataset(DataSpec.model_validate({"source": str(folder)}), cache_dir=None)


def test_a_scheme_in_a_name_gives_one_remark_and_changes_no_voxel(tmp_path: Path) -> None:
    write(tmp_path / "imagesTr/c_0000.nii.gz", IMAGE)
    write(tmp_path / "labelsTr/c.nii.gz", MASK)
    named, plain = opened(tmp_path), opened(tmp_path, channel_names={"0": "T1"})
    assert [line.startswith("channel_names: nnU-Net ") for line in named.remarks] == [True]
    assert plain.remarks == ()
    assert (named.cases[0].image == plain.cases[0].image).all()
