"""The network and the loss as plain torch has them, written from docs/notes.md: what every peer trains with."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

CLASS_WEIGHTS = (0.1, 0.4, 0.2, 0.3)


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class PlainUNet2(nn.Module):
    """`unet2`: (B, C, H, W) -> logits (B, K, H, W); the same blocks and the same number of parameters."""

    def __init__(self, channels: int, classes: int, width: int, levels: int = 4) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        self.encoder = nn.ModuleList(
            nn.Sequential(conv_block(before, after), conv_block(after, after))
            for before, after in zip([channels, *widths[:-1]], widths, strict=True)
        )
        self.pool, self.enlarge = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="nearest")
        self.up = nn.ModuleList(conv_block(2 * wide, wide) for wide in reversed(widths[:-1]))
        self.merge = nn.ModuleList(
            nn.Sequential(conv_block(2 * wide, wide), conv_block(wide, wide)) for wide in reversed(widths[:-1])
        )
        self.head = nn.Conv2d(width, classes, 1)

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


LOSSES = {"lovasz+focal": notes_loss, "ce": lambda logits, mask: F.cross_entropy(logits.float(), mask)}


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def standard_gflop(width: int, side: int, channels: int, classes: int) -> float:
    """Of one slice, forward and backward, in `unet2` as it is written down; whatever fewer a contender gets by with, it
    is credited with these."""
    with torch.device("meta"):
        model = PlainUNet2(channels, classes, width)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, channels, side, side)).sum().backward()
    return counter.get_total_flops() / 1e9
