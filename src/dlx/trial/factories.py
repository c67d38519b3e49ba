"""The live parts that a Spec names: network, loss, optimiser, scheduler; their arguments are bound already."""

from typing import Any

import torch
from torch import nn

from dlx.data.cases import Dataset
from dlx.settings import registry
from dlx.settings.spec import Part, Spec
from dlx.system.errors import SettingError
from dlx.training.losses import SumLoss


def make_model(spec: Spec, dataset: Dataset) -> nn.Module:
    """The spec's network for the data's channels and classes, initialised, on torch's current default device."""
    factory = registry.load("model", spec.model.name)
    model: nn.Module = factory(len(dataset.channels), len(dataset.classes), spec.dropout, **spec.model.args)
    registry.load("initializer", spec.init.name)(model, **spec.init.args)
    return model


def model_geometry(model: nn.Module) -> tuple[int, int]:
    """A model's number of spatial dimensions and the multiple its input sizes are padded to."""
    return int(model.dims), int(model.stride)  # type: ignore[arg-type]


def make_loss(terms: tuple[Part, ...], num_classes: int) -> nn.Module:
    """The sum of the named losses."""
    return SumLoss([registry.load("loss", term.name)(num_classes, **term.args) for term in terms])


def parameter_groups(model: nn.Module, spec: Spec) -> list[dict[str, Any]]:
    """The optimiser's groups: encoder, decoder, head, each with its rate; SettingError for a group there is not.

    Where norms and biases do not decay, they are a second group of the same name and rate.
    """
    groups: dict[str, list[nn.Parameter]] = model.parameter_groups()  # type: ignore[operator]
    for name in spec.optimizer.group_lr:
        if name not in groups:
            raise SettingError(
                f"optimizer.group_lr: '{spec.model.name}' has no group '{name}' (known: {', '.join(groups)})"
            )
    return [
        {
            "name": name,
            "params": chosen,
            "lr": spec.optimizer.group_lr.get(name, spec.optimizer.lr),
            "weight_decay": decay,
        }
        for name, parameters in groups.items()
        for chosen, decay in _by_decay(parameters, spec)
        if chosen
    ]


def _by_decay(parameters: list[nn.Parameter], spec: Spec) -> list[tuple[list[nn.Parameter], float]]:
    """The parameters with their decay; norms' scales and shifts and biases, which have one axis, apart where asked."""
    decay = spec.optimizer.weight_decay
    if spec.optimizer.decay_norms_and_biases:
        return [(parameters, decay)]
    return [([p for p in parameters if p.ndim > 1], decay), ([p for p in parameters if p.ndim <= 1], 0.0)]


def make_optimizer(model: nn.Module, spec: Spec) -> torch.optim.Optimizer:
    """The spec's optimiser over the model's groups."""
    part = spec.optimizer.name
    optimizer: torch.optim.Optimizer = registry.load("optimizer", part.name)(parameter_groups(model, spec), **part.args)
    return optimizer


def make_scheduler(optimizer: torch.optim.Optimizer, spec: Spec) -> Any:
    """The spec's scheduler over an optimiser, for all epochs of a trial."""
    return registry.load("scheduler", spec.scheduler.name)(optimizer, spec.train.epochs, **spec.scheduler.args)
