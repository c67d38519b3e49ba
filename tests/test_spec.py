import pytest
from pydantic import ValidationError

from dlx.settings import registry
from dlx.settings.part import Part
from dlx.settings.spec import DataSpec, Spec


@pytest.mark.parametrize("text", ["step:step_size=30,gamma=0.1", "unet2", "focal:class_weights=[0.1,0.4]"])
def test_a_part_written_out_reads_back_as_itself(text):
    part = Part.model_validate(text)
    assert Part.model_validate(str(part)) == part


def test_a_table_holds_a_parts_arguments_beside_its_name():
    assert Part.model_validate({"name": "unet2", "width": 16}) == Part(name="unet2", args={"width": 16})


def test_a_loss_is_a_sum_of_parts():
    spec = Spec.model_validate({"loss": "lovasz+focal:gamma=1.5"})
    assert spec.loss == (Part(name="lovasz"), Part(name="focal", args={"gamma": 1.5}))


def test_a_path_is_short_for_a_folder():
    spec = Spec.model_validate({"data": {"source": "../data/Task04: a"}})
    assert spec.data.source == Part(name="folder", args={"path": "../data/Task04: a"})
    assert Spec.model_validate({"data": {"source": "phantom:subjects=4"}}).data.source.args == {"subjects": 4}
    part = Spec.model_validate({"data": {"source": "folder:path=../data/my scans,layout=iseg"}}).data.source
    assert part == Part(name="folder", args={"path": "../data/my scans", "layout": "iseg"})
    assert Part.model_validate(str(part)) == part
    assert Spec.model_validate({"data": {"source": "folder"}}).data.source.args == {"path": "folder"}


def test_a_source_of_the_registry_is_a_part_and_anything_else_a_path(monkeypatch):
    monkeypatch.setitem(registry.PARTS["data"], "drawn", "nowhere:drawn")
    for name in set(registry.PARTS["data"]) - {"folder"}:
        assert DataSpec(source=name).source == Part(name=name)
        assert DataSpec(source=f"{name}:subjects=4").source == Part(name=name, args={"subjects": 4})
    assert DataSpec(source="folder:path=x").source == Part(name="folder", args={"path": "x"})
    for path in ("folder", "./phantom", "phantoms"):
        assert DataSpec(source=path).source == Part(name="folder", args={"path": path})


def test_a_spec_survives_json():
    spec = Spec.model_validate({"loss": "lovasz+focal:gamma=1.5", "model": "unet2:width=8", "split": {"val": "a,b"}})
    assert spec.split.val == ("a", "b")
    assert Spec.model_validate(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": {"p": 1.0}},
        {"dropout": {"p": -0.1}},
        {"dropout": {"p": float("nan")}},
        {"optimizer": {"lr": 0.0}},
        {"optimizer": {"lr": float("inf")}},
        {"train": {"epochs": 0}},
        {"batch": {"patch_size_px": [8]}},
        {"compute": {"device": "gpu"}},
        {"loss": []},
    ],
)
def test_a_setting_out_of_range_is_refused(settings):
    with pytest.raises(ValidationError):
        Spec.model_validate(settings)
