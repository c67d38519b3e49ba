"""A network of the user's own as the engine needs it: with dims, stride, groups of parameters, and dlx's dropout.

Where its geometry is found is in `geometry.py`, what else it does in a forward pass in `behaviour.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from dlx.models.layers.blocks import Dims, check_axes, crop_to, pad_to_multiple
from dlx.models.layers.dropout import Dropout, Kind
from dlx.models.network import evaluation_mode
from dlx.settings.own.arguments import Sizes, check_arguments
from dlx.settings.own.code import printing_to_stderr, target_of
from dlx.settings.part import Part
from dlx.settings.spec import DropoutSpec
from dlx.system.errors import SettingError

# torch's dropouts that dlx can stand for; all but the first drop whole channels, whatever the number of axes
KINDS: dict[type[nn.Module], Kind] = {
    nn.Dropout: "dropout",
    nn.Dropout1d: "dropout2d",
    nn.Dropout2d: "dropout2d",
    nn.Dropout3d: "dropout3d",
}
MIN_SIZE = 32  # of the images from which lazy layers learn their sizes


class OwnNetwork(nn.Module):
    """(B, C, *S) -> logits (B, K, *S) for any size S: pads images for the network, and crops its logits.

    If the network returns several tensors, the first is taken. Its dropout modules are replaced by dlx's, so that their
    noise is paired and their rate can be set; what else it draws comes from torch's default generator, which the engine
    seeds for it. ValueError if its logits are not of the image's size.
    """

    deep_supervision = 0
    draws_from_default_generator = True

    def __init__(self, network: nn.Module, *, dims: Dims, stride: int, is_channels_last: bool = True) -> None:
        super().__init__()
        self.network = network
        self.dims, self.stride, self.is_channels_last = dims, stride, is_channels_last
        self.on_block: Callable[[str, Tensor], None] | None = None  # as of `Network`; nothing calls it
        replace_dropouts(network)

    def forward(self, image: Float[Tensor, "B C *S"]) -> Float[Tensor, "B K *S"]:
        check_axes(image, self.dims)
        padded = pad_to_multiple(image, self.stride)
        logits = first_tensor(self.run(padded))
        if logits.shape[2:] != padded.shape[2:]:
            raise ValueError(f"the network gives {spell(logits.shape)} for an image of {spell(padded.shape)}")
        if logits.dtype is torch.float64:  # what is summed over slices and windows is float32
            logits = logits.float()
        return crop_to(logits, tuple(image.shape[2:]))

    def run(self, image: Float[Tensor, "B C *S"]) -> Any:
        """What the user's network returns for an image of a size that it takes."""
        try:
            return self.network(image if self.is_channels_last else image.contiguous())
        except SystemExit as end:
            raise error_of_exit(end) from end

    def forward_levels(self, image: Float[Tensor, "B C *S"]) -> list[Tensor]:
        """The logits alone: other outputs of the network are not trained."""
        return [self.forward(image)]

    def embed(self, image: Float[Tensor, "B C *S"]) -> Float[Tensor, "B F"]:
        """The feature vector: the mean of each channel of the coarsest feature map that a module gives, of several the
        last.
        """
        coarsest: list[Tensor] = []

        def note(_module: nn.Module, _args: Any, output: Any) -> None:
            is_map = isinstance(output, Tensor) and output.ndim == self.dims + 2
            if is_map and not (coarsest and output[0, 0].numel() > coarsest[0][0, 0].numel()):
                coarsest[:] = [output]

        hooks = [module.register_forward_hook(note) for module in self.network.modules()]
        try:
            self.forward(image)
        finally:
            for hook in hooks:
                hook.remove()
        return coarsest[0].flatten(2).mean(2)

    def level_parameters(self) -> dict[str, list[nn.Parameter]]:
        """No levels: which modules are levels is not known."""
        return {}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """One group: which modules are encoder and decoder is not known."""
        return {"network": list(self.parameters())}


def make_own_network(part: Part, in_channels: int, num_outputs: int, dropout: DropoutSpec) -> OwnNetwork:
    """The network of a part with known geometry, on torch's current default device, with the rates of `dropout`.

    Raises what the user's code raises.
    """
    assert part.code is not None
    assert part.code.dims is not None
    assert part.code.stride is not None
    network = build(part, Sizes(in_channels, num_outputs, part.code.dims))
    made = OwnNetwork(
        network, dims=part.code.dims, stride=part.code.stride, is_channels_last=part.code.is_channels_last
    )
    if any(map(is_lazy, network.parameters())):
        size = part.code.stride * -(-MIN_SIZE // part.code.stride)
        with evaluation_mode(made), torch.no_grad():
            made(torch.zeros(1, in_channels, *[size] * made.dims))
    if not dropout.own_rates:
        for module in made.modules():
            if isinstance(module, Dropout):
                module.set_p(dropout.p)
    return made


def build(part: Part, sizes: Sizes) -> nn.Module:
    """The user's network as it comes. One that cannot be built on the meta device is built on the CPU and moved."""
    target = target_of(part)
    args = check_arguments(part.name, target, part.args, sizes)
    if torch.get_default_device().type != "meta":
        return call(part.name, target, args)
    try:
        return call(part.name, target, args)
    except Exception:  # noqa: BLE001 - the user's code, which may read values while it is built
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            return call(part.name, target, args).to("meta")


def call(name: str, target: Callable[..., Any], args: Mapping[str, Any]) -> nn.Module:
    """The network that a class or function gives; SettingError if it gives something else."""
    try:
        with printing_to_stderr():
            network = target(**args)
    except SystemExit as end:
        raise error_of_exit(end) from end
    if not isinstance(network, nn.Module):
        raise SettingError(f"'{name}' returned an object of type {type(network).__name__}; expected a torch.nn.Module")
    return network


def error_of_exit(end: SystemExit) -> RuntimeError:
    """The error for a SystemExit of the user's code, which would end dlx with the exit code of that code."""
    return RuntimeError(f"it called sys.exit({end.code!r})")


def set_memory_format(model: OwnNetwork) -> None:
    """Lays out the weights of convolutions as channels last, if the network takes such images.

    `Module.to` would refuse a network that has weights of other dimensions too.
    """
    format_ = torch.channels_last if model.dims == 2 else torch.channels_last_3d

    def lay_out(tensor: Tensor) -> Tensor:
        return tensor.contiguous(memory_format=format_) if tensor.ndim == model.dims + 2 else tensor

    if model.is_channels_last:
        model._apply(lay_out)  # type: ignore[no-untyped-call]


def replace_dropouts(network: nn.Module) -> None:
    """Replaces torch's dropout modules by dlx's of the same kind and rate; a module in several places stays one.

    ValueError for a rate of 1, which leaves nothing.
    """
    made: dict[nn.Module, Dropout] = {}
    for parent in list(network.modules()):
        for name, child in parent._modules.items():
            if child is None or type(child) not in KINDS:
                continue
            if child not in made:
                rate = float(child.p)  # type: ignore[arg-type]
                if not 0 <= rate < 1:
                    raise ValueError(f"its dropout module '{name}' drops everything (p={rate:g})")
                made[child] = Dropout(rate, KINDS[type(child)])
            parent._modules[name] = made[child]


def other_dropouts(network: nn.Module) -> dict[str, nn.Module]:
    """torch's dropout modules that were not replaced, such as AlphaDropout, by their names in the network."""
    return {name: module for name, module in network.named_modules() if isinstance(module, _DropoutNd)}


def first_tensor(output: Any) -> Tensor:
    """The logits among what a network returns: a tensor, or the first of a list, tuple or table."""
    first = output
    if isinstance(output, Mapping):
        first = next(iter(output.values()), None)
    elif isinstance(output, list | tuple):
        first = output[0] if output else None
    if isinstance(first, Tensor) and not first.is_floating_point():
        raise TypeError(f"the network returns a tensor of {first.dtype}; expected floating-point logits")
    if not isinstance(first, Tensor):
        what = type(output).__name__ + ("" if first is output else f" that begins with {type(first).__name__}")
        raise TypeError(f"the network returns a {what}; expected a tensor, or a list that begins with one")
    return first


def num_tensors(output: Any) -> int:
    """How many tensors a network returns."""
    items: Any = (
        output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else [output]
    )
    return sum(isinstance(item, Tensor) for item in items)


def spell(shape: Sequence[int]) -> str:
    """`2x4x64x64`."""
    return "x".join(map(str, shape))
