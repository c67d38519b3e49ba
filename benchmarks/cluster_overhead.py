"""What dlx adds to a trial on a dask cluster, beside dask's bare submit and gather, and how a client's memory grows.

    python -m benchmarks.cluster_overhead --trials 2000

The trials do no work: their results are on disk, so a worker locks the folder, reads the record and sends it back.
Everything else is as in a study: the task, its end, the record that the client checks; but no events of its epochs, and
no file is written. Scheduler and two workers are processes on this machine that talk over TCP. With `--sleep-s` trials
sleep first, and send the events of a trial of one epoch: how many a scheduler carries.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from distributed import Client, LocalCluster, Worker, WorkerPlugin

from dlx.execution.cluster import remote
from dlx.execution.cluster.jobs import NO_DASHBOARD
from dlx.execution.cluster.run import run_on_cluster
from dlx.execution.planning.plan import make_plan
from dlx.execution.runner import run_plan
from dlx.execution.trials.trial import Event, Scoring, Task, TrialEnded, TrialStarted
from dlx.records.schema import TrialRecord
from dlx.settings.layers import make_spec
from dlx.study.axes import Variant
from dlx.study.study import make_study

SETTINGS = {
    "data": {"source": "phantom:subjects=4,size=24"},
    "split": {"val_fraction": 0.25},
    "batch": {"size": 4, "patch_size_px": [16, 16]},
    "model": {"name": "unet2", "width": 4, "levels": 2},
    "train": {"epochs": 1, "steps_per_epoch": 2},
    "compute": {"device": "cpu", "threads": 1},
}


def nothing(number: int) -> int:
    """The bare task."""
    return number


def submitted_s(client: Client, num_trials: int) -> float:
    """Seconds that dask takes to submit so many tasks one by one and to gather their results."""
    started = time.perf_counter()
    client.gather([client.submit(nothing, number, pure=False) for number in range(num_trials)])
    return time.perf_counter() - started


def mapped_s(client: Client, num_trials: int) -> float:
    """Seconds that dask takes to submit so many tasks by one call, as dlx does, and to gather their results."""
    started = time.perf_counter()
    client.gather(client.map(nothing, range(num_trials), pure=False))
    return time.perf_counter() - started


class SleepingTrials(WorkerPlugin):
    """Makes the trials of a worker sleep before they give their result, and send the events of a trial that runs."""

    name = "sleeping-trials"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def setup(self, worker: Worker) -> None:  # noqa: ARG002 - distributed passes it
        run_trial = remote.run_trial

        def sleeping(task: Task, *given: Any) -> Iterator[Event]:
            yield TrialStarted(task.trial, epochs=1, steps_per_epoch=2, resumed_from=0, earlier=())
            time.sleep(self.seconds)
            yield from task.folder.epochs()
            yield Scoring()
            yield from run_trial(task, *given)

        remote.run_trial = sleeping


def finished_study(folder: Path, num_trials: int) -> dict:
    """Tasks of a study whose results are on disk: of the first trial, which is run, and copies of it."""
    spec = make_spec(SETTINGS)
    study = make_study(name="overhead", variants=(Variant(label="a", spec=spec),), seeds=tuple(range(num_trials)))
    plan = make_plan(study, folder, cache_dir=folder / "cache")
    first = plan.trials[0]
    for _ in run_plan(replace(plan, trials=plan.trials[:1])):
        pass
    record = first.folder.result()
    assert record is not None
    for task in plan.trials[1:]:
        task.folder.begin(task.settings)
        changed = {"trial": task.trial_id, "seed": task.trial.seed, "settings": task.settings}
        task.folder.finish(TrialRecord.model_validate(record.model_dump() | changed))
    return {"tasks": dict(enumerate(plan.trials)), "stores": plan.stores, "bytes": len(record.model_dump_json())}


def ours_s(client: Client, study: dict, memory: list[float]) -> float:
    """Seconds that dlx takes for the trials of no work; `memory` gets the client's MiB after each tenth of them."""
    started, ended, process = time.perf_counter(), 0, psutil.Process()
    for _, event in run_on_cluster(study["tasks"], study["stores"], client):
        ended += isinstance(event, TrialEnded)
        if isinstance(event, TrialEnded) and ended % max(1, len(study["tasks"]) // 10) == 0:
            memory.append(process.memory_info().rss / 2**20)
    assert ended == len(study["tasks"])
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sleep-s", type=float, help="trials sleep for so long instead")
    arguments = parser.parse_args()
    local = LocalCluster(
        n_workers=arguments.workers,
        threads_per_worker=1,
        host="127.0.0.1",
        scheduler_kwargs=NO_DASHBOARD,
        memory_limit=0,
    )
    with tempfile.TemporaryDirectory() as place, local as cluster, Client(cluster) as client:
        study = finished_study(Path(place), arguments.trials)
        if arguments.sleep_s is not None:
            client.register_plugin(SleepingTrials(arguments.sleep_s))
            slept = ours_s(client, study, [])
            ideal = arguments.trials * arguments.sleep_s / arguments.workers
            found = {"trials": arguments.trials, "workers": arguments.workers, "sleep_s": arguments.sleep_s}
            print(json.dumps(found | {"seconds": round(slept, 2), "of_ideal": round(slept / ideal, 3)}))
            return
        memory = [psutil.Process().memory_info().rss / 2**20]
        taken: dict[str, list[float]] = {"submit": [], "map": [], "dlx": []}
        submitted_s(client, 100)
        for _ in range(arguments.repeats):
            taken["submit"].append(submitted_s(client, arguments.trials))
            taken["map"].append(mapped_s(client, arguments.trials))
            taken["dlx"].append(ours_s(client, study, memory))
        ratios = {
            f"of_{name}": statistics.median(one / other for one, other in zip(taken["dlx"], taken[name], strict=True))
            for name in ("submit", "map")
        }
        print(json.dumps({
            "trials": arguments.trials,
            "record_bytes": study["bytes"],
            **{f"{name}_ms": [round(1000 * one / arguments.trials, 2) for one in taken[name]] for name in taken},
            **{name: round(ratio, 2) for name, ratio in ratios.items()},
            "client_mib": [round(one) for one in memory],
        }))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
