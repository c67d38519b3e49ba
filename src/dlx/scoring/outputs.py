"""What the outputs of a network mean, and how they are compared with a mask, in which voxels may be ignored.

The training step, the evaluation and the scores all use the one `Outputs` of a trial.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, Integer, UInt8
from torch import Tensor

from dlx.data.cases import IGNORED
from dlx.scoring.overlap import overlap_counts, soft_overlap


@dataclass(frozen=True)
class Outputs:
    """Exclusive classes 0 to K - 1, one output of the network for each.

    If the data `has_ignored` voxels, they are left out of all counts and sums, as nnU-Net's evaluation leaves them out
    of true and false positives and negatives (its evaluation/evaluate_predictions.py). Without, no time is spent on
    them.
    """

    num_classes: int  # K, with the background
    has_ignored: bool = False

    @property
    def num_outputs(self) -> int:
        """The number of outputs of the network."""
        return self.num_classes

    def probabilities(self, logits: Float[Tensor, "B N *S"]) -> Float[Tensor, "B N *S"]:
        """The probability of each output, in float32."""
        return logits.float().softmax(1)

    def predict(self, probabilities: Float[Tensor, "N *S"]) -> UInt8[Tensor, "*S"]:
        """The predicted class of each voxel."""
        return probabilities.argmax(0).to(torch.uint8)

    def leave_out(self, prediction: UInt8[Tensor, "*S"], mask: UInt8[Tensor, "*S"]) -> None:
        """Marks, in place, the predictions that no metric may count: those of ignored voxels, which get no class."""
        if self.has_ignored:
            prediction.masked_fill_(mask == IGNORED, IGNORED)

    def counts(self, prediction: UInt8[Tensor, "*S"], mask: UInt8[Tensor, "*S"]) -> Int64[Tensor, "3 K"]:
        """`overlap_counts` of a prediction from which ignored voxels are left out."""
        return overlap_counts(prediction, mask, self.num_classes)

    def soft_sums(self, probabilities: Float[Tensor, "B N *S"], mask: Integer[Tensor, "B *S"]) -> Float[Tensor, "3 K"]:
        """`soft_overlap`, without ignored voxels."""
        if self.has_ignored:
            probabilities = probabilities * (mask != IGNORED).unsqueeze(1)
        return soft_overlap(probabilities, mask)
