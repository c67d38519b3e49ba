"""Dropout whose noise comes from a generator of its own, so that trials which differ in p see the same noise.

An element (or channel) is kept if its uniform noise is at least p, and kept elements are scaled by 1 / (1 - p)
(Srivastava et al. 2014). Draws are independent, so the dropped fraction is p only on average. The noise has 16 bits,
so p is exact within 1 / 131072; drawing four at a time as 64-bit integers takes a third of the time of float32 noise
(docs/log.md).
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dlx.system.ranks import ALONE

# Words of random bits, by device: the type, and the bounds between which torch draws all of them. Apple's `mps` refuses
# the full range of 64 bits (not tried on such a machine).
WORDS: dict[str, tuple[torch.dtype, int, int | None]] = {"mps": (torch.int32, -(2**31), 2**31)}
WIDEST_WORDS: tuple[torch.dtype, int, int | None] = (torch.int64, -(2**63), None)

Kind = Literal["dropout", "dropout2d", "dropout3d"]


class Dropout(nn.Module):
    """Drops elements (`dropout`) or whole channels (`dropout2d`, `dropout3d`) while training; else the identity.

    `p` is a tensor that `set_p` changes in place, so that a captured step need not be captured again; at p = 0 nothing
    is drawn. `generator` is the engine's noise stream; None stands for torch's default generator.
    """

    p: Tensor
    threshold: Tensor  # p in the noise's own unit: 16-bit integers from -32768

    def __init__(self, p: float = 0.0, kind: Kind = "dropout") -> None:
        super().__init__()
        self.kind: Kind = kind
        self.generator: torch.Generator | None = None
        self.ranks = ALONE  # the features are this rank's part of a batch, of which the noise is drawn in full
        self.on_draw: Callable[[Tensor], None] | None = None  # called with each mask of kept elements
        self.rate = 0.0
        self.register_buffer("p", torch.zeros(()), persistent=False)
        self.register_buffer("threshold", torch.zeros((), dtype=torch.int16), persistent=False)
        self.set_p(p)

    @property
    def is_active(self) -> bool:
        """True if p > 0: in training mode some elements are dropped."""
        return self.rate > 0

    def set_p(self, p: float) -> None:
        """Changes the drop rate; ValueError unless 0 <= p < 1."""
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout needs 0 <= p < 1, not {p}")
        self.p.fill_(p)
        self.threshold.fill_(min(round(p * 2**16), 2**16 - 1) - 2**15)
        self.rate = p

    def forward(self, features: Float[Tensor, "B C *S"]) -> Float[Tensor, "B C *S"]:
        if not self.training or not self.is_active:
            return features
        # a product takes a quarter of the time of torch.where on a CPU
        kept = self.draw(features)
        if self.on_draw is not None:
            self.on_draw(kept)
        return features / (1.0 - self.p) * kept.to(features.dtype)

    def draw(self, features: Float[Tensor, "B C *S"]) -> Bool[Tensor, "B C ..."]:
        """The mask of kept elements, one draw each; for whole channels one draw per sample and channel, (B, C, 1 ...).

        Noise is drawn in the order of the elements in memory, so the same generator state drops other elements of a
        channels-last tensor than of a contiguous one.
        """
        with torch.no_grad():
            ones = [1] * (features.ndim - 2)
            drawn = features if self.kind == "dropout" else features.new_empty((*features.shape[:2], *ones))
            placed = torch.empty_like(drawn, dtype=torch.int16)  # dense, in the features' memory format
            if self.ranks.size > 1:
                whole = (len(placed) * self.ranks.size, *placed.shape[1:])
                placed = placed.new_empty_strided(whole, (placed[0].numel(), *placed.stride()[1:]))
            type_, low, high = WORDS.get(placed.device.type, WIDEST_WORDS)
            words = torch.empty(-(-placed.numel() * 2 // type_.itemsize), dtype=type_, device=placed.device)
            words.random_(low, high, generator=self.generator)
            noise = words.view(torch.int16)[: placed.numel()].as_strided(placed.shape, placed.stride())
            if self.ranks.size > 1:
                noise = noise[self.ranks.part(len(noise))]
            return noise >= self.threshold

    def extra_repr(self) -> str:
        return f"p={self.rate}, kind={self.kind}"


def dropout_modules(model: nn.Module) -> list[Dropout]:
    """Every Dropout of a model, in the order of its modules."""
    return list(named_dropouts(model).values())


def named_dropouts(model: nn.Module) -> dict[str, Dropout]:
    """Every Dropout of a model by its module name, such as `dropouts.encoder0_1`."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Dropout)}


def set_dropout(model: nn.Module, p: float | None, generator: torch.Generator | None) -> None:
    """Sets the rate and the noise generator of every Dropout of a model; None leaves the rates."""
    for module in dropout_modules(model):
        if p is not None:
            module.set_p(p)
        module.generator = generator
