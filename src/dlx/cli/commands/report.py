"""`dlx report`: table, figures, pages and CSV files from the records of a study, finished or not. Imports no torch."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dlx.report.findings.summary import Summary


def report(
    folders: Annotated[
        list[Path], typer.Argument(help="Folder or .jsonl file of a study; several of one study are merged.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Path of the files to write, without suffix.",
            show_default="FOLDER/report, FOLDER/merged for several, or beside a .jsonl file",
        ),
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Show the validation Dice of each class too.")] = False,
    per_case: Annotated[bool, typer.Option("--per-case", help="Show the hardest validation cases too.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would settle the open verdicts, and its cost; write no files.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard's files too, to FOLDER/tensorboard.")
    ] = False,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Write MLflow's runs too, to FOLDER/mlruns.")] = False,
    no_pictures: Annotated[
        bool, typer.Option("--no-pictures", help="Show no slices of validation cases on the HTML page.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Rebuild a study's table, figures, pages and CSV files from its records, even while it is running."""
    from dlx.cli.output.console import note
    from dlx.cli.output.outcome import print_summary_after
    from dlx.cli.running import check_trackers
    from dlx.records.archive import read_study, with_looks
    from dlx.records.folder import StudyFolder
    from dlx.records.merge import merge_studies
    from dlx.report.files.writing import write_report, write_trackers
    from dlx.report.findings.summary import summarize_study

    if plan:
        unused = {"--out": out is not None, "--tensorboard": tensorboard, "--mlflow": mlflow}
        check_options_of_plan(unused | {"--per-class": per_class, "--per-case": per_case})
    check_trackers(tensorboard=tensorboard, mlflow=mlflow)
    records = merge_studies([(folder, read_study(folder)) for folder in folders])
    summary = summarize_study(records)
    studies = [StudyFolder(folder) for folder in folders if folder.is_dir()]
    if plan:
        print_plan(summary, as_json=as_json)
        for study in studies:
            study.note_look(summary.look)  # a plan says which verdicts are open
        return
    stem = out or default_stem(folders)
    with print_summary_after(summary, records, as_json=as_json, per_class=per_class, per_case=per_case):
        for study in studies:
            records = with_looks(records, study.note_look(summary.look))
        pictures = {"has_pictures": not no_pictures}
        written = write_report(stem, summary, records, with_png=folders[0].is_dir(), **pictures)
        written += write_trackers(stem, records, tensorboard=tensorboard, mlflow=mlflow)
    if not as_json:
        note(f"\nwritten:      {', '.join(str(path) for path in written)}")


def check_options_of_plan(unused: dict[str, bool]) -> None:
    """SettingError for an option that `--plan` cannot take, if it is given."""
    from dlx.system.errors import SettingError

    for name in (name for name, is_given in unused.items() if is_given):
        raise SettingError(f"{name} and --plan cannot be combined: --plan prints designs alone and writes no files")


def print_plan(summary: "Summary", *, as_json: bool) -> None:
    """Prints what would settle the open verdicts, as lines or as a JSON document."""
    from dlx.cli.output.console import output, print_json
    from dlx.report.findings.planning import plan_study
    from dlx.report.terminal.grid import Line, Trimmed
    from dlx.report.wording.plans import design_lines, plan_lines

    if as_json:
        found = plan_study(summary)
        designs = [asdict(study) for study in found.studies] if found else []
        print_json({"scope": summary.scope.value, "plan": plan_lines(summary), "designs": designs})
    else:
        output().show(Trimmed(tuple(map(Line, design_lines(summary)))))


def default_stem(folders: list[Path]) -> Path:
    """`report` in a study's folder, or its .jsonl file's name; `merged` for several, so that none is overwritten."""
    first, *others = folders
    if first.is_dir():
        return first / ("merged" if others else "report")
    return first.with_name(f"{first.stem}-merged") if others else first.with_suffix("")
