"""Kills a sweep at random moments, resumes it each time, and compares what it ends with; `make faults` runs ten kills.

`tests/test_faults.py` runs a few of them with every `make test`.
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
from pathlib import Path

from safetensors import safe_open

from small import SMALL_ARGS

SWEEP = ["sweep-dropout", "--p", "0.2,0.5", "--seeds", "2", *SMALL_ARGS, "--epochs", "6"]


def start(folder: Path, steps: int) -> subprocess.Popen:
    """The six-trial sweep in a process group of its own."""
    command = [sys.executable, "-m", "dlx", *SWEEP, "--steps-per-epoch", str(steps), "--out", str(folder), "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DLX_CACHE_DIR": str(folder.parent / "cache")}
    with (folder.parent / "errors.txt").open("w") as errors:
        return subprocess.Popen(
            command, start_new_session=True, env=environment, stdout=subprocess.DEVNULL, stderr=errors
        )


def ended_well(process: subprocess.Popen, folder: Path) -> str:
    """Waits for a sweep; what it complained of, empty where it ended with exit code 0."""
    code = process.wait()
    return "" if code == 0 else f"the sweep ended with {code}: {(folder.parent / 'errors.txt').read_text()}"


def results(folder: Path) -> dict:
    """trial id -> the half of its record that must repeat, and that of each epoch's."""
    found = {}
    for path in (folder / "trials").glob("*/result.json"):
        record = json.loads(path.read_text())
        lines = (path.parent / "epochs.jsonl").read_text().splitlines()
        found[record["trial"]] = (record["result"], [json.loads(line)["result"] for line in lines])
    return found


def epochs_to_redo(folder: Path) -> list[int]:
    """For each trial that was begun and not ended: finished epochs that its checkpoint does not hold."""
    lost = []
    for trial in (folder / "trials").iterdir():
        if (trial / "result.json").exists() or not (trial / "epochs.jsonl").exists():
            continue
        finished = (trial / "epochs.jsonl").read_bytes().count(b"\n")
        saved = 0
        if (trial / "last.safetensors").exists():
            with safe_open(trial / "last.safetensors", "np") as file:
                saved = json.loads(file.metadata()["dlx"])["progress"]["epoch"]
        lost.append(finished - saved)
    return lost


def best_is_the_best(folder: Path) -> bool:
    """Every trial's best checkpoint is of the epoch that its record names."""
    for path in (folder / "trials").glob("*/result.json"):
        with safe_open(path.parent / "best.safetensors", "np") as file:
            epoch = json.loads(file.metadata()["dlx"])["progress"]["epoch"]
        if epoch != json.loads(path.read_text())["result"]["best_epoch"]:
            return False
    return True


def kill_and_resume(place: Path, kills: int, seed: int, steps: int) -> list[str]:
    """What went wrong, if anything, in `kills` kills of one sweep; half of them kill its workers at once with it."""
    chance = random.Random(seed)
    started = time.monotonic()
    failure = ended_well(start(place / "alone", steps), place / "alone")
    lasted = time.monotonic() - started
    if failure:
        return [failure]
    wrong, killed = [], 0
    for kill in range(kills):
        # a resumed sweep has less to do: the moments are drawn from what the whole takes, spread over the kills
        moment = chance.uniform(0.1, 0.5) * lasted
        process = start(place / "killed", steps)
        time.sleep(moment)
        if process.poll() is not None:
            continue
        killed += 1
        if kill % 2:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        time.sleep(0.3)  # the workers of a killed parent end by themselves
        if (place / "killed" / "trials").exists():
            lost = epochs_to_redo(place / "killed")
            print(
                f"kill {kill + 1} after {moment:.1f} s: finished epochs to redo, by trial at work: {lost}", flush=True
            )
            if any(number > 1 for number in lost):
                wrong.append(f"kill {kill + 1}: more than one finished epoch is lost: {lost}")
    print(f"{killed} kills hit a running sweep")
    failure = ended_well(start(place / "killed", steps), place / "killed")
    if failure:
        return [*wrong, failure]
    if results(place / "killed") != results(place / "alone") or len(results(place / "alone")) != 6:
        wrong.append("the records differ from the uninterrupted sweep's")
    if not best_is_the_best(place / "killed"):
        wrong.append("a best checkpoint is not of the best epoch")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200, help="steps of an epoch: trials long enough to be hit")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        wrong = kill_and_resume(Path(place), args.kills, args.seed, args.steps)
    print("\n".join(wrong) or f"{args.kills} kills: the records equal the uninterrupted sweep's, bit for bit")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
