"""Writes the files of a study's report: page, figures, and the archive of its records beside a study's TOML file."""

import logging
from pathlib import Path

from dlx.records.archive import StudyRecords, archive_of, portable, write_archive
from dlx.report.summary import Summary
from dlx.system.files import write_atomically


def write_report(stem: Path, summary: Summary, records: StudyRecords, *, with_png: bool) -> list[Path]:
    """Writes STEM.md, STEM.svg, and STEM-levels.svg if levels were probed; PNGs too `with_png`. Returns the paths."""
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
    return written


def write_beside(stem: Path, summary: Summary, records: StudyRecords) -> list[Path]:
    """Writes STEM.jsonl, the records without paths of this machine, and the page and figure made from them."""
    records = portable(records)
    archive = archive_of(stem)
    write_archive(archive, records)
    return [archive, *write_report(stem, summary, records, with_png=False)]
