"""A copy of a network that other programs can represent: evaluation mode, one output, standard operations."""

import copy
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dlx.exporting.norms import make_norms_exact
from dlx.trial.factories import model_geometry

MIN_SIZE_PX = 16  # of made-up images: several voxels are left at the coarsest level, where norms need them


def plain_network(network: nn.Module, num_channels: int) -> nn.Module:
    """A copy on the host, in float32 and evaluation mode; the network itself is not changed.

    A module whose forward pass has a fast form that file formats lack (an autograd function, sums of shifted images)
    has an attribute `is_plain`. It is set in the copy, which then computes the same by standard operations, up to
    rounding. Norms become those of `norms`.
    """
    plain = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    for module in plain.modules():
        if hasattr(module, "is_plain"):
            setattr(module, "is_plain", True)  # noqa: B010 - of no common class
    make_norms_exact(plain)
    with torch.no_grad():
        plain(made_up_images(plain, num_channels))  # caches of constants cannot be filled while a network is traced
    return plain


def made_up_images(
    network: nn.Module, num_channels: int, batch: int = 2, variation: int = 0
) -> Float[Tensor, "B C *S"]:
    """Noise whose sizes are small multiples of the network's stride, one axis larger than the others; which one depends
    on `variation`.
    """
    dims, stride = model_geometry(network)
    multiple = max(2, math.ceil(MIN_SIZE_PX / stride))
    sizes = [(multiple + (axis == variation % dims)) * stride for axis in range(dims)]
    generator = torch.Generator().manual_seed(variation)
    return torch.randn(batch, num_channels, *sizes, generator=generator)


@contextmanager
def without_messages() -> Iterator[None]:
    """Suppresses warnings, log lines and prints of torch's exporters: they concern torch's code, not the user's."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)
