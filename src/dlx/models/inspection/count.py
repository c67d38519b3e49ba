"""The size of a network: parameters, parameters used more than once in a forward pass, floating-point operations.

The forward pass runs on the meta device, which computes shapes only, so it needs almost no memory or time.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from dlx.models.architectures.backbone import BackboneUNet, Classifier
from dlx.models.inspection.trace import Trace, reused_modules, reused_parameters, trace_forward
from dlx.models.network import evaluation_mode
from dlx.system.errors import SettingError

Shape = tuple[int, ...]
Item = TypeVar("Item")


@dataclass(frozen=True)
class SharedUse:
    """A module, or a parameter shared between modules, that one forward pass uses `calls` times.

    `parameters` counts it once; `also` are its other names in the network.
    """

    module: str
    calls: int
    parameters: int
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModuleRow:
    """One module. A shared parameter counts only where it is registered first, so that sums over rows are correct.

    `own` counts the parameters of the module itself, `parameters` also those of its children. `flops` is the sum over
    its calls; for a list of modules, which is never called, over its items. `shapes` are its distinct output shapes.
    """

    name: str
    kind: str
    own: int
    parameters: int
    shapes: tuple[Shape, ...]
    calls: int
    flops: int


@dataclass(frozen=True)
class ModelCount:
    """The counts of a network. FLOPs are those of convolutions, matrix products and attention; a multiply-add is 2.

    `layers` is the number of weighted layers by stage, for networks of `architectures/backbone.py`.
    `forward_backward_flops` includes the backward pass to the trainable parameters; None if the backward pass fails.
    """

    parameters: int
    trainable: int
    parameters_if_unshared: int
    shared: tuple[SharedUse, ...]
    rows: tuple[ModuleRow, ...]
    flops: int
    forward_backward_flops: int | None
    layers: dict[str, int] | None = None
    remarks: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, int]:
        """The parameters of each direct child of the network (backbone, neck, head ...) that has any."""
        return {row.name: row.parameters for row in self.rows if row.name and "." not in row.name and row.parameters}


def count(model: nn.Module, inputs: Shape | tuple[Tensor, ...]) -> ModelCount:
    """Counts a network by one forward pass in evaluation mode, on `inputs` or on a batch of one of the shape (C, *S).

    The pass runs on a copy on the meta device. If that fails (control flow that depends on values), it runs on the
    network itself, whose weights, gradients and mode do not change. Raises SettingError if the forward pass fails.
    """
    try:
        with torch.device("meta"):  # for what the forward pass itself makes
            return _measure(_meta_copy(model), _make_inputs(model, inputs, torch.device("meta")))
    except Exception as error:  # noqa: BLE001 - the network's own code, which may raise anything
        cause = error
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    if device.type != "meta":
        try:
            remark = f"the forward pass ran on {device} because it failed on the meta device: {_one_line(cause)}"
            return _measure(model, _make_inputs(model, inputs, device), remark)
        except Exception as error:  # noqa: BLE001 - as above
            cause = error
    shapes = " and ".join(spell_shape(tensor.shape) for tensor in _make_inputs(model, inputs, torch.device("meta")))
    raise SettingError(f"the forward pass failed for an input of {shapes}: {_one_line(cause)}") from cause


def spell_shape(shape: Sequence[int]) -> str:
    """`2x64x64`."""
    return "x".join(str(size) for size in shape)


def _measure(model: nn.Module, inputs: tuple[Tensor, ...], *remarks: str) -> ModelCount:
    with evaluation_mode(model), torch.enable_grad(), FlopCounterMode(display=False) as counter:
        with trace_forward(model, counter.get_total_flops) as trace:
            output = model(*inputs)
        flops = counter.get_total_flops()
        try:
            _go_back(model, output)
            forward_backward: int | None = counter.get_total_flops()
        except Exception as error:  # noqa: BLE001 - the network's own code, which may raise anything
            forward_backward = None
            remarks = (*remarks, f"the backward pass failed: {_one_line(error)}")
    parameters = list(model.parameters())  # after the pass: lazy ones have their shapes now
    unused = sum(parameter.numel() for parameter in parameters if parameter not in trace.uses)
    if unused:
        remarks = (*remarks, f"{unused:,} parameters are not used in the forward pass")
    return ModelCount(
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        parameters_if_unshared=sum(_uses_of(parameter, trace) for parameter in parameters),
        shared=_shared(model, trace),
        rows=_rows(model, trace),
        flops=flops,
        forward_backward_flops=forward_backward,
        layers=model.weighted_layers() if isinstance(model, Classifier | BackboneUNet) else None,
        remarks=remarks,
    )


def _uses_of(parameter: nn.Parameter, trace: Trace) -> int:
    """The number of parameters if each use had a copy of its own."""
    return max(parameter.numel(), sum(use.numel for use in trace.uses.get(parameter, ())))


def _shared(model: nn.Module, trace: Trace) -> tuple[SharedUse, ...]:
    modules = reused_modules(trace)
    parameters = reused_parameters(trace)
    found = []
    for module, names in _names(model.named_modules(remove_duplicate=False)):
        own = list(module.parameters())
        if module in modules and any(parameter in trace.uses for parameter in own):
            found.append(SharedUse(names[0], modules[module], sum(p.numel() for p in own), names[1:]))
    for parameter, names in _names(model.named_parameters(remove_duplicate=False)):
        if parameter in parameters:
            found.append(SharedUse(names[0], parameters[parameter], parameter.numel(), names[1:]))
    return tuple(found)


def _names(named: Iterator[tuple[str, Item]]) -> list[tuple[Item, tuple[str, ...]]]:
    names: dict[Item, tuple[str, ...]] = {}
    for name, item in named:
        names[item] = (*names.get(item, ()), name)
    return list(names.items())


def _rows(model: nn.Module, trace: Trace) -> tuple[ModuleRow, ...]:
    named = list(model.named_modules())
    own: dict[str, int] = {}
    seen: set[nn.Parameter] = set()
    for name, module in named:
        mine = [parameter for parameter in module.parameters(recurse=False) if parameter not in seen]
        seen.update(mine)
        own[name] = sum(parameter.numel() for parameter in mine)
    calls_of = trace.calls_of()
    totals, flops = dict(own), dict.fromkeys(own, 0)
    for name, module in reversed(named):  # what lies below comes first
        if module in calls_of:
            flops[name] = sum(call.cost for call in calls_of[module])
        if name:
            totals[_parent(name)] += totals[name]
            flops[_parent(name)] += flops[name]
    rows = []
    for name, module in named:
        calls = calls_of.get(module, [])
        shapes = tuple(dict.fromkeys(shape for call in calls for shape in call.shapes))
        rows.append(ModuleRow(name, type(module).__name__, own[name], totals[name], shapes, len(calls), flops[name]))
    return tuple(rows)


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _go_back(model: nn.Module, output: Any) -> None:
    """Runs the backward pass and restores the gradients afterwards."""
    results = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.requires_grad]
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    try:
        for parameter in gradients:
            parameter.grad = None  # else backward would add to it in place
        if results:
            torch.autograd.backward(results, [torch.ones_like(result) for result in results])
    finally:
        for parameter, gradient in gradients.items():
            parameter.grad = gradient


def _meta_copy(model: nn.Module) -> nn.Module:
    """A copy of the network with meta tensors, which copies no memory; the network itself if all are meta already."""
    tensors = [*model.parameters(), *model.buffers()]
    if tensors and all(tensor.is_meta for tensor in tensors):
        return model
    memo: dict[int, Any] = {}
    for tensor in tensors:
        if isinstance(tensor, nn.Parameter) and not is_lazy(tensor):
            memo[id(tensor)] = nn.Parameter(torch.empty_like(tensor, device="meta"), tensor.requires_grad)
        elif not is_lazy(tensor):
            memo[id(tensor)] = torch.empty_like(tensor, device="meta")
    return copy.deepcopy(model, memo).to("meta")


def _make_inputs(model: nn.Module, inputs: Shape | tuple[Tensor, ...], device: torch.device) -> tuple[Tensor, ...]:
    tensors = [item for item in inputs if isinstance(item, Tensor)]
    if tensors:
        return tuple(tensor.to(device) for tensor in tensors)
    floats = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    shape = [1, *(item for item in inputs if isinstance(item, int))]
    if device.type == "meta":
        return (torch.empty(shape, device=device, dtype=next(floats, torch.float32)),)
    generator = torch.Generator("cpu").manual_seed(0)
    return (torch.randn(shape, generator=generator, device="cpu").to(device, next(floats, torch.float32)),)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
