"""A classifier of single voxels, which learns no features: what a network's convolutions must be measured against.

Each voxel is judged by its own intensities, or by features that people engineered before networks learnt them: each
channel smoothed by Gaussians of several widths, with the size of its gradient and its Laplacian there.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from dlx.models.blocks import CONV, MAX_GROUPS, Dims, Groups, Norm, Watch, check_axes, make_dropouts, make_norm
from dlx.settings.spec import DropoutSpec

SIGMAS_PX = (1.0, 2.0, 4.0)
Features = Annotated[
    Literal["raw", "gaussian"],
    Field(description="Of each voxel: its intensities, or smoothed ones, their gradients and Laplacians too."),
]


def voxel(
    in_channels: int,
    num_classes: int,
    dropout: DropoutSpec | None = None,
    *,
    features: Features = "raw",
    width: Annotated[int, Field(ge=1, le=4096, description="Channels of the hidden layers.")] = 64,
    norm: Norm = "batch",
    dims: Dims = 2,
    groups: Groups = MAX_GROUPS,
) -> "VoxelClassifier":
    """Three hidden layers of `width` on each voxel's intensities (`raw`) or on `gaussian_features` of them.

    9,156 parameters with 2 channels and 4 classes; 10,308 with Gaussian features.
    """
    return VoxelClassifier(in_channels, num_classes, dropout, features, width, norm, dims, groups)


class VoxelBlock(nn.Module):
    """1x1 convolution with bias, normalisation, ReLU: (B, in, *S) -> (B, out, *S), each voxel by itself."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm, dims: Dims, groups: int) -> None:
        super().__init__()
        self.conv = CONV[dims](in_channels, out_channels, 1)
        self.norm = make_norm(norm, out_channels, dims, groups)

    def forward(self, features: Float[Tensor, "B I *S"]) -> Float[Tensor, "B O *S"]:
        return F.relu(self.norm(self.conv(features)), inplace=True)


class VoxelClassifier(nn.Module):
    """(B, C, *S) -> logits (B, K, *S) for any size S; two hidden layers are the encoder, the third the decoder."""

    stride = 1

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        dropout: DropoutSpec | None,
        features: Features,
        width: int,
        norm: Norm,
        dims: Dims,
        groups: int,
    ) -> None:
        super().__init__()
        self.watch: Watch | None = None
        self.dims: Dims = dims
        self.features: Features = features
        num_features = in_channels * (1 if features == "raw" else 1 + 3 * len(SIGMAS_PX))
        self.encoder = nn.ModuleList(VoxelBlock(before, width, norm, dims, groups) for before in (num_features, width))
        self.decoder = VoxelBlock(width, width, norm, dims, groups)
        self.head = CONV[dims](width, num_classes, 1)
        encoder, decoder = ["encoder0", "encoder1"], ["decoder0"]
        self.dropouts = make_dropouts(dropout, dims, encoder=encoder, decoder=decoder, bottleneck=encoder[-1:])

    def _call(self, block: nn.Module, place: str, features: Tensor) -> Tensor:
        features = block(features)
        if self.watch is not None:
            self.watch(place, features)
        return self.dropouts[place](features) if place in self.dropouts else features

    def _encode(self, image: Tensor) -> Tensor:
        check_axes(image, self.dims)
        features = image if self.features == "raw" else gaussian_features(image)
        for layer, block in enumerate(self.encoder):
            features = self._call(block, f"encoder{layer}", features)
        return features

    def forward(self, image: Float[Tensor, "B C *S"]) -> Float[Tensor, "B K *S"]:
        logits: Tensor = self.head(self._call(self.decoder, "decoder0", self._encode(image)))
        return logits

    def embed(self, image: Float[Tensor, "B C *S"]) -> Float[Tensor, "B F"]:
        """The mean of each of the encoder's features over all voxels."""
        return self._encode(image).flatten(2).mean(2)

    def level_parameters(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of each hidden layer, by the names that `watch` is told."""
        layers = {f"encoder{layer}": list(block.parameters()) for layer, block in enumerate(self.encoder)}
        return layers | {"decoder0": list(self.decoder.parameters())}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The hidden layers as encoder and decoder, and the head."""
        return {part: list(getattr(self, part).parameters()) for part in ("encoder", "decoder", "head")}


def gaussian_features(image: Float[Tensor, "B C *S"]) -> Float[Tensor, "B F *S"]:
    """Intensity, and for each sigma of `SIGMAS_PX` the smoothed intensity, its gradient's norm and its Laplacian.

    F = (1 + 3 x sigmas) C. Derivatives are central differences, times sigma and sigma^2, so that each scale's have the
    same size (Lindeberg 1998). In float32; beyond its edge the image goes on as its edge.
    """
    with torch.autocast(image.device.type, enabled=False):
        plain = image.float()
        found = [plain]
        for sigma in SIGMAS_PX:
            smooth = plain
            axes = range(2, plain.ndim)
            for axis in axes:
                smooth = correlate(smooth, gaussian_kernel(sigma), axis)
            slopes = [correlate(smooth, (-0.5, 0.0, 0.5), axis) for axis in axes]
            bends = [correlate(smooth, (1.0, -2.0, 1.0), axis) for axis in axes]
            steepness = torch.stack(slopes).square().sum(0).sqrt()
            found += [smooth, sigma * steepness, sigma**2 * torch.stack(bends).sum(0)]
        features = torch.cat(found, dim=1)
    return features.contiguous(memory_format=torch.channels_last if image.ndim == 4 else torch.channels_last_3d)


def gaussian_kernel(sigma_px: float) -> tuple[float, ...]:
    """A Gaussian sampled to three standard deviations, its sum 1."""
    radius = round(3 * sigma_px)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma_px) ** 2)
    return tuple((weights / weights.sum()).tolist())


def correlate(image: Float[Tensor, "B C *S"], kernel: tuple[float, ...], axis: int) -> Float[Tensor, "B C *S"]:
    """Each channel with a kernel of odd length along one axis; beyond its edge the image goes on as its edge."""
    radius, size = len(kernel) // 2, image.shape[axis]
    first, last = image.narrow(axis, 0, 1), image.narrow(axis, size - 1, 1)
    edges = list(image.shape)
    edges[axis] = radius
    padded = torch.cat([first.expand(edges), image, last.expand(edges)], dim=axis)
    moved = (weight * padded.narrow(axis, shift, size) for shift, weight in enumerate(kernel) if weight)
    result: Tensor = sum(moved, start=torch.zeros_like(image))
    return result
