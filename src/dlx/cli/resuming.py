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
    from dlx.execution.planning.longer import LongerStudy
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
    without_epochs = replace(options, epochs=None)
    is_as_recorded = changes_no_setting(without_epochs) or names_code_alone(without_epochs)
    return (without_epochs if is_as_recorded else options), None


def _recorded_epochs(run: Path) -> int | None:
    """The epochs of the run in a folder; None if it has none, or several variants."""
    from dlx.records.folder import StudyFolder

    header = StudyFolder(run).header()
    return None if header is None or len(header.variants) > 1 else header.epochs


def _longer(options: TrainOptions, run: Path, recorded: int) -> "LongerStudy":
    from dlx.execution.planning.longer import lengthen

    own = ("epochs", "model") if names_code_alone(replace(options, epochs=None)) else ("epochs",)
    others = [spell_option(name) for name in given_settings(options, without=own)]
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


def names_code_alone(options: TrainOptions) -> bool:
    """True if `--model` names a network of the user's own, and no other option could change a trial."""
    from dlx.settings.part import Part

    is_own = options.model is not None and Part.model_validate(options.model).is_own
    return is_own and changes_no_setting(options, without=("model",))


def with_recorded_code(study: "Study", options: TrainOptions) -> "Study":
    """A recorded study whose network's code, if it is the user's own, `--model` names. A record never names code that
    is loaded, so it is not trusted as a file of settings may be.
    """
    from dlx.settings.own.names import canonical_name
    from dlx.settings.part import Part
    from dlx.study.own_code import with_code_of_study

    recorded = study.base.model
    if options.trust_code:
        raise SettingError(
            "--trust-code: for settings in TOML files; with --resume name the network: --model FILE.py:Net"
        )
    if options.model is None:
        return with_code_of_study(study, [])
    named = Part.model_validate(options.model)
    if canonical_name(named.name) != recorded.name:
        raise SettingError(f"--model {named.name}: the network in {options.out} is '{recorded.name}'")
    if named.args and named.args != recorded.args:
        raise SettingError(f"--model {named}: the network in {options.out} has other arguments: {recorded}")
    return with_code_of_study(study, [named.name])
