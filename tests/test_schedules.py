"""Schedulers: the rates over 400 epochs worked by hand from the formulas, and properties that all must have."""

import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from dlx.engine.fit import TrialProgress, fit
from dlx.records.schema import EpochRecord
from dlx.settings import registry
from dlx.settings.binding import bind_arguments
from dlx.system.errors import SettingError
from dlx.training.schedules import FORMULAS, early_collapse, rates
from small import small_job

pytestmark = pytest.mark.usefixtures("without_figures")

LR, N = 0.02, 400
NAMES = sorted(registry.PARTS["scheduler"])
every_scheduler = pytest.mark.parametrize("name", NAMES)

# name, arguments, then {epoch: rate / LR}, epochs counted from 0
TABLES = [
    ("constant", {}, {0: 1, 200: 1, 399: 1}),
    ("linear-tail", {}, {0: 1, 280: 1, 281: 119 / 120, 340: 60 / 120, 398: 2 / 120, 399: 1 / 120}),
    ("linear-tail", {"epochs": 4}, {0: 1, 396: 1, 397: 0.75, 398: 0.5, 399: 0.25}),
    ("linear-tail", {"epochs": 400}, {0: 1, 1: 399 / 400, 200: 0.5, 399: 1 / 400}),
    ("exponential", {}, {0: 1, 133: 0.01 ** (1 / 3), 266: 0.01 ** (2 / 3), 399: 0.01}),
    ("exponential", {"gamma": 0.99}, {0: 1, 1: 0.99, 2: 0.9801, 100: 0.99**100, 399: 0.99**399}),
    ("step", {}, {0: 1, 119: 1, 120: 0.1, 239: 0.1, 240: 0.01, 359: 0.01, 360: 0.001, 399: 0.001}),
    ("step", {"step_size": 30, "gamma": 0.5}, {29: 1, 30: 0.5, 60: 0.25, 89: 0.25, 90: 0.125, 399: 0.5**13}),
    ("multistep", {}, {0: 1, 199: 1, 200: 0.1, 299: 0.1, 300: 0.01, 349: 0.01, 350: 0.001, 399: 0.001}),
    (
        "multistep",
        {"milestones": [200, 300, 320, 340, 400], "gamma": 0.5},
        {199: 1, 200: 0.5, 299: 0.5, 300: 0.25, 319: 0.25, 320: 0.125, 340: 0.0625, 399: 0.0625},
    ),
    ("cosine", {}, {0: 1, 100: (1 + math.sqrt(0.5)) / 2, 200: 0.5, 300: (1 - math.sqrt(0.5)) / 2}),
    ("cosine", {"t_max": 50}, {0: 1, 25: 0.5, 50: 0, 75: 0.5, 100: 1, 150: 0, 325: 0.5, 350: 0}),
    ("cosine", {"eta_min": 0.002}, {0: 1, 200: 0.55, 399: 0.1 + 0.45 * (1 + math.cos(math.pi * 399 / 400))}),
    ("poly", {}, {0: 1, 100: 0.75**0.9, 200: 0.5**0.9, 399: (1 / 400) ** 0.9}),
    ("poly", {"power": 2.0}, {0: 1, 100: 0.75**2, 200: 0.25, 399: (1 / 400) ** 2}),
    ("plateau", {}, {0: 1, 200: 1, 399: 1}),
    ("lambda", {}, {0: 0.1, 20: 0.55, 40: 1, 220: 0.5, 399: 1 / 360}),
    ("lambda", {"points": [[0.25, 0.5], [0.5, 1.0]]}, {0: 0.5, 100: 0.5, 150: 0.75, 200: 1, 399: 1}),
    ("lambda", {"points": [[0, 1], [0.5, 1], [0.5, 0.1], [1, 0.1]]}, {199: 1, 200: 0.1, 399: 0.1}),
]


def optimizer_of(**lr_of_group):
    groups = [{"name": name, "params": [nn.Parameter(torch.zeros(()))], "lr": lr} for name, lr in lr_of_group.items()]
    return torch.optim.SGD(groups)


def build(name, optimizer, num_epochs, **args):
    factory = registry.load("scheduler", name)
    return factory(optimizer, num_epochs, **bind_arguments("scheduler", name, factory, args))


def run(scheduler, optimizer, num_epochs, dice=0.0):
    """The rates of each group at each epoch; steps as a training loop does."""
    seen = []
    for _ in range(num_epochs):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        is_plateau = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
        scheduler.step(dice) if is_plateau else scheduler.step()
    return seen


@pytest.mark.parametrize(("name", "args", "expected"), TABLES)
def test_rates_are_those_of_the_formula(name, args, expected):
    seen = rates(name, args, LR, N)
    assert len(seen) == N
    assert {e: seen[e] / LR for e in expected} == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_every_scheduler_has_a_table_and_a_formula():
    assert {name for name, _, _ in TABLES} == set(NAMES) == set(FORMULAS)


@pytest.mark.parametrize(
    ("name", "args", "closed_form"),
    [
        ("exponential", {"gamma": 0.97}, lambda e: 0.97**e),
        ("step", {"step_size": 30, "gamma": 0.3}, lambda e: 0.3 ** (e // 30)),
        ("multistep", {"milestones": [200, 300]}, lambda e: 0.1 ** ((e >= 200) + (e >= 300))),
        ("cosine", {"t_max": 37}, lambda e: (1 + math.cos(math.pi * e / 37)) / 2),
        ("linear-tail", {"epochs": 120}, lambda e: min(1.0, (400 - e) / 120)),
    ],
)
def test_every_epoch_follows_the_formula(name, args, closed_form):
    expected = [LR * closed_form(e) for e in range(N)]
    assert rates(name, args, LR, N) == pytest.approx(expected, rel=1e-9, abs=1e-14)


@every_scheduler
def test_defaults_fit_a_run_of_any_length(name):
    for num_epochs in (1, 2, 3, 5, 10, 33):
        seen = rates(name, {}, LR, num_epochs)
        assert len(seen) == num_epochs
        assert seen[0] == pytest.approx(0.1 * LR if name == "lambda" else LR)
        assert all(0 < rate <= LR * (1 + 1e-9) for rate in seen)


@every_scheduler
def test_it_is_a_scheduler_of_torchs_own(name):
    assert type(build(name, optimizer_of(all=LR), N)).__module__ == "torch.optim.lr_scheduler"


@every_scheduler
def test_groups_with_rates_of_their_own_keep_their_ratio(name):
    optimizer = optimizer_of(encoder=0.01, head=0.04)
    for encoder, head in run(build(name, optimizer, 20), optimizer, 20):
        assert head == pytest.approx(4 * encoder)


@every_scheduler
def test_a_run_resumed_from_saved_state_sees_the_same_rates(name):
    optimizer = optimizer_of(all=LR)
    whole = run(build(name, optimizer, 20), optimizer, 20)
    optimizer = optimizer_of(all=LR)
    scheduler = build(name, optimizer, 20)
    first = run(scheduler, optimizer, 8)
    again = optimizer_of(all=LR)
    resumed = build(name, again, 20)
    again.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    assert first + run(resumed, again, 12) == whole


def test_a_tail_of_30_in_100_epochs_is_that_of_the_notes():
    seen = rates("linear-tail", {}, 2e-4, 100)
    assert seen == rates("linear-tail", {"epochs": 30}, 2e-4, 100)
    assert sum(rate == 2e-4 for rate in seen) == 71
    assert seen[99] == pytest.approx(2e-4 / 30)


def test_after_the_last_epoch_the_tail_has_reached_zero():
    optimizer = optimizer_of(all=LR)
    run(build("linear-tail", optimizer, 10), optimizer, 10)
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_a_linear_tail_can_be_drawn():
    drawn = rates("lambda", {"points": [[0, 1], [0.7, 1], [1, 0]]}, LR, 100)
    assert drawn == pytest.approx(rates("linear-tail", {"epochs": 30}, LR, 100), rel=1e-9)


def test_plateau_drops_once_dice_has_stood_still_for_longer_than_its_patience():
    optimizer = optimizer_of(all=1.0)
    scheduler = build("plateau", optimizer, N, patience=2, factor=0.5, threshold=0.01)
    seen = []
    # 0.608 is no rise above 0.6 by more than 0.01; the third epoch without one is one too many; 0.7 is one.
    for dice in (0.5, 0.6, 0.608, 0.6, 0.55, 0.7, 0.7, 0.7, 0.7):
        optimizer.step()
        scheduler.step(dice)
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_plateau_waits_a_tenth_of_the_run_by_default():
    optimizer = optimizer_of(all=1.0)
    seen = run(build("plateau", optimizer, 100), optimizer, 14, dice=0.5)
    # the first epoch sets the best, ten more are borne, the next one makes the drop, seen in the epoch after it
    assert [lr for (lr,) in seen] == [1.0] * 12 + [0.1] * 2


def test_each_parameter_group_can_follow_its_own_points():
    optimizer = optimizer_of(encoder=1.0, decoder=2.0, head=4.0)
    args = {"points": [[0, 1], [1, 0]], "groups": {"encoder": [[0, 0.1]], "head": [[0, 0], [0.5, 1]]}}
    seen = run(build("lambda", optimizer, 4, **args), optimizer, 4)
    assert seen == [[0.1, 2.0, 0.0], [0.1, 1.5, 2.0], [0.1, 1.0, 4.0], [0.1, 0.5, 4.0]]
    assert rates("lambda", args, 1.0, 4) == [1.0, 0.75, 0.5, 0.25]
    assert rates("lambda", args, 1.0, 4, group="head") == [0.0, 0.5, 1.0, 1.0]


def test_points_for_a_group_that_the_model_lacks_are_refused_with_the_nearest_name():
    with pytest.raises(SettingError, match="did you mean 'encoder'"):
        build("lambda", optimizer_of(encoder=1.0, head=1.0), 4, groups={"encoda": [[0, 1]]})


@pytest.mark.parametrize(
    ("name", "args", "complaint"),
    [
        ("linear-tail", {"epochs": 0}, "epochs"),
        ("linear-tail", {"epochs": 401}, "a tail of 401 epochs in a run of 400"),
        ("exponential", {"gamma": 0.0}, "gamma"),
        ("exponential", {"gamma": 1.1}, "gamma"),
        ("step", {"step_size": 0}, "step_size"),
        ("multistep", {"milestones": [0]}, "milestones"),
        ("cosine", {"eta_min": 0.03}, "eta_min 0.03 is above the learning rate 0.02"),
        ("plateau", {"factor": 1.0}, "factor"),
        ("lambda", {"points": [[0, 1], [0.5, 1], [0.4, 1]]}, "must not decrease"),
        ("lambda", {"points": [[0, -1]]}, "points"),
        ("lambda", {"points": [[1.5, 1]]}, "points"),
        ("lambda", {"points": []}, "points"),
        ("lambda", {"points": "lambda e: 0.9 ** e"}, "points"),
        ("constant", {"gamma": 0.5}, "takes no arguments"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(name, args, complaint):
    with pytest.raises(SettingError, match=complaint):
        rates(name, args, LR, N)


def test_a_gamma_of_0_01_is_seen_to_kill_the_rate_in_two_epochs():
    for num_epochs in (5, 100, 400):
        assert early_collapse(rates("exponential", {"gamma": 0.01}, LR, num_epochs)) == 2


@every_scheduler
def test_no_schedule_collapses_early_by_default(name):
    for num_epochs in (1, 2, 3, 10, 100, 400):
        assert early_collapse(rates(name, {}, LR, num_epochs)) is None


def test_a_fall_in_the_second_tenth_or_to_a_thousandth_is_no_collapse():
    assert early_collapse([1.0] * 10 + [1e-4] * 90) is None
    assert early_collapse([1.0] * 9 + [1e-4] * 91) == 9
    assert early_collapse([1.0] + [1e-3] * 99) is None


def test_a_rate_that_comes_back_has_not_collapsed():
    assert min(rates("cosine", {"t_max": 3}, LR, 100)[:10]) < 1e-3 * LR
    assert early_collapse(rates("cosine", {"t_max": 3}, LR, 100)) is None


# What training records, epoch by epoch over a whole run of 400, beside the formula worked by hand and torch's own
# scheduler; where ours is a LambdaLR, torch's is one of another class.


def notes_tail(epoch, tail=30):
    """The notes' rule as they do it: after each of the last epochs, lr / tail less."""
    rate = LR
    for earlier in range(epoch):
        if earlier >= N - tail:
            rate -= LR / tail
    return rate


def in_sequence(optimizer, milestone, *schedulers):
    return lr_scheduler.SequentialLR(optimizer, list(schedulers), milestones=[milestone])


RECORDED = [
    ("constant", {}, lambda _: LR, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    (
        "linear-tail",
        {"epochs": 30},
        notes_tail,
        lambda o: in_sequence(
            o, N - 30, lr_scheduler.ConstantLR(o, factor=1.0), lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=30)
        ),
    ),
    ("poly", {}, lambda e: LR * ((N - e) / N) ** 0.9, lambda o: lr_scheduler.PolynomialLR(o, N, 0.9)),
    ("exponential", {"gamma": 0.99}, lambda e: LR * 0.99**e, lambda o: lr_scheduler.ExponentialLR(o, 0.99)),
    (
        "step",
        {"step_size": 30, "gamma": 0.5},
        lambda e: LR * 0.5 ** (e // 30),
        lambda o: lr_scheduler.StepLR(o, 30, 0.5),
    ),
    (
        "multistep",
        {"milestones": [200, 300, 320, 340, 400], "gamma": 0.5},
        lambda e: LR * 0.5 ** sum(e >= milestone for milestone in (200, 300, 320, 340, 400)),
        lambda o: lr_scheduler.MultiStepLR(o, [200, 300, 320, 340, 400], 0.5),
    ),
    (
        "cosine",
        {},
        lambda e: LR * (1 + math.cos(math.pi * e / N)) / 2,
        lambda o: lr_scheduler.CosineAnnealingLR(o, N),
    ),
    (
        "cosine",
        {"t_max": 50, "eta_min": 0.001},
        lambda e: 0.001 + (LR - 0.001) * (1 + math.cos(math.pi * e / 50)) / 2,
        lambda o: lr_scheduler.CosineAnnealingLR(o, 50, 0.001),
    ),
    (
        "lambda",
        {},  # a tenth, up to all over the first tenth of the run, then down to nothing
        lambda e: LR * (0.1 + 0.9 * e / 40 if e < 40 else (N - e) / 360),
        lambda o: in_sequence(
            o,
            40,
            lr_scheduler.LinearLR(o, 0.1, 1.0, total_iters=40),
            lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=360),
        ),
    ),
]


def recorded(name, args, every=N):
    """The records of a run of 400 epochs of one step, with the smallest network that has two groups of parameters."""
    job = small_job(
        {
            "model": {"width": 1, "levels": 1},
            "scheduler": {"name": name, **args},
            "optimizer": {"name": "sgd", "lr": LR},
            "train": {"epochs": N, "steps_per_epoch": 1},
            "batch": {"size": 1, "patch_size_px": [8, 8]},
            "evaluate": {"every": every, "train_subset": 0},
        }
    )
    return [event.result for event in fit(job, TrialProgress()) if isinstance(event, EpochRecord)]


@pytest.mark.parametrize(("name", "args", "by_hand", "torchs"), RECORDED)
def test_recorded_rates_are_the_formulas_and_torchs(name, args, by_hand, torchs):
    seen = recorded(name, args)
    assert [result.epoch for result in seen] == list(range(1, N + 1))
    optimizer = optimizer_of(all=LR)
    reference = [lr for (lr,) in run(torchs(optimizer), optimizer, N)]
    groups = set(seen[0].lr)
    assert len(groups) > 1
    for group in groups:
        rates_seen = [result.lr[group] for result in seen]
        assert rates_seen == pytest.approx([by_hand(epoch) for epoch in range(N)], rel=1e-9, abs=1e-12)
        assert rates_seen == pytest.approx(reference, rel=1e-9, abs=1e-12)


@pytest.mark.slow
def test_recorded_rates_of_a_plateau_follow_the_recorded_dice_upwards():
    seen = recorded("plateau", {"factor": 0.5, "patience": 3, "threshold": 0.01}, every=1)
    optimizer = optimizer_of(all=LR)
    torchs = lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.5, patience=3, threshold=0.01, threshold_mode="abs"
    )
    rate, best, stood_still = LR, -math.inf, 0
    for result in seen:
        assert set(result.lr.values()) == {rate} == {optimizer.param_groups[0]["lr"]}
        optimizer.step()
        torchs.step(result.val_dice)
        best, stood_still = (result.val_dice, 0) if result.val_dice > best + 0.01 else (best, stood_still + 1)
        if stood_still > 3:
            # torch leaves a rate that would change by less than 1e-8
            rate, stood_still = (rate * 0.5 if rate * 0.5 > 1e-8 else rate), 0
    assert seen[-1].lr["encoder"] < LR


def test_every_scheduler_is_checked_as_it_is_recorded():
    assert {name for name, *_ in RECORDED} | {"plateau"} == set(NAMES)


def test_recorded_rates_of_parameter_groups_follow_rules_of_their_own():
    seen = recorded("lambda", {"points": [[0, 1], [1, 0]], "groups": {"encoder": [[0, 0.1]]}})
    for epoch, result in enumerate(seen):
        expected = {group: LR * (0.1 if group == "encoder" else (N - epoch) / N) for group in result.lr}
        assert result.lr == pytest.approx(expected, rel=1e-9)
