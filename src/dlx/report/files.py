"""Writes the files of a study's report: page, figures, CSV files, and beside a study's TOML file its records."""

import logging
from pathlib import Path

from dlx.records.archive import StudyRecords, archive_of, portable, write_archive
from dlx.report.csv_tables import cases_table, results_table
from dlx.report.summary import Summary
from dlx.system.files import write_atomically


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
    """Writes the CSV files for other programs. Returns the paths.

    Beside report.md, the report in a study's own folder, they are cases.csv and results.csv; beside any other page
    STEM-cases.csv and STEM-results.csv, as several studies may have their reports in one folder.
    """
    prefix = "" if stem.name == "report" else f"{stem.name}-"
    tables = {"cases.csv": cases_table(records), "results.csv": results_table(records)}
    written = []
    for name, table in tables.items():
        written.append(stem.with_name(f"{prefix}{name}"))
        write_atomically(written[-1], table.csv().encode(errors="backslashreplace"))
    return written


def write_beside(stem: Path, summary: Summary, records: StudyRecords) -> list[Path]:
    """Writes STEM.jsonl, the records without paths of this machine, and page, figure and tables made from them."""
    records = portable(records)
    archive = archive_of(stem)
    write_archive(archive, records)
    return [archive, *write_report(stem, summary, records, with_png=False)]
