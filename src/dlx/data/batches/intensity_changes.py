"""Blur, contrast, low resolution and gamma of a batch, as in nnU-Net (batchgenerators): each sample by its own draw.

Every function takes images (B, C, *S), 2D or 3D, in channels-last memory, and keeps it. Samples whose draw is neutral
(a sigma of 0, a factor or exponent of 1, a full size) are returned as they are, bit for bit. Nothing waits
for the device, and no convolution is used, which on CUDA would round to TF32.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from jaxtyping import Float, Int64
from torch import Tensor


def blur(image: Float[Tensor, "B C *S"], sigmas: Float[Tensor, "B C"], radius: int) -> Float[Tensor, "B C *S"]:
    """Each channel convolved with a Gaussian along each axis, cut off beyond `radius` voxels.

    `sigmas` are in voxels; 0 changes nothing. Beyond its ends the patch repeats its last voxel.
    """
    dims = image.ndim - 2
    places = torch.arange(-radius, radius + 1, dtype=sigmas.dtype, device=sigmas.device)
    kernels = torch.exp(-0.5 * (places / sigmas.clamp(min=1e-3).unsqueeze(-1)) ** 2)  # (B, C, taps)
    kernels = kernels / kernels.sum(-1, keepdim=True)
    weights = kernels.view(*kernels.shape, *[1] * dims).unbind(2)  # of each tap: (B, C, 1 ...)
    for axis in range(2, image.ndim):
        size = image.shape[axis]
        padding = [0, 0] * dims
        padding[2 * (image.ndim - 1 - axis) : 2 * (image.ndim - axis)] = [radius, radius]
        padded = F.pad(image, padding, mode="replicate")
        image = weights[0] * padded.narrow(axis, 0, size)
        for tap, weight in enumerate(weights[1:], start=1):
            image = torch.addcmul(image, weight, padded.narrow(axis, tap, size))
    return _channels_last(image)


def change_contrast(image: Float[Tensor, "B C *S"], factors: Float[Tensor, "B C"]) -> Float[Tensor, "B C *S"]:
    """mean + factor (x - mean), limited to the smallest and largest value that the channel had before."""
    over = tuple(range(2, image.ndim))
    mean = image.mean(over, keepdim=True)
    factors = _per_channel(factors, image)
    changed = (mean + factors * (image - mean)).clamp(image.amin(over, keepdim=True), image.amax(over, keepdim=True))
    return torch.where(factors == 1, image, changed)


def change_gamma(image: Float[Tensor, "B C *S"], exponents: Float[Tensor, "B C"]) -> Float[Tensor, "B C *S"]:
    """Each channel, scaled to 0..1, to its power, scaled back, then shifted and scaled to its former mean and deviation
    (over the voxels; `retain_stats` of batchgenerators). A channel of one value stays.
    """
    over = tuple(range(2, image.ndim))
    exponents = _per_channel(exponents, image)
    low, high = image.amin(over, keepdim=True), image.amax(over, keepdim=True)
    spread = (high - low).clamp(min=1e-7)
    powered = ((image - low) / spread).clamp(0, 1) ** exponents * spread
    sd, mean = torch.std_mean(image, over, correction=0, keepdim=True)
    sd_now, mean_now = torch.std_mean(powered, over, correction=0, keepdim=True)
    changed = (powered - mean_now) * (sd / sd_now.clamp(min=1e-8)) + mean
    return torch.where((exponents == 1) | (low == high), image, changed)


def simulate_low_resolution(image: Float[Tensor, "B C *S"], sizes: Int64[Tensor, "B D"]) -> Float[Tensor, "B C *S"]:
    """Each sample resampled to its `sizes` by nearest neighbour and back by linear interpolation.

    The same as torch's `nearest-exact` and then `linear` without aligned corners, which take one size for all samples.
    Both are done an axis at a time, in one step: each voxel is the mean of the two that the low resolution keeps beside
    it, weighted by their distances.
    """
    for axis in range(image.ndim - 2):
        size = image.shape[2 + axis]
        low_size = sizes[:, axis : axis + 1].to(image.dtype)  # (B, 1)
        at = torch.arange(size, dtype=image.dtype, device=image.device)
        # where each voxel lies among those that are kept, of which the ends are repeated
        places = ((at + 0.5) * (low_size / size) - 0.5).clamp(min=0)  # (B, size)
        before = places.floor()
        weight = places - before
        after = torch.minimum(before + 1, low_size - 1)
        kept = [((one + 0.5) * (size / low_size)).floor().long().clamp(max=size - 1) for one in (before, after)]
        shape = [len(image), *[1] * (image.ndim - 1)]
        shape[2 + axis] = size
        first, second = (image.gather(2 + axis, one.view(shape).expand(image.shape)) for one in kept)
        image = torch.lerp(first, second, weight.view(shape))
    return _channels_last(image)


def _per_channel(values: Float[Tensor, "B C"], image: Tensor) -> Tensor:
    return values.view(*values.shape, *[1] * (image.ndim - 2))


def _channels_last(image: Tensor) -> Tensor:
    return image.contiguous(memory_format=torch.channels_last if image.ndim == 4 else torch.channels_last_3d)
