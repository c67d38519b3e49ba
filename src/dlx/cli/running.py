"""The steps that all training commands share: plan, run, show progress, report, set the exit code."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dlx.cli.options import StudyOptions, TrainOptions
from dlx.cli.ranks import refuse_ranks
from dlx.system.caches import default_cache_dir
from dlx.system.errors import SettingError
from dlx.system.interrupts import exit_code
from dlx.system.shell import shell_command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from dlx.cli.output.display import Outcome
    from dlx.engine.group import Group
    from dlx.execution.cluster.spec import ClusterSpec
    from dlx.execution.cluster.start import Cluster
    from dlx.execution.planning.plan import Plan
    from dlx.execution.trials.trial import Event
    from dlx.records.archive import StudyRecords
    from dlx.settings.layers import Settings
    from dlx.study.axes import Axis
    from dlx.study.study import Study

INTERRUPTED = 130  # the exit code after Ctrl-C
NO_HOME = "the prepared data are not kept: there is no home folder (HOME is not set); --cache-dir FOLDER keeps them"


def plan_study(
    study: "Study",
    folder: Path | None,
    options: TrainOptions,
    archived: "StudyRecords | None" = None,
    command: str | None = None,
    remarks: tuple[str, ...] = (),
    cluster: "Cluster | None" = None,
) -> "Plan":
    """Resolves a study, with a progress bar while volumes are read; `archived` are the records beside its TOML file.

    The code of networks of the user's own is loaded here, if the options name it or trust the file that does.

    `command` is recorded as the command that repeats the study; by default the one that was typed. `remarks` are shown
    with those of the plan.
    """
    from dlx.cli.output.console import notes
    from dlx.cli.output.reading_bar import reading_bar
    from dlx.cli.settings_from_options import named_models
    from dlx.execution.planning.plan import make_plan
    from dlx.study.own_code import with_code_of_study

    study = with_code_of_study(study, named_models(options), trusts=options.trust_code)
    check_trackers(tensorboard=options.tensorboard, mlflow=options.mlflow)
    cache_dir = options.cache_dir or default_cache_dir()
    remarks += () if cache_dir is not None else (NO_HOME,)
    with reading_bar(notes(), quiet=options.is_quiet) as progress:
        return make_plan(
            study,
            folder,
            command=shell_command(["dlx", *sys.argv[1:]]) if command is None else command,
            remarks=remarks,
            cache_dir=cache_dir,
            verify_data=options.verify_data,
            keep_cache=not options.dry_run,
            max_parallel=options.max_parallel,
            progress=progress,
            known_trials=[] if archived is None else [trial.entry.trial for trial in archived.trials],
            cluster=cluster,
        )


def cluster_spec(options: TrainOptions) -> "ClusterSpec | None":
    """The cluster that the options name; None for worker processes of this command."""
    from dlx.execution.cluster.spec import cluster_from

    return cluster_from(
        options.executor, options.scheduler_address, options.cluster, options.cluster_file, options.max_parallel
    )


def joined_cluster(options: TrainOptions) -> "AbstractContextManager[Cluster | None]":
    """The cluster that the options name, if other machines may belong to it; a dry run submits no jobs."""
    from dlx.cli.output.console import note
    from dlx.execution.cluster.start import joined

    spec = cluster_spec(options)
    if options.dry_run and spec is not None and spec.jobs is not None:
        note("note     no job is submitted, so the plan is that of this machine")
        spec = None
    return joined(spec, tell=lambda text: None if options.is_quiet else note(f"note     {text}"))


def check_trackers(*, tensorboard: bool, mlflow: bool) -> None:
    """SettingError if an option needs a package that is not installed."""
    from dlx.report.trackers import mlflow as mlflow_runs
    from dlx.report.trackers import tensorboard as event_files

    if tensorboard:
        event_files.check_installed()
    if mlflow:
        mlflow_runs.check_installed()


def run_axis_study(
    name: str, question: str, settings: "Settings", axis: "Axis", options: StudyOptions, *, folder_suffix: str
) -> None:
    """Runs a study of one axis, whose first point is the control, in `runs/DATA-MODEL-SUFFIX`."""
    from dlx.cli.settings_from_options import seeds_from
    from dlx.execution.planning.plan import default_name
    from dlx.study.axes import make_variants
    from dlx.study.study import DEFAULT_SEEDS, SMALLEST_EFFECT, make_study

    variants = make_variants(settings, [axis])
    if len(variants) == 1:
        raise SettingError(
            f"{name}: there is only the control '{variants[0].label}'; give at least one other value to compare with it"
        )
    study = make_study(
        name=name,
        question=question,
        variants=variants,
        axes=(axis.title,),
        seeds=seeds_from(options, DEFAULT_SEEDS),
        smallest_effect=SMALLEST_EFFECT if options.smallest_effect is None else options.smallest_effect,
        scope=options.scope,
    )
    run_study(study, Path("runs") / f"{default_name(study.base)}-{folder_suffix}", options)


def follow_plan(
    plan: "Plan",
    options: TrainOptions,
    *,
    in_workers: bool,
    archived: "StudyRecords | None" = None,
    cluster: "Cluster | None" = None,
    group: "Group | None" = None,
) -> "Outcome":
    """Runs the trials that are missing and shows progress; `archived` are the records beside the study's TOML file."""
    from dlx.cli.output.console import notes
    from dlx.cli.output.display import display_on, follow
    from dlx.execution.cluster.start import running
    from dlx.execution.runner import run_plan

    spec = cluster_spec(options)
    showing = display_on(notes(), plan, quiet=options.is_quiet, in_workers=in_workers or spec is not None)
    # what a network of the user's own prints is no result
    with running(spec, cluster, plan.max_parallel) as client, redirect_stdout(sys.stderr), showing as display:
        events: Iterator[tuple[int, Event]] = run_plan(
            plan,
            in_workers=in_workers,
            fresh=options.fresh,
            retry_failed=options.retry_failed,
            keep_going=options.keep_going,
            archived=archived,
            has_pictures=not options.no_pictures,
            client=client,
            group=group,
        )
        if options.tensorboard or options.mlflow:
            from dlx.cli.output.tracking import tracked

            events = tracked(events, plan, options, display.console)
        return follow(events, display)


def run_study(study: "Study", folder: Path, options: StudyOptions, *, beside: Path | None = None) -> None:
    """Runs the missing trials of a study and prints its table; with `beside`, also writes records and report at that
    stem.
    """
    from dlx.cli.output.console import note, notes
    from dlx.cli.output.dry_run import print_plan
    from dlx.cli.output.head import print_head, print_variants
    from dlx.cli.output.outcome import print_locations, print_summary_after
    from dlx.execution.workers.server import start_server
    from dlx.records.archive import check_can_write, read_study, records_beside, with_looks
    from dlx.records.folder import StudyFolder
    from dlx.report.files.writing import write_beside, write_report
    from dlx.report.findings.summary import summarize_study

    refuse_ranks("a study")
    if options.resume:
        raise SettingError("--resume: only dlx train has this option; to resume a study, run its command again")
    if beside is not None and not options.dry_run:
        check_can_write(beside)
    if not options.dry_run and cluster_spec(options) is None:
        start_server()
    archived = records_beside(beside)
    with joined_cluster(options) as cluster:
        plan = plan_study(study, options.out or folder, options, archived, cluster=cluster)
        if options.dry_run:
            print_plan(plan, as_json=options.as_json, compares=True)
            return
        print_head(plan, notes(), quiet=options.is_quiet)
        if not options.is_quiet:
            print_variants(plan, notes())
        outcome = follow_plan(plan, options, in_workers=True, archived=archived, cluster=cluster)
    if outcome.interrupt is not None and exit_code(outcome.interrupt) != INTERRUPTED:
        print_locations(plan, outcome, [])  # what sent SIGTERM may not wait for a report, which nobody reads
        end(outcome)
    records = read_study(plan.folder)
    archived = records_beside(beside)  # again: during the run, looks on another machine may have been added
    if archived is not None:
        records = with_looks(records, archived.looks)
    summary = summarize_study(records)
    written: list[Path] = []
    if not options.is_quiet:
        note("")
    shown = {"as_json": options.as_json, "per_class": options.per_class, "per_case": options.per_case}
    with print_summary_after(summary, records, **shown):
        records = with_looks(records, StudyFolder(plan.folder).note_look(summary.look))
        pictures = {"has_pictures": not options.no_pictures}
        written += write_report(plan.folder / "report", summary, records, with_png=True, **pictures)
        if beside is not None and not outcome.was_interrupted:
            written += write_beside(beside, summary, records, **pictures)
    if not options.is_quiet or outcome.was_interrupted:
        print_locations(plan, outcome, written)
    end(outcome)


def end(outcome: "Outcome") -> None:
    """Exits with 130 after Ctrl-C, 143 after SIGTERM, 1 if a trial diverged or failed; returns otherwise."""
    if outcome.interrupt is not None:
        raise typer.Exit(exit_code(outcome.interrupt))
    if any(record.status != "done" for record, _ in outcome.trials):
        raise typer.Exit(1)
