"""A training step run as it is, or captured once as a CUDA graph and replayed, which spares launching its kernels.

A replay repeats what was captured, on the same memory. So all that may differ from step to step or from trial to trial
lies in tensors that are changed in place: the batch's number, the learning rates, dropout's p, weights and moments.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

WARM_UP_STEPS = 3  # before a capture: cuDNN chooses, the allocator grows, the optimiser makes its moments


@runtime_checkable
class Graphs(Protocol):
    """What makes graphs; the CPU's counterpart in the tests runs what it was given."""

    def warm_up(self, run: Callable[[], None], times: int) -> None:
        """Runs what will be captured, on a stream beside the current one."""

    def capture(self, run: Callable[[], None], noise: Sequence[torch.Generator]) -> Callable[[], None]:
        """What replays `run`; draws from each generator go on from its state at each replay."""


class CudaGraphs:
    """CUDA's own, each captured on a stream of its own (one for all of them has failed: pytorch issue 193402)."""

    def warm_up(self, run: Callable[[], None], times: int) -> None:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(times):
                run()
        torch.cuda.current_stream().wait_stream(stream)

    def capture(self, run: Callable[[], None], noise: Sequence[torch.Generator]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        for generator in noise:
            graph.register_generator_state(
                generator
            )  # without it every replay would draw the same mask (pytorch issue 84614)
        # thread_local: the thread that writes checkpoints may go on meanwhile
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            run()
        replay: Callable[[], None] = graph.replay
        return replay


class Eager:
    """The step as it is, operation by operation."""

    num_captures = 0

    def __init__(self, run: Callable[[], None]) -> None:
        self.run = run

    def begin_epoch(self) -> None:
        """Nothing needs to be done."""

    def __call__(self) -> None:
        self.run()


class Captured:
    """The step captured at its first call and replayed from then on.

    Weights, statistics, moments and noise after the first call are those of one step from where they were: the
    warm-up's are taken back. Captured anew where weights or moments were replaced by other tensors (a checkpoint was
    restored), never for other values in them.
    """

    def __init__(
        self,
        run: Callable[[], None],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        noise: Sequence[torch.Generator],
        graphs: Graphs | None = None,
    ) -> None:
        self.run, self.model, self.optimizer, self.noise = run, model, optimizer, noise
        self.graphs: Graphs = graphs or CudaGraphs()
        self.num_captures = 0
        self._replay: Callable[[], None] | None = None
        self._places: list[int] = []
        self._rates = [_rate_tensor(group) for group in optimizer.param_groups]

    def begin_epoch(self) -> None:
        """Hands the scheduler's rates to the device; once an epoch."""
        for rate, group in zip(self._rates, self.optimizer.param_groups, strict=True):
            rate.fill_(float(group["lr"]))
        if self._replay is not None and self._places != self._addresses():
            self._replay = None

    def __call__(self) -> None:
        if self._replay is None:
            self._replay = self._capture()
        self._replay()

    def _capture(self) -> Callable[[], None]:
        with self._rates_on_device():
            weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            moments = {key: tensor.clone() for key, tensor in self._moments().items()}
            noise = [generator.get_state() for generator in self.noise]
            self.graphs.warm_up(self.run, WARM_UP_STEPS)
            for name, tensor in self.model.state_dict().items():
                tensor.copy_(weights[name])
            for key, tensor in self._moments().items():
                tensor.copy_(moments[key]) if key in moments else tensor.zero_()
            for generator, state in zip(self.noise, noise, strict=True):
                generator.set_state(state)
            replay = self.graphs.capture(self.run, self.noise)
        self.num_captures += 1
        self._places = self._addresses()
        return replay

    def _moments(self) -> dict[tuple[int, str], Tensor]:
        """The optimiser's tensors, by parameter and name."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        return {
            (index, name): entry
            for index, parameter in enumerate(parameters)
            for name, entry in self.optimizer.state.get(parameter, {}).items()
            if isinstance(entry, Tensor)
        }

    def _addresses(self) -> list[int]:
        return [tensor.data_ptr() for tensor in (*self.model.state_dict().values(), *self._moments().values())]

    @contextmanager
    def _rates_on_device(self) -> Iterator[None]:
        """The optimiser's rates as tensors; outside they are the numbers that schedulers and checkpoints work with."""
        before = [(group["lr"], group.get("capturable")) for group in self.optimizer.param_groups]
        try:
            for rate, group in zip(self._rates, self.optimizer.param_groups, strict=True):
                group["lr"] = rate
                if "capturable" in group:
                    group["capturable"] = rate.is_cuda
            yield
        finally:
            for (rate, is_capturable), group in zip(before, self.optimizer.param_groups, strict=True):
                group["lr"] = rate
                if is_capturable is not None:
                    group["capturable"] = is_capturable


def _rate_tensor(group: dict[str, object]) -> Tensor:
    parameters = group["params"]
    assert isinstance(parameters, list)
    return torch.zeros((), device=parameters[0].device)
