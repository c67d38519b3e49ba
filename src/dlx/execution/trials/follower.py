"""A trial on a rank other than the first: it trains its part of each batch, and writes nothing."""

import torch

from dlx.engine import checkpoint
from dlx.engine.device import prepare_backend
from dlx.engine.fit import Diverged, TrialProgress, fit
from dlx.engine.group import Group
from dlx.execution.trials.process_cache import ProcessCache
from dlx.execution.trials.stores import Stores
from dlx.execution.trials.trial import Task
from dlx.system.errors import DlxError
from dlx.system.interrupts import raise_if_stopped


def agree_on_trial(task: Task, group: Group) -> None:
    """DlxError if the ranks would train unlike trials: other data or settings, or machines of another kind."""
    first = group.broadcast(task.trial_id)
    if first != task.trial_id:
        raise DlxError(
            f"rank {group.ranks.rank} would train another trial ({task.trial_id}) than rank 0 ({first}): all ranks "
            "need the same data, settings and kind of device"
        )


def follow_trial(task: Task, stores: Stores, group: Group) -> None:
    """Trains the trial with rank 0, from the checkpoint that rank 0 found; rank 0 records how it ends."""
    prepare_backend(task.resolved.compute)
    cache = ProcessCache(group=group)
    store = cache.store(task.resolved, stores)
    torch.set_num_threads(task.resolved.compute.threads)
    job = cache.make_job(task.resolved, store, task.trial.seed)
    progress = TrialProgress()
    saved = group.broadcast(None)
    if saved is not None:
        checkpoint.restore(saved, job)
        progress = TrialProgress(**saved.header["progress"])
    try:
        for _ in fit(job, progress):
            raise_if_stopped()
    except Diverged:
        return
