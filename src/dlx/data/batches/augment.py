"""Augmentation of a batch on its device: flips, rotation and scaling, then changes of intensities; all off by default.

The changes are drawn on the host, a whole epoch at a time, from a separate random stream: trials of one seed see the
same changes, and enabling another kind of change does not alter the draws of the others. Each kind is computed for all
patches of the batch; the draws of patches that are left alone are such that it changes nothing there.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from jaxtyping import Float, Int64
from torch import Tensor

from dlx.data.batches.intensity_changes import blur, change_contrast, change_gamma, simulate_low_resolution
from dlx.settings.spec import AugmentSpec
from dlx.system.ranks import ALONE, Ranks


class Augmenter:
    """Augments the batches of one trial: `begin_epoch` draws the changes, a call applies those of one step.

    A call reads only device tensors that are never reallocated, so it can be captured in a CUDA graph. `noise` is the
    generator of the voxel noise; it must be registered with the graph.
    """

    def __init__(
        self,
        spec: AugmentSpec,
        num_steps: int,
        batch_size: int,
        channels: int,
        patch_size_px: tuple[int, ...],
        device: torch.device,
        voxel_size: tuple[float, ...] | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """`voxel_size` is that of the patch's axes in any unit, by default equal: angles are those of the body.

        `batch_size` is that of the global batch, for which all is drawn; a call gets the part of this rank.
        """
        self.spec, self.dims, self.shape = spec, len(patch_size_px), (num_steps, batch_size)
        self.sizes = patch_size_px
        dims = self.dims
        steps = voxel_size or (1.0,) * dims
        sides = torch.tensor([n * step for n, step in zip(patch_size_px, steps, strict=True)][::-1])  # (x, y(, z))
        # computed here because at each step it would be a copy from the host
        self.side_ratios = (sides / sides.unsqueeze(1)).to(device)
        self.ranks = ranks
        self.noise = torch.Generator(device)
        self.flips = torch.zeros(*self.shape, dims, dtype=torch.bool, device=device)
        self.affine = torch.zeros(*self.shape, dims, dims + 1, device=device)
        self.gain = torch.zeros(*self.shape, channels, device=device)
        self.shift = torch.zeros(*self.shape, channels, device=device)
        self.noise_sd = torch.zeros(self.shape, device=device)
        self.blur_radius = math.ceil(4 * spec.blur_sigma_px[1])  # four standard deviations, as scipy's filter
        self.blur_sigmas = torch.zeros(*self.shape, channels, device=device)
        self.contrast = torch.zeros(*self.shape, channels, device=device)
        self.low_sizes = torch.zeros(*self.shape, dims, dtype=torch.int64, device=device)
        self.inverted_exponents = torch.zeros(*self.shape, channels, device=device)
        self.exponents = torch.zeros(*self.shape, channels, device=device)

    def begin_epoch(self, draws: torch.Generator, noise_seed: int) -> None:
        """Draws all kinds of changes of the next epoch, also disabled ones, and copies them to the device."""
        self.noise.manual_seed(noise_seed)

        def uniform(*sizes: int) -> Tensor:
            return torch.rand((*self.shape, *sizes), generator=draws, dtype=torch.float64)

        spec, channels = self.spec, self.gain.shape[-1]
        is_flipped = torch.tensor([spec.flip_axes is None or axis in spec.flip_axes for axis in range(self.dims)])
        self.flips.copy_((uniform(self.dims) < spec.flip) & is_flipped)
        angles = (2 * uniform(3) - 1) * math.radians(spec.rotate_deg)
        sizes = (1 + spec.scale) ** (2 * uniform(1) - 1)  # as often smaller as larger
        self.affine[..., :-1].copy_(rotations(angles, self.dims) / sizes.unsqueeze(-1))
        self.gain.copy_((1 + spec.intensity) ** (2 * uniform(channels) - 1))
        self.shift.copy_((2 * uniform(channels) - 1) * spec.intensity)
        self.noise_sd.copy_(uniform() * spec.noise)
        # Kinds that were added later are drawn after the older ones, whose draws so stay what they were.
        low, high = spec.blur_sigma_px
        self.blur_sigmas.copy_((uniform(1) < spec.blur) * (low + (high - low) * uniform(channels)))
        self.contrast.copy_(_factors(uniform(1) < spec.contrast, uniform(channels), spec.contrast_range))
        low, high = spec.low_resolution_range
        shares = torch.where(uniform(1) < spec.low_resolution, low + (high - low) * uniform(1), 1.0)
        self.low_sizes.copy_((shares * torch.tensor(self.sizes)).round().clamp(min=1))
        for exponents, chance in ((self.inverted_exponents, spec.gamma_inverted), (self.exponents, spec.gamma)):
            exponents.copy_(_factors(uniform(1) < chance, uniform(channels), spec.gamma_range))

    def __call__(
        self, image: Float[Tensor, "B C *S"], mask: Int64[Tensor, "B *S"], at: Int64[Tensor, "1"]
    ) -> tuple[Float[Tensor, "B C *S"], Int64[Tensor, "B *S"]]:
        """Augments the batch of step `at`; image and mask move together, memory formats are kept."""
        spec = self.spec
        if spec.flip > 0:
            image, mask = self._flip(image, mask, at)
        if spec.rotate_deg > 0 or spec.scale > 0:
            image, mask = self._move(image, mask, at)
        per_channel = [image.shape[0], -1, *[1] * self.dims]
        if spec.intensity > 0:
            gain, shift = (self._drawn(drawn, at).view(per_channel) for drawn in (self.gain, self.shift))
            image = image * gain + shift
        if spec.noise > 0:
            sd = self._drawn(self.noise_sd, at).view(per_channel)
            image = image + sd * self._voxel_noise(image)
        return self._change_intensities(image, at), mask

    def _voxel_noise(self, image: Tensor) -> Tensor:
        """Standard normal noise, drawn in the order of the voxels in memory: for the global batch, then cut."""
        if self.ranks.size == 1:
            return torch.empty_like(image).normal_(generator=self.noise)
        whole = torch.cat([torch.empty_like(image)] * self.ranks.size)  # keeps the memory format
        return whole.normal_(generator=self.noise)[self.ranks.part(len(whole))]

    def _drawn(self, of_batch: Tensor, at: Tensor) -> Tensor:
        """What was drawn for the samples of step `at`, those of this rank, (1, B, ...)."""
        drawn = of_batch.index_select(0, at)
        return drawn if self.ranks.size == 1 else drawn[:, self.ranks.part(drawn.shape[1])]

    def _change_intensities(self, image: Tensor, at: Tensor) -> Tensor:
        """The kinds with a chance for each patch, in nnU-Net's order: blur, contrast, low resolution, gamma."""
        spec = self.spec
        if spec.blur > 0:
            image = blur(image, self._drawn(self.blur_sigmas, at)[0], self.blur_radius)
        if spec.contrast > 0:
            image = change_contrast(image, self._drawn(self.contrast, at)[0])
        if spec.low_resolution > 0:
            image = simulate_low_resolution(image, self._drawn(self.low_sizes, at)[0])
        if spec.gamma_inverted > 0:
            image = -change_gamma(-image, self._drawn(self.inverted_exponents, at)[0])
        if spec.gamma > 0:
            image = change_gamma(image, self._drawn(self.exponents, at)[0])
        return image

    def _flip(self, image: Tensor, mask: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        flips = self._drawn(self.flips, at)[0]  # (B, dims)
        for axis in range(self.dims):
            is_flipped = flips[:, axis].view(-1, *[1] * self.dims)
            image = torch.where(is_flipped.unsqueeze(1), image.flip(axis + 2), image)
            mask = torch.where(is_flipped, mask.flip(axis + 1), mask)
        return image, mask

    def _move(self, image: Tensor, mask: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """Rotates and scales about the patch's centre; voxels from outside the patch are its reflection."""
        theta = self._drawn(self.affine, at)[0]  # (B, dims, dims + 1), in x, y(, z)
        theta = theta.clone()
        theta[..., :-1] *= self.side_ratios  # the grid's sides are -1..1 whatever their length
        grid = F.affine_grid(theta, list(image.shape), align_corners=False)
        moved = F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        labels = F.grid_sample(
            mask.unsqueeze(1).to(image.dtype), grid, mode="nearest", padding_mode="reflection", align_corners=False
        )
        format_ = torch.channels_last if self.dims == 2 else torch.channels_last_3d
        return moved.contiguous(memory_format=format_), labels.squeeze(1).long()


def _factors(is_changed: Tensor, uniform: Tensor, ends: tuple[float, float]) -> Tensor:
    """1 where nothing is changed. Half of the draws are below 1 and half above, if the ends are on both sides of it."""
    low, high = ends
    if low < 1 < high:
        drawn = torch.where(uniform < 0.5, low + (1 - low) * 2 * uniform, 1 + (high - 1) * (2 * uniform - 1))
    else:
        drawn = low + (high - low) * uniform
    return torch.where(is_changed, drawn, 1.0)


def rotations(angles: Float[Tensor, "S B 3"], dims: int) -> Float[Tensor, "S B D D"]:
    """Rotation matrices: in the plane by the first angle, or in 3D about x, then y, then z."""
    cos, sin = angles.cos(), angles.sin()
    if dims == 2:
        c, s = cos[..., 0], sin[..., 0]
        return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
    whole = torch.eye(3, dtype=angles.dtype).expand(*angles.shape[:-1], 3, 3)
    for axis in range(3):
        first, second = [other for other in range(3) if other != axis]
        turn = torch.eye(3, dtype=angles.dtype).repeat(*angles.shape[:-1], 1, 1)
        turn[..., first, first] = turn[..., second, second] = cos[..., axis]
        turn[..., first, second], turn[..., second, first] = -sin[..., axis], sin[..., axis]
        whole = turn @ whole
    return whole
