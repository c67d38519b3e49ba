"""What is killed goes on, and what fails is a row: a small share of `make faults`, and a worker that dies."""

import os
import signal
from dataclasses import replace

import pytest

from dlx.run.local import Task, run_in_workers
from dlx.run.stores import host_stores
from dlx.run.trial import TrialEnded, TrialStarted
from dlx.store import TrialFolder
from dlx.studies import Trial
from faults import kill_and_resume
from small import small_resolved


@pytest.mark.slow
def test_a_sweep_killed_and_resumed_ends_as_if_left_alone(tmp_path):
    assert kill_and_resume(tmp_path, kills=3, seed=1, steps=60) == []


def tasks_and_stores(folder, count, *changes):
    resolved = small_resolved(*changes)
    stores = host_stores([resolved])
    slim = resolved.without_voxels()
    tasks = {}
    for seed in range(count):
        trial = Trial(label="small", seed=seed, spec=resolved.spec)
        tasks[seed] = Task(trial, slim, TrialFolder(folder, "small", seed, resolved.trial_id(seed)))
    return tasks, stores


def test_a_worker_that_is_killed_makes_its_trial_a_row_and_the_others_go_on(tmp_path):
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


def test_a_trial_that_is_refused_is_a_row_that_is_not_kept(tmp_path):
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


def children():
    """The process ids of this process's dlx workers."""
    import multiprocessing

    return [child.pid for child in multiprocessing.active_children() if child.name == "dlx-worker"]
