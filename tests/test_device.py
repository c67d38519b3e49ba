"""Which device, with how many cores and which of torch's fast paths."""

import dataclasses
import os
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch

from dlx.engine.device import choose_compute, has_kernels, prepare_backend
from dlx.execution.planning.plan import make_plan
from dlx.execution.runner import run_plan
from dlx.settings.spec import ComputeSpec
from dlx.study.axes import Variant
from dlx.study.study import Study
from dlx.system.cpu_cores import available_cores
from dlx.system.errors import SettingError
from dlx.trial.build import make_job
from small import make_store, small_resolved, small_spec

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
def current(monkeypatch):
    """The CUDA devices that are made current, in turn; on a machine without any."""
    devices = []
    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    return devices


@pytest.fixture
def flags(current):
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


@pytest.mark.parametrize("index", [0, 1])
def test_making_a_job_makes_its_device_the_current_one(current, index):
    resolved = small_resolved()
    cuda = dataclasses.replace(resolved.compute, device=torch.device("cuda", index))
    with suppress(AssertionError, RuntimeError):  # where there is no such device
        make_job(dataclasses.replace(resolved, compute=cuda), make_store(resolved), 0)
    assert current == [torch.device("cuda", index)]


def test_a_run_in_this_process_makes_its_device_current_before_it_puts_anything_there(tmp_path, current):
    study = Study(name="s", variants=(Variant(label="unet2", spec=small_spec()),), seeds=(0,))
    plan = make_plan(study, tmp_path, cache_dir=None, keep_cache=False)
    compute = dataclasses.replace(plan.first.compute, device=torch.device("cuda", 1))
    trials = [dataclasses.replace(p, resolved=dataclasses.replace(p.resolved, compute=compute)) for p in plan.trials]
    with suppress(AssertionError, RuntimeError, AttributeError):  # where there is no such device
        list(run_plan(dataclasses.replace(plan, trials=tuple(trials))))
    assert current[:1] == [torch.device("cuda", 1)]


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((9, 0), ["sm_75", "sm_80", "sm_86", "sm_90"], True),
        ((8, 9), ["sm_75", "sm_80", "sm_86"], True),  # machine code of an earlier minor version
        ((8, 0), ["sm_86", "sm_90"], False),  # but not of a later one
        ((6, 1), ["sm_75", "sm_80", "compute_90"], False),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_80", "compute_90"], True),  # compiled by the driver
        ((12, 0), ["sm_90a", "compute_90a"], False),  # for one GPU alone
        ((9, 0), ["sm_90a"], True),
        ((10, 3), ["sm_100f"], True),
        ((11, 0), ["compute_100f"], False),
        ((8, 0), [], False),
        ((8, 0), ["gfx90a"], False),
    ],
)
def test_which_gpus_a_build_of_torch_runs_on(capability, architectures, runs):
    assert has_kernels(capability, architectures) == runs


@pytest.fixture
def gpu(monkeypatch):
    """A made-up machine with one CUDA device of this compute capability."""

    def with_one(capability, architectures=("sm_70", "sm_75", "sm_80", "sm_90"), name="NVIDIA Made-Up"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(architectures))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=2**34))

    return with_one


def test_auto_takes_a_gpu_that_torch_has_kernels_for(gpu):
    gpu((8, 6))
    compute = choose_compute(ComputeSpec())
    assert (compute.device, compute.precision, compute.captures) == (torch.device("cuda", 0), "bf16", True)
    assert not compute.remarks


def test_auto_leaves_a_gpu_without_kernels_alone_and_says_why(gpu):
    gpu((5, 2))
    compute = choose_compute(ComputeSpec())
    assert (compute.device, compute.captures) == (torch.device("cpu"), False)
    (remark,) = compute.remarks
    for words in ("NVIDIA Made-Up", "5.2", "sm_70, sm_75, sm_80, sm_90"):
        assert words in remark


def test_auto_takes_the_first_gpu_that_torch_has_kernels_for(gpu, monkeypatch):
    gpu((8, 6))
    capabilities = [(5, 2), (8, 6), (9, 0)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index])
    assert choose_compute(ComputeSpec()).device == torch.device("cuda", 1)


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_build_for_amds_gpus_is_not_judged_by_nvidias_architectures(gpu, monkeypatch, asked):
    gpu((9, 4), architectures=("gfx90a", "gfx942"), name="AMD Made-Up")
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert choose_compute(ComputeSpec(device=asked)).device == torch.device("cuda", 0)


@pytest.mark.parametrize("asked", ["cuda", "cuda:0"])
def test_a_gpu_without_kernels_is_refused_before_the_start(gpu, asked):
    gpu((5, 2))
    with pytest.raises(SettingError, match=r"no kernels for NVIDIA Made-Up .*5\.2.*--device cpu"):
        choose_compute(ComputeSpec(device=asked))


def test_a_gpu_without_bf16_trains_in_float32_and_says_so(gpu):
    gpu((7, 5))
    compute = choose_compute(ComputeSpec())
    assert (compute.device.type, compute.precision) == ("cuda", "float32")
    assert "float32" in compute.remarks[0]
    assert "7.5" in compute.remarks[0]
    with pytest.raises(SettingError, match=r"compute\.precision: .*7\.5.*float32"):
        choose_compute(ComputeSpec(precision="bf16"))


@pytest.mark.parametrize(("capture", "captures"), [("auto", True), (True, True), (False, False)])
def test_capturing_is_a_setting(gpu, capture, captures):
    gpu((9, 0))
    assert choose_compute(ComputeSpec(capture=capture)).captures == captures


def test_a_capture_is_refused_where_there_is_no_cuda_device():
    with pytest.raises(SettingError, match=r"compute\.capture: .* on cpu"):
        choose_compute(ComputeSpec(device="cpu", capture=True))
    assert not choose_compute(ComputeSpec(device="cpu")).captures


def test_auto_leaves_apples_gpu_alone_until_it_has_been_tried(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    compute = choose_compute(ComputeSpec())
    assert compute.device == torch.device("cpu")
    assert "--device mps" in compute.remarks[0]
    assert choose_compute(ComputeSpec(device="mps")).device == torch.device("mps")


def test_remarks_on_the_device_reach_the_user(gpu, monkeypatch):
    gpu((5, 2))
    resolved = small_resolved({"compute": {"device": "auto"}})
    assert any("no kernels" in remark for remark in resolved.remarks)
