"""`dlx train` on fold 0 of 5 of a folder of volumes, as a user types it, with a cold cache of decoded data."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import records


@dataclass(frozen=True)
class Trained:
    """The whole command's seconds, the lines of epochs.jsonl, and result.json."""

    wall_s: float
    epochs: list[dict[str, Any]]
    outcome: dict[str, Any]

    @property
    def dice(self) -> float:
        """Of the validation cases, after the last epoch."""
        return self.outcome["result"]["val"]["dice"]

    @property
    def before_s(self) -> float:
        """What is neither an epoch nor the final scoring: start-up, reading, writing."""
        return self.wall_s - self.outcome["run"]["seconds"]

    @property
    def steps(self) -> int:
        return self.outcome["settings"]["train"]["steps_per_epoch"] * len(self.epochs)

    def looks(self, *, counts_evaluation: bool) -> list[list[float]]:
        """When each validated epoch but the last ended, and its Dice; start-up and reading come before the first."""
        looks, at = [], self.before_s
        for epoch in self.epochs[:-1]:
            at += epoch["run"]["train_s"] + (epoch["run"]["evaluate_s"] if counts_evaluation else 0.0)
            if epoch["result"]["val_dice"] is not None:
                looks.append([at, epoch["result"]["val_dice"]])
        return looks

    @property
    def training_s(self) -> float:
        """The command without any evaluation."""
        return self.before_s + sum(epoch["run"]["train_s"] for epoch in self.epochs)


def train(data: Path, device: str, options: Sequence[str], *, seed: int, threads: int) -> Trained:
    """RuntimeError with the last line of stderr if the command fails."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "dlx", "train", "--data", str(data), "--fold", "0", "--folds", "5"]
        command += ["--device", device, "--seed", str(seed), "--threads", str(threads)]
        command += ["--cache-dir", f"{scratch}/cache", "--out", f"{scratch}/run", "--quiet", *options]
        started = time.time()
        result = subprocess.run(
            command, capture_output=True, text=True, env=records.child_environment(), cwd=records.ROOT, check=False
        )
        wall_s = time.time() - started
        if result.returncode != 0:
            raise RuntimeError((result.stderr.strip().splitlines() or ["no message"])[-1])
        folder = next(Path(scratch).glob("run/trials/*/epochs.jsonl")).parent
        epochs = [json.loads(line) for line in (folder / "epochs.jsonl").read_text(encoding="utf-8").splitlines()]
        return Trained(wall_s, epochs, json.loads((folder / "result.json").read_text(encoding="utf-8")))
