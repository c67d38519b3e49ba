"""Writes the files of a study's report: pages, figures, CSV files, and beside a study's TOML file its records."""

import logging
from pathlib import Path

from dlx.records.archive import StudyRecords, archive_of, portable, with_pictures, write_archive
from dlx.report.files.csv_tables import cases_table, results_table
from dlx.report.files.epochs_csv import epochs_table
from dlx.report.files.summary_json import study_summary, trial_summary
from dlx.report.findings.summary import Summary, summarize_study
from dlx.report.plotted.case_pictures import pictured_trials
from dlx.report.trackers import mlflow as mlflow_runs
from dlx.report.trackers import tensorboard as event_files
from dlx.system.files import link_over, write_atomically, write_json
from dlx.system.own_files import is_own_json


def write_report(
    stem: Path, summary: Summary, records: StudyRecords, *, with_png: bool, has_pictures: bool = True
) -> list[Path]:
    """Writes STEM.md, STEM.html, STEM.svg, STEM-levels.svg if levels were probed, and the tables of `write_tables`.

    With `with_png` also PNGs of the figures, and the pictures of `write_progress`. Without `has_pictures` the HTML page
    shows no slices of cases. Returns the paths.
    """
    quiet_matplotlib()
    from dlx.report.figures.levels import draw_levels
    from dlx.report.figures.study import draw_study
    from dlx.report.findings.levels import is_probed
    from dlx.report.page.html import make_html_page
    from dlx.report.page.page import make_page
    from dlx.report.page.sections import page_content

    page, html = (stem.with_name(f"{stem.name}.{ending}") for ending in ("md", "html"))
    figures = [(draw_study, stem.name)]
    if is_probed(summary):
        figures.append((draw_levels, f"{stem.name}-levels"))
    endings = ("svg", "png") if with_png else ("svg",)
    written, names = [page, html], []
    for draw, name in figures:
        paths = [stem.with_name(f"{name}.{ending}") for ending in endings]
        draw(summary, *paths)
        written += paths
        names.append(paths[0].name)
    content = page_content(summary, records)
    _write_text(page, make_page(content, *names))
    _write_text(html, make_html_page(content, has_pictures=has_pictures))
    progress = write_progress(stem, records) if with_png else []
    return [*written, *write_tables(stem, records), *progress]


def write_run_report(stem: Path, records: StudyRecords, *, has_pictures: bool = True) -> list[Path]:
    """Writes the report of a run that has ended: STEM.html, and the files of `write_tables` and `write_progress`.

    If an earlier `dlx report` left a STEM.md, all files of `write_report`, so that none shows an earlier run.
    """
    from dlx.report.page.html import make_html_page
    from dlx.report.page.sections import page_content

    summary = summarize_study(records)
    if stem.with_name(f"{stem.name}.md").exists():
        return write_report(stem, summary, records, with_png=True, has_pictures=has_pictures)
    written = [*write_tables(stem, records), *write_progress(stem, records)]
    page = stem.with_name(f"{stem.name}.html")
    _write_text(page, make_html_page(page_content(summary, records), has_pictures=has_pictures))
    return [*written, page]


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, text.encode(errors="backslashreplace"))


def quiet_matplotlib() -> None:
    """Hides matplotlib's warning on import that it cannot write its font cache (no home folder): it draws correctly."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def write_progress(stem: Path, records: StudyRecords) -> list[Path]:
    """Writes progress.png, or STEM-progress.png as in `write_tables`, and returns its path; nothing without an epoch.

    Of one network, each trial in the study's own folder has a progress.png too, drawn again if epochs were added. The
    trials of a study of several variants, which are many, have none: each takes 0.2 s.
    """
    begun = [trial for trial in records.trials if trial.epochs]
    if not begun:
        return []
    quiet_matplotlib()
    from dlx.report.figures.progress import draw_progress, draw_trial_progress

    path = stem.with_name(f"{_prefix(stem)}progress.png")
    own = [t.folder for t in begun if t.folder is not None and t.folder.parent.parent == path.parent]
    if len(records.header.variants) == 1 and stem.name == "report" and len(own) == len(begun):
        for trial, folder in zip(begun, own, strict=True):
            picture = folder / path.name
            if not picture.exists() or picture.stat().st_mtime < (folder / "epochs.jsonl").stat().st_mtime:
                draw_trial_progress(trial, picture)
        if len(records.trials) == 1:
            link_over(own[0] / path.name, path)
            return [path]
    draw_progress(records, path)
    return [path]


def _prefix(stem: Path) -> str:
    """What precedes the names of files beside a report: nothing beside report.md, else `STEM-`."""
    return "" if stem.name == "report" else f"{stem.name}-"


def write_tables(stem: Path, records: StudyRecords) -> list[Path]:
    """Writes the CSV files and the summary for other programs. Returns the paths, without those in trials' folders.

    Beside report.md, the report in a study's own folder, they are cases.csv, results.csv, epochs.csv and summary.json;
    beside any other page STEM-cases.csv and so on, as several studies may have their reports in one folder.
    """
    tables = {"cases.csv": cases_table, "results.csv": results_table, "epochs.csv": epochs_table}
    written = []
    for name, make_table in tables.items():
        written.append(stem.with_name(f"{_prefix(stem)}{name}"))
        _write_text(written[-1], make_table(records).csv())
    return [*written, *write_summaries(stem, stem.with_name(f"{_prefix(stem)}summary.json"), records)]


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


def write_trackers(stem: Path, records: StudyRecords, *, tensorboard: bool, mlflow: bool) -> list[Path]:
    """Writes the folders of TensorBoard and MLflow, named as in `write_tables`, and returns their paths."""
    written = []
    if tensorboard:
        written.append(event_files.write_events(stem.with_name(f"{_prefix(stem)}{event_files.FOLDER}"), records))
    if mlflow:
        written.append(mlflow_runs.write_runs(stem.with_name(f"{_prefix(stem)}{mlflow_runs.FOLDER}"), records))
    return written


def write_beside(stem: Path, summary: Summary, records: StudyRecords, *, has_pictures: bool = True) -> list[Path]:
    """Writes STEM.jsonl, the records without paths of this machine, and pages, figure and tables made from them.

    With `has_pictures` it holds the pictures that the HTML page shows, at most 110 kB for each of two trials.
    """
    shown = [trial.entry for trial in pictured_trials(summary, records)] if has_pictures else []
    records = portable(with_pictures(records, shown))
    archive = archive_of(stem)
    write_archive(archive, records)
    return [archive, *write_report(stem, summary, records, with_png=False, has_pictures=has_pictures)]
