"""What every segmentation network shares: padding, dropout after blocks, hooks for probes, groups of parameters."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from dlx.models.layers.blocks import Dims, check_axes, crop_to, known_dims, make_dropouts, pad_to_multiple
from dlx.settings.spec import DropoutSpec


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block; restores the mode of each module afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, is_training in modes.items():
            module.training = is_training


def is_deeply_supervised(model: nn.Module) -> bool:
    """Whether coarser levels of the model have logits of their own in training."""
    return getattr(model, "deep_supervision", 0) > 0


def training_outputs(model: nn.Module, image: Float[Tensor, "B C *S"]) -> Tensor | list[Tensor]:
    """What the loss takes: the logits, or with deep supervision those of all levels, the full size first."""
    outputs: Tensor | list[Tensor] = model.forward_levels(image) if is_deeply_supervised(model) else model(image)  # type: ignore[operator]
    return outputs


class Network(nn.Module):
    """(B, C, *S) -> logits (B, K, *S) for any size S: `encode`, `decode` and `head`, which a subclass defines.

    A level is one item of `encoder` or `decoder`, and calls one or more blocks. `encode` and `decode` pass the output
    of each block through `after_block`, by a name: `encoder0` where a level has one block, else `encoder0_0`,
    `encoder0_1` and so on. The last statement of `__init__` is `add_dropouts`.
    """

    stride = 1  # `encode` gets images whose sizes are multiples of it
    # which attributes hold the parameters of a group; the first attribute of encoder and decoder is a list of levels
    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "encoder": ("encoder",),
        "decoder": ("decoder",),
        "head": ("head",),
    }
    blocks_per_level: ClassVar[dict[str, int]] = {"encoder": 1, "decoder": 1}
    deep_supervision = 0  # how many coarser levels have logits of their own in training: `forward_levels`
    head: nn.Module
    dropouts: nn.ModuleDict

    def __init__(self, dims: Literal[2, 3, "auto"]) -> None:
        super().__init__()
        self.dims: Dims = known_dims(dims)
        self.on_block: Callable[[str, Tensor], None] | None = None  # called with each block's name and output

    def encode(self, image: Tensor) -> list[Tensor]:
        """The feature maps that `decode` needs, the deepest last; `image` is padded already."""
        raise NotImplementedError

    def decode(self, maps: list[Tensor]) -> Tensor:
        """The features that `head` turns into logits. It pops maps off the list, so that each is freed after use."""
        raise NotImplementedError

    def forward(self, image: Float[Tensor, "B C *S"]) -> Float[Tensor, "B K *S"]:
        """Sizes that `stride` does not divide are padded with zeros and the logits cropped back."""
        logits = self.head(self.decode(self._encode_padded(image)))
        return crop_to(logits, tuple(image.shape[2:]))

    def forward_levels(self, image: Float[Tensor, "B C *S"]) -> list[Tensor]:
        """What is trained with deep supervision: the logits, then those of `deep_supervision` coarser levels.

        Level i has sizes ceil(S / 2^i).
        """
        return [self.forward(image)]

    def embed(self, image: Float[Tensor, "B C *S"]) -> Float[Tensor, "B F"]:
        """The feature vector: the mean of each channel of the deepest feature map."""
        return self._encode_padded(image)[-1].flatten(2).mean(2)

    def _encode_padded(self, image: Tensor) -> list[Tensor]:
        check_axes(image, self.dims)
        return self.encode(pad_to_multiple(image, self.stride))

    def after_block(self, name: str, features: Tensor) -> Tensor:
        """The features after the block's dropout, if it has one; `on_block` sees them before it."""
        if self.on_block is not None:
            self.on_block(name, features)
        return self.dropouts[name](features) if name in self.dropouts else features

    def run_levels(self, group: str, features: Tensor) -> Tensor:
        """Calls the levels of the encoder or decoder one after another, each of them being a single block."""
        for name, level in self.levels(group).items():
            features = self.after_block(name, level(features))
        return features

    def add_dropouts(self, dropout: DropoutSpec | None) -> None:
        """Makes a Dropout for each block that `dropout.where` selects; see `make_dropouts`."""
        encoder, decoder = self.block_names("encoder"), self.block_names("decoder")
        deepest = encoder[-self.blocks_per_level["encoder"] :]
        self.dropouts = make_dropouts(dropout, self.dims, encoder=encoder, decoder=decoder, bottleneck=deepest)

    def levels(self, group: str) -> dict[str, nn.Module]:
        """The levels of the encoder or decoder by name, in the order of the forward pass."""
        attribute = self.groups[group][0]
        return {f"{attribute}{index}": level for index, level in enumerate(getattr(self, attribute))}

    def block_names(self, group: str) -> list[str]:
        """The names of all blocks of the encoder or decoder, in the order of the forward pass."""
        count = self.blocks_per_level[group]
        suffixes = [""] if count == 1 else [f"_{index}" for index in range(count)]
        return [level + suffix for level in self.levels(group) for suffix in suffixes]

    def level_parameters(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of each level, by the part of its blocks' names before the underscore."""
        levels = self.levels("encoder") | self.levels("decoder")
        return {name: list(level.parameters()) for name, level in levels.items()}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Encoder, decoder and head: each can have its own learning rate. A shared parameter is in the first group."""
        found: dict[str, list[nn.Parameter]] = {}
        seen: set[nn.Parameter] = set()
        for group, attributes in self.groups.items():
            parameters = [parameter for name in attributes for parameter in getattr(self, name).parameters()]
            found[group] = [parameter for parameter in parameters if parameter not in seen]
            seen.update(parameters)
        return found
