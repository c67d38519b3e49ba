"""Runs the trials of a study on a dask cluster: `run_on_cluster`."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import replace

from distributed import Client

from dlx.execution.cluster.collect import RemoteStudy
from dlx.execution.cluster.sharing import locked_for_cluster, token_in
from dlx.execution.trials.stores import Stores
from dlx.execution.trials.trial import Event, Task
from dlx.system.errors import DlxError, spell_error

LOST_AT_START = "the scheduler or a worker was lost before the trials began: the same command tries again"


def run_on_cluster(
    tasks: Mapping[int, Task], stores: Stores, client: Client, all_trials: Sequence[str] = ()
) -> Generator[tuple[int, Event]]:
    """Runs the tasks on the workers of a dask cluster and yields (number, event) as events arrive.

    If workers see the folders of the trials, they write the records there; else the files of a trial come back with its
    end, and its epochs before. A trial that ran when an earlier client was killed goes on, and its end is collected.
    A worker's death costs the trial that it ran; dask runs that again, and a trial that has begun more often than
    `distributed.scheduler.allowed-failures` times on workers that died is recorded as failed. Closing the generator
    stops the running trials. `all_trials` are the ids of the study's trials, also of those that are done: the study has
    the same name on the cluster when its command is given again.

    Raises LockedError if another command runs a study of this folder on a cluster; DlxError if the scheduler is lost
    and does not come back.
    """
    folder = next(iter(tasks.values())).folder.path.parent.parent.absolute()
    is_fresh = any(task.fresh for task in tasks.values())
    with locked_for_cluster(folder), token_in(folder) as token:
        with _reporting_loss():
            names = all_trials or [task.trial_id for task in tasks.values()]
            study = RemoteStudy.of(tasks, stores, client, folder, token, names)
            if is_fresh or any(task.retry_failed for task in tasks.values()):
                study.forget_earlier()
        study.plugin.tasks.update({trial: _ready(task) for trial, task in study.plugin.tasks.items()})
        try:
            with _reporting_loss():
                study.begin()
            yield from study.events()
        finally:
            study.end()


@contextmanager
def _reporting_loss() -> Iterator[None]:
    """DlxError if the cluster cannot be reached within the block."""
    try:
        yield
    except (OSError, CancelledError) as error:
        if isinstance(error, OSError) and error.filename is not None:  # of the study's folder
            raise
        raise DlxError(f"{LOST_AT_START} ({spell_error(error)})") from None


def _ready(task: Task) -> Task:
    """The task, with earlier results cleared here, once: on a cluster it may be run again after a worker was lost."""
    if task.fresh or task.retry_failed:
        with task.folder.locked():
            if task.fresh:
                task.folder.clear()
            task.folder.forget_result()
    return replace(task, fresh=False, retry_failed=False)
