"""The ways to draw a network's first weights that `registry.py` names.

Each is given a network as torch made it. All but `torch` draw the weights of its convolutions and linear layers anew
(from torch's default generator, which the engine makes the weights' stream) and set their biases to zero; scales and
shifts of norms stay 1 and 0. The names of fans: a 3x3 convolution from I to O channels has fan_in 9 I and fan_out 9 O.
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
    """torch's own default: weights and biases alike uniform in +- 1 / sqrt(fan_in).

    torch calls this `kaiming_uniform_` with a = sqrt(5), the slope of a leaky ReLU: its gain is sqrt(2 / (1 + 5)), so
    the weights' variance is 1 / (3 fan_in), a sixth of what He et al. find for ReLU. Without norms features shrink
    from layer to layer.
    """


def kaiming_normal(model: nn.Module, *, mode: Mode = "fan_in") -> None:
    """Normal, variance 2 / fan (He et al. 2015, arXiv 1502.01852, section 2.2), for layers that ReLU follows.

    With fan_in the features keep their mean square on the way forward, with fan_out the gradients on the way back.
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
    """Each weight, as a matrix of its output channels, has orthogonal rows (or columns, where it has more rows).

    Saxe et al. 2014, arXiv 1312.6120. They are of length `gain`, sqrt(2) making up for what ReLU takes.
    """
    _draw(model, lambda weight: nn.init.orthogonal_(weight, gain))


def _draw(model: nn.Module, fill: Callable[[Tensor], object]) -> None:
    for module in model.modules():  # each once, also where two paths share it
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            fill(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
