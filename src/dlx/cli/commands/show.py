"""`dlx show`: prints a finished or running run, study or trial again, from its records alone. Imports no torch."""

from pathlib import Path
from typing import Annotated

import typer


def show(
    run: Annotated[Path, typer.Argument(help="Folder of a run, a study or a trial, or a study's .jsonl file.")],
    per_class: Annotated[bool, typer.Option("--per-class", help="Show the validation Dice of each class too.")] = False,
    per_case: Annotated[bool, typer.Option("--per-case", help="Show the hardest validation cases too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Print a run or study again: settings, tables, verdicts, files; while it runs, how far each trial is.

    The folder of a trial, RUN/trials/NAME, shows that trial: settings that differ from the defaults, last
    epochs, scores of each class, hardest cases. Verdicts that are shown are noted as a look at them.
    """
    from dlx.cli.output.shown import print_study, print_trial
    from dlx.records.one_trial import is_trial_folder

    if is_trial_folder(run):
        print_trial(run, as_json=as_json)
    else:
        print_study(run, per_class=per_class, per_case=per_case, as_json=as_json)
