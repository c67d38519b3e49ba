"""The folders of trials on the client's side, where workers do not see them."""

import zlib
from collections.abc import Mapping
from contextlib import ExitStack

from dlx.execution.cluster.remote import RemoteEnd
from dlx.execution.trials.trial import Task, TrialEnded, TrialStarted
from dlx.records.schema import EpochRecord, TrialRecord
from dlx.system.files import write_atomically


class ClientFolders:
    """Writes what comes back of trials into their folders; with `is_shared` the workers have written it there."""

    def __init__(self, tasks: Mapping[str, Task], *, is_shared: bool) -> None:
        self.tasks, self.is_shared = tasks, is_shared
        self.locks: dict[str, ExitStack] = {}  # by the trial's id: until it has ended no local command may run it

    def begin(self, trial: str, started: TrialStarted) -> None:
        """Prepares a folder for the epochs of a trial that starts or goes on. LockedError if another process runs it.

        A checkpoint from which the trial goes on is kept until its end brings the last one.
        """
        if self.is_shared:
            return
        task = self.tasks[trial]
        if trial not in self.locks:
            self.locks[trial] = ExitStack()
            self.locks[trial].enter_context(task.folder.locked())
        if not started.resumed_from:
            task.folder.clear()
        task.folder.begin(task.settings)
        task.folder.restore(started.earlier)

    def append(self, trial: str, epoch: EpochRecord) -> None:
        """Writes the line of an epoch of a trial that has begun here."""
        if trial in self.locks:
            self.tasks[trial].folder.append(epoch)

    def finish(self, trial: str, end: RemoteEnd) -> TrialEnded:
        """The end of a trial, with its files in its folder."""
        task = self.tasks[trial]
        self.release(trial)
        if end.record is None:
            return task.failed(end.refusal or "", keep=False)
        record = TrialRecord.model_validate_json(zlib.decompress(end.record))
        if not self.is_shared:
            for name, content in end.files.items():
                write_atomically(task.folder.path / name, content)
            task.folder.finish(record)
        return TrialEnded(record, task.folder.path, was_done=False)

    def release(self, trial: str) -> None:
        """Unlocks the folder of a trial that has ended."""
        if trial in self.locks:
            self.locks.pop(trial).close()

    def close(self) -> None:
        """Unlocks all folders."""
        for trial in list(self.locks):
            self.release(trial)
