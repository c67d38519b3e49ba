"""Speed beside peers and ceilings: `make bench` (CPU), `make bench-gpu`. Each contender is a process of its own, in the
order ABBA, at least three times; the table has medians, their spread, and ratios within this call.

    python benchmarks/run.py [--device cpu] [--repeats 3] [--width 64] [--quick]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from workload import Workload, as_text  # noqa: E402

# name -> script, precision, environment
CONTENDERS = {
    "dlx": ("dlx_engine.py", "bf16", {}),
    "dlx, cross-entropy": ("dlx_engine.py", "bf16", {}),
    "notes' loop": ("notes_loop.py", "float32", {}),
    "tuned loop": ("tuned_loop.py", "bf16", {}),
    "MONAI, as it comes": ("monai_loop.py", "float32", {}),
    "MONAI, bf16": ("monai_loop.py", "bf16", {}),
}
# forward and backward of unet2 at width 64, per slice of 64 x 64 (docs/notes.md); it grows with the square of the width
GFLOP_PER_SLICE = 18.60


def run_once(script: str, workload: Workload, environment: dict[str, str]) -> dict:
    """One contender in a process of its own; what it measured, or the error it ended with."""
    command = [sys.executable, str(HERE / "contenders" / script), as_text(workload)]
    started = {"BENCHMARK_STARTED": repr(time.time()), **environment}
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | started, check=False)
    if result.returncode != 0:
        return {"error": (result.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(result.stdout.strip().splitlines()[-1])


def measure(workload: Workload, names: list[str], repeats: int, console: Console) -> dict[str, list[dict]]:
    """Every contender `repeats` times: forwards, backwards, forwards ..."""
    measured: dict[str, list[dict]] = {name: [] for name in names}
    for repeat in range(repeats):
        for name in names if repeat % 2 == 0 else reversed(names):
            script, precision, environment = CONTENDERS[name]
            asked = replace(workload, precision=precision, loss="ce" if "cross-entropy" in name else workload.loss)
            outcome = run_once(script, asked, environment)
            measured[name].append(outcome)
            steps = outcome.get("step_s")
            shown = outcome["error"] if steps is None else f"{statistics.median(steps):.3f} s a step"
            console.print(f"{repeat + 1}/{repeats}  {name:24} {shown}", highlight=False)
            if steps is None:
                names = [other for other in names if other != name]
    return measured


def summarize(measured: dict[str, list[dict]], workload: Workload, ceilings: dict) -> list[dict]:
    """A row a contender: the median over repeats of each run's median step, spread, and ratios to dlx."""
    gflop = GFLOP_PER_SLICE * workload.side * (workload.side / 64) ** 2 * (workload.width / 64) ** 2
    rows = []
    for name, runs in measured.items():
        whole = [run for run in runs if "step_s" in run]
        if not whole:
            rows.append({"name": name, "missing": runs[0]["error"] if runs else "not run"})
            continue
        medians = [statistics.median(run["step_s"]) for run in whole]
        step_s = statistics.median(medians)
        rows.append(
            {
                "name": name,
                "precision": whole[0]["precision"],
                "parameters": whole[0]["parameters"],
                "step_s": step_s,
                "spread_s": [min(medians), max(medians)],
                "cold_s": statistics.median(run["cold_s"] for run in whole),
                "gflops": gflop / step_s,
                "of_bf16_matmul": gflop / step_s / ceilings["matmul_bf16_gflops"],
            }
        )
    ours = next(row for row in rows if row["name"] == "dlx")
    for row in rows:
        if "step_s" in row and "step_s" in ours:
            row["times_dlx"] = row["step_s"] / ours["step_s"]
    return rows


def as_table(rows: list[dict], ceilings: dict, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("contender")
    for name in ("precision", "step s", "min-max", "of bf16 matmul", "cold start s", "times dlx"):
        table.add_column(name, justify="right")
    for row in rows:
        if "missing" in row:
            table.add_row(row["name"], "missing: " + row["missing"], "", "", "", "", "")
            continue
        low, high = row["spread_s"]
        table.add_row(
            row["name"],
            row["precision"],
            f"{row['step_s']:.3f}",
            f"{low:.3f}-{high:.3f}",
            f"{row['of_bf16_matmul']:.2f}",
            f"{row['cold_s']:.1f}",
            f"{row.get('times_dlx', float('nan')):.2f}",
        )
    table.caption = ", ".join(f"{name} {value:.0f}" for name, value in ceilings.items())
    return table


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    sys.path.insert(0, str(HERE.parent / "src"))
    import torch

    from dlx.engine.device import describe_device

    versions = {}
    for name in ("torch", "monai", "numpy"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {"device": describe_device(device), "python": platform.python_version(), **versions}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", help="contenders by name, comma-separated")
    parser.add_argument("--out", type=Path, help="stem of the result files; by default none are written")
    args = parser.parse_args()
    console = Console(width=110)
    workload = Workload(device=args.device, width=args.width, steps=args.steps, threads=args.threads)
    names = [name for name in CONTENDERS if args.only is None or name in args.only.split(",")]
    ceilings = run_once("ceilings.py", workload, {})
    console.print(ceilings)
    measured = measure(workload, names, args.repeats, console)
    rows = summarize(measured, workload, ceilings)
    title = f"one step of unet2, width {args.width}, {workload.side} slices, {args.device}, {args.threads} threads"
    console.print(as_table(rows, ceilings, title))
    if args.out:
        now = datetime.now(UTC).strftime("%Y-%m-%d")
        document = {
            "date": now,
            "machine": machine(),
            "workload": workload.__dict__,
            "ceilings": ceilings,
            "rows": rows,
        }
        args.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
