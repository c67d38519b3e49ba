"""`dlx report`: table, figure and page from records, finished or not; it trains nothing and needs no torch."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of one study, or its .jsonl file; several are merged.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Stem of the files to write.",
            show_default="FOLDER/report, FOLDER/merged of several, or beside a .jsonl",
        ),
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Show the validation Dice of each class too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Rebuild a study's table, figure and page from its records, also while it is still running."""
    from dlx.cli import study_results
    from dlx.cli.console import note
    from dlx.records.archive import read_study
    from dlx.records.beside import with_looks
    from dlx.records.folder import StudyFolder
    from dlx.records.merge import merge_studies
    from dlx.report.summary import summarize_study

    records = merge_studies([(folder, read_study(folder)) for folder in folders])
    summary = summarize_study(records)
    is_folder = folders[0].is_dir()
    stem = out or default_stem(folders)
    with study_results.print_summary_after(summary, records, as_json=as_json, per_class=per_class):
        for folder in folders:
            if folder.is_dir():
                records = with_looks(records, StudyFolder(folder).note_look(summary.look))
        written = study_results.write_report(stem, summary, records, with_png=is_folder)
    if not as_json:
        note(f"\nwritten:      {', '.join(str(path) for path in written)}")


def default_stem(folders: list[Path]) -> Path:
    """`report` in a study's folder, or a file's own name; of several merged `merged`, so that each keeps its own."""
    first, *others = folders
    if first.is_dir():
        return first / ("merged" if others else "report")
    return first.with_name(f"{first.stem}-merged") if others else first.with_suffix("")
