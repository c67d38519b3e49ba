"""`dlx ls`: the studies and runs below a folder. Imports no torch."""

from pathlib import Path
from typing import Annotated

import typer


def ls(
    folder: Annotated[Path, typer.Argument(help="Folder of runs, or of studies' .jsonl files.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list and nothing else.")] = False,
) -> None:
    """List runs and studies, the newest first: trials done of all, verdicts, age, question.

    Verdicts are listed only where they were shown before, so that listing them is no look at them;
    dlx show RUN shows them.
    """
    from dlx.cli.output.console import output, print_json
    from dlx.report.listing.entries import entry_of, list_studies
    from dlx.report.terminal.listing import StudyList
    from dlx.system.characters import visible
    from dlx.system.shell import shell_command

    studies = list_studies(folder)
    if as_json:
        print_json([entry_of(study) for study in studies])
    elif studies:
        output().show(StudyList(studies))
    else:
        command = shell_command(["dlx", "train", "--out", str(folder / "NAME")])
        output().print(visible(f"{folder} holds no runs or studies; make one: {command}"), soft_wrap=True)
