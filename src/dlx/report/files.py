"""Writes the files of a study's report: page, figures, CSV files, and beside a study's TOML file its records."""

import logging
from pathlib import Path

from dlx.records.archive import StudyRecords, archive_of, portable, write_archive
from dlx.report.csv_tables import cases_table, results_table
from dlx.report.own_files import is_own_json
from dlx.report.summary import Summary
from dlx.report.summary_json import study_summary, trial_summary
from dlx.system.files import write_atomically, write_json


def write_report(stem: Path, summary: Summary, records: StudyRecords, *, with_png: bool) -> list[Path]:
    """Writes STEM.md, STEM.svg, STEM-levels.svg if levels were probed, PNGs too `with_png`, and the tables of
    `write_tables`. Returns the paths.
    """
    # matplotlib warns on import if it cannot write its font cache (no home folder), but draws correctly
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from dlx.report.figures.levels import draw_levels
    from dlx.report.figures.study import draw_study
    from dlx.report.levels import is_probed
    from dlx.report.page.page import make_page

    page = stem.with_name(f"{stem.name}.md")
    figures = {draw_study: stem.name}
    if is_probed(summary):
        figures[draw_levels] = f"{stem.name}-levels"
    endings = ("svg", "png") if with_png else ("svg",)
    written, names = [page], []
    for draw, name in figures.items():
        paths = [stem.with_name(f"{name}.{ending}") for ending in endings]
        draw(summary, *paths)
        written += paths
        names.append(paths[0].name)
    write_atomically(page, make_page(summary, records, *names).encode(errors="backslashreplace"))
    return [*written, *write_tables(stem, records)]


def write_tables(stem: Path, records: StudyRecords) -> list[Path]:
    """Writes the CSV files and the summary for other programs. Returns the paths, without those in trials' folders.

    Beside report.md, the report in a study's own folder, they are cases.csv, results.csv and summary.json; beside any
    other page STEM-cases.csv and so on, as several studies may have their reports in one folder.
    """
    prefix = "" if stem.name == "report" else f"{stem.name}-"
    tables = {"cases.csv": cases_table(records), "results.csv": results_table(records)}
    written = []
    for name, table in tables.items():
        written.append(stem.with_name(f"{prefix}{name}"))
        write_atomically(written[-1], table.csv().encode(errors="backslashreplace"))
    return [*written, *write_summaries(stem, stem.with_name(f"{prefix}summary.json"), records)]


def write_summaries(stem: Path, path: Path, records: StudyRecords) -> list[Path]:
    """Writes the summary of the study's validation cases if each has one prediction, and one into the folder of each
    finished trial, if the report is in the study's own folder. Returns the former's path; an outdated one is removed.
    """
    for trial in records.trials:
        is_own = trial.folder is not None and stem.parent in trial.folder.parents
        if is_own and trial.folder is not None and trial.record is not None and trial.record.result is not None:
            place = {"seed": trial.entry.seed} | ({} if trial.entry.fold is None else {"fold": trial.entry.fold})
            write_json(trial.folder / "summary.json", trial_summary(trial.record.result, **place))
    document = study_summary(records)
    if document is None:
        if is_own_json(path):
            path.unlink()
        return []
    write_json(path, document)
    return [path]


def write_beside(stem: Path, summary: Summary, records: StudyRecords) -> list[Path]:
    """Writes STEM.jsonl, the records without paths of this machine, and page, figure and tables made from them."""
    records = portable(records)
    archive = archive_of(stem)
    write_archive(archive, records)
    return [archive, *write_report(stem, summary, records, with_png=False)]
