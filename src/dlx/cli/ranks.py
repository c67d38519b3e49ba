"""`torchrun ... -m dlx train`: which of its processes speaks, and what several processes do not train together."""

import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from dlx.cli.options import TrainOptions
from dlx.system.cpu_cores import available_cores
from dlx.system.errors import SettingError
from dlx.system.interrupts import exit_code
from dlx.system.ranks import Ranks, ranks_of

if TYPE_CHECKING:
    from dlx.engine.group import Group
    from dlx.execution.planning.plan import Plan
    from dlx.study.study import Study


def refuse_ranks(command: str) -> None:
    """SettingError under torchrun, which starts one process for each part of a batch; rank 0 prints it."""
    ranks = ranks_of()
    if ranks.size == 1:
        return
    if ranks.rank > 0:
        with suppress(KeyboardInterrupt):
            time.sleep(5)  # torchrun stops all ranks when one has ended: rank 0 should print first
        raise SystemExit(2)
    raise SettingError(
        f"{command}: torchrun is for dlx train, one run on several processes; run this command without it"
    )


@contextmanager
def rank_group(options: TrainOptions) -> Iterator[tuple["Group | None", TrainOptions]]:
    """The group of torchrun's processes, and this one's options: None and the same options without several processes.

    Within the block ranks other than the first print errors only, and only those that the first does not have: they
    wait for it before they plan.
    """
    ranks = ranks_of()
    if ranks.size == 1:
        yield None, options
        return
    from dlx.engine.group import Group

    group = Group(ranks)
    with group.together():
        if group.is_first:
            yield group, options
        else:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                try:
                    group.broadcast(None)  # rank 0 has planned: it refuses bad settings for all, and filled the cache
                    yield group, replace(options, quiet=True)
                except KeyboardInterrupt as stop:
                    group.leave_stopped()
                    raise SystemExit(exit_code(stop)) from None  # rank 0 says so


def for_ranks(study: "Study", ranks: Ranks, options: TrainOptions) -> "Study":
    """The study as this rank trains it: on its own device, with its share of the cores. SettingError for a study of
    several trials, and for options of one process.
    """
    if ranks.size == 1:
        return study
    if len(study.variants) * len(study.seeds) > 1 or study.base.split.fold == "all":
        raise SettingError("torchrun trains one run on several processes: give one seed and one fold")
    if options.max_parallel not in (None, 1):
        raise SettingError("--max-parallel: torchrun trains one run on several processes, not several at once")
    if options.executor == "dask" or options.scheduler_address is not None or options.cluster is not None:
        raise SettingError("--executor dask: torchrun trains one run on several processes; use one of the two")
    variant = study.variants[0]
    compute = variant.spec.compute
    if compute.num_ranks not in (1, ranks.size):
        raise SettingError(
            f"compute.num_ranks: {compute.num_ranks} processes train this run, but torchrun started {ranks.size}"
        )
    changes = {
        "num_ranks": ranks.size,
        "threads": compute.threads or max(1, available_cores() // ranks.local_size),
        "device": _own_device(compute.device, ranks),
    }
    spec = variant.spec.model_copy(update={"compute": compute.model_copy(update=changes)})
    return study.model_copy(update={"variants": (variant.model_copy(update={"spec": spec}),)})


def _own_device(device: str, ranks: Ranks) -> str:
    """`cuda:LOCAL_RANK` for CUDA, or for `auto` where there is a GPU for each process of this machine."""
    from dlx.engine.device import num_gpus

    kind = device.partition(":")[0]
    if kind == "auto":
        kind = "cuda" if num_gpus() >= ranks.local_size else "cpu"
    if kind == "mps":
        raise SettingError("device 'mps': several processes train on CUDA or on CPUs")
    return f"cuda:{ranks.local_rank}" if kind == "cuda" else kind


def has_planned(plan: "Plan", group: "Group") -> None:
    """Rank 0 lets the others plan; then all choose the device on which the step's tensors travel."""
    if group.is_first:
        group.broadcast(None)
    group.use(plan.first.compute.device)


def typed_command(group: "Group | None") -> str | None:
    """The command that repeats a run on several processes of one machine; None: as it was typed."""
    if group is None:
        return None
    words = ["torchrun", "--nproc-per-node", str(group.ranks.size), "-m", "dlx", *sys.argv[1:]]
    return shlex.join(words)
