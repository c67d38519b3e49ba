"""What training commands print before a run: data, split, network, training, device, notes, variants and seeds; and the
study for JSON documents.
"""

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from dlx.cli.output.console import PlainConsole
from dlx.settings.part import Part
from dlx.settings.spec import Spec
from dlx.settings.text import counted
from dlx.system.characters import visible

if TYPE_CHECKING:
    from dlx.data.splits.split import Split
    from dlx.execution.plan import Plan
    from dlx.trial.resolve import Resolved


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
    from dlx.execution.plan import study_replaced

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
    spec, dataset, compute = resolved.spec, resolved.dataset, resolved.compute
    patch = " x ".join(str(size) for size in spec.batch.patch_size_px or ())
    loss = "+".join(str(term.name) for term in spec.loss)
    threads = f", {counted(compute.threads, 'thread')}" if compute.device.type == "cpu" else ""
    channels, classes = ", ".join(dataset.channels), ", ".join(dataset.classes[1:])
    classes += " (regions)" if dataset.regions else ""
    length = f"{counted(spec.train.epochs, 'epoch')} of {counted(spec.train.steps_per_epoch, 'step')}"
    kind = "slices" if spec.batch.kind == "block" else "patches"
    subset = training_subset(resolved)
    measured = f", with {subset} training subjects" if subset else ""
    return [
        f"data     {source_name(dataset.source)} ({dataset.layout}): {channels} -> {classes}",
        f"split    {split_words(plan)}",
        f"network  {spec.model.name}{_sizes(spec.model)}, {resolved.parameters:,} parameters; loss {loss}; "
        f"{spec.optimizer.name.name}, {spec.scheduler.name}",
        f"training {length}, {spec.batch.fitted_size} {kind} of {patch}; validated {every_epochs(spec)}{measured}",
        f"device   {compute.device}, {compute.precision}{threads}",
    ]


def split_words(plan: "Plan") -> str:
    """The sizes of both sides; in cross-validation of each fold, once if they are equal."""
    sizes = list(dict.fromkeys(map(split_sizes, plan.splits)))
    return f"{counted(len(plan.splits), 'fold')}: {'; '.join(sizes)}" if plan.study.folds else sizes[0]


def split_sizes(split: "Split") -> str:
    """`8 training and 2 validation subjects`; if persons are known, `28 training scans of 24 persons, ...`."""
    num_train, num_val = len(split.train), len(split.val)
    if split.num_persons is None:
        return f"{num_train} training and {counted(num_val, 'validation subject')}"
    persons = [counted(number, "person") for number in split.num_persons]
    return (
        f"{counted(num_train, 'training scan')} of {persons[0]}, {counted(num_val, 'validation scan')} of {persons[1]}"
    )


def training_subset(resolved: "Resolved") -> str:
    """`2 of 5` if a validation measures only some of the training subjects; empty if it measures all or none."""
    measured, subjects = resolved.spec.evaluate.train_subset, len(resolved.split.train)
    return f"{measured} of {subjects}" if 0 < measured < subjects else ""


def _sizes(model: Part) -> str:
    """` (3D, width 16, 3 levels)` if the network has these arguments; 2D is not named."""
    sizes = ["3D"] if model.args.get("dims") == 3 else []
    sizes += [f"width {model.args['width']}"] if "width" in model.args else []
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


def print_variants(plan: "Plan", console: PlainConsole) -> None:
    """Prints the variants, the seeds and the number of trials, before they run."""
    study = plan.study
    labels = [f"{v.label} (control)" if v.label == study.control else v.label for v in study.variants]
    seeds = ", ".join(map(str, study.seeds))
    folds = f" x {len(study.folds)} folds" if study.folds else ""
    missing = len(plan.missing())
    print_indented(f"variants {'; '.join(labels)}", console)
    print_indented(
        f"trials   {len(plan.trials)} ({len(labels)} variants{folds} x {len(study.seeds)} seeds: {seeds}), {missing} "
        f"to run, {plan.max_parallel} at once",
        console,
    )
    if len(labels) == 1:
        print_indented("note     there is only one variant, so nothing is compared", console)


def study_entry(plan: "Plan") -> dict[str, Any]:
    """The study as an entry of a JSON document; `folds` and `splits` in place of `split` in cross-validation."""
    from dlx.data.splits.splits_file import splits_document

    splits = splits_document(plan.splits)
    continued = {} if plan.study.continued is None else {"continued": plan.study.continued.model_dump(mode="json")}
    folds = {"folds": list(plan.study.folds), "splits": splits} if plan.study.folds else {"split": splits[0]}
    return {
        "name": plan.study.name,
        "seeds": list(plan.study.seeds),
        "folder": str(plan.folder),
        "remarks": list(plan.remarks),
        "settings": plan.shown_spec.model_dump(mode="json"),
        **folds,
        **continued,
    }
