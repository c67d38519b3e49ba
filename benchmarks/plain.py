"""Networks, losses and optimizers as plain torch has them: what every peer of the step benchmark trains with.

In 2D they are written from docs/notes.md; in 3D they are dlx's `unet2` with instance norm, leaky ReLU and transposed
up-convolutions, soft Dice with cross-entropy, and AdamW.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.workload import Workload

CLASS_WEIGHTS = (0.1, 0.4, 0.2, 0.3)


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def conv_block_3d(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, padding=1),
        nn.InstanceNorm3d(outputs, affine=True),
        nn.LeakyReLU(0.01, inplace=True),
    )


class PlainUNet(nn.Module):
    """The blocks of encoder and decoder, and the forward pass; a subclass adds `pool`, `enlarge`, `up` and `head`."""

    def __init__(self, block: Callable[[int, int], nn.Module], channels: int, widths: list[int]) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            nn.Sequential(block(before, after), block(after, after))
            for before, after in zip([channels, *widths[:-1]], widths, strict=True)
        )
        self.merge = nn.ModuleList(
            nn.Sequential(block(2 * wide, wide), block(wide, wide)) for wide in reversed(widths[:-1])
        )

    def forward(self, image: Tensor) -> Tensor:
        skips = []
        features = image
        for level, block in enumerate(self.encoder):
            features = block(self.pool(features) if level else features)
            skips.append(features)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            features = merge(torch.cat([skips.pop(), up(self.enlarge(features))], 1))
        return self.head(features)


class PlainUNet2(PlainUNet):
    """`unet2`: (B, C, H, W) -> logits (B, K, H, W); the same blocks and the same number of parameters."""

    def __init__(self, channels: int, classes: int, width: int, levels: int = 4) -> None:
        widths = [width * 2**level for level in range(levels)]
        super().__init__(conv_block, channels, widths)
        self.pool, self.enlarge = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="nearest")
        self.up = nn.ModuleList(conv_block(2 * wide, wide) for wide in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, classes, 1)


class PlainUNet3d(PlainUNet):
    """`unet2:dims=3,norm=instance,activation=leaky-relu,up=transposed`: (B, C, D, H, W) -> logits (B, K, D, H, W)."""

    def __init__(self, channels: int, classes: int, width: int, levels: int = 4) -> None:
        widths = [width * 2**level for level in range(levels)]
        super().__init__(conv_block_3d, channels, widths)
        self.pool, self.enlarge = nn.MaxPool3d(2), nn.Identity()
        self.up = nn.ModuleList(nn.ConvTranspose3d(2 * wide, wide, 2, stride=2) for wide in reversed(widths[:-1]))
        self.head = nn.Conv3d(width, classes, 1)


def make_network(workload: Workload) -> PlainUNet2 | PlainUNet3d:
    network = PlainUNet2 if workload.dims == 2 else PlainUNet3d
    return network(workload.channels, workload.classes, workload.width)


def make_optimizer(workload: Workload, model: nn.Module, *, fused: bool | None = None) -> torch.optim.Optimizer:
    """The notes' Adam, or in 3D AdamW."""
    if workload.dims == 2:
        return torch.optim.Adam(model.parameters(), lr=2e-4, weight_decay=5e-4, fused=fused)
    return torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2, betas=(0.9, 0.95), fused=fused)


def channels_last(workload: Workload) -> torch.memory_format:
    return torch.channels_last if workload.dims == 2 else torch.channels_last_3d


def lovasz_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Sorted, over the flattened batch, the classes that are present (Berman et al. 2018)."""
    p = logits.float().softmax(1).movedim(1, -1).flatten(0, -2)  # (N, K)
    flat = mask.flatten()
    losses = []
    for label in range(p.shape[1]):
        truth = (flat == label).float()
        if truth.sum() == 0:
            continue
        errors, order = (truth - p[:, label]).abs().sort(descending=True)
        ranked = truth[order]
        intersection = ranked.sum() - ranked.cumsum(0)
        union = ranked.sum() + (1 - ranked).cumsum(0)
        jaccard = 1 - intersection / union
        jaccard[1:] = jaccard[1:] - jaccard[:-1].clone()
        losses.append(torch.dot(errors, jaccard))
    return torch.stack(losses).mean()


def focal(logits: Tensor, mask: Tensor) -> Tensor:
    """Gamma 2, class weights, and the original's second softmax."""
    log_p = F.log_softmax(logits.float().softmax(1), 1).gather(1, mask.unsqueeze(1)).squeeze(1)
    weights = torch.tensor(CLASS_WEIGHTS, device=mask.device)[mask]
    return -(weights * (1 - log_p.exp()) ** 2 * log_p).mean()


def notes_loss(logits: Tensor, mask: Tensor) -> Tensor:
    return lovasz_softmax(logits, mask) + focal(logits, mask)


def dice_and_cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Soft Dice of the classes but the background, summed over the batch, and cross-entropy."""
    logits = logits.float()
    p = logits.softmax(1)[:, 1:].flatten(2)
    g = F.one_hot(mask, logits.shape[1]).movedim(-1, 1)[:, 1:].flatten(2)
    dice = (2 * (p * g).sum((0, 2)) + 1e-5) / (p.sum((0, 2)) + g.sum((0, 2)) + 1e-5)
    return 1 - dice.mean() + F.cross_entropy(logits, mask)


LOSSES = {
    "lovasz+focal": notes_loss,
    "ce": lambda logits, mask: F.cross_entropy(logits.float(), mask),
    "dice+ce": dice_and_cross_entropy,
}


def mean_dice(pairs: Sequence[tuple[Tensor, Tensor]], classes: int) -> float:
    """Hard Dice of (prediction, mask) of each case: a class's mean over the cases that have it, then the mean of the
    classes but the background; dlx's definition, for interpreters that have no dlx."""
    means = []
    for label in range(1, classes):
        counts = [
            (((a == label) & (b == label)).sum().item(), (a == label).sum().item() + (b == label).sum().item())
            for a, b in pairs
        ]
        of_cases = [2 * overlap / both for overlap, both in counts if both]
        if of_cases:
            means.append(sum(of_cases) / len(of_cases))
    return sum(means) / len(means) if means else 0.0


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def standard_gflop(workload: Workload) -> float:
    """Of a step, forward and backward, in `unet2` as it is written down; whatever fewer a contender gets by with, it
    is credited with these."""
    batch, *sample = workload.batch_shape
    with torch.device("meta"):
        model = make_network(workload)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, *sample)).sum().backward()
    return batch * counter.get_total_flops() / 1e9
