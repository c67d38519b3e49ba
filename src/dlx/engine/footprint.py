"""Measures the memory of tensors while code runs, also on the meta device, where nothing is allocated or computed."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dlx.models.network import evaluation_mode, training_outputs


class PeakBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors made in the context, as long as they live; `peak` is the maximum.

    Memory that an operation allocates and frees internally (the workspace of a convolution) is not counted.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage(), given)
        return result

    def _note(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key = storage._cdata
        if key in given or key in self._seen:  # a view of what was there, or a result in place
            return
        self._seen.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def forward_bytes(model: nn.Module, shape: tuple[int, ...]) -> int | None:
    """Bytes that a forward pass over images of this shape (B, C, *S) takes at its peak, in evaluation mode and float32,
    with the images and without the weights. The model is on the meta device; None if it cannot run there.
    """
    with evaluation_mode(model), torch.no_grad():
        return _peak_bytes(lambda: model(_images(shape)))


def training_bytes(model: nn.Module, loss: nn.Module, shape: tuple[int, ...]) -> int | None:
    """Bytes that a forward and backward pass over images of this shape (B, C, *S) takes at its peak, in float32, with
    images, masks, the logits of all levels and the gradients of the weights.

    Model and loss are on the meta device, and gradients are left unset; None if one of them cannot run there.
    """

    def run() -> None:
        mask = torch.empty(shape[0], *shape[2:], dtype=torch.int64, device="meta")
        loss(training_outputs(model, _images(shape)), mask).backward()

    try:
        with torch.enable_grad():
            return _peak_bytes(run)
    finally:
        model.zero_grad(set_to_none=True)


def _images(shape: tuple[int, ...]) -> Tensor:
    memory_format = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    return torch.empty(shape, device="meta").contiguous(memory_format=memory_format)


def _peak_bytes(run: Callable[[], object]) -> int | None:
    counter = PeakBytes()
    try:
        with counter:
            run()
    except Exception:  # noqa: BLE001 - a network that cannot run on the meta device may raise anything there
        return None
    return counter.peak
