"""The process group of a trial that several processes train: its collectives, and how its ranks end together.

Tensors of the step travel by NCCL on CUDA and by gloo on a CPU; what the hosts agree on travels by gloo. All waits are
bounded by TIMEOUT. When a rank leaves, it announces why in the store of torchrun, so that the others can tell a rank
that was told to stop from one that died.
"""

import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dlx.models.network import training_outputs
from dlx.models.own.network import OwnNetwork
from dlx.system.errors import DlxError, spell_error
from dlx.system.interrupts import call_on_signal, raise_if_stopped
from dlx.system.ranks import Ranks

# A rank waits for another while that one evaluates one case more or reads volumes that the cache lacks; a rank that
# dies closes its connections, which the others see at once.
TIMEOUT = timedelta(minutes=30)
FAREWELL_S = 3.0  # how long a rank waits for the announcements of the others
GRACE_S = 15.0  # from a signal to the end, where the main thread hangs in a collective; torchrun kills after 30 s
PEER_ERRORS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out")
RESUMES = "finished epochs are kept, and the same command resumes"

Reason = Literal["done", "stopped", "failed"]


class RankLost(DlxError):  # noqa: N818 - a state of the run, as `Diverged`
    """A process of the group died or cannot be reached."""


class TrainingForward(nn.Module):
    """A network whose forward pass gives what the loss takes: DistributedDataParallel wraps `forward` only."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        return training_outputs(self.model, image)


class Group:
    """The ranks that train a trial together, connected."""

    def __init__(self, ranks: Ranks) -> None:
        """Joins the group; waits for all ranks. RankLost if they do not come."""
        self.ranks = ranks
        self.device = torch.device("cpu")
        self.left: Reason | None = None
        self.on_device: dist.ProcessGroup | None = None  # None: the group of the hosts
        self.has_agent = is_agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        host, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), int(os.environ.get("MASTER_PORT", "29500"))
        try:
            store = dist.TCPStore(  # type: ignore[attr-defined]
                host, port, ranks.size, is_master=ranks.rank == 0 and not is_agents, timeout=TIMEOUT
            )
            self.store = dist.PrefixStore(f"dlx/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)  # type: ignore[attr-defined]
            dist.init_process_group("gloo", store=self.store, rank=ranks.rank, world_size=ranks.size, timeout=TIMEOUT)
        except RuntimeError as error:
            raise RankLost(f"the {ranks.size} processes cannot connect: {str(error).splitlines()[0]}") from None
        call_on_signal(self._on_signal)

    def use(self, device: torch.device) -> None:
        """From now on tensors of the step are on this device. All ranks call it."""
        self.device = device
        if device.type == "cuda":
            torch.cuda.set_device(device)
            self.on_device = dist.new_group(backend="nccl", timeout=TIMEOUT, device_id=device)

    def _on_signal(self) -> None:
        """In a thread, as soon as a signal asks this rank to stop: announces it, although the main thread may be
        waiting for another rank; ends the process if that thread does not come to its end.
        """
        with suppress(RuntimeError):
            self.store.set(f"told/{self.ranks.rank}", "stopped")
        time.sleep(GRACE_S)
        if self.left is None:
            line = self._why(self._announced())
            if line:
                print(f"dlx: {line}", file=sys.stderr, flush=True)
            os._exit(1 if line else 143)

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the only one that writes and prints."""
        return self.ranks.rank == 0

    def parallel(self, model: nn.Module) -> DistributedDataParallel:
        """The training forward pass of a network, whose gradients become the mean over the ranks in `backward`.

        All ranks draw the same weights, and buffers are synchronised at the end of an epoch only (`share_buffers`).
        """
        with warnings.catch_warnings():  # torch renames `broadcast_buffers`; older versions lack the new name
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(
                TrainingForward(model),
                device_ids=[self.device] if self.device.type == "cuda" else None,
                process_group=self.on_device,
                broadcast_buffers=False,
                find_unused_parameters=isinstance(model, OwnNetwork),  # it may have branches that are not used
            )

    def gather(self, tensor: Tensor) -> Tensor:
        """The parts of all ranks, concatenated along the first axis, without gradients; all parts have one shape."""
        tensor = tensor.detach().contiguous()
        parts = [torch.empty_like(tensor) for _ in range(self.ranks.size)]
        dist.all_gather(parts, tensor, group=self.on_device)
        return torch.cat(parts)

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of a tensor over the ranks."""
        return self.total(tensor) / self.ranks.size

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the ranks, on the device of the tensor."""
        summed = tensor.detach().clone()
        dist.all_reduce(summed, group=None if summed.device.type == "cpu" else self.on_device)
        return summed

    def share_buffers(self, models: Sequence[nn.Module]) -> None:
        """Copies the running statistics of rank 0 to all ranks, if the networks have any."""
        for model in models:
            if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
                for buffer in model.buffers():
                    if buffer.device == self.device:
                        dist.broadcast(buffer, 0, group=self.on_device)

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, on all ranks. It travels as a pickle, between processes of one command only."""
        box = [value]
        dist.broadcast_object_list(box, 0)
        return box[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Ends all ranks alike: if a rank stops, fails or dies within the block, the others end too.

        A stop stays a stop if every rank was told to stop. RankLost if a rank died; only one of those that are left
        raises it, and the others exit with 1, as do those that see the failure of another.
        """
        try:
            yield
            self.leave("done")
        except BaseException as error:
            try:
                self._end(error)
            except KeyboardInterrupt:  # the signal arrived while the loss of another rank was handled
                self.leave_stopped()
                raise
            raise

    def _end(self, error: BaseException) -> None:
        """Leaves after an error; raises another one if that says better why all ranks end."""
        if isinstance(error, KeyboardInterrupt | GeneratorExit):
            self.leave_stopped()
        elif not is_of_peer(error):
            self.leave("failed")
        else:
            self.leave_stopped()
            time.sleep(FAREWELL_S)  # interrupted by the signal that stopped the others
            raise_if_stopped()
            if not self.is_first or any(self._announcement(f"told/{rank}") for rank in range(self.ranks.size)):
                raise SystemExit(1) from None  # another rank says why
            # all ranks left by such an error, so none was lost or stopped: the network or its library failed
            raise RankLost(f"the ranks cannot exchange data any more: {spell_error(error)}; {RESUMES}") from error

    def leave(self, reason: Reason) -> None:
        """Announces why this rank leaves. Its connections close with the process: others then wait no longer."""
        if self.left is not None:
            return
        self.left = reason
        with suppress(RuntimeError):
            self.store.set(f"left/{self.ranks.rank}", reason)

    def leave_stopped(self) -> None:
        """Leaves as stopped; raises RankLost or SystemExit if not all others leave by a stop or their end."""
        self.leave("stopped")
        if self.left != "stopped":  # it left before, and said why
            return
        until = time.monotonic() + FAREWELL_S
        reasons = self._announced()
        while len(reasons) < self.ranks.size and time.monotonic() < until:
            time.sleep(0.05)
            reasons = self._announced()
        line = self._why(reasons)
        if line:
            raise RankLost(line)
        if line is not None:
            raise SystemExit(1)  # another rank says why

    def _why(self, reasons: dict[int, str]) -> str | None:
        """Why the ranks end, if not by a stop of all: a line to print, empty if another rank prints one."""
        lost = [rank for rank in range(self.ranks.size) if rank not in reasons]
        if not self.has_agent and 0 in lost and self.ranks.rank > 0:  # the store ended with rank 0
            return "rank 0 has ended or was lost (see its message), so all ranks end; the same command resumes"
        if "failed" in reasons.values() or (lost and min(reasons) != self.ranks.rank):
            return ""
        return lost_line(lost, self.ranks.size) if lost else None

    def _announced(self) -> dict[int, str]:
        """The reasons of the ranks that have left, or that were told to stop."""
        found = {self.ranks.rank: "stopped"}
        for rank in range(self.ranks.size):
            for key in (f"told/{rank}", f"left/{rank}"):
                if reason := self._announcement(key):
                    found[rank] = reason
        return found

    def _announcement(self, key: str) -> str | None:
        """What a rank has written under a key; None if it has not, or if the store was lost with its process."""
        with suppress(RuntimeError):
            if self.store.check([key]):
                return str(self.store.get(key).decode())
        return None


def lost_line(lost: Sequence[int], size: int) -> str:
    """Which ranks died, and how the run goes on."""
    which = f"rank {lost[0]}" if len(lost) == 1 else f"ranks {', '.join(map(str, lost))}"
    were = "was" if len(lost) == 1 else "were"
    return f"{which} of {size} {were} lost (killed, out of memory or unreachable), so all ranks end; {RESUMES}"


def is_of_peer(error: BaseException) -> bool:
    """Whether an error arose because another rank ended or cannot be reached."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in PEER_ERRORS)
