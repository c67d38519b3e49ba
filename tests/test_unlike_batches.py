"""Fitted batches: those that differ between variants or folds are named, and memory limits parallel trials."""

from dataclasses import replace

import pytest
import torch

from dlx.engine import device
from dlx.execution.planning import parallel
from dlx.execution.planning.parallel import choose_parallel
from dlx.execution.planning.plan import make_plan
from dlx.execution.planning.unlike_batches import remark_on_batches
from dlx.settings.layers import merge
from dlx.study.axes import Axis, Variant, make_variants
from dlx.study.study import Study, in_fold
from dlx.trial.resolve import resolve
from small import SETTINGS, small_resolved, small_spec

AUTO = {"batch": {"size": "auto", "patch_size_px": None}, "model": {"norm": "auto"}}


def said(tmp_path, *changes, **axis):
    variants = make_variants(merge(SETTINGS, *changes), [Axis(**axis)])
    study = Study(name="s", variants=variants, control=variants[0].label, seeds=(0, 1))
    plan = make_plan(study, tmp_path / "out", cache_dir=None, keep_cache=False)
    return [remark for remark in plan.remarks if "in a step" in remark]


def test_batches_that_differ_between_variants_without_an_axis_are_named(tmp_path):
    assert said(tmp_path, AUTO, key="model.dims", values=[2, 3]) == [
        "dims=2: 16 patches of 24 x 24 in a step, batch norm",
        "dims=3: 14 patches of 24 x 24 x 24 in a step, instance norm",
    ]


def test_patches_that_depend_on_the_stride_are_named(tmp_path):
    changes = {"data": {"source": "phantom:subjects=4,size=20"}, "batch": {"patch_size_px": None}}
    assert said(tmp_path, changes, key="model.levels", values=[2, 3, 4]) == [
        "levels=2; levels=3: 4 patches of 20 x 20 in a step",
        "levels=4: 4 patches of 24 x 24 in a step",
    ]


@pytest.mark.parametrize(
    ("changes", "axis"),
    [
        ({}, {"key": "batch.size", "values": [2, 4]}),
        (AUTO, {"key": "batch.max_patches", "values": [2, 4]}),
        (AUTO, {"key": "batch.max_voxels", "values": [2_000, 8_000]}),
        ({}, {"key": "model.norm", "values": ["batch", "group"]}),
        ({}, {"key": "dropout.p", "values": [0, 0.5]}),
    ],
    ids=["size", "max_patches", "max_voxels", "norm", "dropout"],
)
def test_what_an_axis_sets_is_not_named(tmp_path, changes, axis):
    assert said(tmp_path, changes, **axis) == []


def test_patches_that_differ_between_folds_are_named():
    dataset = small_resolved().dataset
    cut = [
        replace(case, image=case.image[:depth], mask=case.mask[:depth])
        for case, depth in zip(dataset.cases, (9, 12, 16, 24), strict=True)
    ]
    spec = small_spec(AUTO, {"model": {"dims": 3}, "split": {"val_fraction": None, "fold": "all", "folds": 2}})
    study = Study(name="s", variants=(Variant(label="v", spec=spec),), seeds=(0,), folds=(0, 1))
    resolved = {("v", fold): resolve(in_fold(spec, fold), replace(dataset, cases=tuple(cut))) for fold in (0, 1)}
    remarked = remark_on_batches(study, resolved)
    sizes = [one.spec.batch.patch_size_px for one in remarked.values()]
    assert sizes[0] != sizes[1]
    for one, (depth, height, width) in zip(remarked.values(), sizes, strict=True):
        assert f"of {depth} x {height} x {width} in a step" in one.remarks[-1]


@pytest.mark.parametrize("phase", ["step_fraction", "evaluation_fraction"])
@pytest.mark.parametrize(
    ("fraction", "asked", "at_once", "reason"),
    [
        (None, None, 8, None),
        (0.0625, None, 8, None),
        (0.07, None, 7, "7 %"),
        (0.3, None, 1, "30 %"),
        (0.5, 4, 1, "50 %"),
        (0.2, 2, 2, None),
        (0.01, 16, 8, "1 thread"),
    ],
)
def test_no_more_trials_run_at_once_than_fit_half_of_the_memory(monkeypatch, phase, fraction, asked, at_once, reason):
    monkeypatch.setattr(parallel, "available_cores", lambda: 8)
    one = replace(small_resolved(), step_fraction=None, evaluation_fraction=None)
    one = replace(one, **{phase: fraction})
    study = Study(name="s", variants=(Variant(label="v", spec=one.spec),), seeds=tuple(range(20)))
    found, remarks = choose_parallel([one], asked, study, None)
    assert found == at_once
    assert len(remarks) == (reason is not None)
    assert all(f"{at_once} at once" in remark and reason in remark.replace("%", " %") for remark in remarks)


@pytest.mark.parametrize(("num_gpus", "at_once"), [(1, 2), (3, 6)])
def test_trials_that_share_a_gpu_fit_half_of_its_memory(monkeypatch, num_gpus, at_once):
    monkeypatch.setattr(parallel, "cuda_names", lambda: ("gpu",) * num_gpus)
    one = small_resolved({"compute": {"device": "auto"}})
    compute = replace(one.compute, device=torch.device("cuda", 0))
    one = replace(one, compute=compute, step_fraction=0.2)
    study = Study(name="s", variants=(Variant(label="v", spec=one.spec),), seeds=tuple(range(20)))
    found, remarks = choose_parallel([one], 16, study, None)
    assert found == at_once
    assert f"only {at_once} at once: a step of one trial may take 20% of the memory" in remarks[0]


@pytest.mark.parametrize("gib", [1, 64])
def test_the_memory_of_a_batch_of_a_given_size_is_counted_unless_it_is_small(monkeypatch, gib):
    monkeypatch.setattr(device, "memory_bytes", lambda _: gib * 2**30)
    monkeypatch.setattr(device, "available_cores", lambda: 16)
    one = small_resolved({"batch": {"size": 64, "patch_size_px": [24, 24]}, "evaluate": {"batch_size": 64}})
    is_small = gib == 64
    for fraction in (one.step_fraction, one.evaluation_fraction):
        assert fraction is None if is_small else 0 < fraction < 1
    assert one.spec.batch.size == one.spec.evaluate.batch_size == 64


@pytest.mark.parametrize("mib", [8, 64, 1024])
def test_the_number_of_cores_changes_no_setting_of_a_trial(monkeypatch, mib):
    found = set()
    for cores in (1, 256):
        monkeypatch.setattr(device, "memory_bytes", lambda _: mib * 2**20)
        monkeypatch.setattr(device, "available_cores", lambda cores=cores: cores)
        found.add(small_resolved(AUTO, {"model": {"dims": 3, "width": 32}}).trial_id(0))
    assert len(found) == 1
