"""What every training command does between its options and its last line: plan, run, show, report, end."""

import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dlx.cli.options import StudyOptions, TrainOptions

if TYPE_CHECKING:
    from dlx.cli.display import Outcome
    from dlx.report.summary import Summary
    from dlx.run.plan import Plan
    from dlx.settings import Settings
    from dlx.studies import Axis, Study


def plan_study(study: "Study", folder: Path | None, options: TrainOptions) -> "Plan":
    """Resolves a study, with a bar while volumes are read."""
    from rich.console import Console

    from dlx.cli import display
    from dlx.run.plan import make_plan

    with display.reading_bar(Console(stderr=True), quiet=options.quiet or options.as_json) as progress:
        return make_plan(
            study,
            folder,
            command=own_command(),
            cache_dir=options.cache_dir or default_cache_dir(),
            verify_data=options.verify_data,
            keep_cache=not options.dry_run,
            max_parallel=options.max_parallel,
            progress=progress,
        )


def own_command() -> str:
    """The command line that is running, as a user would type it."""
    return shlex.join(["dlx", *sys.argv[1:]])


def axis_study(name: str, question: str, settings: "Settings", axis: "Axis", options: StudyOptions) -> "Study":
    """A study of one axis, whose first point is the control."""
    from dlx.cli.layers import seeds_from
    from dlx.studies import DEFAULT_SEEDS, SMALLEST_EFFECT, make_study, make_variants

    return make_study(
        name=name,
        question=question,
        variants=make_variants(settings, [axis]),
        axes=(axis.title,),
        seeds=seeds_from(options, DEFAULT_SEEDS),
        smallest_effect=SMALLEST_EFFECT if options.smallest_effect is None else options.smallest_effect,
    )


def with_one_thread(settings: "Settings") -> "Settings":
    """The settings with one CPU thread a trial unless they say another number: several trials then run at once."""
    from dlx.settings import merge

    return merge({"compute": {"threads": 1}}, settings)


def run_study(study: "Study", folder: Path, options: StudyOptions, *, archive: Path | None = None) -> None:
    """Runs what is missing of a study and shows what it found; `archive` is a stem beside which records are kept."""
    from rich.console import Console

    from dlx.archive import read_study
    from dlx.cli import display, results, study_results
    from dlx.report.summary import summarize_study
    from dlx.run.runner import run_plan

    plan = plan_study(study, options.out or folder, options)
    if options.dry_run:
        study_results.print_study_plan(plan, as_json=options.as_json)
        return
    console = Console(stderr=True)
    is_quiet = options.quiet or options.as_json
    if not is_quiet:
        results.print_head(plan, console)
        study_results.print_grid(plan, console)
    with display.follower(console, plan, quiet=is_quiet, in_workers=True) as follower:
        outcome = follower.follow(
            run_plan(
                plan,
                in_workers=True,
                fresh=options.fresh,
                retry_failed=options.retry_failed,
                keep_going=options.keep_going,
            )
        )
    summary = summarize_study(read_study(plan.folder))
    note_look(plan.folder, summary)
    records = read_study(plan.folder)  # with this look
    written = study_results.write_report(plan.folder / "report", summary, records)
    if archive is not None and not outcome.was_interrupted:
        written += study_results.write_report(archive, summary, records, with_archive=True)
    study_results.print_summary(summary, records, as_json=options.as_json)
    if not is_quiet or outcome.was_interrupted:
        study_results.print_where(plan, outcome, written)
    end(outcome)


def note_look(folder: Path, summary: "Summary") -> None:
    """Records that verdicts are being shown, so that seeds which are added later are known to come after a look."""
    from dlx.store import StudyFolder

    if summary.look is not None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        StudyFolder(folder).add_look(summary.look.model_copy(update={"shown_utc": now}))


def end(outcome: "Outcome") -> None:
    """The exit code: 130 after Ctrl-C, 1 where a trial diverged or failed."""
    if outcome.was_interrupted:
        raise typer.Exit(130)
    if any(record.status != "done" for record, _ in outcome.trials):
        raise typer.Exit(1)


def data_name(spec: Any) -> str:
    """What the data are called in the name of a folder."""
    path = spec.data.source.args.get("path")
    return Path(path).resolve().name if path else str(spec.data.source.name)


def default_cache_dir() -> Path:
    """Where the system keeps what can be made again: `$XDG_CACHE_HOME/dlx` or `~/.cache/dlx`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlx"
