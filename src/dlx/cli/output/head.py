"""What training commands print before a run: data, split, network, training, device, notes, variants and seeds; and the
study for JSON documents.
"""

from textwrap import fill
from typing import TYPE_CHECKING, Any

from dlx.cli.output.console import PlainConsole
from dlx.report.wording import head_lines as lines
from dlx.system.characters import visible

if TYPE_CHECKING:
    from dlx.data.splits.split import Split
    from dlx.execution.planning.plan import Plan
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
    """The plan's remarks, and a note if its folder held another study, or other variants of this one."""
    from dlx.execution.planning.plan import study_replaced
    from dlx.records.folder import StudyFolder

    notes = list(plan.remarks)
    before, found = study_replaced(plan), StudyFolder(plan.folder).header()
    shown = {variant.label for variant in plan.study.variants}
    left_out = [one.label for one in found.variants if one.label not in shown] if found is not None else []
    if before is not None and (before.settings, before.axes) == (plan.header().settings, plan.study.axes):
        notes.append(
            f"{plan.folder} held other trials of these very settings, which are kept: since then the data, or "
            "defaults of dlx, have changed"
        )
    elif before is not None:
        notes.append(
            f"{plan.folder} held another study; its trials are kept, and this command shows its report again: "
            f"{before.command}"
        )
    elif found is not None and left_out:
        notes.append(
            f"{plan.folder} also holds {', '.join(left_out)}, which the report leaves out from now on; this command "
            f"shows them again: {found.command}"
        )
    return [f"note     {note}" for note in notes]


def head_lines(plan: "Plan") -> list[str]:
    """One line each for data, split, network, training and device."""
    resolved = plan.first
    spec, dataset, compute = resolved.spec, resolved.dataset, resolved.compute
    classes = [*dataset.classes[1:-1], dataset.classes[-1] + " (regions)" * bool(dataset.regions)]
    train, batch = spec.train, spec.batch
    is_cpu = compute.device.type == "cpu"
    return [
        lines.data_line(lines.source_name(dataset.source), dataset.channels, classes, layout=dataset.layout),
        lines.split_line([_sizes_of(split) for split in plan.splits], len(plan.study.folds)),
        lines.network_line(
            spec.model,
            resolved.parameters,
            [term.name for term in spec.loss],
            (spec.optimizer.name.name, spec.scheduler.name),
        ),
        lines.training_line(
            train.epochs,
            train.steps_per_epoch,
            batch.fitted_size,
            batch.kind,
            batch.patch_size_px or (),
            spec.evaluate.every or 1,
            training_subset(resolved),
        ),
        lines.device_line("cpu" if is_cpu else str(compute.device), compute.precision, compute.threads),
    ]


def _sizes_of(split: "Split") -> str:
    return lines.split_sizes(len(split.train), len(split.val), split.num_persons)


def training_subset(resolved: "Resolved") -> str:
    """`2 of 5` if a validation measures only some of the training subjects; empty if it measures all or none."""
    return lines.subset_words(resolved.spec.evaluate.train_subset, len(resolved.split.train))


def print_variants(plan: "Plan", console: PlainConsole) -> None:
    """Prints the variants, the seeds and the number of trials, before they run."""
    study = plan.study
    labels = [variant.label for variant in study.variants]
    missing = f"{len(plan.missing())} to run, {plan.max_parallel} at once"
    for line in lines.variant_lines(labels, study.control, study.seeds, len(study.folds), missing):
        print_indented(line, console)
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
