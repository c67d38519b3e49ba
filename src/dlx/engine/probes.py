"""Measurements of a network during a training step: features, gradients and dead channels by level, dropout masks.

They are taken in the first step of an epoch while it trains, so nothing is computed twice, and the first epoch's belong
to the initial weights. Measuring draws no random numbers and changes no result.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dlx.models.layers.dropout import Dropout, named_dropouts
from dlx.study.results import DropoutSample, LevelProbe

# the order of `Prober.features` and `Prober.norms`
MEASURED = ("mean_abs", "mean", "variance", "dead_fraction", "gradient_norm", "weight_norm")


class Prober:
    """Measures the levels of a network in one step at a time; `levels` and `dropout_samples` describe the last one."""

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        self.features: dict[str, Float[Tensor, 4]] = {}
        self.norms: dict[str, Float[Tensor, 2]] = {}
        self.dropouts: dict[str, Dropout] = named_dropouts(model)
        self.draws: dict[str, tuple[int, Tensor]] = {}  # by dropout: how many draws, how many of them dropped

    def measure(self, run: Callable[[], None]) -> None:
        """Runs a training step and measures it, without waiting for the device."""
        self.features.clear()
        self.draws.clear()
        self.model.on_block = self._measure_block
        for name, dropout in self.dropouts.items():
            dropout.on_draw = partial(self._count_draws, name)
        try:
            run()
        finally:
            self.model.on_block = None
            for dropout in self.dropouts.values():
                dropout.on_draw = None
        for level, parameters in self.model.level_parameters().items():
            gradients = [p.grad for p in parameters if p.grad is not None]
            self.norms[level] = torch.stack([_norm(gradients), _norm([p.detach() for p in parameters])])

    def _measure_block(self, name: str, features: Tensor) -> None:
        """Measures the output of a block; the last block of a level overwrites the earlier ones."""
        wide = features.detach().float()
        dead = (wide.flatten(2).amax((0, 2)) <= 0).float().mean()  # channels that are 0 throughout the batch
        level = name.partition("_")[0]
        self.features[level] = torch.stack([wide.abs().mean(), wide.mean(), wide.var(), dead])

    def _count_draws(self, name: str, kept: Tensor) -> None:
        """Counts the draws of a call; a second call of the same dropout overwrites the first."""
        self.draws[name] = kept.numel(), (~kept).sum()

    def dropout_samples(self) -> dict[str, DropoutSample]:
        """The draws of each active dropout, by its module name; waits for the device."""
        return {
            name: DropoutSample(p=self.dropouts[name].rate, tossed=drawn, dropped=int(dropped))
            for name, (drawn, dropped) in self.draws.items()
            if self.dropouts[name].is_active
        }

    def levels(self) -> dict[str, LevelProbe]:
        """The measurements of each level, in the order of the forward pass; waits for the device."""
        found = {}
        for level, statistics in self.features.items():
            measured = [*statistics.tolist(), *self.norms[level].tolist()]
            found[level] = LevelProbe(**dict(zip(MEASURED, measured, strict=True)))
        return found


def _norm(tensors: list[Tensor]) -> Tensor:
    return nn.utils.get_total_norm(tensors)
