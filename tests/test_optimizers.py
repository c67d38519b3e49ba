"""Optimizers: steps worked by hand, for one weight w = 1 and given gradients; lr 0.1 and decay 0.5 throughout."""

import math

import pytest
import torch
from torch import nn

from dlx.settings import registry
from dlx.settings.binding import bind_arguments
from dlx.system.errors import SettingError
from dlx.training.optimizers import adam, adamw, sgd
from small import small_job, small_resolved

every_optimizer = pytest.mark.parametrize("name", sorted(registry.PARTS["optimizer"]))


def weight_after(factory, gradients, decay=0.0, decay_form=None, **args):
    args |= {"decay": decay_form} if decay_form else {}
    weight = nn.Parameter(torch.ones((), dtype=torch.float64))
    optimizer = factory([{"params": [weight], "lr": 0.1, "weight_decay": decay}], **args)
    for gradient in gradients:
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
    return weight.item()


def build(name, groups, **args):
    factory = registry.load("optimizer", name)
    return factory(groups, **bind_arguments("optimizer", name, factory, args))


def test_adam_adds_the_decay_to_the_gradient():
    # gradient 0.1 + 0.5 * 1 = 0.6; both moments, corrected, are 0.6 and 0.6^2
    assert weight_after(adam, [0.1], decay=0.5, eps=0.4) == pytest.approx(1 - 0.1 * 0.6 / (0.6 + 0.4), rel=1e-12)


def test_adamw_takes_the_decay_from_the_weight():
    expected = 1 * (1 - 0.1 * 0.5) - 0.1 * 0.6 / (0.6 + 0.4)
    assert weight_after(adamw, [0.6], decay=0.5, eps=0.4) == pytest.approx(expected, rel=1e-12)


def test_adam_with_decoupled_decay_is_adamw_bit_for_bit():
    gradients = [0.6, -0.2, 0.1]
    assert weight_after(adam, gradients, decay=0.5, decay_form="decoupled") == weight_after(adamw, gradients, decay=0.5)
    assert weight_after(adam, gradients, decay=0.5, decay_form="l2") == weight_after(adam, gradients, decay=0.5)


@pytest.mark.parametrize("factory", [adam, adamw])
def test_the_second_step_of_adam_uses_both_betas(factory):
    # First moment 0.5 * 0.3 + 0.5 * 0.2 = 0.25 over 1 - 0.5^2; second 0.8 * 0.072 + 0.2 * 0.04 over 1 - 0.8^2.
    first = 1 - 0.1 * 0.6 / (0.6 + 1e-8)
    expected = first - 0.1 * (0.25 / 0.75) / (math.sqrt(0.0656 / 0.36) + 1e-8)
    assert weight_after(factory, [0.6, 0.2], beta1=0.5, beta2=0.8) == pytest.approx(expected, rel=1e-12)


def test_plain_sgd_subtracts_the_rate_times_the_gradient_and_the_decay():
    assert weight_after(sgd, [0.6], decay=0.5, momentum=0.0) == pytest.approx(1 - 0.1 * (0.6 + 0.5), rel=1e-12)


def test_sgd_with_momentum_moves_along_the_velocity():
    # velocities 0.6 and 0.9 * 0.6 + 0.2 = 0.74
    expected = 1 - 0.1 * 0.6 - 0.1 * 0.74
    assert weight_after(sgd, [0.6, 0.2], nesterov=False) == pytest.approx(expected, rel=1e-12)


def test_nesterov_looks_one_step_ahead_along_the_velocity():
    # 0.6 + 0.9 * 0.6 = 1.14, then 0.2 + 0.9 * 0.74 = 0.866
    assert weight_after(sgd, [0.6, 0.2]) == pytest.approx(1 - 0.1 * 1.14 - 0.1 * 0.866, rel=1e-12)


@every_optimizer
def test_each_group_keeps_its_own_rate_and_decay(name):
    weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    groups = [
        {"name": "encoder", "params": [weights[0]], "lr": 0.1, "weight_decay": 0.0},
        {"name": "head", "params": [weights[1]], "lr": 0.0, "weight_decay": 0.3},
    ]
    optimizer = build(name, groups)
    for weight in weights:
        weight.grad = torch.ones(2)
    optimizer.step()
    assert [group["name"] for group in optimizer.param_groups] == ["encoder", "head"]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.3]
    assert (weights[0] < 1).all()
    assert (weights[1] == 1).all()


@every_optimizer
def test_the_step_is_fused_on_a_cpu_and_not_on_the_meta_device(name):
    for device, fused in (("cpu", True), ("meta", None)):
        weight = nn.Parameter(torch.ones(2, device=device))
        optimizer = build(name, [{"params": [weight], "lr": 0.1, "weight_decay": 0.0}])
        assert optimizer.param_groups[0]["fused"] is fused
        weight.grad = torch.ones(2, device=device)
        optimizer.step()


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("adam", {"beta1": 1.0}),
        ("adamw", {"beta2": -0.1}),
        ("adam", {"eps": 0.0}),
        ("sgd", {"momentum": 1.0}),
        ("sgd", {"beta1": 0.9}),
        ("adam", {"decay": "none"}),
    ],
)
def test_an_argument_that_does_not_fit_is_named(name, args):
    with pytest.raises(SettingError, match=next(iter(args))):
        build(name, [], **args)


def weights_after_one_step_without_gradient(**optimizer):
    job = small_job({"optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.5, **optimizer}})
    before = {name: value.detach().clone() for name, value in job.model.named_parameters()}
    for parameter in job.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    job.optimizer.step()
    return before, dict(job.model.named_parameters())


@pytest.mark.parametrize("decays", [True, False])
def test_norms_and_biases_decay_unless_they_are_left_out(decays):
    before, after = weights_after_one_step_without_gradient(decay_norms_and_biases=decays)
    assert any(name.endswith("norm.weight") for name in after)
    for name, value in after.items():
        # Nesterov's first step is 1.9 times the gradient, which is 0.5 w
        shrunk = 1 - 0.1 * 1.9 * 0.5 if decays or name.endswith(("conv.weight", "head.weight")) else 1.0
        torch.testing.assert_close(value.detach(), before[name] * shrunk)


def test_what_does_not_decay_keeps_the_name_and_the_rate_of_its_group():
    settings = {"decay_norms_and_biases": False, "group_lr": {"head": 0.5}, "weight_decay": 0.5}
    job = small_job({"optimizer": settings})
    groups = [(group["name"], group["lr"], group["weight_decay"]) for group in job.optimizer.param_groups]
    rates = {"encoder": 0.01, "decoder": 0.01, "head": 0.5}
    assert groups == [(name, rate, decay) for name, rate in rates.items() for decay in (0.5, 0.0)]
    chosen = [id(parameter) for group in job.optimizer.param_groups for parameter in group["params"]]
    assert sorted(chosen) == sorted(id(parameter) for parameter in job.model.parameters())


def test_older_trials_keep_their_names_and_the_new_forms_have_their_own():
    adam_id = small_resolved({"optimizer": {"name": "adam"}}).trial_id(0)
    assert small_resolved({"optimizer": {"name": "adam:decay=l2"}}).trial_id(0) == adam_id
    assert small_resolved({"optimizer": {"name": "adam:decay=decoupled"}}).trial_id(0) != adam_id
    settings = small_resolved().settings(0)["optimizer"]
    assert "decay_norms_and_biases" not in settings
    left_out = small_resolved({"optimizer": {"decay_norms_and_biases": False}}).settings(0)["optimizer"]
    assert left_out == settings | {"decay_norms_and_biases": False}
