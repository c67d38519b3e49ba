"""The names of models, losses, schedulers, layouts and so on, with the path of their code, which is not imported.

A new one is an entry here and a function or class there. The engine gives the positional parameters of a factory
(channels, classes, the optimizer ...). Its keyword-only parameters, with their type hints and defaults, are settings of
the user; `dlx.settings.binding` checks them. Networks of the user's own are not registered: see `own/`.
"""

import importlib
from collections.abc import Callable
from typing import Any

from dlx.system.errors import SettingError, nearest

PARTS: dict[str, dict[str, str]] = {
    "data": {
        "phantom": "dlx.data.phantom.case:phantom",
        "ct-phantom": "dlx.data.phantom.ct:ct_phantom",
        "folder": "dlx.data.layouts.listing:folder",
    },
    "layout": {
        "iseg": "dlx.data.layouts.iseg",
        "nnunet": "dlx.data.layouts.nnunet",
        "msd": "dlx.data.layouts.msd",
    },
    "normalizer": {
        "auto": "dlx.data.intensities.normalize:auto",
        "none": "dlx.data.intensities.normalize:none",
        "zscore": "dlx.data.intensities.normalize:zscore",
        "minmax": "dlx.data.intensities.normalize:minmax",
        "percentile": "dlx.data.intensities.normalize:percentile",
        "whiten": "dlx.data.intensities.whiten:whiten",
        "ct": "dlx.data.intensities.ct:ct",
        "rgb": "dlx.data.intensities.normalize:rgb",
        "mixed": "dlx.data.intensities.ct:mixed",
    },
    "model": {
        "unet": "dlx.models.architectures.unet:unet",
        "unet2": "dlx.models.architectures.unet:unet2",
        "unet-resnet18": "dlx.models.architectures.resnet:unet_resnet18",
        "unet-resnet34": "dlx.models.architectures.resnet:unet_resnet34",
        "unet-resnet50": "dlx.models.architectures.resnet:unet_resnet50",
        "unet-resnet101": "dlx.models.architectures.resnet:unet_resnet101",
        "unet-resnet152": "dlx.models.architectures.resnet:unet_resnet152",
        "unet-vgg11": "dlx.models.architectures.vgg:unet_vgg11",
        "unet-vgg13": "dlx.models.architectures.vgg:unet_vgg13",
        "unet-vgg16": "dlx.models.architectures.vgg:unet_vgg16",
        "unet-vgg19": "dlx.models.architectures.vgg:unet_vgg19",
        "voxel": "dlx.models.architectures.voxel:VoxelClassifier",
    },
    "classifier": {  # of whole images: only `count-params` uses them, nothing here trains them
        "resnet18": "dlx.models.architectures.resnet:resnet18",
        "resnet34": "dlx.models.architectures.resnet:resnet34",
        "resnet50": "dlx.models.architectures.resnet:resnet50",
        "resnet101": "dlx.models.architectures.resnet:resnet101",
        "resnet152": "dlx.models.architectures.resnet:resnet152",
        "vgg11": "dlx.models.architectures.vgg:vgg11",
        "vgg11_bn": "dlx.models.architectures.vgg:vgg11_bn",
        "vgg13": "dlx.models.architectures.vgg:vgg13",
        "vgg13_bn": "dlx.models.architectures.vgg:vgg13_bn",
        "vgg16": "dlx.models.architectures.vgg:vgg16",
        "vgg16_bn": "dlx.models.architectures.vgg:vgg16_bn",
        "vgg19": "dlx.models.architectures.vgg:vgg19",
        "vgg19_bn": "dlx.models.architectures.vgg:vgg19_bn",
    },
    "initializer": {
        "torch": "dlx.training.initializers:leave",
        "kaiming-normal": "dlx.training.initializers:kaiming_normal",
        "kaiming-uniform": "dlx.training.initializers:kaiming_uniform",
        "xavier-normal": "dlx.training.initializers:xavier_normal",
        "xavier-uniform": "dlx.training.initializers:xavier_uniform",
        "orthogonal": "dlx.training.initializers:orthogonal",
    },
    "loss": {
        "ce": "dlx.training.losses:CrossEntropy",
        "dice": "dlx.training.losses:SoftDice",
        "focal": "dlx.training.losses:Focal",
        "lovasz": "dlx.training.lovasz:LovaszSoftmax",
    },
    "optimizer": {
        "adam": "dlx.training.optimizers:adam",
        "adamw": "dlx.training.optimizers:adamw",
        "sgd": "dlx.training.optimizers:sgd",
    },
    "scheduler": {
        "constant": "dlx.training.schedules:constant",
        "linear-tail": "dlx.training.schedules:linear_tail",
        "exponential": "dlx.training.schedules:exponential",
        "step": "dlx.training.schedules:step",
        "multistep": "dlx.training.schedules:multistep",
        "cosine": "dlx.training.schedules:cosine",
        "poly": "dlx.training.schedules:poly",
        "plateau": "dlx.training.schedules:plateau",
        "lambda": "dlx.training.schedules:from_rule",
    },
}


def load(kind: str, name: str) -> Callable[..., Any]:
    """The factory of a name (of a layout: the module); SettingError, with the nearest name, if it is unknown.

    Imports the code.
    """
    if name not in PARTS[kind]:
        raise SettingError(f"unknown {kind} '{name}': {nearest(name, PARTS[kind])}{_own_hint(kind, name)}")
    module, _, function = PARTS[kind][name].partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, function) if function else loaded  # type: ignore[return-value]


def _own_hint(kind: str, name: str) -> str:
    """How code of the user's own is named, if the unknown name looks like that."""
    if kind == "model" and name.endswith(".py"):
        return f"; a network in a file is named {name}:Name"
    if kind == "model" and "." in name:
        return f"; a network of your own is named {':'.join(name.rpartition('.')[::2])}"
    return "; code of your own is registered first: docs/extending.md" if ":" in name and kind != "model" else ""
