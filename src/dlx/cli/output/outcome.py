"""What training commands and `dlx report` print at the end: tables or a JSON document, files, the next command."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dlx.cli.output.console import note, output, print_json
from dlx.cli.output.head import study_entry
from dlx.cli.parsing import spell_stop
from dlx.cli.repeat_commands import repeat_command, resume_command
from dlx.records.archive import StudyRecords, read_study
from dlx.report.files.document import cross_validation_entry, records_document, trial_entry
from dlx.report.findings.cross_validation import CrossValidation, cross_validate
from dlx.report.findings.summary import Summary
from dlx.report.terminal.folds_table import folds_table
from dlx.report.terminal.tables import tables_of
from dlx.report.terminal.trial_tables import seeds_table, trial_table
from dlx.settings.text import counted
from dlx.system.shell import shell_command

if TYPE_CHECKING:
    from dlx.cli.output.display import Outcome
    from dlx.execution.planning.plan import Plan


def print_outcome(plan: "Plan", outcome: "Outcome", written: list[Path], *, as_json: bool, quiet: bool) -> None:
    """Prints tables or the JSON document on stdout; on stderr, the files written and the command to repeat them."""
    found = cross_validate(read_study(plan.folder)) if plan.study.folds else None
    if as_json:
        trials = [
            trial_entry(*outcome.by_index[index], fold=plan.trials[index].trial.fold)
            for index in sorted(outcome.by_index)
        ]
        document = {"study": study_entry(plan), "trials": trials}
        print_json(document | ({"cross_validation": cross_validation_entry(found)} if found else {}))
    else:
        if not quiet:
            note("")  # on stderr, below the progress: `| head -1` shows the first line of the table
        print_tables(outcome, found)
    if outcome.was_interrupted:
        note(f"\n{stopped_line(plan, outcome)}")
        note(f"resume with:  {resume_command(plan.command)}")
    elif not as_json and not quiet:
        note(f"\nrecords:      {plan.folder}")
        note(f"files:        {', '.join(map(str, written))}")
        for _, folder in outcome.trials:
            there = [name for name in ("last.safetensors", "best.safetensors") if (folder / name).exists()]
            if there:
                note(f"checkpoints:  {folder / there[0]}{''.join(f', {name}' for name in there[1:])}")
        for line in tracker_lines(plan.folder):
            note(line)
        if plan.study.continued is None:  # nothing repeats the epochs before the first one of these trials
            note(f"repeat with:  {repeat_command(plan.command)}")


def print_tables(outcome: "Outcome", found: CrossValidation | None) -> None:
    """Prints a table of one trial by class, or of several with a row each, their mean and standard deviation."""
    console = output()
    records = [record for record, _ in outcome.trials]
    if found is not None:
        if found.records:
            console.show(folds_table(found))
    elif len(records) == 1 and records[0].result is not None:
        console.show(trial_table(records[0]))
    elif len(records) > 1:
        console.show(seeds_table(records))


def tracker_lines(folder: Path) -> list[str]:
    """The commands that open the files of TensorBoard and MLflow in a run's folder, where there are any."""
    lines = []
    if (folder / "tensorboard").is_dir():
        lines.append(f"tensorboard:  {shell_command(['tensorboard', '--logdir', str(folder / 'tensorboard')])}")
    if (folder / "mlruns").is_dir():
        command = shell_command(["mlflow", "ui", "--backend-store-uri", str(folder / "mlruns")])
        lines.append(f"mlflow:       MLFLOW_ALLOW_FILE_STORE=true {command}")
    return lines


def stopped_line(plan: "Plan", outcome: "Outcome") -> str:
    """What stopped the run, and what is on disk."""
    done = len(outcome.trials)
    trials = f"{done} of {len(plan.trials)} trials are done; " if len(plan.trials) > 1 else ""
    how = "interrupted" if outcome.interrupt is None else spell_stop(outcome.interrupt)
    # without a checkpoint here, as of a trial whose worker writes elsewhere, it is not known what that worker keeps
    kept = sum(epochs for index, epochs in outcome.kept.items() if plan.trials[index].folder.last.exists())
    return f"{how}; {trials}{counted(kept, 'finished epoch')} of unfinished trials kept"


@contextmanager
def print_summary_after(
    summary: Summary, records: StudyRecords, *, as_json: bool, per_class: bool = False, per_case: bool = False
) -> Iterator[None]:
    """Prints the study's table or JSON document after the body, which writes the report; also if the body raises.

    So a closed output does not prevent the report, and a full disk does not prevent the table.
    """
    try:
        yield
    finally:
        if as_json:
            print_json(records_document(summary, records))
        else:
            for table in tables_of(summary, records, per_class=per_class, per_case=per_case):
                output().show(table)


def print_locations(plan: "Plan", outcome: "Outcome", written: list[Path]) -> None:
    """Prints on stderr which files were written, and the command that runs the missing trials."""
    missing = len(plan.missing())
    if outcome.was_interrupted:
        note(f"\n{stopped_line(plan, outcome)}")
    note(f"\nrecords:      {plan.folder}")
    if written:
        note(f"report:       {', '.join(str(path) for path in written)}")
    elif outcome.was_interrupted:
        note(f"report with:  {shell_command(['dlx', 'report', str(plan.folder)])}")
    for line in tracker_lines(plan.folder):
        note(line)
    if missing:
        note(f"resume with:  {resume_command(plan.command)}   ({counted(missing, 'trial')} missing)")
