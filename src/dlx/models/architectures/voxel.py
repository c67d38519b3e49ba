"""A classifier of single voxels, which learns no spatial features: the baseline for a network's convolutions.

Each voxel is classified by its own intensities, or by hand-made features: each channel smoothed by Gaussians of several
widths, and the gradient magnitude and Laplacian of each smoothed channel.
"""

from functools import cache
from typing import Annotated, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from dlx.models.layers.blocks import CONV, MAX_GROUPS, AskedDims, Dims, Groups, Norm, make_norm
from dlx.models.network import Network
from dlx.settings.spec import DropoutSpec

SIGMAS_PX = (1.0, 2.0, 4.0)
Features = Annotated[
    Literal["raw", "gaussian"],
    Field(description="Of each voxel: its intensities, or smoothed ones, their gradients and Laplacians too."),
]


class VoxelBlock(nn.Module):
    """1x1 convolution with bias, normalisation, ReLU: (B, in, *S) -> (B, out, *S), each voxel by itself."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm, dims: Dims, groups: int) -> None:
        super().__init__()
        self.conv = CONV[dims](in_channels, out_channels, 1)
        self.norm = make_norm(norm, out_channels, dims, groups)

    def forward(self, features: Float[Tensor, "B I *S"]) -> Float[Tensor, "B O *S"]:
        return F.relu(self.norm(self.conv(features)), inplace=True)


class VoxelClassifier(Network):
    """Three hidden layers of `width` on each voxel's intensities (`raw`) or on `gaussian_features` of them.

    (B, C, *S) -> logits (B, K, *S) for any size S; two hidden layers are the encoder, the third the decoder. 9,156
    parameters with 2 channels and 4 classes; 10,308 with Gaussian features.
    """

    is_plain = False  # True: features are computed by convolutions (see `exporting/plain.py`)

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        dropout: DropoutSpec | None = None,
        *,
        features: Features = "raw",
        width: Annotated[int, Field(ge=1, le=4096, description="Channels of the hidden layers.")] = 64,
        norm: Norm = "batch",
        dims: AskedDims = 2,
        groups: Groups = MAX_GROUPS,
    ) -> None:
        super().__init__(dims)
        dims = self.dims
        self.features: Features = features
        num_features = in_channels * (1 if features == "raw" else 1 + 3 * len(SIGMAS_PX))
        self.encoder = nn.ModuleList(VoxelBlock(before, width, norm, dims, groups) for before in (num_features, width))
        self.decoder = VoxelBlock(width, width, norm, dims, groups)
        self.head = CONV[dims](width, num_classes, 1)
        self.add_dropouts(dropout)

    def levels(self, group: str) -> dict[str, nn.Module]:
        """As of any network, but the decoder is a single layer and no list."""
        return {"decoder0": self.decoder} if group == "decoder" else super().levels(group)

    def encode(self, image: Tensor) -> list[Tensor]:
        features = image if self.features == "raw" else gaussian_features(image, is_plain=self.is_plain)
        return [self.run_levels("encoder", features)]

    def decode(self, maps: list[Tensor]) -> Tensor:
        return self.run_levels("decoder", maps.pop())


def gaussian_features(image: Float[Tensor, "B C *S"], *, is_plain: bool = False) -> Float[Tensor, "B F *S"]:
    """Intensity, and for each sigma of `SIGMAS_PX` the smoothed intensity, its gradient's norm and its Laplacian.

    F = (1 + 3 x sigmas) C. Derivatives are central differences, multiplied by sigma and sigma^2 so that all scales have
    comparable values (Lindeberg 1998). Computed in float32; the image is extended by repeating its edge voxels.
    `is_plain` takes convolutions, which are slower here, and the same up to rounding.
    """
    apply = convolve if is_plain else correlate
    with torch.autocast(image.device.type, enabled=False):
        plain = image.float()
        found = [plain]
        for sigma in SIGMAS_PX:
            smooth = plain
            axes = range(2, plain.ndim)
            for axis in axes:
                smooth = apply(smooth, gaussian_kernel(sigma), axis)
            slopes = [apply(smooth, (-0.5, 0.0, 0.5), axis) for axis in axes]
            bends = [apply(smooth, (1.0, -2.0, 1.0), axis) for axis in axes]
            steepness = torch.stack(slopes).square().sum(0).sqrt()
            found += [smooth, sigma * steepness, sigma**2 * torch.stack(bends).sum(0)]
        features = torch.cat(found, dim=1)
    return features.contiguous(memory_format=torch.channels_last if image.ndim == 4 else torch.channels_last_3d)


@cache
def gaussian_kernel(sigma_px: float) -> tuple[float, ...]:
    """A Gaussian sampled up to three standard deviations and normalised to sum 1."""
    radius = round(3 * sigma_px)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma_px) ** 2)
    return tuple((weights / weights.sum()).tolist())


def correlate(image: Float[Tensor, "B C *S"], kernel: tuple[float, ...], axis: int) -> Float[Tensor, "B C *S"]:
    """Correlates each channel with a kernel of odd length along one axis; edge voxels are repeated outwards."""
    radius, size = len(kernel) // 2, image.shape[axis]
    first, last = image.narrow(axis, 0, 1), image.narrow(axis, size - 1, 1)
    edges = list(image.shape)
    edges[axis] = radius
    padded = torch.cat([first.expand(edges), image, last.expand(edges)], dim=axis)
    moved = (weight * padded.narrow(axis, shift, size) for shift, weight in enumerate(kernel) if weight)
    result: Tensor = sum(moved, start=torch.zeros_like(image))
    return result


def convolve(image: Float[Tensor, "B C *S"], kernel: tuple[float, ...], axis: int) -> Float[Tensor, "B C *S"]:
    """`correlate` as a padding and a convolution."""
    dims, channels, size = image.ndim - 2, image.shape[1], len(kernel)
    pads = [(0, 0) if other != axis else (size // 2, size // 2) for other in range(2, image.ndim)]
    padded = F.pad(image, [amount for pair in reversed(pads) for amount in pair], mode="replicate")
    shape = [size if other == axis else 1 for other in range(2, image.ndim)]
    weight = torch.tensor(kernel, device=image.device).view(1, 1, *shape).expand(channels, 1, *shape)
    return (F.conv2d if dims == 2 else F.conv3d)(padded, weight, groups=channels)
