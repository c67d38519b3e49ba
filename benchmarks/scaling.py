"""Cost as work grows: a step's time and memory against width and batch, loading against subjects and volume size, a
study against its number of trials. Each point is a process of its own; the figure is drawn from the record.

    python -m benchmarks.scaling [--device cpu] [--quick] [--force]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks import records, report
from benchmarks.run import run_once, timing
from benchmarks.workload import Workload

Point = dict[str, Any]
LABELS = {
    "width": "width (64 slices of 64 x 64)",
    "batch": "slices a batch (width 16)",
    "volume": "voxels a side of each volume",
    "subjects": "subjects of 96^3, two channels",
    "trials": "trials of a study",
}
SECONDS = {
    "width": "s a step",
    "batch": "s a step",
    "volume": "s to load 2 subjects",
    "subjects": "s to load",
    "trials": "s of the study",
}
MEMORY = {
    "width": "MiB, peak of the process",
    "batch": "MiB, peak of the process",
    "volume": "MiB, peak while loading",
    "subjects": "MiB, peak while loading",
    "trials": "MiB, peak of all processes",
}
NOTE = (
    "Memory of a step is the largest resident set of its process, torch included. Memory of loading is what the "
    "resident set grew by at its peak. Memory of a study is the sum over its processes of their proportional shares, "
    "sampled ten times a second: what workers share counts once."
)


def step_points(name: str, values: list[int], fixed: Workload) -> list[Point]:
    """A step of dlx's engine with one setting varied."""
    points = []
    for value in values:
        measured = run_once("dlx_engine", Workload(**{**fixed.__dict__, name: value}))
        if "error" in measured:
            raise SystemExit(f"{name} {value}: {measured['error']}")
        points.append({"x": value, "s": measured["step_s"], "mib": measured.get("peak_gpu_mib", measured["peak_mib"])})
        print(name, points[-1], flush=True)
    return points


def load_points(name: str, values: list[int], subjects: int, size: int) -> list[Point]:
    """Reading a folder of phantom subjects, of which one number is varied."""
    points = []
    for value in values:
        count, side = (value, size) if name == "subjects" else (subjects, value)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "data"
            make = ["-m", "dlx", "make-phantom", str(folder), "--subjects", str(count), "--size", str(side)]
            call(make)
            measured = json.loads(call(["-m", "benchmarks.contenders.dlx_load", str(folder)]).splitlines()[-1])
        points.append(
            {"x": value, "s": measured["s"], "mib": measured["peak_mib"], "kept_mib": measured["kept_mib"] / count}
        )
        print(name, points[-1], flush=True)
    return points


def trial_points(values: list[int]) -> list[Point]:
    """Studies of tiny trials, one thread each, as many at once as there are cores: memory must not grow with trials."""
    points = []
    for value in values:
        with tempfile.TemporaryDirectory() as scratch:
            command = f"""-m dlx train --data phantom:subjects=4,size=32 --model unet2:width=4,levels=2 --seeds {value}
                --threads 1 --epochs 2 --steps-per-epoch 10 --batch-size 4 --device cpu --quiet""".split()
            started = time.perf_counter()
            mib = peak_of_tree([*command, "--cache-dir", f"{scratch}/cache", "--out", f"{scratch}/run"])
            points.append({"x": value, "s": time.perf_counter() - started, "mib": mib})
        print("trials", points[-1], flush=True)
    return points


def call(arguments: list[str]) -> str:
    result = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=records.child_environment(),
        cwd=records.ROOT,
        check=False,
    )
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)}:\n{result.stderr}")
    return result.stdout


def peak_of_tree(arguments: list[str]) -> float:
    """Runs a command and gives the largest sum over its processes of their proportional set sizes, in MiB (Linux)."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=records.child_environment(),
        cwd=records.ROOT,
    )
    errors: list[bytes] = []
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))
    reader.start()
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(map(share_mib, tree(process.pid))))
        time.sleep(0.1)
    reader.join()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)}:\n{errors[0].decode(errors='replace')}")
    return peak


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for parent in found:
        try:
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found += map(int, children.read_text(encoding="utf-8").split())
        except OSError:  # it ended meanwhile
            continue
    return found


def share_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="two small points an axis, to see that it works")
    parser.add_argument("--out", type=Path, help="the record's file; by default a dated one in benchmarks/results")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too")
    args = parser.parse_args()
    quiet = records.require_quiet(force=args.force)
    narrow = Workload(width=16, device=args.device, threads=args.threads, enough_s=6.0, **timing(args.device))
    size = 32 if args.quick else 96
    axes = {
        "width": step_points("width", [4, 8] if args.quick else [8, 16, 32, 64], narrow),
        "batch": step_points("slices", [4, 8] if args.quick else [8, 16, 32, 64, 96], narrow),
        "volume": load_points("volume", [24, 32] if args.quick else [48, 96, 144, 192], 2, 0),
        "subjects": load_points("subjects", [2, 4] if args.quick else [2, 4, 8, 16], 0, size),
        "trials": trial_points([2, 4] if args.quick else [2, 4, 8, 16]),
    }
    per_subject = axes["subjects"][-1]["kept_mib"]
    document = {
        "device": args.device,
        "machine": records.machine(args.device),
        "quiet": quiet,
        "workload": narrow.__dict__,
        "axes": axes,
        "labels": LABELS,
        "seconds": SECONDS,
        "memory": MEMORY,
        "note": f"{NOTE} A loaded subject of {size}^3 with two channels keeps {per_subject:.1f} MiB.",
    }
    path = records.write_record("scaling", document, args.out)
    print(f"\n{report.scaling_report(document)}\n\n{path}")


if __name__ == "__main__":
    main()
