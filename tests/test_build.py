"""Resolving: what is filled in, what names a trial and what does not, what is refused before anything trains."""

import pickle
import re

import pytest
import torch
from torch import nn

from dlx.data.dataset import open_dataset
from dlx.engine import checkpoint
from dlx.engine.device import does_bf16_well
from dlx.engine.fit import TrialProgress, begin_epoch
from dlx.execution.planning.plan import make_plan
from dlx.models.architectures.unet import UNet
from dlx.settings import registry
from dlx.settings.layers import nest, parse_assignment
from dlx.study.axes import Variant
from dlx.study.study import Study
from dlx.system.errors import SettingError
from dlx.trial.build import evenly_spaced, make_job
from dlx.trial.resolve import resolve
from small import make_store, small_job, small_resolved, small_spec


def test_every_argument_is_filled_in():
    spec = small_resolved().spec
    sizes = {"width": 4, "levels": 2, "norm": "batch", "dims": 2}
    later = {"groups": 8, "down": "max", "down_norm": "none", "up": "nearest", "activation": "relu", "max_width": None}
    later["deep_supervision"] = 0
    assert spec.model.args == sizes | later
    assert small_resolved().settings(0)["model"] == {"name": "unet2", "args": sizes}  # older trials keep their names
    drawn = {"subjects": 4, "size": 24, "seed": 0}
    assert spec.data.source.args == drawn | {"labelled_every": 1, "regions": False}
    assert spec.optimizer.name.args["beta1"] == 0.9


def test_the_same_settings_name_the_same_trial_whether_spelled_out_or_not():
    short, long = small_resolved(), small_resolved({"model": {"norm": "batch"}, "dropout": {"p": 0.0}})
    assert short.trial_id(0) == long.trial_id(0)


@pytest.mark.parametrize(
    "change",
    [
        {"dropout": {"p": 0.1}},
        {"model": {"width": 5}},
        {"model": {"down": "average"}},
        {"model": {"down_norm": "batch"}},
        {"model": {"groups": 2}},
        {"model": {"up": "transposed"}},
        {"model": {"activation": "leaky-relu"}},
        {"model": {"max_width": 6}},
        {"model": {"levels": 3, "deep_supervision": 1}},
        {"optimizer": {"lr": 0.011}},
        {"train": {"epochs": 4}},
        {"compute": {"threads": 2}},
        {"data": {"source": {"seed": 1}}},
        {"split": {"seed": 4}},
        {"scheduler": "cosine"},
        {"loss": "ce"},
        {"evaluate": {"mirror": True}},
        {"augment": {"gamma": 0.3}},
    ],
)
def test_whatever_can_change_the_numbers_changes_the_name(change):
    assert small_resolved(change).trial_id(0) != small_resolved().trial_id(0)


def test_the_seed_is_part_of_the_name():
    assert small_resolved().trial_id(0) != small_resolved().trial_id(1)


def test_the_way_a_split_was_asked_for_is_not_part_of_the_name():
    by_fraction = small_resolved()
    name = by_fraction.split.val[0]
    by_name = small_resolved({"split": {"val": [name], "val_fraction": None}})
    assert by_name.split == by_fraction.split
    assert by_name.trial_id(0) == by_fraction.trial_id(0)


def test_where_the_data_lie_is_not_part_of_the_name(tmp_path):
    from dlx.data.cache import load_cache

    spec = small_spec()
    original = resolve(spec, open_dataset(spec.data, cache_dir=tmp_path))
    (kept,) = tmp_path.glob("*.safetensors")
    elsewhere = kept.rename(tmp_path / "moved.safetensors")
    assert load_cache(elsewhere).fingerprint == original.dataset.fingerprint
    spec = small_spec({"data": {"source": str(elsewhere)}})
    moved = resolve(spec, open_dataset(spec.data, cache_dir=None))
    assert moved.trial_id(0) == original.trial_id(0)


# 24^3 voxels in the one validation subject; a step trains 3 x 4 patches of 16 x 16 = 3,072 voxels, an epoch 4 of them
@pytest.mark.parametrize(
    ("change", "every"),
    [
        ({}, 1),  # 3 x 12,288 / 138,240: less than once, so in each of the three epochs: five times are the least
        ({"train": {"epochs": 24}}, 4),  # 2.1 times, so six times, of which five are the least
        ({"train": {"epochs": 80}}, 12),  # 7.1 times
        ({"train": {"steps_per_epoch": 45}}, 1),  # 3 x 138,240 / 138,240 times
        ({"train": {"epochs": 12, "steps_per_epoch": 34}}, 2),  # 9.1 times
        ({"scheduler": "plateau"}, 1),
        ({"train": {"patience": 2}}, 1),
        ({"evaluate": {"every": 2}}, 2),
    ],
)
def test_validation_is_fitted_to_a_tenth_of_trainings_work_and_gives_five_points(change, every):
    assert small_resolved({"evaluate": {"every": None}}, change).spec.evaluate.every == every


def written(path, job):
    checkpoint.write(path, checkpoint.snapshot(job, {}))
    return path


def test_weights_to_start_from_are_read_once_and_name_the_trial_as_they_were_then(tmp_path):
    path = written(tmp_path / "first.safetensors", small_job(seed=1))
    change = {"train": {"init_from": str(path)}}
    resolved = small_resolved(change)
    before, expected = resolved.trial_id(0), resolved.initial.tensors["head.weight"].clone()
    written(path, small_job(seed=2))  # as when a trial's own checkpoint is named
    assert resolved.trial_id(0) == before
    assert small_resolved(change).trial_id(0) != before
    path.unlink()
    job = make_job(pickle.loads(pickle.dumps(resolved)), make_store(resolved), 0)
    assert torch.equal(job.model.head.weight, expected)
    assert resolved.settings(0)["train"]["init_from"] == resolved.initial.digest


def test_where_the_weights_to_start_from_lie_is_not_part_of_the_name(tmp_path):
    paths = [written(tmp_path / name, small_job(seed=1)) for name in ("a.safetensors", "b.safetensors")]
    ids = [small_resolved({"train": {"init_from": str(path)}}).trial_id(0) for path in paths]
    assert ids[0] == ids[1] != small_resolved().trial_id(0)


def test_a_subset_is_spread_evenly():
    assert evenly_spaced(tuple(range(10)), 2) == (2, 7)
    assert evenly_spaced(tuple(range(3)), 5) == (0, 1, 2)
    assert evenly_spaced(tuple(range(3)), 0) == ()


ONE_VALUE = {"batch": {"size": 1, "patch_size_px": [2, 2]}}  # halved once
ONE_VOXEL = {
    "model": {"dims": 3, "levels": 4, "norm": "instance"},
    "batch": {"size": 2, "patch_size_px": [8, 8, 8]},
}
SMALL_SLICES = {"model": {"levels": 6, "norm": "instance"}, "batch": {"patch_size_px": [64, 64]}}  # 24 x 24, padded


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch": {"kind": "block", "patch_size_px": [8, 8, 8]}, "model": {"dims": 3}}, "batch.kind: 'block'"),
        ({"batch": {"patch_size_px": [8, 8, 8]}}, "batch.patch_size_px: expected 2 sizes"),
        ({"scheduler": "plateau", "evaluate": {"every": 2}}, "scheduler 'plateau'.*evaluate.every=1"),
        ({"optimizer": {"group_lr": {"neck": 0.1}}}, r"no group 'neck' \(known: encoder, decoder, head\)"),
        ({"model": {"width": 4096, "levels": 7}}, "model 'unet2:.*': training .* parameters takes .* GiB"),
        ({"loss": "focal:class_weights=[0.5,0.5]"}, "class_weights"),
        (ONE_VALUE, "model 'unet2': one patch of 2 x 2 is one voxel"),
        ((ONE_VALUE | {"model": {"norm": "instance"}}), "model 'unet2': one patch of 2 x 2 is one voxel"),
        (ONE_VOXEL, "model 'unet2': one patch of 8 x 8 x 8 is one voxel"),
        (SMALL_SLICES, "model 'unet2': an evaluated slice of 24 x 24 is one voxel"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, words):
    with pytest.raises(SettingError, match=words):
        small_resolved(change)


@pytest.mark.parametrize(
    "change",
    [
        ONE_VALUE | {"model": {"norm": "none"}},
        ONE_VALUE | {"model": {"norm": "group", "width": 8}},
        {"batch": {"size": 1, "patch_size_px": [2, 4]}},
        {"batch": {"size": 2, "patch_size_px": [2, 2]}},
        ONE_VOXEL | {"batch": {"size": 1, "patch_size_px": [8, 8, 16]}},
        SMALL_SLICES | {"model": {"levels": 6, "norm": "batch"}},
        SMALL_SLICES | {"model": {"levels": 5, "norm": "instance"}},
    ],
)
def test_batches_with_two_values_a_group_at_the_deepest_level_train_and_are_evaluated(change):
    job = small_job(change, {"evaluate": {"batch_size": 1}})
    begin_epoch(job, TrialProgress(), 1)
    job.step(0)
    job.model.eval()
    job.evaluator.measure(job.model, job.val_cases)


def test_settings_of_all_variants_are_checked_before_data_are_read_and_equal_data_are_read_once(tmp_path):
    read = []

    def plan(**change):
        variants = [Variant(label="a", spec=small_spec()), Variant(label="b", spec=small_spec({"model": change}))]
        study = Study(name="s", variants=variants, seeds=(0,), control="a")
        make_plan(study, tmp_path, cache_dir=None, keep_cache=False, progress=lambda done, _: read.append(done))

    with pytest.raises(SettingError, match="variant 'b': model 'unet2' has no argument 'widht'"):
        plan(widht=8)
    assert read == []
    plan(width=8)
    assert read == [1, 2, 3, 4]


def test_a_schedule_that_dies_early_is_warned_of():
    (remark,) = small_resolved({"scheduler": "exponential:gamma=0.01", "train": {"epochs": 40}}).remarks
    assert re.match(r"scheduler 'exponential:gamma=0.01': .*epoch 3 ", remark)


def test_none_is_typed_without_quotes():
    # `--set model.norm=none` is read as None, as for settings that may be off
    assignments = [parse_assignment(text) for text in ("model.norm=none", "data.normalize=none")]
    spec = small_resolved(nest(assignments)).spec
    assert spec.model.args["norm"] == "none"
    assert spec.data.normalize.name == "none"
    assert small_resolved({"model": "unet2:width=4,levels=2,norm=none"}).spec.model.args["norm"] == "none"
    with pytest.raises(SettingError, match="unknown scheduler 'none'"):
        small_resolved(nest([parse_assignment("scheduler=none")]))


class Mixed(UNet):
    """A U-Net of 3D; with `has_own` its head is torch's convolution, whose gradients in bf16 are wrong on a CPU."""

    def __init__(self, in_channels, num_classes, dropout, *, has_own: bool = False):
        super().__init__(False, in_channels, num_classes, dropout, width=4, levels=2, dims=3)
        if has_own:
            self.head = nn.Conv3d(4, num_classes, 3, padding=1)


@pytest.mark.skipif(not does_bf16_well(torch.device("cpu")), reason="this CPU has no bf16 units")
@pytest.mark.parametrize(
    ("has_own", "precision", "chosen"),
    [
        (False, "bf16", "bf16"),
        (False, "auto", "bf16"),
        (True, "auto", "float32"),
        (True, "bf16", None),
    ],
)
def test_in_3d_torchs_own_convolution_never_trains_in_bf16_on_a_cpu(monkeypatch, has_own, precision, chosen):
    monkeypatch.setitem(registry.PARTS["model"], "mixed", f"{__name__}:Mixed")
    changes = {"model": {"name": "mixed", "has_own": has_own}, "batch": {"patch_size_px": [8, 16, 16]}}
    changes["compute"] = {"precision": precision}
    if chosen is not None:
        assert small_resolved(changes).compute.precision == chosen
        return
    with pytest.raises(SettingError, match=r"compute\.precision.*conv3d"):
        small_resolved(changes)


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 0),
        ({"model": {"norm": "instance"}}, 0),
        ({"model": {"dims": 3}, "batch": {"patch_size_px": None}}, 1),
        ({"model": {"dims": 3, "up": "transposed"}, "batch": {"patch_size_px": None}}, 0),
        ({"model": {"dims": 3, "norm": "instance"}, "batch": {"patch_size_px": None}}, 2),
        (
            {
                "model": {"dims": 3, "up": "transposed", "down": "conv", "down_norm": "instance"},
                "batch": {"patch_size_px": None},
            },
            1,
        ),
        ({"data": {"source": "phantom:subjects=4,size=24,labelled_every=3"}}, 1),
    ],
    ids=["plain", "instance norm", "nearest in 3D", "transposed in 3D", "both in 3D", "down norm", "ignored voxels"],
)
def test_a_trial_whose_numbers_a_change_reached_says_so_in_its_id(changes, count):
    assert len(small_resolved(changes).settings(0).get("revisions", [])) == count
