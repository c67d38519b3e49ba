"""No training step waits for its device or copies from the host: checked on a machine without a GPU.

A step is run where waiting is refused, twice: on the CPU, and on torch's meta device, which holds no numbers: there no
operation can read one, and what was left on the host does not fit what is on the device.
"""

import importlib
from dataclasses import replace

import pytest
import torch
from torch import nn

from dlx.engine.capture import Captured
from dlx.engine.fit import TrialProgress, begin_epoch
from dlx.engine.waits import HostWaitError, WaitsRefused, describe_failure
from dlx.execution.trials.stores import host_stores
from dlx.training import optimizers
from dlx.trial.build import make_job
from small import small_job, small_resolved
from step_settings import STEP_SETTINGS

CPU, META = torch.device("cpu"), torch.device("meta")
every_setting = pytest.mark.parametrize("change", STEP_SETTINGS.values(), ids=STEP_SETTINGS)


def run_refused(job, device, steps=(0, 1)):
    """Runs steps as they would be captured, their waits refused; what a step needs of the host comes before."""
    begin_epoch(job, TrialProgress(), 1)
    rates = Captured(job.model, job.optimizer, [])
    rates.begin_epoch()
    for step in steps:
        job.step.source.seek(step)
        job.step.at.fill_(step)
        with rates._rates_on_device(), WaitsRefused(device):
            job.step.run()
        if job.average is not None:
            with WaitsRefused(META):  # it is not captured; it reads a count of the host's
                job.average.add_step()


@every_setting
def test_no_step_waits_on_a_cpu(change):
    job = small_job({"optimizer": {"lr": 2.0**-7}}, change)
    run_refused(job, CPU)
    assert torch.isfinite(job.step.losses[:2]).all()


@pytest.fixture
def on_meta(monkeypatch):
    """Makes jobs on the meta device: with generators of the host's, and optimizers fused as on CUDA."""
    generator = torch.Generator

    def host_generator(device="cpu"):
        return generator("cpu" if torch.device(device).type == "meta" else device)

    monkeypatch.setattr(torch, "Generator", host_generator)
    monkeypatch.setattr(optimizers, "FUSED_DEVICES", {"cpu", "cuda", "meta"})
    for name in ("adam", "sgd"):
        module = importlib.import_module(f"torch.optim.{name}")
        monkeypatch.setattr(module, "_device_dtype_check_for_fused", lambda *_: None)

    def job(*changes):
        resolved = small_resolved(*changes)
        store = host_stores([resolved])[resolved.dataset.fingerprint].to(META)
        return make_job(replace(resolved, compute=replace(resolved.compute, device=META)), store, 0)

    with torch.library._scoped_library("aten", "IMPL") as library:
        for name in ("adam", "adamw", "sgd"):  # torch has no meta kernel of these; they change tensors in place alone
            library.impl(f"_fused_{name}_.tensor_lr", lambda *_, **__: None, "Meta")
        # which voxels are valid is found before the first step: here the first two of each case
        library.impl("nonzero", lambda _: torch.tensor([[0], [2]]), "Meta", allow_override=True)
        yield job


@every_setting
def test_no_step_waits_or_copies_on_a_device_apart_from_the_host(change, on_meta):
    job = on_meta(change)
    run_refused(job, META)
    assert job.step.losses.device == META


def probe(job):
    job.step.source.seek(0)
    with WaitsRefused(job.compute.device):
        job.step.prober.measure(job.step.run)


def test_looking_into_a_step_waits_for_nothing_before_the_epoch_ends(on_meta):
    probing = {"evaluate": {"probes": True}, "dropout": {"p": 0.3}}
    for job in (small_job(probing), on_meta(probing)):
        begin_epoch(job, TrialProgress(), 1)
        probe(job)


def on(device, *shape, dtype=torch.float32):
    return torch.ones(shape, dtype=dtype, device=device)


WAITING = {
    "item": lambda d: on(d, 1).item(),
    "float": lambda d: float(on(d, 1)),
    "if": lambda d: bool(on(d, 1) > 0),
    "nonzero": lambda d: on(d, 3).nonzero(),
    "where with one argument": lambda d: torch.where(on(d, 3) > 0),
    "masked_select": lambda d: on(d, 3).masked_select(on(d, 3) > 0),
    "boolean index": lambda d: on(d, 3)[on(d, 3) > 0],
    "assignment to a boolean index": lambda d: on(d, 3).__setitem__(on(d, 3) > 0, on(d, 3)),
    "unique": lambda d: on(d, 3).unique(),
    "repeat_interleave": lambda d: on(d, 3).repeat_interleave(on(d, 3, dtype=torch.int64)),
}
FROM_NUMBERS = {  # the meta device takes no numbers: torch then makes a tensor of them and leaves them out
    "a tensor of numbers": lambda d: torch.tensor([1.0, 2.0], device=d),
    "a list as an index": lambda d: on(d, 3)[[0, 2]],
}
COPYING = {
    "to the device": lambda d: torch.ones(3).to(d),
    "copy_ from the host": lambda d: on(d, 3).copy_(torch.ones(3)),
    "to the host": lambda d: on(d, 3).cpu(),
    "tolist": lambda d: on(d, 3).tolist(),
}


@pytest.mark.parametrize("operation", (WAITING | FROM_NUMBERS).values(), ids=WAITING | FROM_NUMBERS)
def test_what_makes_the_host_wait_is_refused_by_name(operation):
    with WaitsRefused(CPU), pytest.raises(HostWaitError, match=r"aten\.\w+"):
        operation(CPU)


@pytest.mark.parametrize("operation", COPYING.values(), ids=COPYING)
def test_copies_between_host_and_device_are_refused_by_name(operation):
    with WaitsRefused(META), pytest.raises(HostWaitError, match="a copy between host and device"):
        operation(META)


def test_what_waits_for_nothing_is_let_through():
    with WaitsRefused(META):
        image = on(META, 2, 3, 8, 8)
        index = torch.zeros(2, dtype=torch.int64, device=META)
        torch.where(image > 0, image, 0.0).index_select(0, index)[index].sum().mul(2.0)


class Waiting(nn.Module):
    """A network of a user's that reads a number of its own."""

    def forward(self, image):
        return image * float(image.mean())


def test_a_failure_names_the_operation_and_the_users_line():
    with WaitsRefused(CPU), pytest.raises(HostWaitError) as caught:
        Waiting()(torch.ones(3))
    line = Waiting.forward.__code__.co_firstlineno + 1
    assert "aten._local_scalar_dense" in describe_failure(caught.value)
    assert f"test_waits.py, line {line}" in describe_failure(caught.value)
