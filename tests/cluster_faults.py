"""Kills workers, the scheduler and the client of a study on a dask cluster; `make faults-dask` runs all of it.

The scheduler and two workers are processes that talk over TCP, and are started again when they end. Whatever is killed,
no trial is lost or doubled, and the records are those of a run without dask.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cluster_processes import Machines, dlx_environment
from faults import results
from small import SMALL_ARGS

SWEEP = ["sweep-dropout", *SMALL_ARGS, "--epochs", "8", "--steps-per-epoch", "120"]
MANY = ["--p", "0.2,0.5", "--seeds", "4"]  # 12 trials
FEW = ["--p", "0.2", "--seeds", "2"]  # 4 trials
START_S, END_S = 60.0, 300.0


def num_trials(trials: list[str]) -> int:
    """The trials of the sweep that these words make."""
    return (1 + len(trials[1].split(","))) * int(trials[3])


def start_client(machines: Machines, out: Path, *more: str) -> subprocess.Popen:
    """The sweep on the cluster, in a process group of its own."""
    command = [sys.executable, "-m", "dlx", *SWEEP, "--out", str(out), *more]
    with (machines.folder / "client.log").open("a") as log:
        return subprocess.Popen(
            command, start_new_session=True, env=machines.environment, stdout=subprocess.DEVNULL, stderr=log
        )


def num_done(out: Path) -> int:
    """The trials that have a result."""
    return len(list((out / "trials").glob("*/result.json")))


def wait_until(is_true: Callable[[], bool], limit_s: float) -> None:
    """Waits for a claim to hold; TimeoutError after the limit."""
    end = time.monotonic() + limit_s
    while not is_true():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)


def run_with_faults(
    folder: Path,
    trials: list[str] = MANY,
    *,
    num_worker_kills: int,
    num_scheduler_kills: int,
    num_client_kills: int,
    seed: int,
    pauses_s: tuple[float, float] = (1.0, 8.0),
) -> Path:
    """Runs the sweep while these kills hit at random moments in random order; returns its folder."""
    chosen = random.Random(seed)
    faults = ["worker"] * num_worker_kills + ["scheduler"] * num_scheduler_kills + ["client"] * num_client_kills
    chosen.shuffle(faults)
    out = folder / "cluster"
    with Machines(folder) as machines:
        words, total = [*trials, "--scheduler-address", machines.address], num_trials(trials)
        client = start_client(machines, out, *words)
        wait_until(lambda: (out / "study.json").exists(), START_S)
        for fault in faults:
            time.sleep(chosen.uniform(*pauses_s))
            if num_done(out) == total:
                raise RuntimeError(f"all trials had ended before the kills {faults} were done: they are too short")
            if client.poll() is not None:  # the scheduler was away for longer than a client waits
                client = start_client(machines, out, *words)
            print(f"  {num_done(out)} of {total} trials done: kills the {fault}", flush=True)
            if fault == "worker":
                wait_until(lambda: machines.kill_worker(chosen), START_S)
            elif fault == "scheduler":
                machines.kill_scheduler()
            else:
                os.killpg(client.pid, signal.SIGKILL)
                client.wait()
                client = start_client(machines, out, *words)
        for _ in range(3):  # a command that the user gives again
            if client.wait(END_S) == 0:
                break
            client = start_client(machines, out, *words)
        if client.wait(END_S) != 0:
            raise RuntimeError((folder / "client.log").read_text())
    return out


def run_alone(folder: Path, trials: list[str] = MANY) -> Path:
    """The same sweep in worker processes of one command; returns its folder."""
    command = [sys.executable, "-m", "dlx", *SWEEP, *trials, "--out", str(folder / "alone"), "--quiet"]
    subprocess.run(command, env=dlx_environment(folder), check=True, capture_output=True, timeout=END_S)
    return folder / "alone"


def differences(out: Path, alone: Path) -> str:
    """How the records differ: lost, doubled or unlike trials; empty if they are equal. A trial is doubled if an epoch
    is recorded twice, as two workers that train it would do.
    """
    found, expected = results(out), results(alone)
    epochs = [path.read_text().splitlines() for path in (out / "trials").glob("*/epochs.jsonl")]
    numbers = [[json.loads(line)["result"]["epoch"] for line in lines] for lines in epochs]
    lost, more = expected.keys() - found.keys(), found.keys() - expected.keys()
    unlike = [trial for trial in expected.keys() & found.keys() if expected[trial] != found[trial]]
    doubled = sum(len(found) != len(set(found)) for found in numbers)
    if not (lost or more or unlike or doubled):
        return ""
    return f"{len(lost)} lost, {len(more)} unknown, {doubled} doubled, {len(unlike)} unlike"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="how often, with other random moments")
    parser.add_argument("--keep", type=Path, help="folder that is kept")
    arguments = parser.parse_args()
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as place:
            folder = arguments.keep or Path(place)
            folder.mkdir(exist_ok=True)
            alone = run_alone(folder)
            out = run_with_faults(folder, num_worker_kills=10, num_scheduler_kills=1, num_client_kills=2, seed=seed)
            print(f"seed {seed}: {differences(out, alone) or 'all records are equal, none lost, none doubled'}")
            if differences(out, alone):
                sys.exit(1)


if __name__ == "__main__":
    main()
