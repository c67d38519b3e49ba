"""The steps that all training commands share: plan, run, show progress, report, set the exit code."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dlx.cli.options import StudyOptions, TrainOptions
from dlx.system.errors import SettingError
from dlx.system.shell import shell_command

if TYPE_CHECKING:
    from dlx.cli.display import Outcome
    from dlx.records.archive import StudyRecords
    from dlx.run.plan import Plan
    from dlx.settings.layers import Settings
    from dlx.study.axes import Axis
    from dlx.study.study import Study

NO_HOME = "the prepared data are not kept: there is no home folder (HOME is not set); --cache-dir FOLDER keeps them"


def plan_study(
    study: "Study",
    folder: Path | None,
    options: TrainOptions,
    archived: "StudyRecords | None" = None,
    command: str | None = None,
) -> "Plan":
    """Resolves a study, with a progress bar while volumes are read; `archived` are the records beside its TOML file.

    `command` is recorded as the command that repeats the study; by default the one that was typed.
    """
    from dlx.cli import console, display
    from dlx.run.plan import make_plan

    cache_dir = options.cache_dir or default_cache_dir()
    remarks = () if cache_dir is not None else (NO_HOME,)
    with display.reading_bar(console.notes(), quiet=options.quiet or options.as_json) as progress:
        return make_plan(
            study,
            folder,
            command=typed_command() if command is None else command,
            remarks=remarks,
            cache_dir=cache_dir,
            verify_data=options.verify_data,
            keep_cache=not options.dry_run,
            max_parallel=options.max_parallel,
            progress=progress,
            known_trials=[] if archived is None else [trial.entry.trial for trial in archived.trials],
        )


def typed_command() -> str:
    """The command line of this process, as a user would type it."""
    return shell_command(["dlx", *sys.argv[1:]])


def make_axis_study(name: str, question: str, settings: "Settings", axis: "Axis", options: StudyOptions) -> "Study":
    """A study of one axis, whose first point is the control."""
    from dlx.cli.settings_from_options import seeds_from
    from dlx.study.axes import make_variants
    from dlx.study.study import DEFAULT_SEEDS, SMALLEST_EFFECT, make_study

    variants = make_variants(settings, [axis])
    if len(variants) == 1:
        raise SettingError(
            f"{name}: there is only the control '{variants[0].label}'; give at least one other value to compare with it"
        )
    return make_study(
        name=name,
        question=question,
        variants=variants,
        axes=(axis.title,),
        seeds=seeds_from(options, DEFAULT_SEEDS),
        smallest_effect=SMALLEST_EFFECT if options.smallest_effect is None else options.smallest_effect,
    )


def with_one_thread(settings: "Settings") -> "Settings":
    """The settings with compute.threads = 1 as a default, so that several trials run at once on a CPU."""
    from dlx.settings.layers import merge

    return merge({"compute": {"threads": 1}}, settings)


def follow_plan(
    plan: "Plan", options: TrainOptions, *, in_workers: bool, archived: "StudyRecords | None" = None
) -> "Outcome":
    """Runs the trials that are missing and shows progress; `archived` are the records beside the study's TOML file."""
    from dlx.cli import console, display
    from dlx.run.runner import run_plan

    is_quiet = options.quiet or options.as_json
    with display.follower(console.notes(), plan, quiet=is_quiet, in_workers=in_workers) as follower:
        return follower.follow(
            run_plan(
                plan,
                in_workers=in_workers,
                fresh=options.fresh,
                retry_failed=options.retry_failed,
                keep_going=options.keep_going,
                archived=archived,
            )
        )


def run_study(study: "Study", folder: Path, options: StudyOptions, *, beside: Path | None = None) -> None:
    """Runs the missing trials of a study and prints its table; with `beside`, also writes records and report at that
    stem.
    """
    from dlx.cli import console, results, study_results
    from dlx.records.archive import check_can_write, read_study, records_beside, with_looks
    from dlx.records.folder import StudyFolder
    from dlx.report.summary import summarize_study
    from dlx.run.server import start_server

    if options.resume:
        raise SettingError("--resume: only dlx train has this option; to resume a study, run its command again")
    if beside is not None and not options.dry_run:
        check_can_write(beside)
    if not options.dry_run:
        start_server()
    archived = records_beside(beside)
    plan = plan_study(study, options.out or folder, options, archived)
    if options.dry_run:
        study_results.print_study_plan(plan, as_json=options.as_json)
        return
    is_quiet = options.quiet or options.as_json
    results.print_head(plan, console.notes(), quiet=is_quiet)
    if not is_quiet:
        study_results.print_grid(plan, console.notes())
    outcome = follow_plan(plan, options, in_workers=True, archived=archived)
    records = read_study(plan.folder)
    archived = records_beside(beside)  # again: during the run, looks on another machine may have been added
    if archived is not None:
        records = with_looks(records, archived.looks)
    summary = summarize_study(records)
    written: list[Path] = []
    if not is_quiet:
        console.note("")
    with study_results.print_summary_after(summary, records, as_json=options.as_json, per_class=options.per_class):
        records = with_looks(records, StudyFolder(plan.folder).note_look(summary.look))
        written += study_results.write_report(plan.folder / "report", summary, records, with_png=True)
        if beside is not None and not outcome.was_interrupted:
            written += study_results.write_beside(beside, summary, records)
    if not is_quiet or outcome.was_interrupted:
        study_results.print_locations(plan, outcome, written)
    end(outcome)


def end(outcome: "Outcome") -> None:
    """Exits with 130 after Ctrl-C, with 1 if a trial diverged or failed; returns otherwise."""
    if outcome.was_interrupted:
        raise typer.Exit(130)
    if any(record.status != "done" for record, _ in outcome.trials):
        raise typer.Exit(1)


def default_cache_dir() -> Path | None:
    """The default data cache: `$XDG_CACHE_HOME/dlx` or `~/.cache/dlx`; None if neither folder is known."""
    from dlx.system.files import home_folder

    caches, home = os.environ.get("XDG_CACHE_HOME"), home_folder()
    if caches:
        return Path(caches) / "dlx"
    return None if home is None else home / ".cache" / "dlx"
