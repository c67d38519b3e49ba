"""What training commands print before and after a run: the head, the plan of a dry run, tables, the next command."""

import json
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from dlx.cli.console import PlainConsole, note, output
from dlx.cli.repeat_commands import repeat_command, resume_command
from dlx.report.document import trial_entry
from dlx.report.formatting import spell_seconds
from dlx.report.terminal.trial_tables import seeds_table, trial_table
from dlx.settings.spec import Part, Spec
from dlx.settings.text import counted
from dlx.system.characters import visible

if TYPE_CHECKING:
    from dlx.cli.display import Outcome
    from dlx.data.split import Split
    from dlx.run.cost import StudyCost
    from dlx.run.plan import Plan


TWO_COLUMNS = 60  # characters: the longest names of settings have 30, and most values at most 30


def print_head(plan: "Plan", console: PlainConsole, *, quiet: bool = False) -> None:
    """Prints data, split, network, training and device, then the notes; only the notes if `quiet`."""
    for line in (*(() if quiet else head_lines(plan)), *note_lines(plan)):
        print_indented(line, console)


def print_indented(line: str, console: PlainConsole) -> None:
    """Prints a line of the head, wrapped on a terminal with a hanging indent below the text after its first word."""
    line = visible(line)
    if console.is_terminal:
        line = fill(line, console.width, subsequent_indent=" " * 9, break_long_words=False, break_on_hyphens=False)
    console.print(line, soft_wrap=True)


def note_lines(plan: "Plan") -> list[str]:
    """The plan's remarks, and a note if its folder held another study."""
    from dlx.run.plan import study_replaced

    notes = list(plan.remarks)
    before = study_replaced(plan)
    if before is not None:
        notes.append(
            f"{plan.folder} held another study; its trials are kept, and this command shows its report again: "
            f"{before.command}"
        )
    return [f"note     {note}" for note in notes]


def head_lines(plan: "Plan") -> list[str]:
    """One line each for data, split, network, training and device."""
    resolved = plan.first
    spec, dataset, split, compute = resolved.spec, resolved.dataset, resolved.split, resolved.compute
    patch = " x ".join(str(size) for size in spec.batch.patch_size_px or ())
    loss = "+".join(str(term.name) for term in spec.loss)
    threads = f", {counted(compute.threads, 'thread')}" if compute.device.type == "cpu" else ""
    channels, classes = ", ".join(dataset.channels), ", ".join(dataset.classes[1:])
    length = f"{counted(spec.train.epochs, 'epoch')} of {counted(spec.train.steps_per_epoch, 'step')}"
    kind = "slices" if spec.batch.kind == "block" else "patches"
    return [
        f"data     {source_name(dataset.source)} ({dataset.layout}): {channels} -> {classes}",
        f"split    {split_words(split)}",
        f"network  {spec.model.name}{_sizes(spec.model)}, {resolved.parameters:,} parameters; loss {loss}; "
        f"{spec.optimizer.name.name}, {spec.scheduler.name}",
        f"training {length}, {spec.batch.size} {kind} of {patch}; validated {every_epochs(spec)}{_train_subset(plan)}",
        f"device   {compute.device}, {compute.precision}{threads}",
    ]


def split_words(split: "Split") -> str:
    """`8 training and 2 validation subjects`; if persons are known, `28 training scans of 24 persons, ...`."""
    num_train, num_val = len(split.train), len(split.val)
    if split.num_persons is None:
        return f"{num_train} training and {counted(num_val, 'validation subject')}"
    persons = [counted(number, "person") for number in split.num_persons]
    return (
        f"{counted(num_train, 'training scan')} of {persons[0]}, {counted(num_val, 'validation scan')} of {persons[1]}"
    )


def _train_subset(plan: "Plan") -> str:
    """How many training subjects are measured at each validation; empty if all are."""
    measured, subjects = plan.first.spec.evaluate.train_subset, len(plan.first.split.train)
    return f", with {measured} of {subjects} training subjects" if 0 < measured < subjects else ""


def _sizes(model: Part) -> str:
    """` (width 16, 3 levels)` if the network has these arguments."""
    sizes = [f"width {model.args['width']}"] if "width" in model.args else []
    sizes += [counted(model.args["levels"], "level")] if "levels" in model.args else []
    return f" ({', '.join(sizes)})" if sizes else ""


def every_epochs(spec: Spec) -> str:
    """How often a run is validated: `every epoch`, `every 2 epochs`, `once, at the end`."""
    every = spec.evaluate.every or 1
    if every >= spec.train.epochs:
        return "once, at the end"
    return "every epoch" if every == 1 else f"every {every} epochs"


def source_name(source: str) -> str:
    """The last part of a folder's path; a generated source as the user writes it."""
    return Path(source).name if Path(source).is_absolute() else source


def print_plan(plan: "Plan", *, as_json: bool) -> None:
    """Prints a dry run: every resolved setting, the trials, and their cost, estimated from a few measured steps."""
    from dlx.run.cost import cost_of

    cost = cost_of(plan)
    if as_json:
        print_json(plan_document(plan, cost))
        return
    console = output()
    print_head(plan, console)
    print_data(plan, console)
    print_settings(plan, console)
    console.print(cost_line(plan, cost), soft_wrap=not console.is_terminal)


def print_data(plan: "Plan", console: PlainConsole) -> None:
    """Prints the names of the validation cases, and the intensities from which normalisation takes its statistics."""
    line = f"val      {', '.join(plan.first.split.val)}"
    if console.is_terminal:
        line = fill(line, console.width, subsequent_indent=" " * 9, break_long_words=False, break_on_hyphens=False)
    console.print(line, soft_wrap=True)
    for line in intensity_lines(plan):
        console.print(line, soft_wrap=True)


def intensity_lines(plan: "Plan") -> list[str]:
    """A table of at most 80 columns: for each channel, the range over cases of its intensities before normalisation."""
    from dlx.data.intensities import intensity_rows

    resolved = plan.first
    rows = intensity_rows(resolved.dataset.channels, resolved.intensities)
    if not rows:
        return []
    cells: list[tuple[str, ...]] = [("channel", "voxels used", "mean", "sd", "min", "max")]
    for channel, (used, *ranges) in rows:
        name = channel if len(channel) <= 12 else f"{channel[:11]}…"
        cells.append((name, f"{_spell_range(used)} %", *map(_spell_range, ranges)))
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    count = counted(len(resolved.intensities), "case")
    return [
        f"intensities of {count} before {resolved.dataset.normalize}:",
        *("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells),
    ]


def _spell_range(bounds: tuple[float, float]) -> str:
    """`31..33`, or one number if both bounds are written alike."""
    low, high = (f"{value:.3g}" for value in bounds)
    return low if low == high else f"{low}..{high}"


def plan_document(plan: "Plan", cost: "StudyCost") -> dict[str, Any]:
    """The dry run as a JSON document."""
    from dlx.data.intensities import intensity_rows

    names = ("used_percent", "mean", "std", "lowest", "highest")
    return {
        "study": study_entry(plan),
        "intensities": {
            channel: dict(zip(names, map(list, ranges), strict=True))
            for channel, ranges in intensity_rows(plan.first.dataset.channels, plan.first.intensities)
        },
        "trials": [
            {
                "label": p.trial.label,
                "seed": p.trial.seed,
                "id": p.resolved.trial_id(p.trial.seed),
                "folder": str(p.folder.path),
                "status": "waiting" if (found := p.folder.result()) is None else found.status,
            }
            for p in plan.trials
        ],
        "cost": {
            "trials": len(plan.trials),
            "missing": cost.num_missing,
            "epochs": cost.epochs,
            "max_parallel": plan.max_parallel,
            "step_seconds": cost.step_s,
            "memory_mib": {
                label: {"training": memory.training / 2**20, "evaluation": memory.evaluation / 2**20}
                for label, memory in cost.memory.items()
            },
            "seconds": cost.seconds,
            "disk_mib": plan.disk_mib(),
        },
    }


def cost_line(plan: "Plan", cost: "StudyCost") -> str:
    """Trials, epochs, time and disk in a sentence or two."""
    slowest = max(cost.step_s.values())
    quickest = min(cost.step_s.values())
    steps = f"{slowest:.3f} s" if slowest < 1.1 * quickest else f"{quickest:.3f} to {slowest:.3f} s"
    done = f", {len(plan.trials) - cost.num_missing} of them done" if cost.num_missing < len(plan.trials) else ""
    at_once = f", {plan.max_parallel} at once" if plan.max_parallel > 1 else ""
    return (
        f"{counted(len(plan.trials), 'trial')}{done}; {counted(cost.epochs, 'epoch')} to train{at_once}: about "
        f"{spell_seconds(cost.seconds)} (a step takes {steps}, as measured), {spell_mib(plan.disk_mib())} on disk "
        f"({spell_mib(plan.free_disk_mib())} free) in {plan.folder}.{_memory_sentence(cost)} Nothing was written."
    )


def _memory_sentence(cost: "StudyCost") -> str:
    """The peak memory of a trial; empty if it was not measured."""
    if not cost.memory:
        return ""
    training, evaluation = (
        spell_mib(max(getattr(memory, phase) for memory in cost.memory.values()) / 2**20)
        for phase in ("training", "evaluation")
    )
    return f" A trial takes up to {training} of memory in training and {evaluation} in evaluation."


def spell_mib(mib: float) -> str:
    """`320 MiB`, `65.4 GiB`."""
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


def print_settings(plan: "Plan", console: PlainConsole) -> None:
    """Prints every setting with its value, as `--set` takes it; one per line if the output is not a terminal."""
    if console.is_terminal and console.width >= TWO_COLUMNS:
        console.print(settings_table(plan))
        return
    rows = flatten(plan.first.spec.model_dump(mode="json"))
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        console.print(visible(f"{key:{width}}  {value}".rstrip()), soft_wrap=True)


def settings_table(plan: "Plan") -> Table:
    """Every setting with its value, in two columns."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in flatten(plan.first.spec.model_dump(mode="json")):
        table.add_row(key, visible(value))
    return table


def flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """`{"train": {"epochs": 3}}` as `[("train.epochs", "3")]`; a part's arguments follow its name."""
    rows = []
    for key, value in tree.items():
        if isinstance(value, dict) and set(value) == {"name", "args"}:
            rows += [(f"{prefix}{key}.name", str(value["name"])), *flatten(value["args"], f"{prefix}{key}.")]
        elif isinstance(value, dict) and value:
            rows += flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            rows.append((f"{prefix}{key}", "+".join(str(Part.model_validate(part)) for part in value)))
        else:
            rows.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)))
    return rows


def study_entry(plan: "Plan") -> dict[str, Any]:
    """The study as an entry of a JSON document."""
    return {
        "name": plan.study.name,
        "seeds": list(plan.study.seeds),
        "folder": str(plan.folder),
        "remarks": list(plan.remarks),
        "settings": plan.first.spec.model_dump(mode="json"),
        "split": {"train": list(plan.first.split.train), "val": list(plan.first.split.val)},
    }


def print_outcome(plan: "Plan", outcome: "Outcome", *, as_json: bool, quiet: bool) -> None:
    """Prints tables or the JSON document on stdout; on stderr, the files written and the command to repeat them."""
    if as_json:
        print_json({"study": study_entry(plan), "trials": [trial_entry(*pair) for pair in outcome.trials]})
    else:
        if not quiet:
            note("")  # on stderr, below the progress: `| head -1` shows the first line of the table
        print_tables(outcome)
    if quiet and not outcome.was_interrupted:
        return
    if outcome.was_interrupted:
        note(f"\n{stopped_line(plan, outcome)}")
        note(f"resume with:  {resume_command(plan.command)}")
    elif not as_json:
        note(f"\nrecords:      {plan.folder}")
        for _, folder in outcome.trials:
            note(f"checkpoints:  {folder / 'last.safetensors'}, best.safetensors")
        note(f"repeat with:  {repeat_command(plan.command)}")


def print_tables(outcome: "Outcome") -> None:
    """Prints a table of one trial by class, or of several with a row each, their mean and standard deviation."""
    console = output()
    records = [record for record, _ in outcome.trials]
    if len(records) == 1 and records[0].result is not None:
        console.show(trial_table(records[0]))
    elif len(records) > 1:
        console.show(seeds_table(records))


def stopped_line(plan: "Plan", outcome: "Outcome") -> str:
    """What is on disk after Ctrl-C."""
    done = len(outcome.trials)
    trials = f"{done} of {len(plan.trials)} trials are done; " if len(plan.trials) > 1 else ""
    return f"interrupted; {trials}{counted(outcome.kept_epochs, 'finished epoch')} of unfinished trials kept"


def print_json(document: dict[str, Any]) -> None:
    """Prints one JSON document on stdout."""
    typer.echo(json.dumps(document, indent=2, allow_nan=False))
