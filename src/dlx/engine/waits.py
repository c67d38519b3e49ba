"""Finds operations in which the host waits for the device or copies to it, which a CUDA graph cannot hold.

`WaitsRefused` raises HostWaitError at the first one that runs within it, on any device, so that a step can be checked
on a machine without a GPU too.
"""

import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jaxtyping
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dlx.system.errors import spell_error

aten = torch.ops.aten

# Operations whose result is a number on the host, or whose output size depends on values.
WAITING = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique,
    aten._unique2,
    aten.unique_consecutive,
    aten.unique_dim,
    aten.repeat_interleave,
    aten.equal,
    aten.is_nonzero,
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
MASK_TYPES = (torch.bool, torch.uint8)

PASSED_OVER = (Path(torch.__file__).parent, Path(jaxtyping.__file__).parent, Path(__file__).parent)


class HostWaitError(RuntimeError):
    """An operation that makes the host wait for the device; the message names it."""


class WaitsRefused(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context in which an operation that waits for `device`, or copies to or from it, raises HostWaitError."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        obstacle = _obstacle(func, args, kwargs, self.device)
        if obstacle is not None:
            raise HostWaitError(f"{func}: {obstacle}")
        return func(*args, **kwargs)


def _obstacle(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], device: torch.device) -> str | None:
    """Why an operation may not be in a captured step; None if it may."""
    packet = func.overloadpacket
    first = args[0] if args else None
    if packet in WAITING and _is_on(first, device):
        return "the host waits for the result"
    if packet == aten.bincount and _is_on(first, device) and device.type != "cpu":
        return "the host waits for the largest value"
    if packet in INDEXING and _is_on(first, device) and any(_is_mask(index) for index in args[1]):
        return "the host waits for the number of voxels that a boolean index selects"
    if packet == aten.lift_fresh and _is_on(first, device):
        return "a tensor is made from numbers on the host"
    if packet == aten.copy_ and _is_on(first, device) != _is_on(args[1], device):
        return "a copy between host and device"
    if packet == aten._to_copy and _is_on(first, device) != _will_be_on(first, kwargs, device):
        return "a copy between host and device"
    return None


def _is_on(value: Any, device: torch.device) -> bool:
    return isinstance(value, Tensor) and value.device.type == device.type


def _will_be_on(value: Any, kwargs: Mapping[str, Any], device: torch.device) -> bool:
    target = kwargs.get("device") or value.device
    return torch.device(target).type == device.type


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in MASK_TYPES


def describe_failure(error: BaseException) -> str:
    """The error and its line of code: `aten.nonzero.default: the host waits ... (in network.py, line 12)`.

    The line is the innermost one outside torch, jaxtyping and this package's engine: in a network or loss of the user,
    the one to change.
    """
    while error.__context__ is not None and not isinstance(error, HostWaitError):
        error = error.__context__  # the end of a failed capture fails too; the first error is the cause
    cause = str(error) if isinstance(error, HostWaitError) else spell_error(error)
    outside = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and not any(Path(frame.filename).is_relative_to(f) for f in PASSED_OVER)
    ]
    return f"{cause} (in {Path(outside[-1].filename).name}, line {outside[-1].lineno})" if outside else cause
