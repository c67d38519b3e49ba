"""Dice over the time of training on the hippocampus fold (52 held-out volumes): dlx's recipes, MONAI and nnU-Net.

    python -m benchmarks.dice_over_time [--data FOLDER] [--limit-s 3600] [--only NAME;NAME] [--force]

dlx trains as its recipes plan; its validated epochs and its end are its curve. The peers, in 3D and with their own
default settings, train until the limit and are interrupted for looks at 1, 2, 4, 7.5, 15, 30, 45 and 60 minutes of an
hour. Times count from typing the command, reading and preparation included. Evaluation time is not counted; the record
gives it separately. --only adds to this machine's newest record and keeps its runs of the other contenders; if its
packages, data, limit, seed or threads differ, nothing is run. Each run records how busy the machine was at its start;
on a busy machine none is started, and --only continues later. One seed, two hours and a half in all.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import records, report
from benchmarks.contenders import NNUNET_STOCK, Contender, dlx_dice, selected
from benchmarks.time_to_dice import DATA

QUICK, STRONG, MONAI_3D = "dlx, quick", "dlx, strong", "MONAI, its recipe"
RECIPES = {QUICK: "quick", STRONG: "strong"}
PEERS = {
    MONAI_3D: Contender(MONAI_3D, "monai_3d_dice", precision="float32"),
    NNUNET_STOCK: Contender(NNUNET_STOCK, "nnunet_dice", precision="float32"),
}
COMPARED = ("device", "machine", "data", "limit_s", "seed", "threads")  # the same for all runs of a record
NOTE = (
    "Times count from typing the command, reading and preparation included. Evaluation time is not counted; the record "
    "gives it separately. dlx's recipes were chosen by validation Dice on this fold, so their Dice is slightly "
    "optimistic; one seed. dlx: a cold cache of decoded data; its rate falls to zero at its own end. MONAI: the "
    "settings of its tutorial for this set (DynUNet, 9 patches of 40 x 56 x 40, SGD at a rate of 0.1, and of 0.001 in "
    "the last eleventh of the time). nnU-Net: its own planning, preprocessing, loader, augmentation and 3d_fullres "
    "network; its rate is planned for 1000 epochs of 250 steps. Both are float32 and ended at the limit, where a "
    "second look predicts with mirroring; all other looks, dlx's among them, predict without. The split is dlx's for "
    "all."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit-s", type=float, default=3600.0, help="of training, for MONAI and nnU-Net")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of every contender")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="contenders by name, separated by ';'")
    parser.add_argument("--out", type=Path, help="the record's file; by default a dated one in benchmarks/results")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too")
    args = parser.parse_args()
    names = selected(parser, args.only, [*RECIPES, *PEERS])
    args.data = args.data.resolve()
    if not args.data.is_dir():
        print(f"Dice over time: missing: no folder {args.data} (the hippocampus set, Decathlon Task04)")
        return
    document = {
        "device": args.device,
        "machine": records.machine(args.device),
        "data": args.data.name,
        "limit_s": args.limit_s,
        "seed": args.seed,
        "threads": args.threads,
        "note": NOTE,
        "runs": {},
    }
    document["runs"] = kept_runs(document, args.out) if args.only else {}
    split = split_of(args.data)
    for name in names:
        quiet = records.require_quiet(force=args.force)
        run = run_dlx(args, RECIPES[name]) if name in RECIPES else run_peer(args, PEERS[name], split)
        if "error" not in run or name not in document["runs"]:  # a failure does not replace a measured run
            document["runs"] = in_order(document["runs"] | {name: {**run, "quiet": quiet}})
        print(f"{name:20}", {**run, "looks": len(run.get("looks", []))}, flush=True)
        path = records.write_record("dice-curve", document, args.out)  # each time: what was measured is not lost
    print(f"\n{report.dice_curve_report(document)}\n\n{path}")


def in_order(runs: dict[str, Any]) -> dict[str, Any]:
    return {name: runs[name] for name in (*RECIPES, *PEERS) if name in runs}


def kept_runs(document: dict[str, Any], out: Path | None) -> dict[str, Any]:
    """Those of `out`, by default of the newest record of this machine; {} where there is none.

    Raises:
        SystemExit: A setting in COMPARED differs from this call's, so that the record would be overwritten.
    """
    if out is None:
        before = records.newest("dice-curve", document)
    else:
        before = json.loads(out.read_text(encoding="utf-8")) if out.exists() else None
    if before is None:
        return {}
    if different := [key for key in COMPARED if before.get(key) != document[key]]:
        raise SystemExit(f"the record to be continued differs in {', '.join(different)}; name another file with --out")
    return before["runs"]


def split_of(data: Path) -> dict[str, Any]:
    """Fold 0 of 5, as `dlx train --fold 0 --folds 5` splits, and the number of classes."""
    from dlx.data.dataset import open_dataset
    from dlx.settings.layers import make_spec, merge, read_recipe
    from dlx.trial.resolve import resolve

    changes = {"data": {"source": str(data)}, "split": {"fold": 0, "folds": 5}}
    spec = make_spec(merge(read_recipe("quick"), changes))
    resolved = resolve(spec, open_dataset(spec.data, cache_dir=None))
    sides = {"train": list(resolved.split.train), "val": list(resolved.split.val)}
    return {**sides, "classes": len(resolved.dataset.classes)}


def run_dlx(args: argparse.Namespace, recipe: str) -> dict[str, Any]:
    try:
        trained = dlx_dice.train(args.data, args.device, ["--recipe", recipe], seed=args.seed, threads=args.threads)
    except RuntimeError as error:
        return {"error": str(error)}
    return {
        "looks": [*trained.looks(counts_evaluation=False), [trained.training_s, trained.dice]],
        "mirrored_look": None,
        "looking_s": trained.wall_s - trained.training_s,
        "wall_s": trained.wall_s,
        "steps": trained.steps,
        "parameters": trained.outcome["parameters"],
    }


def run_peer(args: argparse.Namespace, peer: Contender, split: dict[str, Any]) -> dict[str, Any]:
    """A process of its own. It prints a line at each look: if it fails later, the looks before that are kept."""
    task = {"folder": str(args.data), "seed": args.seed, "device": args.device, "threads": args.threads}
    task |= {"limit_s": args.limit_s, **split}
    try:
        python = peer.python()
    except LookupError as missing:
        return {"error": str(missing)}
    environment = {**records.child_environment(), "BENCHMARK_STARTED": repr(time.time())}
    command = [python, "-m", f"benchmarks.contenders.{peer.module}", json.dumps(task)]
    run: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, cwd=records.ROOT
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('{"looks"'):
                run = json.loads(line)
                at, dice = run["looks"][-1]
                print(f"{peer.name:20} {at:.0f} s: {dice:.4f}", file=sys.stderr, flush=True)
        if process.wait() == 0 and run:
            return run
        errors.seek(0)
        why = (errors.read().strip().splitlines() or ["no message"])[-1]
    return {**run, "ended": why} if run else {"error": why}


if __name__ == "__main__":
    main()
