"""The learning rate over the epochs: the schedulers that `registry.py` names, and the rates they set.

Each factory returns a scheduler of one of torch's classes. It is stepped once after each epoch, so the rate of epoch e
(from 0) is the rate after e steps; only the step of `plateau` takes an argument, the validation Dice. Defaults scale
with the length of the run, so that schedules can be compared at any length.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LRScheduler,
    MultiStepLR,
    ReduceLROnPlateau,
    StepLR,
)

from dlx.settings import registry
from dlx.settings.binding import bind_arguments
from dlx.system.errors import SettingError, nearest

# e: the epoch, from 0; N: the number of epochs; lr: the initial rate of the parameter group. Defaults follow the
# semicolon.
FORMULAS = {
    "constant": "lr",
    "linear-tail": "lr * min(1, (N - e) / epochs); epochs = 0.3 N",
    "exponential": "lr * gamma^e; at the end 0.01 lr",
    "step": "lr * gamma^floor(e / step_size); step_size = 0.3 N, gamma = 0.1",
    "multistep": "lr * gamma^(number of milestones <= e); milestones at N/2, 3N/4, 7N/8, gamma = 0.1",
    "cosine": "eta_min + (lr - eta_min) * (1 + cos(pi * e / t_max)) / 2; t_max = N, eta_min = 0",
    "poly": "lr * (1 - e / N)^power; power = 0.9",
    "plateau": "lr * factor^(times that Dice stood still for more than patience epochs); factor = 0.1, patience = N/10",
    "lambda": "lr * f(e / N), f linear between points, per group if given; 0.1, 1 at N/10, 0 at N",
}

Count = Annotated[int, Field(ge=1)]
Factor = Annotated[float, Field(gt=0.0, le=1.0, description="The factor on the rate at each drop.")]
Tail = Annotated[Count | None, Field(description="Epochs of the fall at the end; by default 30 % of all.")]
Decay = Annotated[
    Annotated[float, Field(gt=0.0, le=1.0)] | None,
    Field(description="The factor on the rate after every epoch; by default the last rate is 1 % of the first."),
]
StepSize = Annotated[Count | None, Field(description="Epochs between two drops; by default 30 % of all.")]
Milestones = Annotated[
    tuple[Count, ...] | None,
    Field(description="The epochs of the drops; by default at 1/2, 3/4 and 7/8 of all."),
]


def _check_rising(points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    if any(later[0] < earlier[0] for earlier, later in itertools.pairwise(points)):
        raise ValueError("the fractions of the run (the first of each pair) must not decrease")
    return points


# (share of the run, factor on the rate)
Point = tuple[Annotated[float, Field(ge=0.0, le=1.0)], Annotated[float, Field(ge=0.0)]]
Points = Annotated[tuple[Point, ...], Field(min_length=1), AfterValidator(_check_rising)]

# The default of `lambda` is the one shape that no other schedule here has: warm up, then fall.
WARM_UP_THEN_FALL = ((0.0, 0.1), (0.1, 1.0), (1.0, 0.0))


def constant(optimizer: Optimizer, num_epochs: int) -> LRScheduler:  # noqa: ARG001 (given to every factory)
    """The same rate throughout."""
    return LambdaLR(optimizer, lambda _epoch: 1.0)


def linear_tail(optimizer: Optimizer, num_epochs: int, *, epochs: Tail = None) -> LRScheduler:
    """Falls by lr / epochs after each of the last `epochs` (default: 30 % of all, at least 1), down to 0.

    The rate falls after the epoch: with 30 of 100, 71 epochs have the full rate and the 100th has lr / 30.
    SettingError if the tail is longer than the run.
    """
    tail = epochs if epochs is not None else max(1, round(0.3 * num_epochs))
    if tail > num_epochs:
        raise SettingError(f"scheduler 'linear-tail': a tail of {tail} epochs in a run of {num_epochs}")
    return LambdaLR(optimizer, lambda epoch: max(0.0, min(1.0, (num_epochs - epoch) / tail)))


def exponential(optimizer: Optimizer, num_epochs: int, *, gamma: Decay = None) -> LRScheduler:
    """Multiplies by `gamma` after every epoch; by default the last epoch has 1 % of the rate of the first."""
    return ExponentialLR(optimizer, gamma if gamma is not None else 0.01 ** (1.0 / max(1, num_epochs - 1)))


def step(optimizer: Optimizer, num_epochs: int, *, step_size: StepSize = None, gamma: Factor = 0.1) -> LRScheduler:
    """Multiplies by `gamma` after every `step_size` epochs (default: 30 % of all, at least 1: three drops)."""
    return StepLR(optimizer, step_size if step_size is not None else max(1, round(0.3 * num_epochs)), gamma)


def multistep(
    optimizer: Optimizer, num_epochs: int, *, milestones: Milestones = None, gamma: Factor = 0.1
) -> LRScheduler:
    """Multiplies by `gamma` at each of the `milestones`: epochs, by default 1/2, 3/4 and 7/8 of all.

    Their order does not matter; a milestone that is given twice counts twice.
    """
    if milestones is None:
        milestones = tuple(sorted({max(1, num_epochs * eighths // 8) for eighths in (4, 6, 7)}))
    return MultiStepLR(optimizer, milestones, gamma)


def cosine(
    optimizer: Optimizer,
    num_epochs: int,
    *,
    t_max: Annotated[Count | None, Field(description="Epochs from highest to lowest rate; by default all.")] = None,
    eta_min: Annotated[float, Field(ge=0.0, description="The lowest rate.")] = 0.0,
) -> LRScheduler:
    """Half a cosine from the rate down to `eta_min` (a rate, not a share) in `t_max` epochs (default: all).

    With a smaller `t_max` the rate oscillates with a period of 2 t_max. SettingError if `eta_min` is above the initial
    rate of a group.
    """
    lowest = min(float(group["lr"]) for group in optimizer.param_groups)
    if eta_min > lowest:
        raise SettingError(f"scheduler 'cosine': eta_min {eta_min:g} is above the learning rate {lowest:g}")
    return CosineAnnealingLR(optimizer, t_max if t_max is not None else num_epochs, eta_min)


def poly(
    optimizer: Optimizer,
    num_epochs: int,
    *,
    power: Annotated[float, Field(gt=0.0, description="The exponent: 1 is a straight line down to 0.")] = 0.9,
) -> LRScheduler:
    """Falls with the epochs that are left, to a power: nnU-Net's schedule (Isensee et al. 2021)."""
    return LambdaLR(optimizer, lambda epoch: max(0.0, 1 - epoch / num_epochs) ** power)


def plateau(
    optimizer: Optimizer,
    num_epochs: int,
    *,
    factor: Annotated[float, Field(gt=0.0, lt=1.0, description="The factor on the rate at each drop.")] = 0.1,
    patience: Annotated[
        Annotated[int, Field(ge=0)] | None,
        Field(description="Epochs without a better Dice before a drop; by default a tenth of all, at least 1."),
    ] = None,
    threshold: Annotated[float, Field(ge=0.0, description="By how much Dice must rise to be better.")] = 1e-3,
) -> ReduceLROnPlateau:
    """Multiplies by `factor` if Dice has not exceeded its best by `threshold` for more than `patience` epochs.

    `threshold` is a difference in Dice (0..1), not relative to the best; `patience` is by default a tenth of all
    epochs, at least 1. The mode is always "max": with torch's default every increase of Dice would count as failure.
    """
    patience = patience if patience is not None else max(1, num_epochs // 10)
    return ReduceLROnPlateau(
        optimizer, mode="max", factor=factor, patience=patience, threshold=threshold, threshold_mode="abs"
    )


def from_rule(
    optimizer: Optimizer,
    num_epochs: int,
    *,
    points: Annotated[
        Points, Field(description="[share of the run, factor on the rate] of each point, joined by straight lines.")
    ] = WARM_UP_THEN_FALL,
    groups: Annotated[
        dict[str, Points] | None, Field(description="Points of its own for a parameter group: encoder, decoder, head.")
    ] = None,
) -> LRScheduler:
    """A factor on the rate, interpolated linearly between `points` [fraction of the run, factor].

    [[0, 1], [0.7, 1], [1, 0]] is a linear tail of 30 %. Epoch e of N is at the fraction e / N. Before the first and
    after the last point the factor is constant; two points at the same fraction make a jump to the later one.
    `groups` gives parameter groups (encoder, decoder, head) their own points, for fine-tuning: {"encoder":
    [[0, 0.1]]}; the others follow `points`. SettingError for a group that no entry of `optimizer.param_groups` has as
    its "name".
    """
    own = groups or {}
    present = [str(group.get("name", "")) for group in optimizer.param_groups]
    for name in own:
        if name not in present:
            raise SettingError(f"scheduler 'lambda': no parameter group '{name}': {nearest(name, present)}")

    def follow(line: tuple[tuple[float, float], ...]) -> Callable[[int], float]:
        return lambda epoch: _height(line, epoch / num_epochs)

    return LambdaLR(optimizer, [follow(own.get(name, points)) for name in present])


def _height(line: tuple[tuple[float, float], ...], share: float) -> float:
    """The factor at a fraction of the run, interpolated between the points."""
    before = [point for point in line if point[0] <= share]
    if not before:
        return line[0][1]
    if len(before) == len(line):
        return line[-1][1]
    (left, low), (right, high) = before[-1], line[len(before)]
    return low + (high - low) * (share - left) / (right - left)


def rates(name: str, args: dict[str, Any], lr: float, num_epochs: int, group: str = "") -> list[float]:
    """The rate of each epoch under a registered scheduler, as torch sets it on a dummy optimizer.

    `plateau` keeps its initial rate, as while Dice rises. `group` names a parameter group, for `lambda` with `groups`;
    by default one that follows `points`. SettingError for invalid arguments.
    """
    factory = registry.load("scheduler", name)
    bound = bind_arguments("scheduler", name, factory, args)
    names = dict.fromkeys([group, *(bound.get("groups") or {})])
    made_up = [{"params": [torch.nn.Parameter(torch.zeros(()))], "lr": lr, "name": name} for name in names]
    optimizer = torch.optim.SGD(made_up)
    scheduler = factory(optimizer, num_epochs, **bound)
    shown = []
    for epoch in range(num_epochs):
        shown.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(float(epoch))
        else:
            scheduler.step()
    return shown


@dataclass(frozen=True)
class Replayed:
    """A schedule after some epochs: the rate of each parameter group in each of them and in the next one, by the
    group's name, and the scheduler's state.
    """

    rates: list[dict[str, float]]
    next_rates: list[float]  # of the groups in their order; two may have one name
    state: dict[str, Any]


def replay(
    name: str,
    args: dict[str, Any],
    groups: Sequence[tuple[str, float]],
    num_epochs: int,
    val_dice: Sequence[float | None],
) -> Replayed:
    """A registered scheduler for `num_epochs` epochs after as many as there are values of `val_dice`, which `plateau`
    reads. `groups`: the name and the first rate of each parameter group.
    """
    factory = registry.load("scheduler", name)
    made_up = [{"params": [torch.nn.Parameter(torch.zeros(()))], "lr": lr, "name": group} for group, lr in groups]
    optimizer = torch.optim.SGD(made_up)
    scheduler = factory(optimizer, num_epochs, **bind_arguments("scheduler", name, factory, args))
    rates = []
    for dice in val_dice:
        rates.append(_rates_of(optimizer))
        optimizer.step()
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()
        elif dice is not None:
            scheduler.step(dice)
    next_rates = [float(group["lr"]) for group in optimizer.param_groups]
    return Replayed([*rates, _rates_of(optimizer)], next_rates, scheduler.state_dict())


def _rates_of(optimizer: Optimizer) -> dict[str, float]:
    return {str(group["name"]): float(group["lr"]) for group in optimizer.param_groups}


def early_collapse(rates: list[float]) -> int | None:
    """The epoch from which the rate is practically zero, if that is too early; otherwise None.

    Too early: in the first tenth of the run or among the first three epochs. Practically zero: below a thousandth of
    the highest rate until the end, so a warm restart is no collapse. Exponential decay with gamma 0.01 is found at
    epoch 2.
    """
    alive = [epoch for epoch, rate in enumerate(rates) if rate >= 1e-3 * max(rates)]
    start = alive[-1] + 1 if alive else 0
    return start if start < min(max(len(rates) / 10, 3), len(rates)) else None
