"""Kills a sweep at random moments, resumes it each time, and compares what it ends with; `make faults` runs ten kills.

A kill counts where it hit a trial in mid-training; one that hit nothing is taken again. `tests/test_faults.py` has one
kill.
"""

import argparse
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from small import SMALL_ARGS

EPOCHS = 6
SWEEP = ["sweep-dropout", "--p", "0.2,0.5", "--seeds", "2", *SMALL_ARGS, "--epochs", str(EPOCHS)]
TRIALS = 6
LOOK_EVERY_S = 0.002
MAX_ATTEMPTS = 5  # for each kill that is to count


@dataclass(frozen=True)
class Hit:
    """A trial that was in training when its sweep was killed: the epoch it was in, and the finished epochs, if any,
    that its checkpoint does not hold.
    """

    trial: str
    epoch: int
    redone: int


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


def finished_epochs(trial: Path) -> int:
    """The epochs whose records are on disk."""
    path = trial / "epochs.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def all_epochs(folder: Path) -> int:
    """The epochs of all trials whose records are on disk."""
    return sum(map(finished_epochs, (folder / "trials").glob("*")))


def saved_epochs(trial: Path) -> int:
    """The epochs that the trial's checkpoint holds."""
    if not (trial / "last.safetensors").exists():
        return 0
    with safe_open(trial / "last.safetensors", "np") as file:
        return json.loads(file.metadata()["dlx"])["progress"]["epoch"]


def epochs_to_redo(folder: Path) -> list[int]:
    """For each trial that was begun and not ended: finished epochs that its checkpoint does not hold."""
    begun = [path.parent for path in (folder / "trials").glob("*/epochs.jsonl")]
    return [finished_epochs(t) - saved_epochs(t) for t in begun if not (t / "result.json").exists()]


def best_is_the_best(folder: Path) -> bool:
    """Every trial's best checkpoint is of the epoch that its record names."""
    for path in (folder / "trials").glob("*/result.json"):
        with safe_open(path.parent / "best.safetensors", "np") as file:
            epoch = json.loads(file.metadata()["dlx"])["progress"]["epoch"]
        if epoch != json.loads(path.read_text())["result"]["best_epoch"]:
            return False
    return True


def is_at_work(trial: Path) -> bool:
    """True where a process runs the trial: it holds its lock."""
    with (trial / ".lock").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def at_work(folder: Path) -> list[Path]:
    """The trials in mid-training at this moment: begun, run by a process, and not at their last epoch's end."""
    begun = sorted(path.parent for path in (folder / "trials").glob("*/settings.json"))
    return [t for t in begun if not (t / "result.json").exists() and finished_epochs(t) < EPOCHS and is_at_work(t)]


def wait_for_epochs(process: subprocess.Popen, folder: Path, count: int) -> bool:
    """Waits until a trial is in mid-training and so many epochs more have ended; False where the sweep ended before."""
    before = None
    while process.poll() is None:
        if before is None and at_work(folder):
            before = all_epochs(folder)
        if before is not None and all_epochs(folder) >= before + count:
            return True
        time.sleep(LOOK_EVERY_S)
    return False


def kill(process: subprocess.Popen, folder: Path, *, with_workers: bool) -> list[Hit]:
    """Kills a sweep, its workers too unless they are to end by themselves; gives the trials hit in mid-training.

    All of it is stopped first, so that what is seen is what is hit.
    """
    os.killpg(process.pid, signal.SIGSTOP)
    hit = [(trial, finished_epochs(trial) + 1) for trial in at_work(folder)]
    if with_workers:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
        os.killpg(process.pid, signal.SIGCONT)
    process.wait()
    while any(is_at_work(path.parent) for path in (folder / "trials").glob("*/.lock")):
        time.sleep(LOOK_EVERY_S)
    return [Hit(trial.name, epoch, finished_epochs(trial) - saved_epochs(trial)) for trial, epoch in hit]


def kill_and_resume(place: Path, kills: int, seed: int, steps: int) -> list[str]:
    """What went wrong, if anything, in `kills` kills of one sweep; half of them kill its workers at once with it."""
    chance = random.Random(seed)
    process = start(place / "alone", steps)
    wait_for_epochs(process, place / "alone", 0)
    started = time.monotonic()
    failure = ended_well(process, place / "alone")
    epoch_s = (time.monotonic() - started) / (EPOCHS * TRIALS)
    if failure:
        return [failure]
    wrong: list[str] = []
    folder, count, attempts = place / "killed", 0, 0
    while count < kills and attempts < MAX_ATTEMPTS * kills:
        attempts += 1
        process = start(folder, steps)
        epochs = chance.randrange(2 * EPOCHS * TRIALS // kills - 1)  # so the kills are spread over the sweep
        # half of them come upon the end of an epoch, whose checkpoint is then being written
        moment = 0.0 if chance.random() < 0.5 else chance.uniform(0.0, 2.0 * epoch_s)
        is_training = wait_for_epochs(process, folder, epochs)
        time.sleep(moment)
        if not is_training or process.poll() is not None:  # nothing is left to be hit: another sweep from the start
            wrong += compare(folder, place / "alone", ended_well(process, folder))
            folder = place / f"killed-{attempts}"
            continue
        hits = kill(process, folder, with_workers=count % 2 == 1)
        if not hits:
            print(f"a kill after {epochs} epochs and {moment:.2f} s hit no training: taken again", flush=True)
            continue
        count += 1
        told = "; ".join(f"{hit.trial} in epoch {hit.epoch}, {hit.redone} finished to redo" for hit in hits)
        print(f"kill {count} after {epochs} epochs and {moment:.2f} s: {told}", flush=True)
        lost = [hit for hit in hits if hit.redone > 1]
        wrong += [f"kill {count}: {hit.redone} finished epochs of {hit.trial} are lost" for hit in lost]
    if count < kills:
        wrong.append(f"{count} of {kills} kills hit a trial, in {attempts} attempts")
    return wrong + compare(folder, place / "alone", ended_well(start(folder, steps), folder))


def compare(folder: Path, alone: Path, failure: str) -> list[str]:
    """What is wrong with a sweep that was killed and has ended, beside one that was left alone."""
    if failure:
        return [failure]
    wrong = []
    if results(folder) != results(alone) or len(results(alone)) != TRIALS:
        wrong.append("the records differ from the uninterrupted sweep's")
    if not best_is_the_best(folder):
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
