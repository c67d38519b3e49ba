"""What one forward pass calls and uses: each call of a module, each use of a parameter, and which of them repeat.

`count.py` derives sizes and costs from it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary


@dataclass
class Call:
    """One call of a module: the index of the calling call (None: the network itself), output shapes and cost."""

    module: nn.Module
    parent: int | None
    shapes: tuple[tuple[int, ...], ...] = ()
    cost: int = 0


@dataclass(frozen=True)
class Use:
    """One use of a parameter: the index of the call, and the number of elements used (fewer for a slice)."""

    call: int
    numel: int


@dataclass
class Trace:
    """The calls and uses of one forward pass, in order."""

    calls: list[Call] = field(default_factory=list)
    uses: dict[nn.Parameter, list[Use]] = field(default_factory=lambda: defaultdict(list))
    stack: list[int] = field(default_factory=list)

    def calls_of(self) -> dict[nn.Module, list[Call]]:
        """The calls of each module that was called."""
        by_module: dict[nn.Module, list[Call]] = defaultdict(list)
        for call in self.calls:
            by_module[call.module].append(call)
        return by_module


@contextmanager
def trace_forward(model: nn.Module, cost_so_far: Callable[[], int] = lambda: 0) -> Iterator[Trace]:
    """Records the calls of `model` within the block; the cost of a call is the increase of `cost_so_far` during it."""
    trace = Trace()
    flow = _ParameterFlow(trace, cost_so_far)
    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(flow.enter, prepend=True, with_kwargs=True))
        handles.append(module.register_forward_hook(flow.leave))
    try:
        with flow:
            yield trace
    finally:
        for handle in handles:
            handle.remove()


def reused_modules(trace: Trace) -> dict[nn.Module, int]:
    """Modules that were called more than once, with the number of calls, except those whose caller explains it.

    So a block that is called twice is listed without its convolution. A module is listed if a single call of its caller
    calls it twice, or if two different modules call it.
    """
    reused = {}
    for module, calls in trace.calls_of().items():
        parents = [call.parent for call in calls]
        callers = {None if parent is None else trace.calls[parent].module for parent in parents}
        if len(set(parents)) < len(parents) or len(callers) > 1:
            reused[module] = len(calls)
    return reused


def reused_parameters(trace: Trace) -> dict[nn.Parameter, int]:
    """Parameters used more than once, with the number of uses, unless repeated calls of one module explain it.

    These are tied weights (one parameter in two modules) and weights that a forward pass uses twice in functions.
    Slices that together have at most as many elements as the parameter count as one use.
    """
    reused = {}
    for parameter, uses in trace.uses.items():
        modules = {trace.calls[use.call].module for use in uses}
        is_once_a_call = len({use.call for use in uses}) == len(uses)
        if sum(use.numel for use in uses) > parameter.numel() and not (len(modules) == 1 and is_once_a_call):
            reused[parameter] = len(uses)
    return reused


class _ParameterFlow(TorchFunctionMode):
    """Follows tensors through torch's functions and records where parameters are combined with data.

    Data are the tensors that enter a module, and everything computed from them. A tensor computed from parameters
    alone (a transpose, a slice, a standardised or low-rank weight) stands for these parameters until it is combined
    with data: that is the use. So a weight that is normalised in several operations before a convolution is used once.
    """

    def __init__(self, trace: Trace, cost_so_far: Callable[[], int]) -> None:
        super().__init__()
        self.trace, self.cost_so_far = trace, cost_so_far
        self.data = WeakTensorKeyDictionary()
        self.derived = WeakTensorKeyDictionary()  # tensor -> the parameters it was computed from

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        outputs = _tensors(result)
        if func is Tensor.__setitem__:
            outputs = [args[0]]
        if outputs:
            inputs = _tensors((args, kwargs))
            if any(tensor in self.data for tensor in inputs):
                self.note_uses(inputs)
                self.mark_data(outputs)
            else:
                self.mark_derived(inputs, outputs)
        return result

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A hook at the start of each module's call."""
        stack, calls = self.trace.stack, self.trace.calls
        calls.append(Call(module, stack[-1] if stack else None, cost=-self.cost_so_far()))
        stack.append(len(calls) - 1)
        # Tensors that enter a module are data from here on, learned queries included. Parameters themselves are not:
        # parametrizations pass them in to be transformed first.
        tensors = [tensor for tensor in _tensors((args, kwargs)) if not isinstance(tensor, nn.Parameter)]
        self.note_uses(tensors)
        self.mark_data(tensors)

    def leave(self, _module: nn.Module, _args: Any, output: Any) -> None:
        """A hook at the end of each module's call."""
        call = self.trace.calls[self.trace.stack[-1]]
        tensors = _tensors(output)
        call.shapes = tuple(tuple(tensor.shape) for tensor in tensors)
        call.cost += self.cost_so_far()
        if call.parent is None:
            self.note_uses(tensors)  # a parameter that is a result of the network is used by that
        self.mark_data([tensor for tensor in tensors if not self.sources(tensor)])
        self.trace.stack.pop()

    def sources(self, tensor: Tensor) -> frozenset[nn.Parameter]:
        """The parameters that a tensor stands for; none if it is data."""
        if isinstance(tensor, nn.Parameter):
            return frozenset([tensor])
        return self.derived[tensor] if tensor in self.derived and tensor not in self.data else frozenset()

    def note_uses(self, tensors: list[Tensor]) -> None:
        """Records one use of each parameter that the tensors stand for."""
        numel: dict[nn.Parameter, int] = {}
        for tensor in tensors:
            for parameter in self.sources(tensor):
                # an expanded weight has more elements than there are parameters
                numel[parameter] = max(numel.get(parameter, 0), min(tensor.numel(), parameter.numel()))
        for parameter, count in numel.items():
            self.trace.uses[parameter].append(Use(self.trace.stack[-1] if self.trace.stack else 0, count))

    def mark_data(self, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            if not isinstance(tensor, nn.Parameter):
                self.data[tensor] = True

    def mark_derived(self, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        sources = frozenset[nn.Parameter]().union(*(self.sources(tensor) for tensor in inputs))
        for tensor in outputs:
            if sources and not isinstance(tensor, nn.Parameter):
                self.derived[tensor] = sources


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
