import re
from dataclasses import replace

import pytest
import torch

from dlx.data.splits.split import Split
from dlx.models.architectures.unet import unet2
from dlx.settings import registry
from dlx.settings.spec import AugmentSpec, DropoutSpec, Spec
from dlx.trial.sanity import (
    NEEDS,
    warn_of_dropout,
    warn_of_patches,
    warn_of_settings_without_effect,
    warn_of_threads,
)
from small import small_resolved
from test_voxel_store import make_case


def split(*ids):
    return Split(train=ids, val=("v",))


def remarks_of(shape, **batch):
    spec = small_resolved({"batch": batch}).spec
    dataset = replace(small_resolved().dataset, cases=(make_case("a", shape),))
    return warn_of_patches(spec, dataset, split("a"), 2)


def test_slices_cut_along_the_wrong_axis_give_a_warning():
    (remark,) = remarks_of((48, 48, 2), patch_size_px=[48, 2])
    assert "48 x 2" in remark
    assert "batch.slice_axis=2" in remark
    assert remarks_of((2, 48, 48), patch_size_px=[48, 48]) == []
    assert remarks_of((1, 48, 6), patch_size_px=[48, 6]) == []  # a 2D image has no other axis


def test_patches_of_mostly_padding_give_a_warning():
    (remark,) = remarks_of((32, 32, 32), patch_size_px=[1000, 32])
    assert re.match(r"batch.patch_size_px: .*1000 x 32.* 32 x 32", remark)
    assert remarks_of((32, 32, 30), patch_size_px=[32, 32]) == []


def test_more_threads_than_cores_give_a_warning():
    assert warn_of_threads(2, 2) == []
    (remark,) = warn_of_threads(4, 2)
    assert remark.startswith("compute.threads: 4 threads on 2 cores")


def remarks_on_dropout(p=0.5, where="every", model="unet2", **args):
    with torch.device("meta"):
        return warn_of_dropout(registry.load("model", model)(2, 4, DropoutSpec(p=p, where=where), width=4, **args), 2)


@pytest.mark.parametrize("model", sorted(registry.PARTS["model"]))
def test_dropout_before_batch_norm_gives_a_warning(model):
    (remark,) = remarks_on_dropout(model=model)
    assert "batch norm" in remark


@pytest.mark.parametrize("norm", ["none", "instance", "group"])
def test_dropout_before_a_norm_without_running_statistics_gives_no_warning(norm):
    assert remarks_on_dropout(norm=norm) == []


def test_dropout_that_no_batch_norm_follows_gives_no_warning():
    assert remarks_on_dropout(p=0.0) == []
    model = unet2(2, 4, DropoutSpec(p=0.5), width=4, levels=1)
    del model.dropouts["encoder0_0"]  # what is left stands before the head
    assert warn_of_dropout(model.to("meta"), 2) == []


@pytest.mark.parametrize("where", ["every", "decoder", "bottleneck"])
def test_the_path_of_the_features_decides_and_not_the_settings(where):
    assert len(remarks_on_dropout(where=where)) == 1
    assert len(remarks_on_dropout(where=where, norm="none", down_norm="batch")) == (where == "every")


def test_a_trial_with_dropout_gets_one_warning_and_one_without_gets_none():
    assert sum("batch norm" in remark for remark in small_resolved({"dropout": {"p": 0.1}}).remarks) == 1
    assert small_resolved().remarks == ()


WITHOUT_EFFECT = {
    "batch.foreground_by": "class",
    "augment.flip_axes": [0],
    "augment.blur_sigma_px": [0.5, 2.0],
    "augment.contrast_range": [0.5, 1.25],
    "augment.low_resolution_range": [0.25, 1.0],
    "augment.gamma_range": [0.5, 1.5],
    "optimizer.decay_norms_and_biases": False,
}


def spec_with(**settings):
    tables = {}
    for key, value in settings.items():
        section, name = key.split(".")
        tables.setdefault(section, {})[name] = value
    return Spec.model_validate(tables)


def test_every_augmentation_setting_that_is_no_chance_or_size_needs_one():
    changed = {f"augment.{key}" for key, field in AugmentSpec.model_fields.items() if field.default != 0.0}
    assert changed == {key for key in NEEDS if key.startswith("augment.")}
    assert set(NEEDS) == set(WITHOUT_EFFECT)


@pytest.mark.parametrize(("key", "value"), WITHOUT_EFFECT.items())
def test_a_setting_that_another_switches_off_gives_a_warning(key, value):
    assert key in NEEDS
    (remark,) = warn_of_settings_without_effect(spec_with(**{key: value}))
    assert remark.startswith(f"{key}: has no effect")
    for needed in NEEDS[key]:
        assert needed in remark
        on = True if needed == "evaluate.mirror" else 0.1
        assert warn_of_settings_without_effect(spec_with(**{key: value, needed: on})) == []
        assert warn_of_settings_without_effect(spec_with(**{needed: on})) == []
    assert remark in small_resolved({key.split(".")[0]: {key.split(".")[1]: value}}).remarks


@pytest.mark.parametrize(
    ("augment", "mirror", "axes"),
    [
        ({"flip": 0.0}, True, "axes 0, 1"),
        ({"flip": 0.5, "flip_axes": [1]}, [0], "axis 0"),
        ({"flip": 0.5, "flip_axes": [1]}, True, None),
        ({"flip": 0.5}, [0, 1], None),
        ({"flip": 0.0}, False, None),
    ],
)
def test_mirroring_along_axes_that_training_does_not_flip_gives_a_warning(augment, mirror, axes):
    resolved = small_resolved({"augment": augment, "evaluate": {"mirror": mirror}})
    said = [remark for remark in resolved.remarks if remark.startswith("evaluate.mirror: ")]
    assert len(said) == (axes is not None)
    assert all(f"along {axes}, along which" in remark for remark in said)


def test_axes_of_flips_have_no_effect_on_a_prediction_mirrored_along_other_axes():
    (remark,) = warn_of_settings_without_effect(spec_with(**{"augment.flip_axes": [0], "evaluate.mirror": [1]}))
    assert remark.startswith("augment.flip_axes")
