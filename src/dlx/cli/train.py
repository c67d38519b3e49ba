"""`dlx train`: a study of one variant, a trial for each seed."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dlx.cli.options import TrainOptions, seeds_from, settings_from, takes_train_options

if TYPE_CHECKING:
    from dlx.studies import Study


@takes_train_options
def train(options: TrainOptions) -> None:
    """Train a network and measure train and validation Dice over whole volumes.

    Without options it trains on a built-in phantom of the infant brain.

    The same command again shows what is finished, and goes on with what is not.
    """
    from rich.console import Console

    from dlx.cli import display, results
    from dlx.run.plan import check_resumable, make_plan, run_plan

    progress_console = Console(stderr=True)
    is_quiet = options.quiet or options.as_json
    study, folder = study_and_folder(options)
    with display.reading_bar(progress_console, quiet=is_quiet) as progress:
        plan = make_plan(
            study,
            folder,
            cache_dir=options.cache_dir or default_cache_dir(),
            verify_data=options.verify_data,
            progress=progress,
        )
    if options.dry_run:
        results.print_plan(plan, as_json=options.as_json)
        return
    if options.resume:
        check_resumable(plan)
    if not is_quiet:
        results.print_head(plan, progress_console)
    with display.follower(progress_console, quiet=is_quiet) as follower:
        outcome = follower.follow(run_plan(plan, fresh=options.fresh, retry_failed=options.retry_failed))
    results.print_outcome(plan, outcome, as_json=options.as_json, quiet=options.quiet)
    if outcome.was_interrupted:
        raise typer.Exit(130)
    if any(record.status != "done" for record, _ in outcome.trials):
        raise typer.Exit(1)


def study_and_folder(options: TrainOptions) -> "tuple[Study, Path | None]":
    """The study that the options ask for; with `--resume` and no settings, the one in the folder."""
    from dlx.errors import SettingError
    from dlx.run.plan import load_study
    from dlx.studies import Study, make_spec

    if options.resume and options.fresh:
        raise SettingError("--resume and --fresh: give one of the two")
    if options.resume and options.out is not None and options.asks_for_nothing():
        return load_study(options.out), options.out
    spec = make_spec(settings_from(options))
    return Study(name=f"train {spec.model.name}", base=spec, seeds=seeds_from(options)), options.out


def default_cache_dir() -> Path:
    """Where the system keeps what can be made again: `$XDG_CACHE_HOME/dlx` or `~/.cache/dlx`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlx"
