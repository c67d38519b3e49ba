"""Seconds from typing the command to 0.86 mean hard Dice on the hippocampus fold (52 held-out volumes), beside MONAI.

    python -m benchmarks.time_to_dice [--data FOLDER] [--repeats 3] [--limit-s 120] [--force]

dlx is its whole command, with a cold cache of decoded data: its run is planned to end there, so its one look is at the
end, and its time is all of the command's, final scoring and surface distances included. MONAI's loops have no such
plan and are looked at every 20 s of training; only the look that finds 0.86 is counted. Order ABBA, a seed a repeat.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import records, report
from benchmarks.contenders import dlx_dice

DATA = records.ROOT.parent / "shared/data/Task04_Hippocampus"
RECIPES = {"MONAI, as it comes": "plain", "MONAI, our recipe": "equal"}
NOTE = (
    "dlx: the whole command with a cold cache of decoded data, from its start to its end, final scoring of all 260 "
    "volumes included. MONAI: float32, constant rate, evaluated every {look:g} s of training; the time of evaluations "
    "below the target is not counted. As it comes: four levels, 64 x 64 anywhere, Adam; our recipe: network, slices "
    "and optimizer of dlx's default recipe. Width, slices a step, rate and split are the same for all; a seed a "
    "repeat; order ABBA."
)


def run_dlx(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """`dlx train` as a user types it; its split is in the result, for the peer to take over."""
    try:
        trained = dlx_dice.train(args.data, args.device, args.dlx, seed=seed, threads=args.threads)
    except RuntimeError as error:
        return {"error": str(error)}
    return {
        "seed": seed,
        "reached_s": trained.wall_s if trained.dice >= args.target else None,
        "dice": trained.dice,
        "looks": [*trained.looks(counts_evaluation=True), [trained.wall_s, trained.dice]],
        "steps": trained.steps,
        "wall_s": trained.wall_s,
        "parameters": trained.outcome["parameters"],
        "split": trained.outcome["settings"]["split"],
    }


def run_monai(args: argparse.Namespace, recipe: str, seed: int, split: dict[str, list[str]]) -> dict[str, Any]:
    task = {"folder": str(args.data), "seed": seed, "device": args.device, "threads": args.threads, "recipe": recipe}
    task |= {"target": args.target, "look_every_s": args.look_every_s, "limit_s": args.limit_s, **split}
    environment = {**records.child_environment(), "BENCHMARK_STARTED": repr(time.time())}
    command = [sys.executable, "-m", "benchmarks.contenders.monai_dice", json.dumps(task)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=records.ROOT, check=False)
    if result.returncode != 0:
        return {"error": (result.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(result.stdout.strip().splitlines()[-1])


def measure(args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """All, `repeats` times in the order ABBA; the first is dlx, whose split MONAI's loops take over."""
    names = ["dlx", *RECIPES]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    split: dict[str, list[str]] = {}
    for repeat in range(args.repeats):
        for name in names if repeat % 2 == 0 else reversed(names):
            run = run_dlx(args, repeat) if name == "dlx" else run_monai(args, RECIPES[name], repeat, split)
            if name == "dlx" and "error" in run:
                raise SystemExit(run["error"])
            split = run.pop("split", split)
            runs[name].append(run)
            print(f"{repeat + 1}/{args.repeats}  {name:20}", {**run, "looks": len(run.get("looks", []))}, flush=True)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of every contender")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--target", type=float, default=0.86)
    parser.add_argument("--limit-s", type=float, default=120.0, help="MONAI's loops give up after so many seconds")
    parser.add_argument("--look-every-s", type=float, default=20.0)
    parser.add_argument("--out", type=Path, help="the record's file; by default a dated one in benchmarks/results")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too")
    parser.add_argument("--dlx", nargs=argparse.REMAINDER, default=[], help="further options of dlx train, last")
    args = parser.parse_args()
    args.data = args.data.resolve()
    if not args.data.is_dir():
        print(f"time to Dice: missing: no folder {args.data} (the hippocampus set, Decathlon Task04)")
        return
    quiet = records.require_quiet(force=args.force)
    document = {
        "device": args.device,
        "machine": records.machine(args.device),
        "quiet": quiet,
        "target": args.target,
        "limit_s": args.limit_s,
        "threads": args.threads,
        "dlx_options": args.dlx,
        "note": NOTE.format(look=args.look_every_s),
        "runs": measure(args),
    }
    path = records.write_record("dice", document, args.out)
    print(f"\n{report.dice_report(document)}\n\n{path}")


if __name__ == "__main__":
    main()
