"""The initialisations of a network's weights that `registry.py` names.

Each takes a network with torch's initial weights. All but `torch` redraw the weights of convolutions and linear layers
(from torch's default generator, which the engine seeds with the weights' stream) and set their biases to zero; scales
and shifts of norms stay 1 and 0. A 3x3 convolution from I to O channels has fan_in 9 I and fan_out 9 O.

Transposed convolutions (`model.up=transposed`) have weights of I rows and O columns, which torch reads as O channels to
I. With kernel 2 and stride 2 in 2D it takes 4 O as fan_in and 4 I as fan_out, but an output pixel sums I products, and
the gradient of an input pixel 4 O. Where the channels are halved (O = I / 2), `kaiming-*` gives them, by either mode,
half the variance that keeps the mean square; `orthogonal` makes a row of each input channel.
"""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

Mode = Annotated[
    Literal["fan_in", "fan_out"],
    Field(description="What keeps its mean square: features on the way forward, or gradients on the way back."),
]
Gain = Annotated[float, Field(gt=0.0, description="A factor on the weights.")]


def leave(model: nn.Module) -> None:
    """torch's default: weights and biases uniform in +- 1 / sqrt(fan_in).

    torch calls this `kaiming_uniform_` with a = sqrt(5), the slope of a leaky ReLU: its gain is sqrt(2 / (1 + 5)), so
    the variance of the weights is 1 / (3 fan_in), a sixth of the value of He et al. for ReLU. Without norms, features
    shrink from layer to layer.
    """


def kaiming_normal(model: nn.Module, *, mode: Mode = "fan_in") -> None:
    """Normal, variance 2 / fan (He et al. 2015, arXiv 1502.01852, section 2.2), for layers that ReLU follows.

    fan_in keeps the mean square of features in the forward pass, fan_out that of gradients in the backward pass; not so
    in transposed convolutions (see above).
    """
    _draw(model, lambda weight: nn.init.kaiming_normal_(weight, mode=mode, nonlinearity="relu"))


def kaiming_uniform(model: nn.Module, *, mode: Mode = "fan_in") -> None:
    """Uniform of the same variance, 2 / fan: in +- sqrt(6 / fan)."""
    _draw(model, lambda weight: nn.init.kaiming_uniform_(weight, mode=mode, nonlinearity="relu"))


def xavier_normal(model: nn.Module, *, gain: Gain = 1.0) -> None:
    """Normal, variance gain^2 * 2 / (fan_in + fan_out) (Glorot and Bengio 2010), made for tanh."""
    _draw(model, lambda weight: nn.init.xavier_normal_(weight, gain))


def xavier_uniform(model: nn.Module, *, gain: Gain = 1.0) -> None:
    """Uniform of the same variance: in +- gain * sqrt(6 / (fan_in + fan_out))."""
    _draw(model, lambda weight: nn.init.xavier_uniform_(weight, gain))


def orthogonal(model: nn.Module, *, gain: Gain = 2.0**0.5) -> None:
    """Each weight, as a matrix with a row per output channel, has orthogonal rows (or columns, if it has more rows).

    Saxe et al. 2014, arXiv 1312.6120. They have length `gain`; sqrt(2) compensates for ReLU.
    """
    _draw(model, lambda weight: nn.init.orthogonal_(weight, gain))


def _draw(model: nn.Module, fill: Callable[[Tensor], object]) -> None:
    for module in model.modules():  # a shared module once
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            fill(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
