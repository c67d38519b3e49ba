"""One training step, and the sums of an epoch that stay on the device until it ends."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlx.data.batches.augment import Augmenter
from dlx.data.batches.sampler import PatchSource
from dlx.engine.average import WeightAverage
from dlx.engine.capture import Captured, Eager
from dlx.engine.device import Compute
from dlx.engine.global_loss import GlobalLoss
from dlx.engine.group import Group
from dlx.engine.probes import Prober
from dlx.models.network import training_outputs
from dlx.scoring.outputs import Outputs
from dlx.scoring.overlap import mean_foreground, soft_dice_from_sums
from dlx.study.results import DropoutSample, LevelProbe


@dataclass(frozen=True)
class StepMeasurements:
    """The measurements of an epoch's steps, on the host."""

    losses: list[float]  # of each step, before its update
    soft_dice: float | None  # the mean over the batches; None if it is not measured
    are_weights_finite: bool  # after the last update, which no loss reflects
    levels: dict[str, LevelProbe] | None = None  # of the first step; None if it is not probed
    dropout_samples: dict[str, DropoutSample] | None = None  # likewise


class TrainStep:
    """Gathers a batch, runs it forward and backward, and updates the weights; nothing in it waits for the device.

    The loss of a network with deep supervision is of a list of logits, from the full size down.
    `work` runs the step: operation by operation, or captured.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        optimizer: torch.optim.Optimizer,
        source: PatchSource,
        compute: Compute,
        *,
        clip_grad_norm: float | None = None,
        average: WeightAverage | None = None,
        augmenter: Augmenter | None = None,
        with_soft_dice: bool = False,
        with_probes: bool = False,
        outputs: Outputs,
        group: Group | None = None,
    ) -> None:
        """With a `group` the batch is this rank's part of a global one, and gradients are means over the ranks."""
        self.group = group
        self.parallel = None if group is None else group.parallel(model)
        self.model, self.optimizer = model, optimizer
        self.loss = loss if group is None else GlobalLoss(loss, group)
        self.source, self.compute = source, compute
        self.clip_grad_norm, self.average, self.with_soft_dice = clip_grad_norm, average, with_soft_dice
        self.augmenter = augmenter
        self.losses = torch.zeros(source.num_steps, device=compute.device)
        self.outputs = outputs
        self.soft = torch.zeros(source.num_steps, 3, outputs.num_classes, device=compute.device)
        self.at = torch.zeros(1, dtype=torch.int64, device=compute.device)
        self.prober = Prober(model) if with_probes else None
        self.work: Eager | Captured = Eager()

    def __call__(self, step: int) -> None:
        """Trains on the epoch's batch number `step` (from 0)."""
        self.source.seek(step)
        self.at.fill_(step)
        if step == 0 and self.prober is not None:
            self.prober.measure(self.run)  # uncaptured: hooks do not run in a replay
        else:
            self.work(self.run)
        if self.average is not None:
            self.average.add_step()

    def run(self) -> None:
        """Runs the step on the batch that `seek` selected; it uses no number from the host, so it can be captured."""
        image, mask = self.source.gather()
        if self.augmenter is not None:
            image, mask = self.augmenter(image, mask, self.at)
        with self.compute.autocast():
            outputs = training_outputs(self.model, image) if self.parallel is None else self.parallel(image)
        logits = outputs if isinstance(outputs, Tensor) else outputs[0]
        loss = self.loss(outputs, mask)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_grad_norm)
        self.optimizer.step()
        self.losses.index_copy_(0, self.at, loss.detach().view(1))
        if self.with_soft_dice:
            probabilities = self.outputs.probabilities(logits.detach())
            self.soft.index_copy_(0, self.at, self.outputs.soft_sums(probabilities, mask)[None])

    def share_measurements(self, group: Group) -> None:
        """Makes losses and sums those of the global batches, and the running statistics of all ranks equal."""
        self.losses.copy_(group.mean(self.losses))
        if self.with_soft_dice:
            self.soft.copy_(group.total(self.soft))
        group.share_buffers([self.model] if self.average is None else [self.model, self.average.averaged])

    def measurements(self) -> StepMeasurements:
        """Copies the epoch's measurements to the host: the only device synchronisation of an epoch's steps."""
        if self.average is not None:
            self.average.finish_epoch()
        if self.group is not None:
            self.share_measurements(self.group)
        is_finite = torch.stack([weight.isfinite().all() for weight in self.model.parameters()]).all()
        *losses, flag = torch.cat([self.losses, is_finite.to(self.losses.dtype).view(1)]).tolist()
        soft_dice = None
        if self.with_soft_dice:
            dice = mean_foreground(soft_dice_from_sums(self.soft.cpu()))  # (steps,)
            soft_dice = float(dice.nanmean())
        levels = None if self.prober is None else self.prober.levels() or None  # none: a network of the user's own
        samples = None if self.prober is None else self.prober.dropout_samples()
        return StepMeasurements(
            losses, soft_dice, are_weights_finite=flag == 1.0, levels=levels, dropout_samples=samples
        )
