"""What goes on in a network in a training step: features, gradients and dead units by level, dropout's coins by place.

Read from the first step of an epoch as it trains; so the first epoch's are those of the first weights, and nothing is
computed twice. Nothing is drawn or changed by looking.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dlx.models.dropout import Dropout, dropout_places
from dlx.study.results import DropoutSample, LevelProbe


class Prober:
    """Watches the levels of a network in one step after the other; `levels` and `coins` are of the last one."""

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        self.features: dict[str, Float[Tensor, 4]] = {}
        self.norms: dict[str, Float[Tensor, 2]] = {}
        self.dropouts: dict[str, Dropout] = dropout_places(model)
        self.tosses: dict[str, tuple[int, Tensor]] = {}  # place -> how many coins, how many of them dropped

    def watch(self, run: Callable[[], None]) -> None:
        """Runs a training step and measures it, on its device."""
        self.features.clear()
        self.tosses.clear()
        self.model.watch = self._see
        for place, dropout in self.dropouts.items():
            dropout.watch = partial(self._count, place)
        try:
            run()
        finally:
            self.model.watch = None
            for dropout in self.dropouts.values():
                dropout.watch = None
        for level, parameters in self.model.level_parameters().items():
            gradients = [p.grad for p in parameters if p.grad is not None]
            self.norms[level] = torch.stack([_norm(gradients), _norm([p.detach() for p in parameters])])

    def _see(self, place: str, features: Tensor) -> None:
        """Keeps the figures of a block's features; of a level's blocks the last one is kept."""
        wide = features.detach().float()
        dead = (wide.flatten(2).amax((0, 2)) <= 0).float().mean()  # channels that are 0 throughout the batch
        level = place.partition("_")[0]
        self.features[level] = torch.stack([wide.abs().mean(), wide.mean(), wide.var(), dead])

    def _count(self, place: str, kept: Tensor) -> None:
        """Counts the coins of a call; of a place that is called twice, those of the last call."""
        self.tosses[place] = kept.numel(), (~kept).sum()

    def dropout_samples(self) -> dict[str, DropoutSample]:
        """By place, of the dropouts that are active; waits for the device."""
        known = [(place, *toss) for place, toss in self.tosses.items() if self.dropouts[place].is_active]
        return {
            place: DropoutSample(p=self.dropouts[place].rate, tossed=tossed, dropped=int(dropped))
            for place, tossed, dropped in known
        }

    def levels(self) -> dict[str, LevelProbe]:
        """By level, in the order of the forward pass; waits for the device."""
        found = {}
        for level, figures in self.features.items():
            mean_abs, mean, variance, dead = figures.tolist()
            gradient_norm, weight_norm = self.norms[level].tolist()
            found[level] = LevelProbe(
                mean_abs=mean_abs,
                mean=mean,
                variance=variance,
                dead_fraction=dead,
                gradient_norm=gradient_norm,
                weight_norm=weight_norm,
            )
        return found


def _norm(tensors: list[Tensor]) -> Tensor:
    return nn.utils.get_total_norm(tensors)
