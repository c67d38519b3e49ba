"""`dlx train`: runs a study of one variant, with one trial per seed."""

from dataclasses import replace
from typing import TYPE_CHECKING

from dlx.cli.options import TrainOptions, takes_options
from dlx.cli.settings_from_options import changes_no_setting, seeds_from, settings_from
from dlx.system.errors import SettingError
from dlx.system.ranks import ranks_of

if TYPE_CHECKING:
    from pathlib import Path

    from dlx.engine.group import Group
    from dlx.study.study import Study


@takes_options(TrainOptions)
def train(options: TrainOptions) -> None:
    """Train a network and measure train and validation Dice over whole volumes.

    Without options it trains on a built-in phantom of the infant brain.

    Running the same command again resumes unfinished trials and shows the results of finished ones.
    `dlx settings` lists every setting that --set and --config accept.
    """
    from dlx.cli.ranks import rank_group

    with rank_group(options) as (group, own_options):
        _train(own_options, group)


def _train(options: TrainOptions, group: "Group | None") -> None:
    from dlx.cli.output.console import notes
    from dlx.cli.output.dry_run import print_plan
    from dlx.cli.output.head import print_head
    from dlx.cli.output.outcome import print_outcome
    from dlx.cli.ranks import for_ranks, has_planned, typed_command
    from dlx.cli.resuming import command_of, remarks_on_start, resumed, with_recorded_code
    from dlx.cli.running import end, follow_plan, joined_cluster, plan_study
    from dlx.execution.planning.longer import begin
    from dlx.execution.planning.plan import check_resumable
    from dlx.execution.runner import follow_plan_as_rank
    from dlx.records.archive import read_study
    from dlx.report.files.writing import write_run_report

    options, longer = resumed(options)
    if longer is None:
        study, folder, command = study_and_folder(options)
    else:
        study, folder, command = with_recorded_code(longer.study, options), options.out, None
    study = for_ranks(study, ranks_of(), options)
    if group is not None and longer is not None:
        raise SettingError("--epochs with --resume trains a run longer, which torchrun does not do: leave out one")
    command = command_of(options, study, longer, command) or typed_command(group)
    with joined_cluster(options) as cluster:
        remarks = remarks_on_start(study, longer)
        plan = plan_study(study, folder, options, command=command, remarks=remarks, cluster=cluster)
        if longer is not None:
            plan = replace(plan, trained_epochs=longer.epoch)
        if group is not None:
            has_planned(plan, group)
            if not group.is_first:
                if not options.dry_run:
                    follow_plan_as_rank(plan, group)
                return
        if options.dry_run:
            print_plan(plan, as_json=options.as_json, compares=False)
            return
        if longer is not None:
            begin(plan, longer)
        elif options.resume:
            check_resumable(plan)
        print_head(plan, notes(), quiet=options.is_quiet)
        outcome = follow_plan(plan, options, in_workers=plan.max_parallel > 1, cluster=cluster, group=group)
    written: list[Path] = []
    try:
        records = read_study(plan.folder)
        written += write_run_report(plan.folder / "report", records, has_pictures=not options.no_pictures)
    finally:  # a full disk must not hide the result
        print_outcome(plan, outcome, written, as_json=options.as_json, quiet=options.quiet)
    end(outcome)


def study_and_folder(options: TrainOptions) -> "tuple[Study, Path | None, str | None]":
    """The study that the options describe, its folder, and its command (None: the typed one).

    With `--resume` and no settings it is the study recorded in the folder, and its command is made from the recorded
    settings, which the typed command does not name. `--model my_net.py:Net` is then no setting, but names the code of
    the recorded network.
    """
    from dlx.api.studies import one_network
    from dlx.cli.repeat_commands import train_command
    from dlx.cli.resuming import names_code_alone, with_recorded_code
    from dlx.execution.planning.plan import load_study

    if options.resume and options.fresh:
        raise SettingError("--resume and --fresh cannot be combined: use one of them")
    if options.resume and options.out is not None and (changes_no_setting(options) or names_code_alone(options)):
        study = with_recorded_code(load_study(options.out), options)
        return study, options.out, train_command(study.base.model_dump(mode="json"), study.seeds, options.out)
    return one_network(settings_from(options), seeds_from(options)), options.out, None
