"""Initialisation: variances worked by hand from the formulas, and what every registered way must do."""

import math

import pytest
import torch
from torch import nn

from dlx.settings import registry
from dlx.settings.binding import bind_arguments
from dlx.system.errors import SettingError
from small import small_job, small_resolved

every_initializer = pytest.mark.parametrize("name", sorted(registry.PARTS["initializer"]))
ANEW = [name for name in sorted(registry.PARTS["initializer"]) if name != "torch"]

IN, OUT = 40, 60  # of a 3x3 convolution: 21,600 weights


def conv(name, seed=0, **args):
    torch.manual_seed(seed)
    layer = nn.Conv2d(IN, OUT, 3)
    factory = registry.load("initializer", name)
    factory(layer, **bind_arguments("initializer", name, factory, args))
    return layer


@pytest.mark.parametrize(
    ("name", "args", "variance"),
    [
        ("torch", {}, 1 / (3 * 9 * IN)),
        ("kaiming-normal", {}, 2 / (9 * IN)),
        ("kaiming-normal", {"mode": "fan_out"}, 2 / (9 * OUT)),
        ("kaiming-uniform", {}, 2 / (9 * IN)),
        ("kaiming-uniform", {"mode": "fan_out"}, 2 / (9 * OUT)),
        ("xavier-normal", {}, 2 / (9 * IN + 9 * OUT)),
        ("xavier-normal", {"gain": 2.0}, 4 * 2 / (9 * IN + 9 * OUT)),
        ("xavier-uniform", {}, 2 / (9 * IN + 9 * OUT)),
        ("orthogonal", {}, 2 / (9 * IN)),  # rows of 9 IN values whose squares add up to gain^2
        ("orthogonal", {"gain": 1.0}, 1 / (9 * IN)),
    ],
)
def test_the_variance_of_the_weights_is_that_of_the_formula(name, args, variance):
    weight = conv(name, **args).weight
    # the standard error of a variance is variance * sqrt(2 / n) for normal values, and less for uniform ones
    assert weight.var().item() == pytest.approx(variance, rel=3.3 * math.sqrt(2 / weight.numel()))
    assert abs(weight.mean().item()) < 3.3 * math.sqrt(variance / weight.numel())


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
def test_a_transposed_convolution_that_halves_the_channels_gets_half_the_variance(mode):
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(64, 32, 2, 2, bias=False)
    registry.load("initializer", "kaiming-normal")(layer, mode=mode)
    needed = {"fan_in": 2 / 64, "fan_out": 2 / (4 * 32)}[mode]  # products in an output pixel, in an input's gradient
    weight = layer.weight
    assert weight.var().item() == pytest.approx(needed / 2, rel=3.3 * math.sqrt(2 / weight.numel()))


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("torch", 1 / math.sqrt(9 * IN)),
        ("kaiming-uniform", math.sqrt(6 / (9 * IN))),
        ("xavier-uniform", math.sqrt(6 / (9 * IN + 9 * OUT))),
    ],
)
def test_uniform_weights_fill_their_interval(name, bound):
    largest = conv(name).weight.abs().max().item()
    assert 0.999 * bound < largest <= bound


def test_normal_weights_are_normal():
    weight = conv("kaiming-normal").weight / math.sqrt(2 / (9 * IN))
    within = (weight.abs() < 1).double().mean().item()
    assert within == pytest.approx(math.erf(math.sqrt(0.5)), abs=3.3 * 0.5 / math.sqrt(weight.numel()))


def test_rows_of_orthogonal_weights_are_orthogonal():
    rows = conv("orthogonal").weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, 2 * torch.eye(OUT), rtol=0, atol=1e-5)


def test_torch_leaves_every_bit_as_torch_made_it():
    torch.manual_seed(0)
    plain = nn.Conv2d(IN, OUT, 3)
    layer = conv("torch")
    assert torch.equal(layer.weight, plain.weight)
    assert torch.equal(layer.bias, plain.bias)
    assert torch.equal(torch.rand(3), (torch.manual_seed(0), nn.Conv2d(IN, OUT, 3), torch.rand(3))[2])


@pytest.mark.parametrize("name", ANEW)
def test_biases_are_zero_and_norms_untouched(name):
    model = nn.Sequential(nn.Conv3d(2, 3, 3), nn.BatchNorm3d(3), nn.Linear(4, 5))
    registry.load("initializer", name)(model)
    assert not model[0].bias.any()
    assert not model[2].bias.any()
    assert (model[1].weight == 1).all()


@every_initializer
def test_the_seed_decides_the_weights(name):
    assert torch.equal(conv(name, seed=1).weight, conv(name, seed=1).weight)
    assert not torch.equal(conv(name, seed=1).weight, conv(name, seed=2).weight)


@every_initializer
def test_a_trial_takes_its_weights_from_their_stream(name):
    before = torch.get_rng_state()
    weights = [small_job({"init": name}, seed=seed).model.head.weight for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert weights[0].isfinite().all()


@pytest.mark.parametrize("name", ANEW)
def test_a_trial_is_named_by_its_initialisation(name):
    assert small_resolved({"init": name}).trial_id(0) != small_resolved().trial_id(0)


def test_the_default_is_torch_and_leaves_the_names_of_older_trials():
    resolved = small_resolved({"init": "torch"})
    assert resolved.trial_id(0) == small_resolved().trial_id(0)
    assert "init" not in resolved.settings(0)
    assert small_resolved({"init": "orthogonal:gain=1"}).settings(0)["init"] == {
        "name": "orthogonal",
        "args": {"gain": 1.0},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kaiming", "unknown initializer 'kaiming': did you mean 'kaiming-"),
        ("kaiming-normal:mode=fan", "mode"),
        ("orthogonal:gain=0", "gain"),
        ("torch:gain=1", "takes no arguments"),
    ],
)
def test_what_does_not_exist_is_refused(text, message):
    with pytest.raises(SettingError, match=message):
        small_resolved({"init": text})
