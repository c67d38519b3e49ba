"""What every registered network must do, and what the notes say of their two."""

import inspect
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from dlx.models.architectures.unet import unet2
from dlx.models.layers.blocks import crop_to, make_norm, pad_to_multiple
from dlx.models.layers.dropout import dropout_modules
from dlx.settings import registry
from dlx.settings.binding import bind_arguments
from dlx.settings.spec import DropoutSpec
from dlx.system.errors import SettingError
from made_networks import fitting, image_for, make

# every registered network, with 2 channels, 4 classes and its own defaults
DOCUMENTED_PARAMETERS = {
    "unet": 6_238_532,
    "unet2": 8_563_652,
    "unet-resnet18": 14_411_588,
    "unet-resnet34": 24_519_748,
    "unet-resnet50": 35_555_524,
    "unet-resnet101": 54_547_652,
    "unet-resnet152": 70_191_300,
    "unet-vgg11": 14_685_764,
    "unet-vgg13": 14_870_660,
    "unet-vgg16": 20_182_916,
    "unet-vgg19": 25_495_172,
    "voxel": 9_156,
}

NAMES = sorted(registry.PARTS["model"])


def dims_of(name):
    """Each number of dimensions that a network takes, as arguments."""
    has_dims = "dims" in inspect.signature(registry.load("model", name)).parameters
    return [{"dims": 2}, {"dims": 3}] if has_dims else [{}]


CASES = [pytest.param(name, dims, id=f"{name}-{dims.get('dims', '')}d") for name in NAMES for dims in dims_of(name)]
every_network = pytest.mark.parametrize(("name", "dims"), CASES)
every_norm = pytest.mark.parametrize("norm", ["batch", "none", "instance", "group"])


@every_network
@pytest.mark.parametrize("sizes", [(16, 16, 16), (7, 21, 9), (1, 1, 1)], ids=str)
def test_logits_have_the_size_of_the_image(name, dims, sizes):
    model = make(name, dims).eval()
    sizes = sizes[: model.dims]
    assert model(image_for(model, *sizes)).shape == (2, 4, *sizes)


@every_network
def test_every_parameter_gets_a_finite_gradient(name, dims):
    model = make(name, dims)
    model(image_for(model, *fitting(model))).square().mean().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@every_network
def test_evaluation_gives_the_same_answer_twice_and_changes_nothing(name, dims):
    model = make(name, dims, DropoutSpec(p=0.5)).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    image = image_for(model, *fitting(model))
    assert torch.equal(model(image), model(image))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


@every_network
def test_in_evaluation_an_image_does_not_see_the_others_of_its_batch(name, dims):
    model = make(name, dims).eval()
    image = image_for(model, *fitting(model))
    torch.testing.assert_close(model(image)[1:], model(image[1:]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "args", [{"width": 0}, {"levels": 0}, {"levels": 8}, {"norm": "layer"}, {"dims": 4}, {"depth": 3}], ids=str
)
def test_settings_out_of_range_are_refused_by_name(name, args):
    with pytest.raises(SettingError, match=f"'{name}'.*{next(iter(args))}"):
        bind_arguments("model", name, registry.load("model", name), args)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_as_many_as_documented(name):
    with torch.device("meta"):
        model = registry.load("model", name)(2, 4)
    assert sum(parameter.numel() for parameter in model.parameters()) == DOCUMENTED_PARAMETERS[name]


@every_network
def test_each_parameter_is_in_exactly_one_group(name, dims):
    model = make(name, dims)
    groups = model.parameter_groups()
    assert list(groups) == ["encoder", "decoder", "head"]
    grouped = [id(parameter) for group in groups.values() for parameter in group]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in model.parameters()}


@every_network
def test_a_size_that_does_not_fit_is_padded_with_zeros_at_the_far_end(name, dims):
    model = make(name, dims).eval()
    size = max(3, 2 * model.stride - 3)
    image = image_for(model, *[size] * model.dims)
    padded = torch.zeros(2, 2, *[size + -size % model.stride] * model.dims)
    inside = (..., *[slice(0, size) for size in image.shape[2:]])
    padded[inside] = image
    assert torch.equal(model(image), model(padded)[inside])


@every_network
def test_the_same_seed_gives_the_same_weights(name, dims):
    first, second = make(name, dims).state_dict(), make(name, dims).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_network
def test_p_of_zero_equals_no_dropout_bit_for_bit(name, dims):
    without, at_zero = make(name, dims), make(name, dims, DropoutSpec(p=0.0))
    image = image_for(without, *fitting(without))
    assert torch.equal(without(image), at_zero(image))


@every_network
def test_it_runs_on_the_meta_device(name, dims):
    with torch.device("meta"):
        model = make(name, dims, DropoutSpec(p=0.1))
        logits = model(torch.empty(1, 2, *fitting(model)))
    assert logits.is_meta
    assert logits.shape == (1, 4, *fitting(model))


@every_norm
@every_network
def test_inputs_of_convolutions_stay_channels_last(name, dims, norm):
    model = make(name, dims, DropoutSpec(p=0.1), norm=norm)
    memory_format = torch.channels_last if model.dims == 2 else torch.channels_last_3d
    model = model.to(memory_format=memory_format)
    seen = []

    def note(module, args):
        seen.append(args[0].is_contiguous(memory_format=memory_format))

    def convert(module, args, output):
        # what torch's 3D convolution gives on a CPU is in the other format
        return output.contiguous(memory_format=memory_format)

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            module.register_forward_pre_hook(note)
            if isinstance(module, nn.Conv3d):
                module.register_forward_hook(convert)
    sizes = [max(3, 2 * model.stride - 1)] * model.dims  # so that padding and cropping are in it
    model(image_for(model, *sizes, batch=1).to(memory_format=memory_format))
    assert seen
    assert all(seen)


@every_network
def test_a_kind_of_dropout_for_other_dimensions_is_refused(name, dims):
    wrong, right = ("dropout3d", "dropout2d") if dims.get("dims", 2) == 2 else ("dropout2d", "dropout3d")
    with pytest.raises(SettingError, match=f"'{wrong}' does not fit .* use {right}"):
        make(name, dims, DropoutSpec(kind=wrong))
    assert dropout_modules(make(name, dims, DropoutSpec(kind=right)))


@every_network
def test_an_image_without_a_batch_is_refused(name, dims):
    model = make(name, dims)
    with pytest.raises(ValueError, match=f"{model.dims}D network takes"):
        model(torch.zeros(2, *[8] * model.dims))


@every_norm
@every_network
def test_every_norm_trains(name, dims, norm):
    model = make(name, dims, norm=norm, width=6)
    logits = model(image_for(model, *fitting(model)))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@every_network
def test_an_embedding_is_the_mean_of_each_of_the_deepest_features(name, dims):
    model = make(name, dims).eval()
    image = image_for(model, *fitting(model))
    embedding = model.embed(image)
    assert embedding.ndim == 2
    assert len(embedding) == 2
    assert embedding.isfinite().all()
    torch.testing.assert_close(model.embed(image[1:]), embedding[1:], rtol=1e-4, atol=1e-6)


def test_the_embedding_of_unet2_worked_by_hand():
    model = unet2(2, 4, width=4, levels=2).eval()
    image = image_for(model, 8, 8)
    first, second = model.encoder
    deepest = second[1](second[0](F.max_pool2d(first[1](first[0](image)), 2)))
    torch.testing.assert_close(model.embed(image), deepest.mean((2, 3)))


@pytest.mark.parametrize(("channels", "most", "groups"), [(12, 4, 4), (12, 5, 4), (12, 12, 12), (6, 100, 6), (7, 2, 1)])
def test_group_norm_has_as_many_groups_as_asked_for_where_they_divide_the_channels(channels, most, groups):
    assert make_norm("group", channels, 2, most).num_groups == groups
    model = unet2(2, 4, width=channels, levels=1, norm="group", groups=most)
    assert model.encoder[0][0].norm.num_groups == groups


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (6, 6), (8, 8), (9, 3), (12, 6), (13, 1), (64, 8)])
def test_group_norm_has_the_most_groups_up_to_eight_that_divide_the_channels(channels, groups):
    assert make_norm("group", channels, 2).num_groups == groups


def test_padding_and_cropping_do_nothing_where_the_size_fits():
    image = torch.zeros(1, 2, 8, 16)
    assert pad_to_multiple(image, 8) is image
    assert crop_to(image, (8, 16)) is image


COMPILE = """
import inspect
import torch
from dlx.settings import registry
torch.manual_seed(0)
blocks_again = {"unet-resnet34", "unet-resnet101", "unet-resnet152", "unet-vgg13", "unet-vgg16", "unet-vgg19"}
for name in sorted(set(registry.PARTS["model"]) - blocks_again):  # more of the same blocks take minutes
    torch._dynamo.reset()
    has_width = "width" in inspect.signature(registry.load("model", name)).parameters
    model = registry.load("model", name)(2, 4, **({"width": 4} if has_width else {}))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    image = torch.randn(2, 2, 9, 13)
    model.eval()
    assert torch.equal(compiled(image), model(image)), name
"""


@pytest.mark.long
def test_every_network_compiles_to_one_graph():
    # in a process of its own, where no shapes are checked: the compiler cannot see through the checks
    subprocess.run([sys.executable, "-c", COMPILE], check=True)
