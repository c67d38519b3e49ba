"""What a network of the user's own does in a step that dlx has to know: whether it takes images that are channels last,
draws random numbers outside its dropout modules, ends in a softmax or sigmoid, or returns several tensors.

It runs on the CPU, on a small image; only `wrong_output` runs where its network is.
"""

import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dlx.models.layers.dropout import dropout_modules
from dlx.models.network import evaluation_mode
from dlx.models.own.geometry import why_wrong_shape
from dlx.models.own.network import OwnNetwork, first_tensor, num_tensors

# torch's last operation of outputs that are probabilities; a log-softmax is as good as logits
SQUASHING = {"_softmax": "a softmax", "sigmoid": "a sigmoid"}


@dataclass(frozen=True)
class Behaviour:
    """`random` and `random_in_evaluation` have a place for each operation that drew numbers: `my_net.py, line 14`.

    Without `has_gradient` the logits depend on no parameter that is trained.
    """

    is_channels_last: bool = True
    random: tuple[str, ...] = ()
    random_in_evaluation: tuple[str, ...] = ()
    ending: str | None = None  # what its output is squashed by
    num_tensors: int = 1
    has_gradient: bool = True


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes operations that draw random numbers, and the last operation."""

    def __init__(self, files: Collection[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.files = files
        self.random: dict[str, None] = {}
        self.last: tuple[Tensor, str] | None = None

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "overloadpacket", func).__name__
        if torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()) and "attention" not in name:
            self.random[_place(self.files) or name] = None
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.last = (leaf, name)
        return result


def behaviour_of(make: Callable[[bool], OwnNetwork], image: Sequence[int], files: Collection[str]) -> Behaviour | None:
    """The behaviour of a network with an image of this shape (B, C, *S); None if it does not run on the CPU.

    `make` builds it, channels last or not. `files` are the paths of the user's code.
    """
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        for is_channels_last in (True, False):
            try:
                model = make(is_channels_last)
                has_gradient = _train(model, image)
                return replace(_watched(model, image, files), has_gradient=has_gradient)
            except Exception:  # noqa: BLE001 - the user's code, which may be for a GPU alone
                continue
    return None


def wrong_output(model: OwnNetwork, image: Sequence[int], num_outputs: int, *, is_training: bool) -> str | None:
    """What is wrong with the output for images of this shape on the meta device; raises what the network raises."""
    with torch.device("meta"), torch.no_grad():
        if is_training:
            output = first_tensor(model.run(_zeros(image)))
        else:
            with evaluation_mode(model):
                output = first_tensor(model.run(_zeros(image)))
    return why_wrong_shape(output, image, num_outputs)


def _train(model: OwnNetwork, image: Sequence[int]) -> bool:
    """One forward and backward pass, as in training; False if the logits have no gradient."""
    logits: Tensor = model(_zeros(image))
    if logits.requires_grad:
        logits.sum().backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)
    return logits.requires_grad


def _watched(model: OwnNetwork, image: Sequence[int], files: Collection[str]) -> Behaviour:
    with _without_dropout(model), torch.no_grad():
        with _Watch(files) as training:
            output = model.run(_zeros(image))
        with evaluation_mode(model), _Watch(files) as evaluation:
            model.run(_zeros(image))
    last = training.last
    ending = SQUASHING.get(last[1]) if last is not None and last[0] is first_tensor(output) else None
    return Behaviour(
        model.is_channels_last, tuple(training.random), tuple(evaluation.random), ending, num_tensors(output)
    )


def _zeros(shape: Sequence[int]) -> Tensor:
    memory_format = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    return torch.zeros(*shape).contiguous(memory_format=memory_format)


@contextmanager
def _without_dropout(model: OwnNetwork) -> Iterator[None]:
    modules = dropout_modules(model)
    rates = [module.rate for module in modules]
    for module in modules:
        module.set_p(0.0)
    try:
        yield
    finally:
        for module, rate in zip(modules, rates, strict=True):
            module.set_p(rate)


def _place(files: Collection[str]) -> str | None:
    """The innermost line of the user's files that is being executed."""
    frames = [frame for frame in traceback.extract_stack() if frame.filename in files]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else None
