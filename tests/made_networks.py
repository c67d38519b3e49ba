"""Small networks of every kind, and images for them."""

import inspect

import torch

from dlx.settings import registry

SMALL = {"width": 4}  # small enough for the tests


def make(name, dims, dropout=None, **args):
    torch.manual_seed(0)
    factory = registry.load("model", name)
    known = inspect.signature(factory).parameters  # not every network has a width, or a norm to choose
    given = {key: value for key, value in {**SMALL, **args}.items() if key in known}
    return factory(2, 4, dropout, **given, **dims)


def image_for(model, *sizes, batch=2):
    return torch.randn(batch, 2, *sizes, generator=torch.Generator().manual_seed(1))


def fitting(model, multiple=2):
    return [multiple * model.stride] * model.dims
