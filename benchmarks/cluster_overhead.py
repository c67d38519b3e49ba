"""What dlx adds to a trial on a dask cluster, beside dask's bare submit and gather, and how a client's memory grows.

    python -m benchmarks.cluster_overhead --trials 2000

The trials do no work: their results are on disk, so a worker locks the folder, reads the record and sends it back.
Everything else is as in a study: the task, its end, the record that the client checks. Scheduler and two workers are
processes on this machine that talk over TCP. With `--sleep-s` trials sleep instead: how many a scheduler carries.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil
from distributed import Client, LocalCluster, as_completed

from dlx.execution.cluster.collect import run_on_cluster
from dlx.execution.cluster.jobs import NO_DASHBOARD
from dlx.execution.planning.plan import make_plan
from dlx.execution.runner import run_plan
from dlx.execution.trials.trial import TrialEnded
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


def bare_s(client: Client, num_trials: int) -> float:
    """Seconds that dask takes to submit so many tasks one by one and to gather their results."""
    started = time.perf_counter()
    client.gather([client.submit(nothing, number, pure=False) for number in range(num_trials)])
    return time.perf_counter() - started


def sleeping_s(client: Client, num_trials: int, seconds: float) -> float:
    """Seconds for tasks that sleep, collected as dlx collects trials."""
    started = time.perf_counter()
    futures = client.map(time.sleep, [seconds] * num_trials, pure=False)
    for batch in as_completed(futures).batches():
        client.gather(batch)
    return time.perf_counter() - started


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
        if arguments.sleep_s is not None:
            taken = sleeping_s(client, arguments.trials, arguments.sleep_s)
            ideal = arguments.trials * arguments.sleep_s / arguments.workers
            found = {"trials": arguments.trials, "workers": arguments.workers, "sleep_s": arguments.sleep_s}
            print(json.dumps(found | {"seconds": round(taken, 2), "of_ideal": round(taken / ideal, 3)}))
            return
        study = finished_study(Path(place), arguments.trials)
        bare, ours, memory = [], [], []
        bare_s(client, 100)
        for _ in range(arguments.repeats):
            bare.append(1000 * bare_s(client, arguments.trials) / arguments.trials)
            ours.append(1000 * ours_s(client, study, memory) / arguments.trials)
        ratios = [one / other for one, other in zip(ours, bare, strict=True)]
        print(json.dumps({
            "trials": arguments.trials,
            "record_bytes": study["bytes"],
            "bare_ms": [round(one, 2) for one in bare],
            "dlx_ms": [round(one, 2) for one in ours],
            "ratio": round(statistics.median(ratios), 2),
            "client_mib": [round(one) for one in memory],
        }))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
