"""The objects that a bound Spec names: network, loss, optimizer, scheduler."""

from typing import Any

import torch
from torch import nn

from dlx.data.cases import Dataset
from dlx.models.network import is_deeply_supervised
from dlx.models.own.network import make_own_network
from dlx.scoring.outputs import Outputs
from dlx.settings import registry
from dlx.settings.part import Part
from dlx.settings.spec import PART_KINDS, Spec
from dlx.system.errors import SettingError
from dlx.training.deep_supervision import DeepSupervision
from dlx.training.losses import SumLoss, takes_valid


def _make(key: str, part: Part, *given: Any) -> Any:
    """Calls the factory of the part that the setting `key` names; `given` are the arguments of the engine."""
    return registry.load(PART_KINDS[key], part.name)(*given, **part.args)


def make_model(spec: Spec, dataset: Dataset) -> nn.Module:
    """The spec's network for the data's channels and classes, initialised, on torch's current default device."""
    sizes = len(dataset.channels), outputs_of(dataset).num_outputs
    model: nn.Module
    if spec.model.is_own:
        model = make_own_network(spec.model, *sizes, spec.dropout)
    else:
        model = _make("model", spec.model, *sizes, spec.dropout)
    _make("init", spec.init, model)
    return model


def model_geometry(model: nn.Module) -> tuple[int, int]:
    """The number of spatial dimensions of a model, and the number whose multiples its input sizes have to be."""
    return int(model.dims), int(model.stride)  # type: ignore[arg-type]


def outputs_of(dataset: Dataset) -> Outputs:
    """What the outputs of a network for these data mean."""
    return Outputs(len(dataset.classes), dataset.ignored_value is not None, dataset.regions, dataset.region_order)


def make_loss(terms: tuple[Part, ...], outputs: Outputs) -> nn.Module:
    """The sum of the named losses; SettingError for one that cannot be used with the ignored voxels or the regions of
    the data.
    """
    made = [_make("loss", term, outputs.num_classes) for term in terms]
    for part, term in zip(terms, made, strict=True):
        if outputs.has_ignored and not takes_valid(term):
            raise SettingError(f"loss '{part.name}' cannot leave out the voxels of the data's ignore label")
        if outputs.regions and not hasattr(term, "of_regions"):
            raise SettingError(f"loss '{part.name}' needs exclusive classes, but the data have regions: use dice or ce")
    return SumLoss(made, has_ignored=outputs.has_ignored, regions=outputs.regions)


def make_training_loss(spec: Spec, outputs: Outputs, model: nn.Module) -> nn.Module:
    """The spec's loss of what the model gives in training: see `training_outputs`."""
    loss = make_loss(spec.loss, outputs)
    return DeepSupervision(loss) if is_deeply_supervised(model) else loss


def parameter_groups(model: nn.Module, spec: Spec) -> list[dict[str, Any]]:
    """The optimizer's groups: encoder, decoder, head, each with its rate; SettingError for an unknown group.

    If norms and biases do not decay, they are a second group of the same name and rate.
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
    """The parameters with their decay; if asked for, norms and biases (tensors of one axis) apart, without decay."""
    decay = spec.optimizer.weight_decay
    if spec.optimizer.decay_norms_and_biases:
        return [(parameters, decay)]
    return [([p for p in parameters if p.ndim > 1], decay), ([p for p in parameters if p.ndim <= 1], 0.0)]


def make_optimizer(model: nn.Module, spec: Spec) -> torch.optim.Optimizer:
    """The spec's optimizer over the model's groups."""
    optimizer: torch.optim.Optimizer = _make("optimizer.name", spec.optimizer.name, parameter_groups(model, spec))
    return optimizer


def make_scheduler(optimizer: torch.optim.Optimizer, spec: Spec) -> Any:
    """The spec's scheduler over an optimizer, for all epochs of a trial."""
    return _make("scheduler", spec.scheduler, optimizer, spec.train.epochs)
