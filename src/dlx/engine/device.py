"""Which device trains, in which precision and memory format, and what of that can change a trial's numbers."""

import ctypes
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch

from dlx.cores import available_cores as available_cores
from dlx.errors import SettingError
from dlx.specs import ComputeSpec
from dlx.spelling import counted

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
MOST_THREADS_PER_CORE = 8  # a run of a larger machine may be repeated here; more than that is a slip


@dataclass(frozen=True)
class Compute:
    """The choice for one trial. Channels-last is always used: it was never slower where it was measured."""

    device: torch.device
    precision: Literal["float32", "bf16"]
    threads: int
    device_name: str | None = None  # of a CUDA device: numbers of unlike ones are never paired

    @property
    def captures(self) -> bool:
        """True where steps are captured and replayed."""
        return self.device.type == "cuda"

    def autocast(self) -> AbstractContextManager[None]:
        """bf16 autocast, or nothing in float32."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def memory_format(self, dims: int) -> torch.memory_format:
        return torch.channels_last if dims == 2 else torch.channels_last_3d

    def synchronize(self) -> None:
        """Waits for the device; for clocks and checkpoints, never inside a step."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def choose_compute(spec: ComputeSpec) -> Compute:
    """The device, precision and threads a ComputeSpec stands for on this machine.

    Raises SettingError where the device that was asked for is not there.
    """
    device = _choose_device(spec.device)
    precision = spec.precision
    if precision == "auto":
        precision = "bf16" if does_bf16_well(device) else "float32"
    if spec.threads is not None and spec.threads > MOST_THREADS_PER_CORE * available_cores():
        cores = counted(available_cores(), "core")
        raise SettingError(f"compute.threads: {spec.threads}, and this process may use {cores}")
    name = describe_device(device) if device.type == "cuda" else None
    return Compute(device, precision, spec.threads or available_cores(), name)


def prepare_backend(compute: Compute) -> None:
    """Sets torch's fast paths for the device, whatever was set before: on CUDA float32 means float32 (convolutions
    would be rounded to TF32 by default), and cuDNN takes algorithms that repeat. On a CPU freed memory is kept.
    """
    if compute.device.type == "cpu":
        keep_freed_memory()
    if compute.device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True


@cache
def keep_freed_memory() -> bool:
    """Makes glibc's allocator keep what is freed for the next step; False where there is no glibc.

    As it comes, every feature map of 32 MiB or more is mapped anew at each step, its pages zeroed by the kernel: 12 %
    of a full-size step (docs/log.md). The process then holds on to its peak until it ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26}
    return all(mallopt(key, value) == 1 for key, value in settings.items())


def does_bf16_well(device: torch.device) -> bool:
    """True where bf16 is multiplied by hardware; torch also emulates it elsewhere, at half of float32's speed."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return any(_cpu_capabilities().get(flag, False) for flag in ("avx512_bf16", "amx_bf16"))
    return False


def memory_bytes(device: torch.device) -> int | None:
    """The device's whole memory; None where it is not known."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def describe_device(device: torch.device) -> str:
    """The device's name, for records: `NVIDIA H200`, or the processor's model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return _cpu_capabilities().get("cpu_name") or _processor_name()
    return device.type


def _cpu_capabilities() -> dict[str, Any]:
    """What torch says of the processor; empty where this build of torch does not tell."""
    return dict(getattr(torch.cpu, "get_capabilities", dict)())


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            found = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
    except OSError:
        found = None
    return found or "CPU"


def _choose_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:  # before torch sees it, which refuses large numbers in its own way
            why = "this torch is built without CUDA" if torch.version.cuda is None else f"torch sees {count} of CUDA"
            raise SettingError(f"device '{name}' is not there: {why}; --device cpu trains without a GPU")
        return torch.device("cuda", int(index or 0))
    device = torch.device(kind)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SettingError("device 'mps' is not there")
    return device
