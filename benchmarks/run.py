"""A training step beside peers and ceilings: `make bench` (CPU), `make bench-gpu`. Each contender is a process of its
own, in the order ABBA, at least three times; the table has medians, their spread, and ratios within this call.

    python -m benchmarks.run [--dims 3] [--device cpu] [--repeats 3] [--width 64] [--only NAME;NAME] [--force]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import records, report
from benchmarks.contenders import CONTENDERS, CONTENDERS_3D, Contender, selected
from benchmarks.workload import STEP_3D, Workload, as_text

LIMIT_S = 900  # of one process: a contender that hangs is a missing row


def run_once(module: str, workload: Workload, python: str = sys.executable) -> dict[str, Any]:
    """One contender in a process of its own; what it measured, or the error it ended with."""
    environment = {**records.child_environment(), "BENCHMARK_STARTED": repr(time.time())}
    command = [python, "-m", f"benchmarks.contenders.{module}", as_text(workload)]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=records.ROOT, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {LIMIT_S} s"}
    if result.returncode != 0:
        return {"error": (result.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(result.stdout.strip().splitlines()[-1])


def run_contender(contender: Contender, workload: Workload) -> dict[str, Any]:
    asked = replace(workload, precision=contender.precision, variant=contender.variant)
    if contender.loss:
        asked = replace(asked, loss=contender.loss)
    try:
        return run_once(contender.module, asked, contender.python())
    except LookupError as missing:
        return {"error": str(missing)}


def measure(workload: Workload, contenders: list[Contender], repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Every contender `repeats` times: forwards, backwards, forwards ...; one that fails is not tried again."""
    measured: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in contenders}
    for repeat in range(repeats):
        for contender in contenders if repeat % 2 == 0 else list(reversed(contenders)):
            runs = measured[contender.name]
            if runs and "error" in runs[-1]:
                continue
            runs.append(run_contender(contender, workload))
            shown = runs[-1].get("error") or f"{runs[-1]['step_s']:.4f} s a step"
            print(f"{repeat + 1}/{repeats}  {contender.name:32} {shown}", flush=True)
    return measured


def timing(device: str) -> dict[str, int]:
    """How many steps are timed: on a GPU more, and with a wait for the device after 20 of them."""
    return {"warm_up": 10, "steps": 60, "block": 20} if device.startswith("cuda") else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dims", type=int, choices=(2, 3), default=2, help="the notes' slices, or patches in 3D")
    parser.add_argument("--width", type=int, help="64 by default, 16 in 3D")
    parser.add_argument("--steps", type=int, help="timed at most; 4 (in 3D 10) on a CPU, 60 in blocks of 20 on a GPU")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", help="contenders by name, separated by ';'")
    parser.add_argument("--out", type=Path, help="the record's file; by default a dated one in benchmarks/results")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too")
    args = parser.parse_args()
    everyone = {contender.name: contender for contender in (CONTENDERS_3D if args.dims == 3 else CONTENDERS)}
    contenders = [everyone[name] for name in selected(parser, args.only, list(everyone))]
    quiet = records.require_quiet(force=args.force)
    asked = timing(args.device) | {name: given for name in ("width", "steps") if (given := getattr(args, name))}
    workload = replace(STEP_3D if args.dims == 3 else Workload(), device=args.device, threads=args.threads, **asked)
    ceilings = run_once("ceilings", workload)
    if "error" in ceilings:
        raise SystemExit(f"the ceilings could not be measured: {ceilings['error']}")
    document = {
        "device": args.device,
        "machine": records.machine(args.device),
        "quiet": quiet,
        "workload": asdict(workload),
        "ceilings": ceilings,
        "runs": measure(workload, contenders, args.repeats),
        "notes": {contender.name: contender.note for contender in contenders if contender.note},
    }
    path = records.write_record("step-3d" if args.dims == 3 else "step", document, args.out)
    print(f"\n{report.step_report(document)}\n\n{path}")


if __name__ == "__main__":
    main()
