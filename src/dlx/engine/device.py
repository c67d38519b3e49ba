"""The choice of device, precision, threads and memory format, and the settings of torch that go with it."""

import ctypes
import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from dlx.models.layers.processor import cpu_capabilities
from dlx.settings.spec import ComputeSpec
from dlx.settings.text import counted
from dlx.system.cpu_cores import available_cores
from dlx.system.errors import SettingError
from dlx.system.files import text_of
from dlx.system.memory import host_memory_bytes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
MAX_THREADS_PER_CORE = 8  # enough to repeat a run of a larger machine; a larger number is a typing error


@dataclass(frozen=True)
class Compute:
    """The choice for one trial on one machine. Channels-last is always used: it was never slower where it was measured.

    `memory` is that of the device in bytes, None if unknown; `cores` are those of the machine.
    """

    device: torch.device
    precision: Literal["float32", "bf16"]
    threads: int
    memory: int | None = field(compare=False)
    cores: int = field(compare=False)
    device_name: str | None = None  # of a CUDA device: numbers of unlike ones are never paired
    captures: bool = False  # steps are captured and replayed
    remarks: tuple[str, ...] = field(default=(), compare=False)  # for the user: why this device, and its drawbacks

    def autocast(self) -> AbstractContextManager[None]:
        """bf16 autocast, or nothing in float32."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def memory_format(self, dims: int) -> torch.memory_format:
        return torch.channels_last if dims == 2 else torch.channels_last_3d

    def synchronize(self) -> None:
        """Waits for the device. For timing and checkpoints, never inside a step."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


ChooseCompute = Callable[[ComputeSpec], Compute]


def choose_compute(spec: ComputeSpec) -> Compute:
    """The device, precision and threads that a ComputeSpec selects on this machine.

    Raises SettingError if the device is missing, if this torch has no kernels for it, or if it supports no bf16 or no
    capture although the settings require it.
    """
    device, remarks = _choose_device(spec.device)
    precision = spec.precision
    if precision == "auto":
        precision = "bf16" if does_bf16_well(device) else "float32"
    if device.type == "cuda" and not does_bf16_well(device):
        gpu = f"{describe_device(device)} (compute capability {_spell(torch.cuda.get_device_capability(device))})"
        if precision == "bf16":
            raise SettingError(f"compute.precision: {gpu} has no bf16 units (from 8.0 on); use float32")
        remarks.append(f"{gpu} computes in float32, without its tensor cores: bf16 needs compute capability 8.0")
    if spec.capture is True and device.type != "cuda":
        raise SettingError(f"compute.capture: true needs a CUDA device (this trial trains on {device})")
    if spec.capture is True and spec.num_ranks > 1:
        raise SettingError("compute.capture: steps of several ranks are not captured; leave compute.capture at auto")
    if spec.threads is not None and spec.threads > MAX_THREADS_PER_CORE * available_cores():
        cores = counted(available_cores(), "core")
        raise SettingError(f"compute.threads: {spec.threads} is too many for {cores}")
    return Compute(
        device,
        precision,
        spec.threads or available_cores(),
        memory=memory_bytes(device),
        cores=available_cores(),
        device_name=describe_device(device) if device.type == "cuda" else None,
        captures=device.type == "cuda" and spec.capture is not False and spec.num_ranks == 1,
        remarks=tuple(remarks),
    )


def prepare_backend(compute: Compute) -> None:
    """Makes the device the current one and sets torch's options for it, regardless of earlier settings.

    On CUDA float32 is float32 (by default torch computes convolutions in TF32), and cuDNN uses deterministic
    algorithms. Streams, graphs and their memory belong to the current device: with another current device a captured
    graph would be empty. On a CPU freed memory is kept.
    """
    if compute.device.type == "cpu":
        keep_freed_memory()
    if compute.device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.cuda.set_device(compute.device)


@cache
def keep_freed_memory() -> bool:
    """Makes glibc's allocator keep freed memory for the next step; False without glibc.

    By default each feature map of 32 MiB or more is mapped again at each step, and the kernel zeroes its pages: 12 % of
    a full-size step (docs/log.md). The process keeps the memory of its peak until it ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26}
    return all(mallopt(key, value) == 1 for key, value in settings.items())


def num_gpus() -> int:
    """The CUDA devices that torch finds."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def does_bf16_well(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16; elsewhere torch emulates it at half the speed of float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return any(cpu_capabilities().get(flag, False) for flag in ("avx512_bf16", "amx_bf16"))
    return False


def memory_bytes(device: torch.device) -> int | None:
    """The total memory of the device, for a CPU that of the machine or container; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return host_memory_bytes()


def describe_device(device: torch.device) -> str:
    """The device's name, for records: `NVIDIA H200`, or the processor's model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return cpu_capabilities().get("cpu_name") or _processor_name()
    return device.type


def _processor_name() -> str:
    lines = text_of(Path("/proc/cpuinfo")).splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "") or "CPU"


def _choose_device(name: str) -> tuple[torch.device, list[str]]:
    """The named device, and remarks for the user; `auto` is the first GPU that this torch has kernels for."""
    if name == "auto":
        return _choose_for_user()
    kind, _, index = name.partition(":")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:  # checked first: torch's error for large numbers is unclear
            why = (
                "this torch is built without CUDA"
                if torch.version.cuda is None
                else f"torch finds {counted(count, 'CUDA device')}"
            )
            raise SettingError(f"device '{name}' is not there: {why}; --device cpu works without a GPU")
        device = torch.device("cuda", int(index or 0))
        lack = _lacks_kernels(device)
        if lack is not None:
            raise SettingError(f"device '{name}': {lack}; --device cpu works without a GPU")
        return device, []
    device = torch.device(kind)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SettingError("device 'mps' is not there")
    return device, []


def _choose_for_user() -> tuple[torch.device, list[str]]:
    if torch.cuda.is_available():
        devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
        lacks = [_lacks_kernels(device) for device in devices]
        if None in lacks:
            return devices[lacks.index(None)], []
        return torch.device("cpu"), [f"the CPU is used: {lacks[0]}"]
    if torch.backends.mps.is_available():
        return torch.device("cpu"), ["the CPU is used: Apple's GPU is untested; --device mps selects it"]
    return torch.device("cpu"), []


def _lacks_kernels(device: torch.device) -> str | None:
    """Why this torch cannot run on a CUDA device; None if it can, or if torch is built for AMD's GPUs (ROCm), whose
    architectures have names of another kind.
    """
    if torch.version.hip is not None:
        return None
    capability, architectures = torch.cuda.get_device_capability(device), torch.cuda.get_arch_list()
    if has_kernels(capability, architectures):
        return None
    built = ", ".join(architectures) or "no architecture"
    gpu = f"{describe_device(device)} (compute capability {_spell(capability)})"
    return f"this torch has no kernels for {gpu}, only for {built}: install a build of torch that has them"


def has_kernels(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Whether a build for these architectures (`sm_80`, `compute_90` ...) runs on a GPU of this compute capability.

    Machine code (`sm_`) runs on its own major version, from its minor version on; intermediate code (`compute_`) is
    compiled by the driver for any later GPU; with the suffix `a` either is for that one GPU. Source: CUDA C++
    Programming Guide, "Binary compatibility" and "PTX compatibility".
    """
    for name in architectures:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", name)
        if found is None:
            continue
        built = (int(found[2]), int(found[3]))
        is_later = capability[0] == built[0] if found[1] == "sm" or found[4] == "f" else True
        if capability == built or (found[4] != "a" and is_later and capability >= built):
            return True
    return False


def _spell(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
