"""Dropout: which elements are dropped, from which noise, and that p = 0 is nothing at all."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.stats import binom
from torch import nn

from dlx.models.layers.dropout import WORDS, Dropout, dropout_modules, set_dropout

SHAPES = {"dropout": (2, 3, 8, 8), "dropout2d": (2, 3, 8, 8), "dropout3d": (2, 3, 4, 4, 4)}


def noise(seed=0):
    return torch.Generator().manual_seed(seed)


def make(p, kind="dropout", seed=0):
    dropout = Dropout(p, kind)
    dropout.generator = noise(seed)
    return dropout


@pytest.mark.parametrize("p", [0.002, 0.1, 0.5, 0.8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_that_is_dropped_is_a_binomial_draw(p, dtype):
    count = 100_000
    dropped = (make(p)(torch.ones(10, 10, count // 100, dtype=dtype)) == 0).double().mean()
    assert abs(dropped - p) < 3.3 * math.sqrt(p * (1 - p) / count)  # 99.9 % of draws


@pytest.mark.parametrize("kind", ["dropout2d", "dropout3d"])
def test_the_share_of_channels_that_is_dropped_is_a_binomial_draw(kind):
    count = 20_000
    dropped = (make(0.3, kind)(torch.ones(40, 500, 2, *SHAPES[kind][3:])) == 0).flatten(2).all(2).sum()
    low, high = binom.interval(0.999, count, 0.3)
    assert low <= dropped <= high


@pytest.mark.parametrize(("kind", "drawn"), [("dropout", (2, 3, 8, 8)), ("dropout2d", (2, 3, 1, 1))])
def test_what_has_noise_of_at_least_p_is_kept(kind, drawn):
    count = math.prod(drawn)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None, generator=noise(7))
    uniform = (words.view(torch.int16)[:count].reshape(drawn).double() + 2**15) / 2**16  # 0, 1 / 65536 ... below 1
    for p in (0.3, uniform[0, 0, 0, 0].item()):  # at noise equal to p it is kept, so that p = 0 drops nothing
        kept = make(p, kind, seed=7)(torch.ones(2, 3, 8, 8)) != 0
        assert torch.equal(kept, (uniform >= round(p * 2**16) / 2**16).expand(2, 3, 8, 8))


def test_each_of_the_four_coins_of_a_word_is_fair():
    dropped = (make(0.25)(torch.ones(1, 1, 100_000, 4)) == 0).double().mean((0, 1, 2))
    assert (dropped - 0.25).abs().max() < 3.9 * math.sqrt(0.25 * 0.75 / 100_000)  # 99.99 % of draws


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_values_mean_and_variance_are_those_of_torch_s_dropout(p):
    features = torch.ones(4, 10, 100, 50)
    torch.manual_seed(0)
    ours, theirs = make(p)(features), F.dropout(features, p)
    torch.testing.assert_close(ours.unique(), theirs.unique())
    variance = p / (1 - p)
    error = math.sqrt(variance / features.numel())
    assert ours.mean().item() == pytest.approx(theirs.mean().item(), abs=3.3 * math.sqrt(2) * error)
    assert ours.mean().item() == pytest.approx(1, abs=3.3 * error)
    assert ours.var().item() == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize("view", ["cropped", "channels last", "transposed"])
def test_any_memory_layout_loses_its_share(view):
    features = torch.ones(4, 8, 40, 40)
    features = {
        "cropped": features[:, 1:, 3:, :-2],
        "channels last": features.to(memory_format=torch.channels_last),
        "transposed": features.transpose(2, 3),
    }[view]
    dropped = (make(0.3)(features) == 0).double().mean()
    assert abs(dropped - 0.3) < 3.3 * math.sqrt(0.3 * 0.7 / features.numel())


@pytest.mark.parametrize("kind", SHAPES)
def test_bf16_features_lose_what_float32_features_lose(kind):
    features = torch.ones(SHAPES[kind])
    half = make(0.3, kind)(features.bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.equal(half != 0, make(0.3, kind)(features) != 0)


@pytest.mark.parametrize("kind", SHAPES)
def test_what_is_kept_is_scaled_to_keep_the_expectation(kind):
    features = torch.randn(SHAPES[kind])
    result = make(0.2, kind)(features)
    kept = result != 0
    assert kept.any()
    assert not kept.all()
    torch.testing.assert_close(result[kept], features[kept] * 1.25)


@pytest.mark.parametrize("kind", SHAPES)
def test_the_gradient_is_dropped_where_the_output_is(kind):
    features = torch.ones(SHAPES[kind], requires_grad=True)
    result = make(0.5, kind)(features)
    result.sum().backward()
    assert torch.equal(features.grad, result)  # 0 or 2, both


@pytest.mark.parametrize("kind", ["dropout2d", "dropout3d"])
def test_whole_channels_are_dropped(kind):
    result = make(0.5, kind)(torch.ones(8, 16, *SHAPES[kind][2:])).flatten(2)
    assert ((result == 0).all(2) | (result == 2).all(2)).all()
    assert 0 < (result[:, :, 0] == 0).sum() < 128


def test_single_elements_are_dropped():
    result = make(0.5)(torch.ones(2, 3, 8, 8)).flatten(2)
    assert not ((result == 0).all(2) | (result == 2).all(2)).any()


@pytest.mark.parametrize("kind", SHAPES)
def test_what_a_higher_rate_keeps_a_lower_one_keeps_too(kind):
    features = torch.ones(SHAPES[kind])
    kept = {p: make(p, kind, seed=7)(features) != 0 for p in (0.1, 0.5, 0.8)}
    assert (kept[0.5] <= kept[0.1]).all()
    assert (kept[0.8] <= kept[0.5]).all()
    assert kept[0.8].sum() < kept[0.5].sum() < kept[0.1].sum()


def test_the_same_noise_drops_the_same_and_other_noise_does_not():
    features = torch.ones(2, 3, 8, 8)
    assert torch.equal(make(0.5, seed=1)(features), make(0.5, seed=1)(features))
    assert not torch.equal(make(0.5, seed=1)(features), make(0.5, seed=2)(features))


def test_noise_comes_from_its_generator_and_from_no_other():
    before = torch.get_rng_state()
    make(0.5)(torch.ones(2, 3, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)
    Dropout(0.5)(torch.ones(2, 3, 8, 8))  # without one: torch's default
    assert not torch.equal(torch.get_rng_state(), before)


def test_p_of_zero_draws_nothing_and_gives_the_input_itself():
    dropout = make(0.0)
    before = dropout.generator.get_state()
    features = torch.randn(2, 3, 8, 8)
    assert dropout(features) is features
    assert torch.equal(dropout.generator.get_state(), before)
    assert not dropout.is_active


def test_evaluation_drops_and_draws_nothing():
    dropout = make(0.5).eval()
    before = dropout.generator.get_state()
    features = torch.randn(2, 3, 8, 8)
    assert dropout(features) is features
    assert torch.equal(dropout.generator.get_state(), before)


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, math.nan])
def test_a_rate_outside_zero_to_one_is_refused(p):
    with pytest.raises(ValueError, match="0 <= p < 1"):
        Dropout(p)
    dropout = Dropout(0.5)
    with pytest.raises(ValueError, match="0 <= p < 1"):
        dropout.set_p(p)
    assert dropout.p == 0.5


def test_the_rate_changes_in_place_and_is_not_saved():
    dropout = Dropout(0.1)
    address = dropout.p.data_ptr()
    dropout.set_p(0.5)
    assert dropout.p.data_ptr() == address
    assert dropout.p == 0.5
    assert dropout.state_dict() == {}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("is_channels_last", [False, True])
def test_the_memory_format_is_kept(kind, is_channels_last):
    features = torch.randn(SHAPES[kind])
    if is_channels_last:
        features = features.to(memory_format=torch.channels_last if features.ndim == 4 else torch.channels_last_3d)
    assert make(0.5, kind)(features).stride() == features.stride()


def test_under_autocast_the_dtype_of_the_features_is_kept():
    dropout = nn.Sequential(nn.Conv2d(2, 3, 1), make(0.5))
    with torch.autocast("cpu", torch.bfloat16):
        result = dropout(torch.ones(1, 2, 8, 8))
    assert result.dtype == torch.bfloat16


def test_set_dropout_reaches_every_dropout_of_a_model():
    first, second = Dropout(0.1), Dropout(0.2, "dropout2d")
    model = nn.Sequential(first, nn.ReLU(), nn.Sequential(second))
    assert dropout_modules(model) == [first, second]
    stream = noise()
    set_dropout(model, 0.6, stream)
    assert [module.rate for module in dropout_modules(model)] == [0.6, 0.6]
    assert all(module.generator is stream for module in dropout_modules(model))


def test_noise_in_words_of_32_bits_is_fair_and_repeats(monkeypatch):
    # as on Apple's `mps`, which refuses to draw 64 bits at once
    monkeypatch.setitem(WORDS, "cpu", WORDS["mps"])
    features = torch.ones(1, 1, 100_001, 4)
    kept = make(0.25)(features) != 0
    shares = (~kept).double().mean((0, 1, 2))
    assert (shares - 0.25).abs().max() < 3.9 * math.sqrt(0.25 * 0.75 / 100_000)  # 99.99 % of draws
    assert torch.equal(kept, make(0.25)(features) != 0)
    assert not torch.equal(kept, make(0.25, seed=1)(features) != 0)
