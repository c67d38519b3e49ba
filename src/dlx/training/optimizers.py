"""The optimizers that `registry.py` names, all of torch; learning rates over the epochs are in `schedules.py`.

Each takes parameter groups with their own `lr` and `weight_decay`. The fused step is used on devices where it is known
to work: it equals the plain one up to rounding, in one pass over the weights.
"""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch.optim import SGD, Adam, AdamW

from dlx.settings.spec import ADDED_LATER

Beta1 = Annotated[float, Field(ge=0.0, lt=1.0, description="Decay of the average of the gradients.")]
Beta2 = Annotated[float, Field(ge=0.0, lt=1.0, description="Decay of the average of their squares.")]
Epsilon = Annotated[float, Field(gt=0.0, description="Added to the denominator of the update.")]

FUSED_DEVICES = {"cpu", "cuda"}  # torch has fused steps for a few more, which are untested here


def adam(
    parameter_groups: list[dict[str, Any]],
    *,
    beta1: Beta1 = 0.9,
    beta2: Beta2 = 0.999,
    eps: Epsilon = 1e-8,
    decay: Annotated[
        Literal["l2", "decoupled"],
        ADDED_LATER,
        Field(description="Weight decay as part of the gradient, or apart from it, which is adamw."),
    ] = "l2",
) -> Adam:
    """Adam (Kingma and Ba 2015) with weight decay in the L2 form, or decoupled, which makes it `adamw`.

    `l2`: decay * w is added to the gradient and scaled with it, so that weights with large gradients hardly decay.
    """
    return Adam(
        parameter_groups,
        betas=(beta1, beta2),
        eps=eps,
        decoupled_weight_decay=decay == "decoupled",
        fused=_can_fuse(parameter_groups),
    )


def adamw(
    parameter_groups: list[dict[str, Any]], *, beta1: Beta1 = 0.9, beta2: Beta2 = 0.999, eps: Epsilon = 1e-8
) -> AdamW:
    """Adam with decoupled decay (Loshchilov and Hutter 2019): weights shrink by lr * decay of themselves."""
    return AdamW(parameter_groups, betas=(beta1, beta2), eps=eps, fused=_can_fuse(parameter_groups))


def sgd(
    parameter_groups: list[dict[str, Any]],
    *,
    momentum: Annotated[float, Field(ge=0.0, lt=1.0, description="Decay of the average of the gradients.")] = 0.9,
    nesterov: Annotated[bool, Field(description="Nesterov's form of momentum.")] = True,
) -> SGD:
    """Gradient descent with momentum, decay in the L2 form. Without momentum `nesterov` has no effect."""
    return SGD(
        parameter_groups,
        momentum=momentum,
        nesterov=nesterov and momentum > 0.0,
        fused=_can_fuse(parameter_groups),
    )


def _can_fuse(parameter_groups: list[dict[str, Any]]) -> bool | None:
    """True: one fused kernel does the step; None: torch chooses another way (meta, mps ...)."""
    parameters: list[torch.Tensor] = [p for group in parameter_groups for p in group["params"]]
    fits = all(p.device.type in FUSED_DEVICES and p.is_floating_point() for p in parameters)
    return True if fits else None
