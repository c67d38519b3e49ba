"""The exponential moving average of a network's weights (EMA), which validation uses instead of the weights."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class WeightAverage:
    """Averages a network's parameters and floating-point buffers after each step, in a few operations on the device.

    a <- decay a + (1 - decay) w; the first step copies w. torch's AveragedModel holds the average, but its update
    is not used because it copies to the device several times a step. Integers, such as a norm's count of batches, are
    not averaged: `finish_epoch` copies them.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.averaged = AveragedModel(model, use_buffers=True)
        self.averaged.n_averaged = self.averaged.n_averaged.cpu()  # read at each step, so the host must know it
        pairs = list(zip(_tensors(self.averaged.module), _tensors(model), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._integers = [pair for pair in pairs if not pair[0].is_floating_point()]

    def restart(self) -> None:
        """Starts a new average: the next step copies the weights."""
        self.averaged.n_averaged.zero_()

    @torch.no_grad()
    def add_step(self) -> None:
        """Adds the weights after a step to the average."""
        means, weights = [mean for mean, _ in self._floats], [now for _, now in self._floats]
        if self.averaged.n_averaged > 0:
            torch._foreach_lerp_(means, weights, 1.0 - self.decay)
        else:  # a copy, since a lerp of weight 1 would keep the NaN of an earlier trial that diverged
            torch._foreach_copy_(means, weights)
        self.averaged.n_averaged += 1

    @torch.no_grad()
    def finish_epoch(self) -> None:
        """Copies the integers, which are not averaged."""
        for mean, now in self._integers:
            mean.copy_(now)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*(parameter.detach() for parameter in model.parameters()), *model.buffers()]
