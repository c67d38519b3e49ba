"""How many slices or windows of a scan each network predicts at once: as in training, or fewer if they would not fit.

A scan may be larger than those of the training, and several networks hold their last pieces at the same time.
"""

from dataclasses import dataclass, field
from math import prod

import torch

from dlx.data.batches.voxels import VoxelStore
from dlx.engine.device import Compute, memory_bytes
from dlx.prediction.trained_network import TrainedNetwork, build_network
from dlx.settings.spec import Spec
from dlx.trial.evaluation_memory import (
    ROOMY_EVALUATION_BYTES_PER_VOXEL,
    bytes_of_each,
    evaluated_size,
    evaluation_room,
    slab_bytes,
)
from dlx.trial.factories import model_geometry, outputs_of


@dataclass
class BatchMemory:
    """Finds the number of slices or windows for each scan; remembers what one of a size takes, as tracing is slow."""

    known: dict[tuple[int, tuple[int, ...], bool], int | None] = field(default_factory=dict)

    def fit(self, trained: TrainedNetwork, spec: Spec, store: VoxelStore, compute: Compute, num_networks: int) -> Spec:
        """The spec with `evaluate.batch_size` halved until what `num_networks` like this one take fits the memory.

        `store` holds the prepared scan. A network that cannot be traced keeps the number.
        """
        memory = memory_bytes(compute.device)
        if memory is None:
            return spec
        dims, stride = model_geometry(trained.network)
        shape, is_wide = store.shapes[0], store.images.dtype == torch.float32
        size = evaluated_size(spec, [shape], dims, stride)
        outputs = outputs_of(trained.dataset)
        asked = spec.evaluate.batch_size
        if dims == 2:
            asked = min(asked, shape[spec.batch.fitted_slice_axis])
        kept = num_networks * slab_bytes(size, [shape], outputs) if dims == 3 else 0
        room = evaluation_room(memory, compute) - kept
        waiting = 4 * outputs.num_outputs * prod(size) * (num_networks - 1)  # the logits that the others hold
        if asked * (prod(size) * ROOMY_EVALUATION_BYTES_PER_VOXEL + waiting) <= room:
            return spec
        each = self._bytes_of_each(trained, spec, size, is_wide=is_wide)
        fitted = asked
        while each is not None and fitted > 1 and fitted * (each + waiting) > room:
            fitted //= 2
        if fitted == asked:
            return spec
        return spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update={"batch_size": fitted})})

    def _bytes_of_each(
        self, trained: TrainedNetwork, spec: Spec, size: tuple[int, ...], *, is_wide: bool
    ) -> int | None:
        key = (id(trained), size, is_wide)
        if key not in self.known:
            with torch.device("meta"):
                model = build_network(spec, trained.dataset)
            self.known[key] = bytes_of_each(spec, model, trained.dataset, size, is_wide=is_wide)
        return self.known[key]
