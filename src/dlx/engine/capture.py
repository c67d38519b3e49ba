"""Runs a training step directly, or captures it once as a CUDA graph and replays it, which avoids kernel launches.

A replay repeats the captured operations on the same memory. So everything that can differ between steps or trials is in
tensors that are changed in place: the batch number, the learning rates, dropout's p, weights and moments.

Neither class keeps a reference to the step: the step refers to its runner, and such a cycle would keep all weights and
voxels until Python's cycle collector runs.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dlx.engine.waits import WaitsRefused, describe_failure

WARM_UP_STEPS = 3  # before a capture: cuDNN selects algorithms, the allocator grows, the optimizer creates its moments
EMPTY_GRAPH = "The CUDA Graph is empty"  # how torch's warning begins

Run = Callable[[], None]


@runtime_checkable
class Graphs(Protocol):
    """The interface for making graphs; tests implement it on the CPU."""

    def warm_up(self, run: Run, times: int) -> None:
        """Runs what will be captured on a separate stream."""

    def capture(self, run: Run, noise: Sequence[torch.Generator]) -> Run:
        """Returns a function that replays `run`; each replay continues from the state of the generators."""

    def release(self, noise: Sequence[torch.Generator]) -> None:
        """Detaches generators from a failed capture; the caller restores their state."""


class CudaGraphs:
    """CUDA's graphs, each captured on its own stream (sharing one stream has failed: pytorch issue 193402)."""

    def warm_up(self, run: Run, times: int) -> None:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                for _ in range(times):
                    run()
        finally:  # after an error too: what already runs there must not overlap the restoring of weights and statistics
            torch.cuda.current_stream().wait_stream(stream)

    def capture(self, run: Run, noise: Sequence[torch.Generator]) -> Run:
        graph = torch.cuda.CUDAGraph()
        for generator in noise:
            graph.register_generator_state(
                generator
            )  # without it every replay would draw the same mask (pytorch issue 84614)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        # the outer `stream` puts the current one back if the capture fails, which torch.cuda.graph does not
        with warnings.catch_warnings(), torch.cuda.stream(torch.cuda.current_stream()):
            warnings.filterwarnings("error", message=EMPTY_GRAPH)  # its replay would train nothing
            # thread_local: the thread that writes checkpoints may go on meanwhile
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                run()
        replay: Run = graph.replay
        return replay

    def release(self, noise: Sequence[torch.Generator]) -> None:
        """After a failed capture its generators, including torch's default one, refuse to draw until they are reset."""
        torch.cuda.synchronize()
        default = torch.cuda.default_generators[torch.cuda.current_device()]
        for generator in (*noise, default):
            fresh = torch.Generator(generator.device)
            generator.graphsafe_set_state(fresh.graphsafe_get_state())


class Eager:
    """Runs the step directly, operation by operation."""

    num_captures = 0
    obstacle: str | None = None

    def begin_epoch(self) -> None:
        """Nothing needs to be done."""

    def __call__(self, run: Run) -> None:
        run()


class Captured:
    """The step captured at its first call and replayed from then on.

    The first call has the effect of one step: changes of weights, statistics, moments and noise by the warm-up are
    undone. The step is captured again if weights or moments are replaced by other tensors (after restoring a
    checkpoint), not if only their values change.

    A step that cannot be captured, such as one whose loss waits for the device, runs directly from then on, and
    `obstacle` gives the reason; with `is_required` the error is raised.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        noise: Sequence[torch.Generator],
        graphs: Graphs | None = None,
        *,
        is_required: bool = False,
    ) -> None:
        self.model, self.optimizer, self.noise = model, optimizer, noise
        self.graphs: Graphs = graphs or CudaGraphs()
        self.is_required = is_required
        self.num_captures = 0
        self.obstacle: str | None = None
        self._replay: Run | None = None
        self._captured_addresses: list[int] = []
        self._rates = [torch.zeros((), device=group["params"][0].device) for group in optimizer.param_groups]

    def begin_epoch(self) -> None:
        """Copies the scheduler's rates to the device; called once an epoch."""
        for rate, group in zip(self._rates, self.optimizer.param_groups, strict=True):
            rate.fill_(float(group["lr"]))
        if self._replay is not None and self._captured_addresses != self._addresses():
            self._replay = None

    def __call__(self, run: Run) -> None:
        if self._replay is None and self.obstacle is None:
            self._replay = self._capture(run)
        (self._replay or run)()

    def _capture(self, run: Run) -> Run | None:
        """The replay of a step, or None with `obstacle` set; in both cases the training state is restored."""
        state = _State(self.model, self.optimizer, self.noise)
        is_capturing = False
        try:
            with self._rates_on_device():
                self.graphs.warm_up(run, WARM_UP_STEPS - 1)
                with WaitsRefused(self._rates[0].device):  # a failed capture would leave more behind than an error here
                    self.graphs.warm_up(run, 1)
                state.restore()
                is_capturing = True
                replay = self.graphs.capture(run, self.noise)
        except Exception as error:
            if is_capturing:
                self.graphs.release(self.noise)
            state.restore(forget_new=True)
            if self.is_required:
                raise
            self.obstacle = describe_failure(error)
            return None
        self.num_captures += 1
        self._captured_addresses = self._addresses()
        return replay

    def _addresses(self) -> list[int]:
        moments = _moments(self.optimizer).values()
        return [tensor.data_ptr() for tensor in (*self.model.state_dict().values(), *moments)]

    @contextmanager
    def _rates_on_device(self) -> Iterator[None]:
        """The optimizer's rates are tensors within the context, and numbers for schedulers and checkpoints outside."""
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


class _State:
    """A copy of weights, statistics, moments and noise, which can be restored in place."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, noise: Sequence[torch.Generator]) -> None:
        self.model, self.optimizer = model, optimizer
        self.weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.moments = {key: tensor.clone() for key, tensor in _moments(optimizer).items()}
        self.noise = [(generator, generator.get_state()) for generator in noise]

    def restore(self, *, forget_new: bool = False) -> None:
        """Restores all values. Moments created since become zero; with `forget_new` they are removed."""
        for name, tensor in self.model.state_dict().items():
            tensor.copy_(self.weights[name])
        for key, tensor in _moments(self.optimizer).items():
            tensor.copy_(self.moments[key]) if key in self.moments else tensor.zero_()
        if forget_new and not self.moments:
            self.optimizer.state.clear()
        for generator, state in self.noise:
            generator.set_state(state)


def _moments(optimizer: torch.optim.Optimizer) -> dict[tuple[int, str], Tensor]:
    """The optimizer's tensors, by parameter and name."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        (index, name): entry
        for index, parameter in enumerate(parameters)
        for name, entry in optimizer.state.get(parameter, {}).items()
        if isinstance(entry, Tensor)
    }
