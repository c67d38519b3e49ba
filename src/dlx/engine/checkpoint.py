"""Checkpoints: weights, optimizer and progress in one safetensors file, read without pickle, written by a thread.

The header is JSON and holds whatever else resuming and predicting need; the tensors are named `model.*`, `ema.*` and
`optimizer.INDEX.*`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dlx.engine.fit import Job
from dlx.system.errors import DataError, SettingError, spell_error
from dlx.system.files import replacing

FORMAT = 1
WEIGHTS = ("model.", "ema.")  # the prefixes of what predicting needs


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: host tensors by name, and the header."""

    tensors: dict[str, Tensor]
    header: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix.`, without it."""
        return {name[len(prefix) + 1 :]: t for name, t in self.tensors.items() if name.startswith(prefix + ".")}


@dataclass(frozen=True, eq=False)
class InitialWeights:
    """The weights that trials start from, read once, because the checkpoint's file may change while they train."""

    tensors: dict[str, Tensor]
    missing: tuple[str, ...]  # weights of the network that `tensors` lacks
    digest: str


class HostBuffers:
    """Host memory that all snapshots of a trial share; page-locked for tensors on CUDA.

    All copies from such a device are started before the host waits, once, for all of them.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Contiguous copies on the host. Overwrites those that the previous call returned."""
        copies = {}
        devices = set()
        for name, tensor in tensors.items():
            buffer = self._buffers.get(name)
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
                self._buffers[name] = buffer
            # from other devices, such as mps, a copy that does not block might be incomplete when this returns
            copies[name] = buffer.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
            if tensor.is_cuda:
                devices.add(tensor.device)
        for device in devices:
            torch.cuda.synchronize(device)
        return copies


def snapshot(job: Job, header: dict[str, Any], buffers: HostBuffers | None = None) -> Checkpoint:
    """A copy of the job's state on the host; training may continue as soon as this returns.

    With `buffers` the copy is valid until the next snapshot that uses them.
    """
    tensors = {f"model.{name}": tensor for name, tensor in job.model.state_dict().items()}
    if job.ema is not None:
        tensors |= {f"ema.{name}": tensor for name, tensor in job.ema.state_dict().items()}
    state = job.optimizer.state_dict()
    plain: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    header = header | {
        "format": FORMAT,
        "optimizer": {"param_groups": _encode(state["param_groups"]), "plain": plain},
        "scheduler": _encode(job.scheduler.state_dict()),
    }
    return Checkpoint((buffers or HostBuffers()).copy(tensors), header)


def restore(checkpoint: Checkpoint, job: Job) -> None:
    """Restores a job's state exactly; DataError if the checkpoint is of another network, or malformed."""
    try:
        job.model.load_state_dict(checkpoint.part("model"))
        if job.ema is not None:
            job.ema.load_state_dict(checkpoint.part("ema"))
    except RuntimeError as error:
        raise DataError(f"the checkpoint is of another network: {str(error).splitlines()[-1].strip()}") from None
    try:
        _restore_optimizer(checkpoint, job)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DataError(f"the checkpoint is malformed: {spell_error(error)}") from None


def _restore_optimizer(checkpoint: Checkpoint, job: Job) -> None:
    """Restores the optimizer's moments and rates, and the scheduler."""
    parameters = [parameter for group in job.optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in checkpoint.part("optimizer").items():
        index, _, entry = name.partition(".")
        like = parameters[int(index)]
        # fused optimizers read parameter and state in memory order, so both need the same memory layout
        placed = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
        state.setdefault(int(index), {})[entry] = placed
    for index, entries in checkpoint.header["optimizer"]["plain"].items():
        state.setdefault(int(index), {}).update(entries)
    groups = _decode(checkpoint.header["optimizer"]["param_groups"])
    job.optimizer.load_state_dict({"state": state, "param_groups": groups})
    job.scheduler.load_state_dict(_decode(checkpoint.header["scheduler"]))


def group_names(checkpoint: Checkpoint) -> list[str]:
    """The name of each parameter group of the optimizer; two may have one name."""
    return [str(group["name"]) for group in _decode(checkpoint.header["optimizer"]["param_groups"])]


def with_schedule(checkpoint: Checkpoint, rates: Sequence[float], scheduler: dict[str, Any]) -> Checkpoint:
    """The checkpoint with other learning rates, one for each parameter group, and the state of another scheduler."""
    optimizer = checkpoint.header["optimizer"]
    groups = [group | {"lr": rate} for group, rate in zip(_decode(optimizer["param_groups"]), rates, strict=True)]
    changes = {"optimizer": optimizer | {"param_groups": _encode(groups)}, "scheduler": _encode(scheduler)}
    return Checkpoint(checkpoint.tensors, checkpoint.header | changes)


def initial_weights(model: nn.Module, path: Path) -> InitialWeights:
    """The weights of a checkpoint whose name and shape fit the model.

    Averaged weights are used if the checkpoint has them. SettingError if nothing fits.
    """
    own = model.state_dict()
    fitting = {
        name: tensor
        for name, tensor in sorted(evaluated_weights(read(path, WEIGHTS)).items())
        if name in own and own[name].shape == tensor.shape
    }
    if not any(tensor.ndim > 1 for tensor in fitting.values()):  # a bias or a counter alone is no match
        raise SettingError(f"{path}: none of its weights fit this network")
    return InitialWeights(fitting, tuple(sorted(set(own) - set(fitting))), tensors_hash(fitting))


def evaluated_weights(saved: Checkpoint) -> dict[str, Tensor]:
    """The weights and buffers of the network that validation measures: the averaged ones, if the trial averaged them.

    The names are those of the network's `state_dict`.
    """
    averaged = {
        name.removeprefix("module."): tensor for name, tensor in saved.part("ema").items() if name != "n_averaged"
    }
    return averaged or saved.part("model")


def read(path: Path, prefixes: tuple[str, ...] = ("",)) -> Checkpoint:
    """A checkpoint from disk, with the tensors whose names have one of these prefixes; DataError if it is missing,
    truncated or not made by dlx.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("dlx", "null"))
            names = [name for name in file.keys() if name.startswith(prefixes)]  # noqa: SIM118 - not a dict
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{path}: not a readable checkpoint ({error})") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise DataError(f"{path}: not a checkpoint of this version of dlx")
    return Checkpoint(tensors, header)


def write(path: Path, checkpoint: Checkpoint, also: Path | None = None) -> None:
    """Writes a checkpoint atomically. `also` is a second name for the same file, which it gets just before `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, also=also) as file:
        file.write(safetensors.torch.save(checkpoint.tensors, {"dlx": json.dumps(checkpoint.header)}))


def weights_hash(model: nn.Module) -> str:
    """The `tensors_hash` of every weight and buffer."""
    return tensors_hash(model.state_dict())


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """A hash of all tensors, their names and their order; it does not depend on the device."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class CheckpointWriter:
    """Writes checkpoints in a thread, one after the other; an error in it is raised by the next call."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def submit(self, checkpoint: Checkpoint, path: Path, also: Path | None = None) -> None:
        """Starts writing a checkpoint (see `write`) after the previous one is on disk."""
        self.wait()
        self._pending = self._pool.submit(write, path, checkpoint, also)

    def wait(self) -> None:
        """Returns when every submitted checkpoint is on disk."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._pool.shutdown()


def _encode(value: Any) -> Any:
    """Python values as JSON from which `_decode` restores them, also dictionaries with numbers as keys."""
    if isinstance(value, dict):
        return {"pairs": [[_encode(key), _encode(item)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if isinstance(value, Tensor):
        return {"tensor": value.tolist()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} cannot be kept in a checkpoint")


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return torch.tensor(value["tensor"])
        return {_decode(key): _decode(item) for key, item in value["pairs"]}
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return value
