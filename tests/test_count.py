"""What `count` finds in networks that are small enough to count by hand."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from monai.networks.nets import SegResNet
from torch import nn
from torch.utils.checkpoint import checkpoint

from dlx.models.architectures.unet import unet, unet2
from dlx.models.inspection.count import SharedUse, count
from dlx.system.errors import SettingError

IMAGE = (3, 16, 16)
CONV = 3 * 3 * 3 * 3 + 3  # parameters of a 3x3 convolution from 3 to 3 channels


def conv():
    return nn.Conv2d(3, 3, 3, padding=1)


def shared(figures):
    return {use.module: (use.calls, use.parameters) for use in figures.shared}


def row(figures, name):
    return next(row for row in figures.rows if row.name == name)


class Given(nn.Module):
    """A network of the given parts whose forward is the given function."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


def test_the_six_blocks_that_unet_calls_twice_are_found():
    with torch.device("meta"):
        figures = count(unet(2, 4), (2, 64, 64))
    # 3x3 weights, bias, scale and shift of the batch norm
    sizes = [9 * a * b + 3 * b for a, b in [(64, 64), (128, 128), (256, 256), (512, 256), (256, 128), (128, 64)]]
    assert sorted(shared(figures).values()) == sorted((2, size) for size in sizes)
    assert figures.parameters == figures.trainable == 6_238_532
    assert figures.parameters_if_unshared == 6_238_532 + sum(sizes) == 8_563_652


def test_unet2_shares_nothing_and_costs_what_the_notes_say():
    with torch.device("meta"):
        figures = count(unet2(2, 4), (2, 64, 64))
    assert figures.shared == ()
    assert figures.parameters == figures.parameters_if_unshared == 8_563_652
    assert round(figures.forward_backward_flops / 1e9, 2) == 18.60
    assert figures.remarks == ()


def test_flops_and_rows_of_two_convolutions_worked_by_hand():
    model = nn.Sequential(conv(), nn.ReLU(), nn.Sequential(nn.Conv2d(3, 5, 1)))
    figures = count(model, IMAGE)
    first, second = 2 * 9 * 3 * 3 * 256, 2 * 3 * 5 * 256
    assert figures.flops == first + second
    # back: of the first to its weights only, of the second to weights and input
    assert figures.forward_backward_flops == 2 * first + 3 * second
    assert [(r.name, r.kind, r.own, r.parameters, r.calls, r.flops) for r in figures.rows] == [
        ("", "Sequential", 0, CONV + 20, 1, first + second),
        ("0", "Conv2d", CONV, CONV, 1, first),
        ("1", "ReLU", 0, 0, 1, 0),
        ("2", "Sequential", 0, 20, 1, second),
        ("2.0", "Conv2d", 20, 20, 1, second),
    ]
    assert row(figures, "2").shapes == ((1, 5, 16, 16),)


def test_a_module_under_two_names_is_found_under_both():
    block = conv()
    figures = count(nn.Sequential(block, nn.ReLU(), block), IMAGE)
    assert figures.shared == (SharedUse("0", 2, CONV, also=("2",)),)
    assert (figures.parameters, figures.parameters_if_unshared) == (CONV, 2 * CONV)
    assert row(figures, "0").calls == 2


def test_a_block_called_twice_is_named_and_not_its_parts():
    model = Given(lambda self, x: self.block(self.block(x)), block=nn.Sequential(conv(), nn.BatchNorm2d(3), nn.ReLU()))
    figures = count(model, IMAGE)
    assert shared(figures) == {"block": (2, CONV + 6)}
    assert figures.parameters_if_unshared == 2 * (CONV + 6)


def test_a_part_that_is_called_outside_its_block_too_is_named_beside_it():
    inner = conv()
    model = Given(lambda self, x: self.outer(self.outer(x)) + self.inner(x), outer=nn.Sequential(inner), inner=inner)
    figures = count(model, IMAGE)
    assert shared(figures) == {"outer": (2, CONV), "outer.0": (3, CONV)}
    assert figures.parameters_if_unshared == 3 * CONV


def test_a_cell_called_at_every_time_step_is_used_as_often():
    def run(self, x):
        state = x.new_zeros(len(x), 4)
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return state

    figures = count(Given(run, cell=nn.GRUCell(4, 4)), (5, 4))
    size = 2 * 3 * 4 * 4 + 2 * 3 * 4
    assert shared(figures) == {"cell": (5, size)}
    assert figures.parameters_if_unshared == 5 * size


def test_layers_without_parameters_are_not_shared():
    relu, pool, drop = nn.ReLU(), nn.MaxPool2d(2), nn.Dropout()
    assert count(nn.Sequential(conv(), relu, pool, drop, conv(), relu, pool, drop), IMAGE).shared == ()


def test_an_embedding_tied_to_the_last_layer_is_found():
    embedding, head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
    head.weight = embedding.weight
    figures = count(nn.Sequential(embedding, head), (torch.zeros(1, 3, dtype=torch.long),))
    assert figures.shared == (SharedUse("0.weight", 2, 40, also=("1.weight",)),)
    assert (figures.parameters, figures.parameters_if_unshared) == (40, 80)


def test_an_embedding_multiplied_with_again_is_found():
    model = Given(lambda self, x: self.embedding(x) @ self.embedding.weight.t(), embedding=nn.Embedding(10, 4))
    figures = count(model, (torch.zeros(1, 3, dtype=torch.long),))
    assert shared(figures) == {"embedding.weight": (2, 40)}


def test_a_weight_used_twice_in_functions_is_found():
    def run(self, x):
        return F.conv2d(F.conv2d(x, self.weight, padding=1), self.weight, padding=1)

    figures = count(Given(run, weight=nn.Parameter(torch.zeros(3, 3, 3, 3))), IMAGE)
    assert shared(figures) == {"weight": (2, 81)}
    assert figures.parameters_if_unshared == 162


def test_a_weight_standardised_before_one_convolution_is_used_once():
    def run(self, x):
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight)

    assert count(Given(run, weight=nn.Parameter(torch.zeros(3, 3, 3, 3))), IMAGE).shared == ()


@pytest.mark.parametrize(
    "parametrize", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm]
)
def test_a_parametrized_weight_is_used_once(parametrize):
    figures = count(parametrize(conv()), IMAGE)
    assert figures.shared == ()
    assert figures.parameters_if_unshared == figures.parameters
    assert figures.remarks == ()


def test_two_halves_of_a_weight_are_one_use_of_it():
    def run(self, x):
        first, second = self.weight.chunk(2)
        return x @ first.t() + x @ second.t()

    figures = count(Given(run, weight=nn.Parameter(torch.zeros(8, 4))), (5, 4))
    assert (figures.shared, figures.parameters_if_unshared) == ((), 32)


def test_a_learned_query_and_the_norm_it_passes_are_used_once():
    def run(self, x):
        query = self.norm(self.query[None].expand(len(x), -1, -1))
        query = query + self.attention(query, x, x)[0]
        return query + x.mean(1, keepdim=True)

    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    model = Given(run, query=nn.Parameter(torch.zeros(6, 8)), norm=nn.LayerNorm(8), attention=attention)
    assert count(model, (5, 8)).shared == ()


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.LSTM(4, 5, 2, batch_first=True), (7, 4)),
        (nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2), (5, 8)),
        (SegResNet(spatial_dims=2, init_filters=8, in_channels=2, out_channels=4), (2, 32, 32)),
    ],
    ids=["lstm", "transformer", "segresnet"],
)
def test_networks_without_shared_blocks_report_none(model, shape):
    figures = count(model, shape)
    assert figures.shared == ()
    assert figures.parameters_if_unshared == figures.parameters == sum(p.numel() for p in model.parameters())
    assert figures.remarks == ()


def test_frozen_parameters_are_not_trainable():
    model = nn.Sequential(conv(), conv())
    model[0].requires_grad_(False)
    figures = count(model, IMAGE)
    assert (figures.parameters, figures.trainable) == (2 * CONV, CONV)


def test_parameters_that_no_forward_pass_uses_are_counted_once_and_give_a_remark():
    figures = count(Given(lambda self, x: self.used(x), used=conv(), unused=conv()), IMAGE)
    assert figures.parameters == figures.parameters_if_unshared == 2 * CONV
    assert figures.remarks == (f"{CONV} parameters are not used in the forward pass",)


def test_checkpointed_layers_are_used_once():
    assert count(Given(lambda self, x: checkpoint(self.a, x, use_reentrant=False), a=conv()), IMAGE).shared == ()


def test_control_flow_that_depends_on_values_runs_with_values_and_gives_a_remark():
    def run(self, x):
        features = self.conv(x)
        return self.conv(features) if features.abs().sum() >= 0 else features

    model = Given(run, conv=conv())
    figures = count(model, IMAGE)
    assert shared(figures) == {"conv": (2, CONV)}
    assert figures.remarks[0].startswith("the forward pass ran on cpu")
    assert model.conv.weight.grad is None


def test_counting_leaves_the_network_as_it_was():
    def run(self, x):
        features = self.norm(self.conv(x))
        return features if features.sum().isfinite() else x  # depends on values: it runs on the network itself

    model = Given(run, conv=conv(), norm=nn.BatchNorm2d(3)).train()
    model.norm.eval()
    gradient = torch.ones_like(model.conv.weight)
    model.conv.weight.grad = gradient
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    count(model, IMAGE)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.conv.weight.grad is gradient
    assert torch.equal(gradient, torch.ones_like(gradient))
    assert model.training
    assert model.conv.training
    assert not model.norm.training
    assert not model._forward_hooks
    assert not model.conv._forward_pre_hooks
    assert torch.equal(torch.get_rng_state(), random_state)


def test_an_input_that_does_not_fit_is_one_line_with_shape_and_cause():
    with pytest.raises(SettingError, match=r"an input of 1x5x8x8: RuntimeError: .* 3 channels") as caught:
        count(conv(), (5, 8, 8))
    assert "\n" not in str(caught.value)


def test_outputs_of_any_form_are_followed():
    def run(self, x):
        return {"logits": [self.a(x)], "none": None}

    figures = count(Given(run, a=conv()), IMAGE)
    assert row(figures, "").shapes == ((1, 3, 16, 16),)
    assert figures.forward_backward_flops == 2 * figures.flops
