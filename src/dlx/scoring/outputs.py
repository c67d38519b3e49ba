"""What the outputs of a network mean, and how they are compared with a mask, in which voxels may be ignored.

The training step, the evaluation and the scores all use the one `Outputs` of a trial.
"""

from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import torch
from jaxtyping import Float, Int64, Integer, UInt8
from torch import Tensor

from dlx.data.cases import IGNORED
from dlx.scoring.overlap import count_overlap, overlap_counts, soft_overlap

# Of the probability of a region, which is predicted above it, as in nnU-Net (its label_handling.py).
THRESHOLD = 0.5


@dataclass(frozen=True)
class Outputs:
    """Exclusive classes 0 to K - 1, one output of the network for each; or `regions`, which may overlap.

    Class 0 is the background. With `regions`, class k of 1 to K - 1 is region k - 1: a set of classes of the masks. The
    network has an output for each region, independent of the others, and none for the background, of which all counts
    and sums are then 0. `region_order` is that of `Dataset`.

    If the data `has_ignored` voxels, they are left out of all counts and sums, as nnU-Net's evaluation leaves them out
    of true and false positives and negatives (its evaluate_predictions.py). Without, no time is spent on them.
    """

    num_classes: int  # K, with the background
    has_ignored: bool = False
    regions: tuple[tuple[int, ...], ...] = ()
    region_order: tuple[int, ...] = ()

    @property
    def num_outputs(self) -> int:
        """The number of outputs of the network."""
        return len(self.regions) or self.num_classes

    def probabilities(self, logits: Float[Tensor, "B N *S"]) -> Float[Tensor, "B N *S"]:
        """The probability of each output, in float32."""
        return logits.float().sigmoid() if self.regions else logits.float().softmax(1)

    def predict(self, probabilities: Float[Tensor, "N *S"]) -> UInt8[Tensor, "*S"]:
        """The predicted class of each voxel; with regions, bit r is set where region r is predicted."""
        if not self.regions:
            return probabilities.argmax(0).to(torch.uint8)
        bits = torch.zeros(probabilities.shape[1:], dtype=torch.uint8, device=probabilities.device)
        for r, probability in enumerate(probabilities):
            bits += (probability > THRESHOLD).to(torch.uint8) * (1 << r)
        return bits

    def labels(self, prediction: UInt8[Tensor, "*S"]) -> UInt8[Tensor, "*S"]:
        """A prediction as a mask of one class a voxel: region by region, later ones over earlier ones, the class in
        `region_order` is written. `Dataset.label_values` are the values of these classes in mask files.
        """
        if not self.regions:
            return prediction
        classes = torch.zeros_like(prediction)
        for r, k in enumerate(self.region_order):
            classes.masked_fill_(self.is_predicted(prediction, r + 1), k)
        return classes

    def is_predicted(self, prediction: Any, k: int) -> Any:
        """Where a class is predicted, from a tensor or an array of `predict`."""
        return (prediction >> (k - 1)) % 2 == 1 if self.regions else prediction == k

    def is_true(self, mask: Any, k: int) -> Any:
        """Where the class is in a mask, a tensor or an array."""
        return reduce(or_, [mask == label for label in self.regions[k - 1]]) if self.regions else mask == k

    def leave_out(self, prediction: UInt8[Tensor, "*S"], mask: UInt8[Tensor, "*S"]) -> None:
        """Marks, in place, the predictions that no metric may count: those of ignored voxels, which get no class."""
        if self.has_ignored:
            prediction.masked_fill_(mask == IGNORED, 0 if self.regions else IGNORED)

    def counts(self, prediction: UInt8[Tensor, "*S"], mask: UInt8[Tensor, "*S"]) -> Int64[Tensor, "3 K"]:
        """`overlap_counts` of a prediction from which ignored voxels are left out."""
        if not self.regions:
            return overlap_counts(prediction, mask, self.num_classes)
        counts = count_overlap(prediction, mask, range(1, self.num_classes), self.is_predicted, self.is_true)
        return torch.cat([torch.zeros_like(counts[:, :1]), counts], dim=1)

    def soft_sums(self, probabilities: Float[Tensor, "B N *S"], mask: Integer[Tensor, "B *S"]) -> Float[Tensor, "3 K"]:
        """`soft_overlap`, without ignored voxels."""
        if self.has_ignored:
            probabilities = probabilities * (mask != IGNORED).unsqueeze(1)
        if not self.regions:
            return soft_overlap(probabilities, mask)
        columns = [torch.zeros(3, device=mask.device)]
        for k in range(1, self.num_classes):
            p, g = probabilities[:, k - 1], self.is_true(mask, k)
            columns.append(torch.stack([(p * g).sum(), p.sum(), g.to(p.dtype).sum()]))
        return torch.stack(columns, dim=1)
