"""What is killed goes on, and what fails is a row: a small share of `make faults`, and a worker that dies."""

import errno
import multiprocessing
import os
import resource
import signal
from dataclasses import replace

import pytest

from dlx.execution.trials.stores import host_stores
from dlx.execution.trials.trial import Task, TrialEnded, TrialStarted, leaves_process_unusable
from dlx.execution.workers.local import _start, _stop, run_in_workers
from dlx.records.folder import TrialFolder
from dlx.records.schema import EpochRecord
from dlx.study.study import Trial
from dlx.system.errors import DlxError
from faults import epochs_to_redo, kill_and_resume
from small import small_resolved

pytestmark = pytest.mark.slow  # starts processes


def test_a_sweep_killed_and_resumed_ends_as_if_left_alone(tmp_path):
    assert kill_and_resume(tmp_path, kills=1, seed=1, steps=20) == []


def tasks_and_stores(folder, count, *changes):
    resolved = small_resolved(*changes)
    stores = host_stores([resolved])
    slim = resolved.without_voxels()
    tasks = {}
    for seed in range(count):
        trial = Trial(label="small", seed=seed, spec=resolved.spec)
        tasks[seed] = Task(trial, slim, TrialFolder(folder, "small", seed, resolved.trial_id(seed)))
    return tasks, stores


def test_the_trial_of_a_killed_worker_fails_and_the_others_run(tmp_path):
    tasks, stores = tasks_and_stores(tmp_path, 3, {"train": {"epochs": 200}})
    tasks = {number: task if number == 0 else replace(task) for number, task in tasks.items()}
    short, _ = tasks_and_stores(tmp_path, 3)
    tasks[1], tasks[2] = short[1], short[2]
    ended = {}
    for number, event in run_in_workers(tasks, stores, 1):
        if number == 0 and isinstance(event, TrialStarted):
            for child in children():
                os.kill(child, signal.SIGKILL)
        if isinstance(event, TrialEnded):
            ended[number] = event.record
    assert ended[0].status == "failed"
    assert "SIGKILL" in ended[0].cause
    assert (ended[1].status, ended[2].status) == ("done", "done")
    assert tasks[0].folder.result() == ended[0]


def test_a_refused_trial_is_reported_as_failed_but_not_recorded(tmp_path):
    tasks, stores = tasks_and_stores(tmp_path, 2)
    tasks[0].folder.path.mkdir(parents=True)
    tasks[0].folder.last.write_bytes(b"no checkpoint at all")
    ended = {n: event.record for n, event in run_in_workers(tasks, stores, 2) if isinstance(event, TrialEnded)}
    assert ended[0].status == "failed"
    assert "not a readable checkpoint" in ended[0].cause
    assert tasks[0].folder.result() is None
    assert ended[1].status == "done"


def test_closing_the_events_ends_the_workers(tmp_path):
    tasks, stores = tasks_and_stores(tmp_path, 2, {"train": {"epochs": 200}})
    events = run_in_workers(tasks, stores, 2)
    next(events)
    assert len(children()) == 2
    events.close()
    assert children() == []


class DeadlyTrial(Trial):
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (3,)


class DeadlyFolder(TrialFolder):
    """Ends the process once the result is on disk, before anyone hears of it."""

    def finish(self, record):
        super().finish(record)
        if multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)


class CursedFolder(TrialFolder):
    """Fails as torch does after an illegal access of a CUDA device."""

    def append(self, record):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")


class UnreadableFolder(TrialFolder):
    """Its epochs cannot be read in a worker."""

    def epochs(self):
        if multiprocessing.parent_process() is not None:
            raise OSError(errno.EIO, "Input/output error", "epochs.jsonl")
        return super().epochs()


def in_folder(task, kind):
    """The task with its folder of another class."""
    folder = task.folder
    return replace(task, folder=kind(folder.path.parents[1], "small", task.trial.seed, task.resolved.trial_id(0)))


def ended_of(tasks, stores, num_workers=1):
    return {n: e.record for n, e in run_in_workers(tasks, stores, num_workers) if isinstance(e, TrialEnded)}


def test_an_error_that_may_be_temporary_is_reported_and_not_recorded(tmp_path):
    tasks, stores = tasks_and_stores(tmp_path, 1)
    ended = ended_of({0: in_folder(tasks[0], UnreadableFolder)}, stores)
    assert ended[0].status == "failed"
    assert ended[0].cause == "epochs.jsonl: Input/output error"
    assert tasks[0].folder.result() is None


def test_a_written_result_counts_even_if_its_worker_dies_before_reporting_it(tmp_path):
    tasks, stores = tasks_and_stores(tmp_path, 1)
    ended = ended_of({0: in_folder(tasks[0], DeadlyFolder)}, stores)
    assert ended[0].status == "done"
    assert tasks[0].folder.result() == ended[0]


def test_a_failure_of_before_is_not_taken_for_the_end_of_a_worker_that_died(tmp_path):
    tasks, stores = tasks_and_stores(tmp_path, 1, {"train": {"epochs": 200}})
    for killed_by in (signal.SIGSEGV, signal.SIGKILL):
        for _, event in run_in_workers({0: replace(tasks[0], retry_failed=True)}, stores, 1):
            if isinstance(event, EpochRecord) and event.result.epoch % 2 == 0:  # the one before has its checkpoint
                os.kill(children()[0], killed_by)
        assert killed_by.name in event.record.cause


def test_a_worker_that_dies_before_its_trial_begins_leaves_no_record_and_the_others_go_on(tmp_path):
    tasks, stores = tasks_and_stores(tmp_path, 2)
    deadly = DeadlyTrial(**dict(tasks[0].trial))
    ended = ended_of({0: replace(tasks[0], trial=deadly), 1: tasks[1]}, stores)
    assert ended[0].status == "failed"
    assert "exit code 3" in ended[0].cause
    assert tasks[0].folder.result() is None
    assert ended[1].status == "done"


def test_a_worker_is_replaced_after_a_cuda_error(tmp_path):
    tasks, stores = tasks_and_stores(tmp_path, 2)
    tasks[0] = in_folder(tasks[0], CursedFolder)
    workers, ended = [], {}
    for number, event in run_in_workers(tasks, stores, 1):
        if isinstance(event, TrialEnded):
            ended[number] = event.record
        if isinstance(event, TrialStarted):
            workers += children()
    assert ended[0].cause == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert ended[1].status == "done"
    assert len(set(workers)) == 2


def test_too_little_memory_leaves_the_process_usable(tmp_path):
    tasks, _ = tasks_and_stores(tmp_path, 1)
    assert not leaves_process_unusable(
        tasks[0].failed("OutOfMemoryError: CUDA out of memory. Tried", keep=False).record
    )
    assert leaves_process_unusable(
        tasks[0].failed("AcceleratorError: CUDA error: device-side assert", keep=False).record
    )


def test_a_worker_that_dies_with_damaged_records_fails_its_trial(tmp_path):
    tasks, stores = tasks_and_stores(tmp_path, 1, {"train": {"epochs": 200}})
    for _, event in run_in_workers(tasks, stores, 1):
        if isinstance(event, TrialStarted):
            (tasks[0].folder.path / "epochs.jsonl").write_bytes(b"garbage\n")
            os.kill(children()[0], signal.SIGKILL)
    assert "SIGKILL" in event.record.cause
    assert event.record.run.seconds == 0.0


def test_terminated_workers_finish_the_checkpoint_they_are_writing(tmp_path):
    large = {"model": {"name": "unet2", "width": 96, "levels": 3}, "train": {"epochs": 200, "steps_per_epoch": 1}}
    tasks, stores = tasks_and_stores(tmp_path, 1, large)
    events = run_in_workers(tasks, stores, 1)
    next(event for _, event in events if isinstance(event, EpochRecord))  # its checkpoint is being written
    events.close()
    assert epochs_to_redo(tmp_path) == [0]
    assert list(tmp_path.rglob("*.tmp")) == []


def test_a_starting_worker_ignores_an_interrupt(tmp_path, capfd):
    tasks, stores = tasks_and_stores(tmp_path, 1)
    worker = _start(stores, 0)
    os.kill(worker.process.pid, signal.SIGINT)
    worker.pipe.send((0, tasks[0]))
    number, event = worker.pipe.recv()
    while not isinstance(event, TrialEnded):
        number, event = worker.pipe.recv()
    _stop([worker])
    assert (number, event.record.status) == (0, "done")
    assert capfd.readouterr().err == ""


def test_too_little_shared_memory_is_reported_in_one_line(tmp_path):
    tasks, _ = tasks_and_stores(tmp_path, 1)
    stores = host_stores([small_resolved()])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, before[1]))
    try:
        with pytest.raises(DlxError, match="make /dev/shm larger") as refusal:
            next(run_in_workers(tasks, stores, 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(refusal.value)


def children():
    """The process ids of this process's dlx workers."""
    return [child.pid for child in multiprocessing.active_children() if child.name == "dlx-worker"]
