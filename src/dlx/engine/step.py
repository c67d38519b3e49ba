"""One training step, and the sums of an epoch that stay on the device until it ends."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dlx.data.sampler import PatchSource
from dlx.engine.device import Compute
from dlx.metrics import mean_foreground, soft_dice_from_sums, soft_overlap


class TrainStep:
    """Gathers a batch, runs it forward and backward, and updates the weights; nothing in it waits for the device."""

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        optimizer: torch.optim.Optimizer,
        source: PatchSource,
        compute: Compute,
        *,
        clip_grad_norm: float | None = None,
        ema: AveragedModel | None = None,
        with_soft_dice: bool = False,
        num_classes: int,
    ) -> None:
        self.model, self.loss, self.optimizer, self.source, self.compute = (
            model,
            loss,
            optimizer,
            source,
            compute,
        )
        self.clip_grad_norm, self.ema, self.with_soft_dice = clip_grad_norm, ema, with_soft_dice
        self.losses = torch.zeros(source.num_steps, device=compute.device)
        self.soft = torch.zeros(source.num_steps, 3, num_classes, device=compute.device)

    def __call__(self, step: int) -> None:
        """Trains on the epoch's batch number `step` (from 0)."""
        image, mask = self.source.batch(step)
        with self.compute.autocast():
            logits = self.model(image)
        loss = self.loss(logits, mask)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_grad_norm)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        self.losses[step] = loss.detach()
        if self.with_soft_dice:
            self.soft[step] = soft_overlap(logits.detach().float().softmax(1), mask)

    def figures(self) -> tuple[Tensor, float | None]:
        """The epoch's losses (steps,), and the mean over its batches of their soft Dice: the one wait of an epoch."""
        losses = self.losses.cpu()
        if not self.with_soft_dice:
            return losses, None
        dice = mean_foreground(soft_dice_from_sums(self.soft.cpu()))  # (steps,)
        return losses, float(dice.nanmean())
