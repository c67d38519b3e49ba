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
        typer.Option(help="Stem of the files to write.", show_default="FOLDER/report, or beside the .jsonl file"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Rebuild a study's table, figure and page from its records, also while it is still running."""
    from rich.console import Console

    from dlx.archive import read_study
    from dlx.cli import study_results
    from dlx.cli.running import note_look
    from dlx.merging import merge_studies
    from dlx.report.summary import summarize_study

    summary = summarize_study(merge_studies([(folder, read_study(folder)) for folder in folders]))
    for folder in folders:
        if folder.is_dir():
            note_look(folder, summary)
    records = merge_studies([(folder, read_study(folder)) for folder in folders])  # with this look
    is_folder = folders[0].is_dir()
    stem = out or (folders[0] / "report" if is_folder else folders[0].with_suffix(""))
    study_results.print_summary(summary, records, as_json=as_json)
    written = study_results.write_report(stem, summary, records, with_png=is_folder)
    if not as_json:
        notes = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
        notes.print(f"\nwritten:      {', '.join(str(path) for path in written)}")
