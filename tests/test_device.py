"""Which device, with how many cores and which of torch's fast paths."""

import dataclasses
import os
from contextlib import suppress

import pytest
import torch

from dlx.build import make_job
from dlx.cores import available_cores
from dlx.engine.device import choose_compute, prepare_backend
from dlx.errors import SettingError
from dlx.run.stores import make_store
from dlx.specs import ComputeSpec
from small import small_resolved

CORES = len(os.sched_getaffinity(0))


@pytest.fixture
def cgroup(tmp_path):
    def written(**files):
        (tmp_path / "cpu").mkdir(exist_ok=True)
        for name, text in files.items():
            path = tmp_path / "cpu.max" if name == "max" else tmp_path / "cpu" / f"cpu.cfs_{name}_us"
            path.write_text(text)
        return tmp_path

    return written


@pytest.fixture
def many_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"max": "200000 100000\n"}, 2),
        ({"max": "250000 100000\n"}, 3),
        ({"max": "10000 100000\n"}, 1),
        ({"max": "max 100000\n"}, 64),
        ({"max": "9900000 100000\n"}, 64),
        ({"max": "nonsense"}, 64),
        ({"quota": "150000\n", "period": "100000\n"}, 2),
        ({"quota": "-1\n", "period": "100000\n"}, 64),
        ({"quota": "150000\n"}, 64),
        ({}, 64),
    ],
)
def test_a_containers_quota_bounds_the_cores(cgroup, files, cores):
    assert available_cores(cgroup(**files)) == cores


def test_threads_are_the_cores_unless_they_are_given():
    assert choose_compute(ComputeSpec(device="cpu")).threads == available_cores() <= CORES
    assert choose_compute(ComputeSpec(device="cpu", threads=3)).threads == 3


@pytest.mark.parametrize("index", [1000, 10**30])
def test_a_cuda_device_that_no_machine_has_is_refused_in_one_line(index):
    with pytest.raises(SettingError, match=rf"device 'cuda:{index}' is not there: .*--device cpu"):
        choose_compute(ComputeSpec(device=f"cuda:{index}"))


FLAGS = [
    (torch.backends.cuda.matmul, "allow_tf32"),
    (torch.backends.cudnn, "allow_tf32"),
    (torch.backends.cudnn, "benchmark"),
    (torch.backends.cudnn, "deterministic"),
]


@pytest.fixture
def flags():
    """The fast paths as they are, all set the fast way at first."""
    before = [getattr(place, name) for place, name in FLAGS]
    for place, name in FLAGS:
        setattr(place, name, name != "deterministic")
    yield lambda: [getattr(place, name) for place, name in FLAGS]
    for (place, name), value in zip(FLAGS, before, strict=True):
        setattr(place, name, value)


def test_float32_on_cuda_is_float32_and_repeats(flags):
    cpu = choose_compute(ComputeSpec(device="cpu"))
    prepare_backend(cpu)
    assert flags() == [True, True, True, False]
    prepare_backend(dataclasses.replace(cpu, device=torch.device("cuda", 0)))
    assert flags() == [False, False, False, True]


def test_making_a_job_sets_the_fast_paths_first(flags):
    resolved = small_resolved()
    cuda = dataclasses.replace(resolved.compute, device=torch.device("cuda", 0))
    with suppress(AssertionError, RuntimeError):  # where there is no such device
        make_job(dataclasses.replace(resolved, compute=cuda), make_store(resolved), 0)
    assert flags() == [False, False, False, True]


def test_another_model_of_gpu_is_another_trial_and_another_number_of_one_is_not():
    cpu = small_resolved()
    assert cpu.settings(0)["compute"] == {"device": "cpu", "precision": "float32", "threads": 1}

    def trial_on(index, name):
        compute = dataclasses.replace(cpu.compute, device=torch.device("cuda", index), device_name=name)
        return dataclasses.replace(cpu, compute=compute).trial_id(0)

    assert trial_on(0, "NVIDIA H200") == trial_on(3, "NVIDIA H200") != trial_on(0, "NVIDIA H100")
