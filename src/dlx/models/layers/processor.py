"""What the processor can do, as torch reports it: networks and the choice of precision depend on it."""

from functools import cache
from typing import Any

import torch


@cache
def cpu_capabilities() -> dict[str, Any]:
    """Flags and the name of the processor; empty if this build of torch has no such report."""
    return dict(getattr(torch.cpu, "get_capabilities", dict)())


def has_amx() -> bool:
    """Whether the CPU multiplies bf16 by AMX, whose kernels differ from those of avx512_bf16."""
    return bool(cpu_capabilities().get("amx_bf16", False))
