"""Predicts one scan at a time by the mean of the class probabilities of several networks, piece by piece.

Each network gets the scan prepared and cut as its validation cases were. The pieces of all networks follow one another
along one axis, so the probabilities of a whole scan are never held. Only networks that cut along unlike axes cannot be
averaged so: the sums of all voxels are then kept on the host.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlx.data.batches.sampler import slice_sizes
from dlx.data.batches.voxels import VoxelStore
from dlx.data.cases import Grid
from dlx.data.geometry.common_grid import bring_case, check_resampling_memory
from dlx.data.intensities.ct import Window, Windows, windowed_channels
from dlx.data.intensities.measures import looks_like_mask
from dlx.data.layouts.listing import ScanFiles, name_some
from dlx.data.notes import FileNote
from dlx.data.prepare import ReadImage, prepare_scan, read_scan
from dlx.data.volumes.writing import label_type
from dlx.engine.device import Compute, choose_compute, prepare_backend
from dlx.engine.evaluate import Evaluator
from dlx.engine.original_grid import Place
from dlx.prediction.batch_memory import BatchMemory
from dlx.prediction.mean import mean_pieces
from dlx.prediction.trained_network import TrainedNetwork
from dlx.settings.spec import ComputeSpec, Geometry, Spec
from dlx.system.errors import DataError, SettingError
from dlx.system.memory import host_memory_bytes
from dlx.trial.build import make_evaluator, place_network
from dlx.trial.factories import model_geometry, outputs_of
from dlx.trial.precision import fit_precision
from dlx.trial.resolve import has_instance_norm, num_deepest
from dlx.trial.sanity import spell_size, warn_of_mirroring

Tta = Literal["auto", "on", "off"]
BeginProbabilities = Callable[[tuple[int, int, int, int]], NDArray[np.float32]]
CHUNK_SIZE = 2**24  # sums in memory that are predicted at once


@dataclass(frozen=True, eq=False)
class Member:
    """A network on the device, with its settings for prediction: `spec` has the mirroring that was asked for."""

    trained: TrainedNetwork
    network: nn.Module
    spec: Spec
    compute: Compute

    @property
    def mirrored_axes(self) -> tuple[int, ...]:
        """The axes of a slice or window along which predictions are mirrored."""
        return self.spec.mirrored_axes(model_geometry(self.network)[0])


@dataclass(frozen=True, eq=False)
class PredictedScan:
    """The labels of a scan (D, H, W) on the voxels of its files, as the values of mask files; and for notes to the user
    how it was prepared: ambiguities of its headers, the orientation of its files (empty if unknown), whether it was
    turned, whether it was resampled, and whether it may be a mask by mistake.
    """

    labels: NDArray[Any]
    notes: tuple[FileNote, ...]
    orientation: str
    was_turned: bool
    was_resampled: bool
    looks_like_mask: bool


@dataclass(frozen=True, eq=False)
class LabelPiece:
    """Probabilities (K, d, h, w) of a part of a scan. `view` turns an array (D, H, W, ...) of the files' voxels so that
    `place` is that part in it. `fraction` of the scan is done with it.
    """

    probabilities: Tensor
    place: Place
    view: Callable[[NDArray[Any]], NDArray[Any]]
    fraction: float


class Ensemble:
    """Networks of the same channels and classes on one device. It holds no voxels between scans."""

    def __init__(self, networks: Sequence[TrainedNetwork], *, tta: Tta = "auto", device: str = "auto") -> None:
        """SettingError if the networks cannot be averaged, if the device is not there, or for another `tta`."""
        check_alike(networks)
        self.dataset = networks[0].dataset
        self.outputs = outputs_of(self.dataset)
        chosen = choose_compute(ComputeSpec(device=device, capture=False))
        prepare_backend(chosen)
        self.device = chosen.device
        if tta not in get_args(Tta):
            raise SettingError(f"--tta {tta}: expected {', '.join(get_args(Tta))}")
        self.members = tuple(_make_member(network, chosen, tta) for network in networks)
        self.remarks = (*chosen.remarks, *(_mirroring_remarks(self.members) if tta == "on" else ()))
        self._memory = BatchMemory()
        self._values = np.array(self.dataset.label_values, label_type(self.dataset.label_values))

    @property
    def geometry(self) -> Geometry:
        """How ambiguous headers are treated: `strict` if any of the networks was trained so."""
        return "strict" if any(one.spec.data.geometry == "strict" for one in self.members) else "image"

    def predict(
        self,
        scan: ScanFiles,
        begin_probabilities: BeginProbabilities | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> PredictedScan:
        """Predicts a scan. Raises DataError if its files cannot be read or prepared, or if the memory is too small.

        `begin_probabilities` is called with a shape (D, H, W, K) and returns the array to write the mean probabilities
        into. `progress` is called with the fraction that is done.
        """
        read = read_scan(scan.images, self.dataset.channels, self.geometry)
        d, h, w = read.array.shape[1:]
        stores = self._stores(scan.id, read)
        labels = np.empty((d, h, w), self._values.dtype)
        kept = None if begin_probabilities is None else begin_probabilities((d, h, w, self.outputs.num_outputs))
        notes, orientation, is_mask = read.notes, read.orientation, looks_like_mask(read.array)
        del read  # the decoded image is not needed any more, and large
        with torch.inference_mode():
            for piece in self._pieces(stores, (d, h, w)):
                classes = self.outputs.labels(self.outputs.predict(piece.probabilities))
                piece.view(labels)[piece.place] = self._values[classes.cpu().numpy()]
                if kept is not None:
                    piece.view(kept)[piece.place] = piece.probabilities.permute(1, 2, 3, 0).cpu().numpy()
                if progress is not None:
                    progress(piece.fraction)
        return PredictedScan(
            labels,
            notes,
            orientation,
            was_turned=any(stored for store in stores for _, stored in store.orientations),
            was_resampled=any(any(store.is_resampled) for store in stores),
            looks_like_mask=is_mask,
        )

    def _stores(self, scan_id: str, read: ReadImage) -> list[VoxelStore]:
        """The voxels of the scan as each member needs them, on the device; members that need the same share a store.

        Raises DataError if the scan cannot be prepared.
        """
        made: dict[tuple[str, Grid | None], VoxelStore] = {}
        keys = [(str(member.trained.normalizer), member.trained.dataset.grid) for member in self.members]
        for member, key in zip(self.members, keys, strict=True):
            if key in made:
                continue
            normalizer, grid = member.trained.normalizer, member.trained.dataset.grid
            sharing = [one.trained.windows for one, other in zip(self.members, keys, strict=True) if other == key]
            case = prepare_scan(scan_id, read, normalizer, _widest(sharing))
            if grid is not None:
                check_resampling_memory([case], grid)
                case = bring_case(case, grid, windowed_channels(normalizer, len(self.dataset.channels)))
            made[key] = _put_on(self.device, VoxelStore([case]))
        return [made[key] for key in keys]

    def _pieces(self, stores: Sequence[VoxelStore], shape: tuple[int, int, int]) -> Iterator[LabelPiece]:
        """The mean of all members, in pieces that cover the scan once."""
        streams, cuts = [], []
        for member, store in zip(self.members, stores, strict=True):
            evaluator = self._evaluator(member, store.windowed(member.trained.windows))
            streams.append(evaluator.measured_pieces(member.network, 0))
            cuts.append((evaluator.piece_axis, store))
        alike = {(axis, store.orientations[0]) for axis, store in cuts}
        if len(alike) > 1:
            yield from self._from_sums(streams, cuts, shape)
            return
        axis, store = cuts[0]
        size = store.measured_shapes[0][axis]
        for place, probabilities in mean_pieces(streams, axis):
            fraction = place[axis].stop / size
            yield LabelPiece(probabilities, place, lambda array: store.as_prepared(array, 0), fraction)

    def _evaluator(self, member: Member, store: VoxelStore) -> Evaluator:
        _check_slices(member, store)
        spec = self._memory.fit(member.trained, member.spec, store, member.compute, len(self.members))
        return make_evaluator(spec, self.outputs, member.network, store, member.compute)

    def _from_sums(
        self,
        streams: Sequence[Iterator[tuple[Place, Tensor]]],
        cuts: Sequence[tuple[int, VoxelStore]],
        shape: tuple[int, int, int],
    ) -> Iterator[LabelPiece]:
        """The mean of members that cut along unlike axes: one after the other is added to sums of the whole scan."""
        num_outputs = self.outputs.num_outputs
        needed, memory = 4 * num_outputs * prod(shape), host_memory_bytes()
        if memory is not None and needed > memory // 2:
            raise DataError(
                "the runs cut scans along unlike axes, so the sums of all probabilities must be held, which would take "
                f"{needed / 2**30:.3g} GiB of memory, of which there are {memory / 2**30:.3g} GiB: predict with fewer "
                "kinds of runs"
            )
        total = np.zeros((*shape, num_outputs), np.float32)
        for stream, (_, store) in zip(streams, cuts, strict=True):
            turned = store.as_prepared(total, 0)
            for place, probabilities in stream:
                turned[place] += probabilities.permute(1, 2, 3, 0).cpu().numpy()
        total /= len(streams)
        step = max(1, CHUNK_SIZE // (num_outputs * shape[1] * shape[2]))
        for first in range(0, shape[0], step):
            place = (slice(first, min(first + step, shape[0])), slice(None), slice(None))
            mean = torch.from_numpy(total[place]).permute(3, 0, 1, 2)
            yield LabelPiece(mean, place, lambda array: array, place[0].stop / shape[0])


def _check_slices(member: Member, store: VoxelStore) -> None:
    """DataError if slices are too small for instance norm at the deepest level, as at the start of a training."""
    dims, stride = model_geometry(member.network)
    if dims == 3 or not has_instance_norm(member.network):
        return
    (size,) = slice_sizes([store.shapes[0]], member.spec.batch.fitted_slice_axis)
    if num_deepest(size, stride) == 1:
        raise DataError(
            f"slices of {spell_size(size)} voxels are too small for {member.trained.name}: one voxel is left at the "
            "deepest level, of which instance norm has no statistics"
        )


def check_alike(networks: Sequence[TrainedNetwork]) -> None:
    """SettingError, which names what differs, unless all networks have the same channels, classes and label values."""
    first, *others = networks
    for other in others:
        for what, mine, theirs in (
            ("channels", first.dataset.channels, other.dataset.channels),
            ("classes", first.dataset.classes, other.dataset.classes),
            ("label values", first.dataset.label_values, other.dataset.label_values),
            ("regions", _spelled_regions(first), _spelled_regions(other)),
        ):
            if mine != theirs:
                raise SettingError(
                    f"{first.name} and {other.name} cannot be averaged: their {what} differ: "
                    f"{name_some([*mine], 10) or 'none'} and {name_some([*theirs], 10) or 'none'}"
                )


def _spelled_regions(network: TrainedNetwork) -> tuple[str, ...]:
    dataset = network.dataset
    pairs = zip(dataset.classes[1:], dataset.regions, dataset.region_order, strict=True) if dataset.regions else ()
    values = dataset.label_values
    return tuple(f"{name}: {', '.join(str(values[k]) for k in of)}, written as {values[k]}" for name, of, k in pairs)


def compute_of(trained: TrainedNetwork, chosen: Compute) -> Compute:
    """The chosen device in the precision of the network's trial if it has that, else in float32."""
    compute = replace(chosen, precision="float32") if trained.spec.compute.precision == "float32" else chosen
    unforced = trained.spec.model_copy(update={"compute": ComputeSpec()})
    return fit_precision(unforced, trained.network, compute)


def _make_member(trained: TrainedNetwork, chosen: Compute, tta: Tta) -> Member:
    evaluate = trained.spec.evaluate
    if tta == "off" or (tta == "on" and evaluate.mirror is False):
        evaluate = evaluate.model_copy(update={"mirror": tta == "on"})
    spec = trained.spec.model_copy(update={"evaluate": evaluate})
    compute = compute_of(trained, chosen)
    return Member(trained, place_network(trained.network, compute), spec, compute)


def _mirroring_remarks(members: Sequence[Member]) -> tuple[str, ...]:
    """A line if predictions are mirrored along axes that the training never flipped."""
    lines = [
        f"--tta on: {member.trained.name}: {line.partition(': ')[2].partition(':')[0]}"
        for member in members
        for line in warn_of_mirroring(member.spec, model_geometry(member.network)[0])
    ]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return (lines[0] + more,) if lines else ()


def _widest(windows: Sequence[Windows]) -> Windows:
    """For each channel a window that contains those of all networks; it decides in which type the scan is kept."""
    widest: list[Window | None] = []
    for of_channel in zip(*windows, strict=True):
        some = [window for window in of_channel if window is not None]
        low, high = min((one.low for one in some), default=0.0), max((one.high for one in some), default=0.0)
        widest.append(some[0].model_copy(update={"low": low, "high": high}) if some else None)
    return tuple(widest)


def _put_on(device: torch.device, store: VoxelStore) -> VoxelStore:
    """The store on the device; on the host if it needs more than half of the device's free memory."""
    if device.type == "cuda" and store.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
        return store
    return store.to(device)
