"""`dlx train --resume RUN`: which folder is resumed, and whether its run is trained longer."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dlx.cli.options import TrainOptions, spell_option
from dlx.cli.parsing import with_resumed_run
from dlx.cli.settings_from_options import changes_no_setting, given_settings
from dlx.system.errors import SettingError
from dlx.system.shell import shell_command

if TYPE_CHECKING:
    from dlx.execution.longer import LongerStudy
    from dlx.study.study import Study


def resumed(options: TrainOptions) -> "tuple[TrainOptions, LongerStudy | None]":
    """The options with the folder of `--resume RUN` as `out`, and the longer study if `--epochs` asks for more epochs
    than the run has.

    `--resume RUN` is `--resume --out RUN`. Only a run that is trained longer may be recorded in another folder.
    """
    run = options.resume_run or options.out
    if not options.resume or run is None:
        return options, None
    if options.fresh:
        raise SettingError("--resume and --fresh cannot be combined: use one of them")
    recorded = None if options.epochs is None else _recorded_epochs(run)
    if recorded is not None and options.epochs not in (None, recorded):
        return replace(options, out=options.out or run), _longer(options, run, recorded)
    if options.out not in (None, run):
        raise SettingError(
            f"--resume {run} --out {options.out}: a run is resumed in its own folder; only one that is trained longer "
            "(--epochs) may be recorded in another"
        )
    options = replace(options, out=run)
    is_as_recorded = changes_no_setting(replace(options, epochs=None))
    return (replace(options, epochs=None) if is_as_recorded else options), None


def _recorded_epochs(run: Path) -> int | None:
    """The epochs of the run in a folder; None if it has none, or several variants."""
    from dlx.records.folder import StudyFolder

    header = StudyFolder(run).header()
    return None if header is None or len(header.variants) > 1 else header.epochs


def _longer(options: TrainOptions, run: Path, recorded: int) -> "LongerStudy":
    from dlx.execution.longer import lengthen

    others = [spell_option(name) for name in given_settings(options) if name != "epochs"]
    if others:
        raise SettingError(
            f"--resume {run} --epochs {options.epochs}: trains the run, of {recorded} epochs, longer with its own "
            f"settings; leave out {', '.join(others)}"
        )
    assert options.epochs is not None  # it differs from the recorded number
    return lengthen(run, options.epochs)


def command_of(options: TrainOptions, study: "Study", longer: "LongerStudy | None", command: str | None) -> str | None:
    """The command to record of a study, `command` unless it is resumed by `--resume RUN`; None: the typed one.

    A run that is trained longer and equals one from the start has the command of the latter.
    """
    from dlx.cli.repeat_commands import train_command
    from dlx.records.folder import StudyFolder

    if longer is not None:
        assert options.out is not None  # set by `resumed`
        settings = study.base.model_dump(mode="json")
        return None if study.continued is not None else train_command(settings, study.seeds, options.out)
    if study.continued is not None and options.out is not None:
        header = StudyFolder(options.out).header()
        return None if header is None else header.command
    if command is not None or options.resume_run is None:
        return command
    words = ["--out" if word == "--resume-run" else word for word in with_resumed_run(sys.argv[1:])]
    return shell_command(["dlx", *words])


def remarks_on_start(study: "Study", longer: "LongerStudy | None") -> tuple[str, ...]:
    """What the user is told of a study whose trials continue others."""
    if longer is not None:
        return (longer.remark,)
    if study.continued is None:
        return ()
    return (f"continues another run after epoch {study.continued.epoch} (train.continue_from)",)
