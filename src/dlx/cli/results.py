"""What training commands print before and after a run: the head, the plan of a dry run, the tables, what to do next."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from dlx.report.document import trial_entry
from dlx.report.table import seeds_table, spell_seconds, trial_table

if TYPE_CHECKING:
    from dlx.cli.display import Outcome
    from dlx.run.plan import Plan


def print_head(plan: "Plan", console: Console) -> None:
    """A few lines on what will train on what, and what the user should know of it."""
    console.print("\n".join(head_lines(plan)), highlight=False, soft_wrap=True)


def head_lines(plan: "Plan") -> list[str]:
    """Data, split, network, patch, device; then the remarks."""
    resolved = plan.first
    spec, dataset, split, compute = resolved.spec, resolved.dataset, resolved.split, resolved.compute
    patch = " x ".join(str(size) for size in spec.batch.patch_size_px or ())
    loss = "+".join(str(term.name) for term in spec.loss)
    threads = f", {compute.threads} threads" if compute.device.type == "cpu" else ""
    channels, classes = ", ".join(dataset.channels), ", ".join(dataset.classes[1:])
    length = f"{spec.train.epochs} epochs of {spec.train.steps_per_epoch} steps"
    return [
        f"data     {dataset.source} ({dataset.layout}): {channels} -> {classes}",
        f"split    {len(split.train)} training and {len(split.val)} validation subjects",
        f"network  {spec.model.name}, {resolved.parameters:,} parameters; loss {loss}; {spec.optimizer.name.name}, "
        f"{spec.scheduler.name}",
        f"training {length}, {spec.batch.size} {'slices' if spec.batch.kind == 'block' else 'patches'} of {patch}",
        f"device   {compute.device}, {compute.precision}{threads}",
        *(f"note     {remark}" for remark in plan.remarks),
    ]


def print_plan(plan: "Plan", *, as_json: bool) -> None:
    """The dry run: every resolved setting, the trials, and what they will cost, measured by a probe."""
    from dlx.run.probe import probe

    cost = probe(plan.first, plan.store)
    seconds = cost.trial_s * len(plan.trials)
    document: dict[str, Any] = {
        "study": study_entry(plan),
        "trials": [
            {
                "label": p.trial.label,
                "seed": p.trial.seed,
                "id": p.resolved.trial_id(p.trial.seed),
                "folder": str(p.folder.path),
            }
            for p in plan.trials
        ],
        "cost": {
            "trials": len(plan.trials),
            "epochs": len(plan.trials) * plan.first.spec.train.epochs,
            "step_seconds": cost.step_s,
            "seconds": seconds,
            "disk_mib": plan.disk_mib(),
        },
    }
    if as_json:
        print_json(document)
        return
    console = Console()
    print_head(plan, console)
    console.print(settings_table(plan))
    console.print(
        f"{len(plan.trials)} trial(s) of {plan.first.spec.train.epochs} epochs: about {spell_seconds(seconds)} "
        f"(a step takes {cost.step_s:.3f} s, measured now), {plan.disk_mib():.0f} MiB on disk "
        f"({plan.free_disk_mib():.0f} free) in {plan.folder}. Nothing was written.",
        highlight=False,
    )


def settings_table(plan: "Plan") -> Table:
    """Every setting with its value, as `--set` takes it."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in flatten(plan.first.spec.model_dump(mode="json")):
        table.add_row(key, value)
    return table


def flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """`{"train": {"epochs": 3}}` as `[("train.epochs", "3")]`; a part's arguments stand beside its name."""
    rows = []
    for key, value in tree.items():
        if isinstance(value, dict) and set(value) == {"name", "args"}:
            rows += [(f"{prefix}{key}.name", str(value["name"])), *flatten(value["args"], f"{prefix}{key}.")]
        elif isinstance(value, dict) and value:
            rows += flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            terms = [
                f"{part['name']}:{json.dumps(part['args'])}" if part["args"] else str(part["name"]) for part in value
            ]
            rows.append((f"{prefix}{key}", " + ".join(terms)))
        else:
            rows.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)))
    return rows


def study_entry(plan: "Plan") -> dict[str, Any]:
    """The study in a JSON document."""
    return {
        "name": plan.study.name,
        "seeds": list(plan.study.seeds),
        "folder": str(plan.folder),
        "settings": plan.first.spec.model_dump(mode="json"),
        "split": {"train": list(plan.first.split.train), "val": list(plan.first.split.val)},
    }


def print_outcome(plan: "Plan", outcome: "Outcome", *, as_json: bool, quiet: bool) -> None:
    """The tables (or the JSON document) on stdout, and on stderr where things are and how to go on."""
    if as_json:
        print_json({"study": study_entry(plan), "trials": [trial_entry(*pair) for pair in outcome.trials]})
    else:
        print_tables(outcome)
    if quiet and not outcome.was_interrupted:
        return
    notes = Console(stderr=True, soft_wrap=True, highlight=False)
    if outcome.was_interrupted:
        notes.print(f"\nstopped; {outcome.kept_epochs} finished epoch(s) are kept in {plan.folder}")
        notes.print(f"go on with:   {resume_command(plan.folder)}")
    elif not as_json:
        notes.print(f"\nrecords:      {plan.folder}")
        for _, folder in outcome.trials:
            notes.print(f"checkpoints:  {folder / 'last.safetensors'}, best.safetensors")
        notes.print(f"repeat with:  {shlex.join(['dlx', *sys.argv[1:]])}{'' if '--fresh' in sys.argv else ' --fresh'}")


def print_tables(outcome: "Outcome") -> None:
    """A table for one trial; for several a row each, and the spread."""
    console = Console()
    records = [record for record, _ in outcome.trials]
    if len(records) == 1 and records[0].result is not None:
        console.print()
        console.print(trial_table(records[0]), highlight=False)
    elif len(records) > 1:
        console.print()
        console.print(seeds_table(records), highlight=False)


def resume_command(folder: Path) -> str:
    """The command that goes on with what is unfinished in a folder."""
    return shlex.join(["dlx", "train", "--resume", "--out", str(folder)])


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
