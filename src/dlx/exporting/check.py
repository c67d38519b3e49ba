"""Compares an exported file with the network it was made from: their logits, and the labels that follow from them."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dlx.engine.device import Compute, choose_compute
from dlx.exporting.images import RealImages, cut_inputs
from dlx.exporting.network_file import RunNetwork
from dlx.exporting.plain import made_up_images
from dlx.models.layers.blocks import crop_to, pad_to_multiple
from dlx.prediction.ensemble import compute_of
from dlx.prediction.trained_network import TrainedNetwork
from dlx.scoring.outputs import Outputs
from dlx.settings.spec import ComputeSpec
from dlx.system.errors import DataError, DlxError
from dlx.trial.build import place_network
from dlx.trial.factories import model_geometry, outputs_of

# The share of the largest logit, at least 1, by which logits may differ from those of the plain network, and the share
# of the voxels that may have another label. Both sides compute in float32 with sums in another order; but for deep
# residual networks of instance or group norm, a twentieth of this is the most that was seen (docs/export.md).
SHARE = 1e-4
# If rounding changes more in a network, this many times as much: 7e-4 in unet-resnet152 with instance norm.
ROUNDINGS = 10
# As many times as much may differ from the network as the engine runs it, where norms are less exact (`norms`). Seen
# were 9e-5 of the largest logit on noise, and 2e-5 of the labels on windows of 48 x 64 x 48 voxels.
ENGINE_LOGITS, ENGINE_LABELS = 10, 100


@dataclass(frozen=True)
class FileComparison:
    """The largest difference of logits, the largest logit, and how many voxels were compared and differ in label.

    `share` is what may differ: of the largest logit, and of the voxels.
    """

    difference: float = 0.0
    largest: float = 0.0
    num_voxels: int = 0
    num_differing: int = 0
    share: float = SHARE

    @property
    def tolerance(self) -> float:
        """The largest difference of logits that is accepted."""
        return self.share * max(1.0, self.largest)

    def with_more(
        self, expected: Float[Tensor, "B N *S"], found: Float[Tensor, "B N *S"], outputs: Outputs
    ) -> "FileComparison":
        """This comparison together with that of more logits."""
        labels = [outputs.predict(outputs.probabilities(one).movedim(1, 0)) for one in (expected, found)]
        return FileComparison(
            _larger(self.difference, (expected - found).abs()),
            _larger(self.largest, expected.abs()),
            self.num_voxels + labels[0].numel(),
            self.num_differing + int((labels[0] != labels[1]).sum()),
            self.share,
        )

    def check_logits(self, what: str, factor: int = 1) -> None:
        """DlxError, with the numbers, if logits differ by more than `factor` times the tolerance."""
        accepted = factor * self.tolerance
        if not self.difference <= accepted:  # also for NaN
            raise DlxError(
                f"the exported network differs on {what}: logits by up to {self.difference:.2g}, of which at most "
                f"{accepted:.2g} is rounding; the file was not written"
            )

    def check_labels(self, what: str, factor: int = 1) -> None:
        """DlxError, with the numbers, if more than `factor` times the share of voxels has another label."""
        if self.num_differing > factor * self.share * self.num_voxels:
            raise DlxError(
                f"the exported network differs on {what}: {self.num_differing:,} of {self.num_voxels:,} voxels have "
                "another label; the file was not written"
            )


def compare(
    networks: Sequence[RunNetwork],
    file: RunNetwork,
    images: Iterable[Float[Tensor, "B C *S"]],
    stride: int,
    outputs: Outputs,
    share: float = SHARE,
) -> list[FileComparison]:
    """Compares each network with a file. The file gets images padded with zeros to multiples of `stride`, as networks
    pad them. DlxError if the file cannot be run on an image.
    """
    found = [FileComparison(share=share) for _ in networks]
    with torch.inference_mode():
        for image in images:
            logits = crop_to(file(pad_to_multiple(image, stride)), tuple(image.shape[2:]))
            for index, network in enumerate(networks):
                expected = network(image)
                if logits.shape != expected.shape:
                    shapes = f"{tuple(logits.shape)} in place of {tuple(expected.shape)}"
                    raise DlxError(f"the exported network gives logits of shape {shapes}")
                found[index] = found[index].with_more(expected, logits, outputs)
    return found


def as_the_engine(network: nn.Module, compute: Compute | None = None) -> RunNetwork:
    """A network as the engine runs it for predictions, on the host; without `compute` in float32."""
    dims, _ = model_geometry(network)
    compute = compute or choose_compute(ComputeSpec(device="cpu", precision="float32", capture=False))
    placed, memory_format = place_network(copy.deepcopy(network), compute), compute.memory_format(dims)

    def run(image: Tensor) -> Tensor:
        with compute.autocast():
            logits: Tensor = placed(image.contiguous(memory_format=memory_format))
        return logits.float()

    return run


def _larger(known: float, values: Tensor) -> float:
    """The largest value; NaN if any is."""
    largest = float(values.max())
    return largest if largest != largest or largest > known else known


@dataclass(frozen=True, eq=False)
class FileCheck:
    """A trained network, its plain copy and the file that was made of it."""

    trained: TrainedNetwork
    plain: nn.Module
    file: RunNetwork

    @cached_property
    def share(self) -> float:
        """What may differ: SHARE, or ROUNDINGS times what float32 changes in this network on noise, if that is more."""
        image = made_up_images(self.plain, self._num_channels)
        with torch.inference_mode():
            narrow = self.plain(image)
            try:
                wide = copy.deepcopy(self.plain).double()(image.double())
            except RuntimeError:  # a network with operations of its own in float32
                return SHARE
        return max(SHARE, ROUNDINGS * float((narrow - wide).abs().max() / wide.abs().max().clamp(min=1.0)))

    def on_noise(self) -> FileComparison:
        """Compares on made-up images of other sizes than that which was traced. DlxError if the file differs from the
        plain network, or from the network as it was trained.
        """
        images = [
            made_up_images(self.plain, self._num_channels, batch, variation) for batch, variation in ((1, 1), (3, 2))
        ]
        of_plain, of_engine = self._compare(images)
        of_plain.check_logits("noise")
        of_plain.check_labels("noise")
        of_engine.check_logits("noise", ENGINE_LOGITS)
        of_engine.check_labels("noise", ENGINE_LABELS)
        return of_plain

    def on_images(self, real: RealImages, *, is_required: bool) -> tuple[RealImages, list[FileComparison]]:
        """Compares on real images: with the plain network, with the network as the engine runs it in float32, and,
        last, as `dlx predict` runs it here. No images and no comparisons if they cannot be read and are not required.
        DlxError if the file differs from the plain network, or gives many voxels another label than the engine in
        float32.
        """
        if not real.images:
            return real, []
        inputs = (batch for image in real.images for batch in cut_inputs(image, self.trained, real.max_voxels))
        try:
            found = self._compare(inputs, as_predicted=True)
        except DataError as error:
            if is_required:
                raise
            cause = str(error).splitlines()[0]
            return RealImages((), f"{real.what} cannot be read ({cause})"), []
        of_plain, of_engine, *_ = found
        of_plain.check_logits(real.what)
        of_plain.check_labels(real.what)
        of_engine.check_labels(real.what, ENGINE_LABELS)
        return real, found

    @cached_property
    def predicting(self) -> Compute:
        """How `dlx predict --device cpu` computes on this machine: in the precision of the trial if it can."""
        return compute_of(self.trained, choose_compute(ComputeSpec(device="cpu", capture=False)))

    def _compare(self, images: Iterable[Tensor], *, as_predicted: bool = False) -> list[FileComparison]:
        """With the plain network and with the network as the engine runs it in float32; with `as_predicted` also in the
        precision of `dlx predict` if that is another.
        """
        _, stride = model_geometry(self.plain)
        networks: list[RunNetwork] = [self.plain, as_the_engine(self.trained.network)]
        if as_predicted and self.predicting.precision != "float32":
            networks.append(as_the_engine(self.trained.network, self.predicting))
        return compare(networks, self.file, images, stride, outputs_of(self.trained.dataset), self.share)

    @property
    def _num_channels(self) -> int:
        return len(self.trained.dataset.channels)
