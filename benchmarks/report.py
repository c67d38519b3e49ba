"""Tables, ratios and what must hold, from records alone; the summary `results/README.md` (python -m benchmarks.report).

A ratio is taken within each repeat, where both ran minutes apart, and shown as the median over the repeats.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import figure
from benchmarks.checks import (
    CheckLine,
    dice_checks,
    dice_curve_checks,
    gpu_checks,
    per_repeat,
    step_3d_checks,
    step_checks,
)
from benchmarks.contenders import DLX
from benchmarks.records import BUSY_CORES, RESULTS, file_stem, newest_of_each_machine


def summarize(document: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a contender: the median over repeats of a step's time, its range, memory, and its ratio to dlx's."""
    ceilings, rows = document["ceilings"], []
    convolution = ceilings.get("convolution_float32_gflops")  # measured in 3D
    for name, runs in document["runs"].items():
        done = [run for run in runs if "step_s" in run]
        if not done:
            rows.append({"name": name, "missing": runs[0]["error"] if runs else "not run"})
            continue
        steps = [run["step_s"] for run in done]
        rate = ceilings["step_gflop"] / statistics.median(steps)
        ratio = per_repeat(document, name, DLX)
        rows.append(
            {
                "name": name,
                "precision": done[0]["precision"],
                "parameters": done[0]["parameters"],
                "step_s": statistics.median(steps),
                "range_s": [min(steps), max(steps)],
                "repeats": len(done),
                "cold_s": statistics.median(run["cold_s"] for run in done),
                "peak_mib": statistics.median(run["peak_mib"] for run in done),
                "of_bf16_matmul": rate / ceilings["matmul_bf16_gflops"],
                "of_float32_convolution": rate / convolution if convolution else None,
                "times_dlx": statistics.median(ratio) if ratio else None,
            }
        )
    return rows


def step_report(document: dict[str, Any]) -> str:
    """The table of a step record, the ceilings of the same call, and what must hold."""
    workload, notes = document["workload"], document.get("notes", {})
    is_3d = bool(workload.get("patch"))
    heads = ["contender", "precision", "parameters", "step s (range)", "times dlx", "of bf16 product"]
    heads += ["of float32 convolutions"] if is_3d else []
    heads += ["first step done after s", "memory MiB"]
    cells = []
    for row in summarize(document):
        name = f"{row['name']} ({notes[row['name']]})" if row["name"] in notes else row["name"]
        if "missing" in row:
            cells.append([name, f"missing: {row['missing']}", *[""] * (len(heads) - 2)])
            continue
        cells.append(
            [
                name,
                row["precision"],
                f"{row['parameters']:,}",
                f"{seconds(row['step_s'])} ({seconds(row['range_s'][0])} to {seconds(row['range_s'][1])})",
                "" if row["times_dlx"] is None else f"{row['times_dlx']:.2f}",
                f"{row['of_bf16_matmul']:.2f}",
                *([f"{row['of_float32_convolution']:.2f}"] if is_3d else []),
                f"{row['cold_s']:.1f}",
                f"{row['peak_mib']:.0f}",
            ]
        )
    is_gpu = document["device"].startswith("cuda")
    checks = step_3d_checks(document) if is_3d else gpu_checks(document) if is_gpu else step_checks(document)
    return "\n\n".join([_step_title(document), table(heads, cells), _ceilings(document), check_table(checks)])


def _step_title(document: dict[str, Any]) -> str:
    workload = document["workload"]
    size = f"{workload['slices']} slices of {workload['side']} x {workload['side']}"
    if workload.get("patch"):
        size = f"3D, {workload['patches']} patches of {' x '.join(map(str, workload['patch']))}"
    return f"One training step of `unet2`, width {workload['width']}, {size}, {workload['loss']}, {place(document)}"


def _ceilings(document: dict[str, Any]) -> str:
    ceilings = document["ceilings"]
    rates = (
        f"matrix product {ceilings['matmul_bf16_gflops']:.0f} GFLOP/s in bf16, {ceilings['matmul_float32_gflops']:.0f} "
        f"in float32; copy {ceilings['copy_gb_per_s']:.0f} GB/s"
    )
    if "convolution_float32_gflops" in ceilings:
        rate = ceilings["convolution_float32_gflops"]
        rates += f"; the step's convolutions by themselves, float32, channels last: {rate:.0f} GFLOP/s"
    return (
        f"Medians of {max(len(runs) for runs in document['runs'].values())} repeats in the order ABBA. Measured in the "
        f"same call: {rates}. The step's standard operations: {ceilings['step_gflop']:.0f} GFLOP."
    )


def dice_report(document: dict[str, Any]) -> str:
    """The runs of a time-to-Dice record, and what must hold."""
    cells = []
    for name, runs in document["runs"].items():
        for run in runs:
            if "error" in run:
                cells.append([name, f"missing: {run['error']}", "", "", ""])
                continue
            missed = "not reached" if name == DLX else f"> {document['limit_s']:.0f}, not reached"
            end = missed if run["reached_s"] is None else seconds(run["reached_s"])
            cells.append([name, str(run["seed"]), end, f"{run['dice']:.3f}", f"{run['wall_s']:.1f}"])
    heads = ["contender", "seed", f"s to {document['target']}", "last Dice", "whole command s"]
    title = f"Time to {document['target']} mean hard Dice on the hippocampus fold, {place(document)}"
    return "\n\n".join([title, table(heads, cells), document["note"], check_table(dice_checks(document))])


CURVE_DICE = (0.85, 0.86, 0.87, 0.88, 0.885)  # to which the table of Dice over time gives the minutes


def dice_curve_report(document: dict[str, Any]) -> str:
    """Minutes of training to each Dice, by the looks without mirroring, and what must hold. The mirrored look at the
    limit has a column of its own."""
    heads = ["contender", *(f"min to {dice:g}" for dice in CURVE_DICE), "last Dice", "mirrored Dice"]
    heads += ["min in all", "steps", "parameters", "evaluation min"]
    cells = []
    for name, run in document["runs"].items():
        if "error" in run:
            cells.append([name, f"missing: {run['error']}", *[""] * (len(heads) - 2)])
            continue
        reached = (next((at for at, found in run["looks"] if found >= dice), None) for dice in CURVE_DICE)
        last_s, last_dice = run["looks"][-1]
        cells.append(
            [
                _with_remarks(name, run),
                *("" if at is None else f"{at / 60:.1f}" for at in reached),
                f"{last_dice:.4f}",
                f"{run['mirrored_look'][1]:.4f}" if run["mirrored_look"] else "",
                f"{last_s / 60:.1f}",
                str(run["steps"]),
                f"{run['parameters']:,}",
                f"{run['looking_s'] / 60:.1f}",
            ]
        )
    title = f"Dice over the time of training on the hippocampus fold, {machine_of(document)}"
    return "\n\n".join([title, table(heads, cells), document["note"], check_table(dice_curve_checks(document))])


def _with_remarks(name: str, run: dict[str, Any]) -> str:
    remarks = [f"ended early: {run['ended']}"] if "ended" in run else []
    remarks += [doubt] if (doubt := doubt_of(run["quiet"])) else []
    return f"{name} ({'; '.join(remarks)})" if remarks else name


def scaling_report(document: dict[str, Any]) -> str:
    """The points of a scaling record."""
    parts = [f"Cost as work grows, dlx, {place(document)}"]
    for axis, points in document["axes"].items():
        rows = [[f"{p['x']:g}", "" if p.get("s") is None else seconds(p["s"]), f"{p['mib']:.1f}"] for p in points]
        parts.append(table([document["labels"][axis], document["seconds"][axis], document["memory"][axis]], rows))
    return "\n\n".join([*parts, document["note"]])


def check_table(checks: Sequence[CheckLine]) -> str:
    words = {True: "yes", False: "no", None: "not measured"}
    rows = [[line.name, line.target, line.measured, words[line.holds]] for line in checks]
    return table(["requirement", "target", "measured", "holds"], rows)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that reads well as plain text too."""
    widths = [max(len(line[column]) for line in [heads, *rows]) for column in range(len(heads))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in rows]
    head = "| " + " | ".join(cell.ljust(w) for cell, w in zip(heads, widths, strict=True)) + " |"
    return "\n".join([head, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines])


def seconds(value: float) -> str:
    """Three significant digits or more."""
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.4f}"


def place(document: dict[str, Any]) -> str:
    doubt = doubt_of(document["quiet"])
    return f"{machine_of(document)}; {doubt}" if doubt else machine_of(document)


def machine_of(document: dict[str, Any]) -> str:
    machine = document["machine"]
    return f"{machine['device']}, {machine['cores']} cores, torch {machine['torch']}, {document.get('date', 'today')}"


def doubt_of(quiet: dict[str, Any]) -> str:
    """A warning if the machine was busy before the start; else an empty text."""
    busy = quiet["busy_cores"]
    return f"NOT TO BE TRUSTED: others kept {busy:.1f} cores busy" if busy > BUSY_CORES else ""


def write_summary(folder: Path = RESULTS) -> Path:
    """`README.md` from the newest record of each kind on each machine, with the figures beside it."""
    parts = ["# Measured", "Made from the newest records by `python -m benchmarks.report`; do not edit."]
    makers = {
        "step": step_report,
        "step-3d": step_report,
        "dice": dice_report,
        "dice-curve": dice_curve_report,
        "scaling": scaling_report,
    }
    for device in ("cpu", "cuda"):
        for kind, report in makers.items():
            for document in newest_of_each_machine(kind, device, folder):
                drawn = figure.draw(document, folder / f"{file_stem(kind, document)}.svg")
                head, _, rest = report(document).partition("\n\n")
                parts += [f"## {head}", *([f"![{head}]({drawn.name})"] if drawn else []), rest]
    path = folder / "README.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    print(write_summary())
