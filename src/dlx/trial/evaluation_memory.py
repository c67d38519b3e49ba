"""How many slices or windows are evaluated at once: the default, or fewer if they would not fit into the memory."""

from collections.abc import Sequence
from math import prod

from torch import nn

from dlx.data.batches.sampler import slice_sizes
from dlx.data.cases import Dataset
from dlx.data.intensities.ct import windowed_channels
from dlx.data.splits.split import Split
from dlx.engine.device import Compute
from dlx.engine.evaluate import Slab, SoftSums
from dlx.engine.footprint import forward_bytes
from dlx.scoring.outputs import Outputs
from dlx.settings.spec import EvaluateSpec, Spec
from dlx.trial.factories import model_geometry, outputs_of
from dlx.trial.memory import PARALLEL_FRACTION, Fitted

# The share of the device's memory for a batch of evaluation: a quarter leaves room for voxels, weights, other trials.
MAX_EVALUATION_FRACTION = 0.25
MAX_EVALUATION_BYTES = 4 * 2**30  # on a CPU: 512 x 512 x 600 voxels and 24 classes then take less than 6 GiB in all
ROOMY_EVALUATION_BYTES_PER_VOXEL = 6144  # of a U-Net of width 256: what would fit even then is not traced
EVALUATION_WORKSPACE = 4 / 3  # measured: oneDNN took a third more than the tensors (512 x 512, width 16)
GATHERED_BYTES, GATHERED_BYTES_PER_CHANNEL = 26, 10  # an index, a mask; the image as float16 and twice as float32


def fit_evaluation_batch(
    spec: Spec, model: nn.Module, dataset: Dataset, split: Split, compute: Compute, *, reduces: bool = True
) -> Fitted:
    """The spec with the default number of slices or windows evaluated at once halved until it fits, and a remark.

    Any other number is kept, and with `reduces=False` the default too. The number is part of the trial's id, because it
    can change the last bits of a result. It depends on the size of memory and data, not on what is free now: the same
    trial then gets the same id again.
    """
    asked, memory = spec.evaluate.batch_size, compute.memory
    if memory is None:
        return Fitted(spec, [])
    dims, stride = model_geometry(model)
    used = dataset.cases_of([*split.train, *split.val])
    shapes, outputs = [case.mask.shape for case in used], outputs_of(dataset)
    size = evaluated_size(spec, shapes, dims, stride)
    kept = slab_bytes(size, shapes, outputs) if dims == 3 else 0
    if spec.evaluate.soft_dice:
        kept += max(soft_dice_bytes(case.measured_mask.size, outputs) for case in used)
    room = evaluation_room(memory, compute) - kept
    roomy = asked * prod(size) * ROOMY_EVALUATION_BYTES_PER_VOXEL
    if roomy <= room and (roomy + kept) * compute.cores <= memory * PARALLEL_FRACTION:
        return Fitted(spec, [])
    can_reduce = reduces and asked == EvaluateSpec().batch_size and roomy > room  # whatever the number of cores
    each = bytes_of_each(spec, model, dataset, size, is_wide=any(case.is_wide for case in dataset.cases))
    if each is None:
        unknown = f"evaluate.batch_size: the memory of this network cannot be measured, so it stays {asked}"
        return Fitted(spec, [unknown] if can_reduce else [])
    fitted = asked
    while can_reduce and fitted > 1 and fitted * each > room:
        fitted //= 2
    fraction = (fitted * each + kept) / memory
    if fitted == asked:
        return Fitted(spec, [], fraction)
    what = f"{'slices' if dims == 2 else 'windows'} of {' x '.join(map(str, size))}"
    remark = (
        f"evaluate.batch_size: reduced from {asked} to {fitted}, because {asked} {what} would take "
        f"{asked * each / 2**30:.1f} GiB of memory (limit {max(0, room) / 2**30:.1f} GiB)"
    )
    reduced = spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update={"batch_size": fitted})})
    return Fitted(reduced, [remark], fraction)


def evaluation_room(memory: int, compute: Compute) -> int:
    """The bytes that a batch of evaluation may take on a device with this memory."""
    most = int(memory * MAX_EVALUATION_FRACTION)
    return min(most, MAX_EVALUATION_BYTES) if compute.device.type == "cpu" else most


def slab_bytes(window: Sequence[int], shapes: Sequence[Sequence[int]], outputs: Outputs) -> int:
    """The memory of the largest slab of sliding windows' probabilities: see `Slab`."""
    d, h, w = window
    planes = ((max(height, h), max(width, w)) for _, height, width in shapes)
    return max(Slab.nbytes(outputs.num_outputs, (d, h, w), plane) for plane in planes)


def soft_dice_bytes(num_voxels: int, outputs: Outputs) -> int:
    """The memory of the probabilities that the soft Dice keeps of a case, and of their concatenation: see `SoftSums`.

    `num_voxels` are those on which the case is measured.
    """
    return 2 * 4 * outputs.num_outputs * num_voxels if SoftSums.keeps(outputs, num_voxels) else 0


def evaluated_size(spec: Spec, shapes: list[tuple[int, ...]], dims: int, stride: int) -> tuple[int, ...]:
    """The size of a window, or of the largest slice after padding for the network."""
    if dims == 3:
        return spec.batch.fitted_patch_size_px
    slices = slice_sizes(shapes, spec.batch.fitted_slice_axis)
    return max((tuple(-(-size // stride) * stride for size in one) for one in slices), key=prod)


def bytes_of_each(
    spec: Spec, model: nn.Module, dataset: Dataset, size: tuple[int, ...], *, is_wide: bool = False
) -> int | None:
    """Roughly the memory of one slice or window of this size during evaluation; the model is on the meta device. None
    if it cannot run there. `is_wide`: images are stored as float32.
    """
    dims, _ = model_geometry(model)
    each = evaluation_bytes(model, len(dataset.channels), size, _added_per_channel(spec, dataset, is_wide=is_wide))
    if each is not None and spec.mirrored_axes(dims):  # the flipped image, and the sum of the probabilities
        each += 4 * prod(size) * (len(dataset.channels) + outputs_of(dataset).num_outputs)
    return each


def _added_per_channel(spec: Spec, dataset: Dataset, *, is_wide: bool) -> int:
    """Bytes per voxel and channel that gathering takes beyond GATHERED_BYTES_PER_CHANNEL: 2 for images stored as
    float32, 4 for a copy while they are clipped and scaled.
    """
    has_window = any(windowed_channels(spec.data.normalize, len(dataset.channels)))
    return 2 * is_wide + 4 * has_window


def evaluation_bytes(model: nn.Module, channels: int, size: tuple[int, ...], added_per_channel: int = 0) -> int | None:
    """Roughly the memory of one slice or window during evaluation; the model is on the meta device. None if it cannot
    run there.
    """
    gathered = prod(size) * (GATHERED_BYTES + (GATHERED_BYTES_PER_CHANNEL + added_per_channel) * channels)
    forward = forward_bytes(model, (1, channels, *size))
    return None if forward is None else int(EVALUATION_WORKSPACE * forward) + gathered
