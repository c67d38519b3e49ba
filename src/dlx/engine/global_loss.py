"""The loss of a global batch of which each rank has a part."""

import torch
from torch import Tensor, nn

from dlx.engine.group import Group


class GlobalLoss(nn.Module):
    """A loss whose gradients, averaged over the ranks, are those of the loss of the global batch.

    A loss that says `is_mean_of_parts` is computed on the rank's part. Any other is computed on the logits and masks
    of all ranks: those of the others are constants, and the rank's own gradient is multiplied by the number of ranks,
    by which averaging divides it.
    """

    def __init__(self, loss: nn.Module, group: Group) -> None:
        super().__init__()
        self.loss, self.group = loss, group
        self.gathers = not getattr(loss, "is_mean_of_parts", False)

    def forward(self, outputs: Tensor | list[Tensor], mask: Tensor) -> Tensor:
        if self.gathers:
            outputs = (
                self._whole(outputs) if isinstance(outputs, Tensor) else [self._whole(logits) for logits in outputs]
            )
            mask = self.group.gather(mask)
        loss: Tensor = self.loss(outputs, mask)
        return loss

    def _whole(self, logits: Tensor) -> Tensor:
        """The logits of all ranks, of which only the own part has gradients."""
        size = self.group.ranks.size
        parts = list(self.group.gather(logits).chunk(size))
        own = logits.view_as(logits)
        if own.requires_grad:
            own.register_hook(lambda gradient: gradient * size)  # type: ignore[no-untyped-call]
        parts[self.group.ranks.rank] = own
        return torch.cat(parts)
