"""What `--dry-run` prints: the resolved settings, the data, the trials, and their cost, estimated from a few steps."""

import json
from typing import TYPE_CHECKING, Any

from rich.table import Table

from dlx.cli.output.console import PlainConsole, output, print_json
from dlx.cli.output.head import print_head, print_indented, print_variants, study_entry
from dlx.report.terminal.grid import Column, Grid, Row, Styled, Trimmed
from dlx.report.wording.formatting import spell_seconds
from dlx.settings.part import Part, is_dumped
from dlx.settings.text import counted
from dlx.system.characters import visible

if TYPE_CHECKING:
    from dlx.execution.planning.cost import StudyCost
    from dlx.execution.planning.plan import Plan

TWO_COLUMNS = 60  # characters: the longest names of settings have 30, and most values at most 30
BLOCKS = "▁▂▃▄▅▆▇█"


def print_plan(plan: "Plan", *, as_json: bool, compares: bool) -> None:
    """Prints a dry run. `compares`: with the variants, and each schedule's rates if schedules differ."""
    from dlx.execution.planning.cost import cost_of

    cost = cost_of(plan)
    if as_json:
        print_json((variants_document(plan) if compares else {}) | plan_document(plan, cost))
        return
    console = output()
    print_head(plan, console)
    print_data(plan, console)
    if compares:
        print_variants(plan, console)
    if len({str(variant.spec.scheduler) for variant in plan.study.variants}) > 1:
        console.show(schedules_table(plan))
    print_settings(plan, console)
    console.print(cost_line(plan, cost), soft_wrap=not console.is_terminal)


def print_data(plan: "Plan", console: PlainConsole) -> None:
    """Prints the names of the validation cases, and the intensities from which normalisation takes its statistics."""
    for fold, split in zip(plan.study.splits, plan.splits, strict=True):
        which = "" if fold is None else f"fold {fold}: "
        print_indented(f"val      {which}{', '.join(split.val)}", console)
    for line in intensity_lines(plan):
        console.print(line, soft_wrap=True)


def intensity_lines(plan: "Plan") -> list[str]:
    """A table of at most 80 columns: for each channel, the range over cases of its intensities before normalisation."""
    from dlx.data.intensities.measures import intensity_rows

    resolved = plan.first
    rows = intensity_rows(resolved.dataset.channels, resolved.intensities)
    if not rows:
        return []
    cells: list[tuple[str, ...]] = [("channel", "voxels used", "mean", "sd", "min", "max")]
    for channel, (used, *ranges) in rows:
        name = channel if len(channel) <= 12 else f"{channel[:11]}…"
        cells.append((name, f"{_spell_range(used)} %", *map(_spell_range, ranges)))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    count, error = counted(len(resolved.intensities), "case"), resolved.rounding_error
    return [
        f"intensities of {count} before {resolved.dataset.normalize}:",
        *("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells),
        *([] if error is None else [f"kept as float16, which rounds by at most {100 * error:.2g} % of the noise"]),
    ]


def _spell_range(bounds: tuple[float, float]) -> str:
    """`31..33`, or one number if both bounds are written alike."""
    low, high = (f"{value:.3g}" for value in bounds)
    return low if low == high else f"{low}..{high}"


def variants_document(plan: "Plan") -> dict[str, Any]:
    """The control and the variants of a study, as the first entries of its JSON document."""
    variants = [{"label": v.label, "values": v.values} for v in plan.study.variants]
    return {"control": plan.study.control, "variants": variants}


def plan_document(plan: "Plan", cost: "StudyCost") -> dict[str, Any]:
    """The dry run as a JSON document."""
    from dlx.data.intensities.measures import intensity_rows

    names = ("used_percent", "mean", "std", "lowest", "highest")
    return {
        "study": study_entry(plan),
        "intensities": {
            channel: dict(zip(names, map(list, ranges), strict=True))
            for channel, ranges in intensity_rows(plan.first.dataset.channels, plan.first.intensities)
        },
        "rounding_error_fraction": plan.first.rounding_error,
        "trials": [
            {
                "label": p.trial.label,
                "seed": p.trial.seed,
                **({} if p.trial.fold is None else {"fold": p.trial.fold}),
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
    """Prints every setting with its value, as `--set` takes it: in two columns on a wide terminal, else in lines."""
    rows = [(key, visible(value)) for key, value in flatten(plan.shown_spec.model_dump(mode="json"))]
    if console.is_terminal and console.width >= TWO_COLUMNS:
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table)
        return
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        console.print(f"{key:{width}}  {value}".rstrip(), soft_wrap=True)


def flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """`{"train": {"epochs": 3}}` as `[("train.epochs", "3")]`; a part's arguments follow its name."""
    rows = []
    for key, value in tree.items():
        if is_dumped(value) and "args" in value:
            rows += [(f"{prefix}{key}.name", str(value["name"])), *flatten(value["args"], f"{prefix}{key}.")]
            rows += flatten({f"{key}.code": value["code"]}, prefix) if "code" in value else []
        elif isinstance(value, dict) and value:
            rows += flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            rows.append((f"{prefix}{key}", "+".join(str(Part.model_validate(part)) for part in value)))
        else:
            rows.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)))
    return rows


def schedules_table(plan: "Plan") -> Trimmed:
    """Each schedule's variants, its formula, and its rate over the epochs as a sparkline."""
    from dlx.execution.planning.plan import name_variants
    from dlx.training.schedules import FORMULAS, rates

    having: dict[tuple[str, str, tuple[float, ...]], list[str]] = {}
    for variant in plan.study.variants:
        spec = variant.spec
        drawn = tuple(rates(spec.scheduler.name, spec.scheduler.args, spec.optimizer.lr, spec.train.epochs))
        having.setdefault((str(spec.scheduler), spec.scheduler.name, drawn), []).append(variant.label)
    every, rows = [variant.label for variant in plan.study.variants], []
    for (scheduler, name, drawn), labels in having.items():
        named = [Styled(name_variants(labels, every))]
        named += [] if scheduler in labels[0] else [Styled(scheduler, "dim")]
        rows.append(Row((named, FORMULAS[name], sparkline(list(drawn)))))
    columns = (Column("variant"), Column("formula"), Column("rate", is_number=True))
    return Trimmed((Grid(columns, tuple(rows), title="learning rate by epoch e (0 first) of N"),))


def sparkline(values: list[float], width: int = 20) -> str:
    """A row of at most `width` blocks, whose heights are the values on a scale from 0 to the largest."""
    top = max(values) or 1.0
    picked = [values[index * len(values) // min(width, len(values))] for index in range(min(width, len(values)))]
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int(value / top * len(BLOCKS)))] for value in picked)
