"""`dlx run`: runs a study that a TOML file describes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlx.cli.options import StudyOptions, takes_options
from dlx.cli.settings_from_options import changes_no_setting, seeds_from, settings_from
from dlx.system.errors import SettingError

if TYPE_CHECKING:
    from dlx.study.study import Study, StudyFile


@takes_options(StudyOptions)
def run(
    options: StudyOptions,
    file: Annotated[Path, typer.Argument(help="TOML file with question, base settings, axes, control, seeds, claims.")],
) -> None:
    """Run a study that a TOML file describes; write its records and report beside the file.

    Options override the file's base settings, not its axes. If they change the study, nothing is
    written beside the file.
    """
    from dlx.cli.output.console import note
    from dlx.cli.running import run_study
    from dlx.settings.layers import read_toml
    from dlx.study.study import read_study_file

    study_file = read_study_file(read_toml(file), file)
    try:
        study = study_of(study_file, file.stem, options)
    except SettingError as error:
        raise SettingError(f"{file}: {error}" if changes_no_setting(options) else str(error)) from None
    folder = Path("runs") / file.stem
    if is_unchanged(study_file, file.stem, study):
        run_study(study, folder, options, beside=file.with_suffix(""))
        return
    if not options.dry_run:
        place = options.out or folder
        note(f"note     these options change the study of {file}: records and report are written to {place} only")
    run_study(study, folder, options)


def study_of(file: "StudyFile", name: str, options: StudyOptions) -> "Study":
    """The study of a file, with the settings, seeds, smallest effect and scope that the options change."""
    from dlx.settings.layers import with_one_thread
    from dlx.study.study import study_from_file

    settings = with_one_thread(settings_from(options, file.recipe, file.base))
    changes: dict[str, object] = {}
    if options.seeds is not None or options.seed is not None:
        changes["seeds"] = seeds_from(options)
    if options.smallest_effect is not None:
        changes["smallest_effect"] = options.smallest_effect
    if options.scope is not None:
        changes["scope"] = options.scope
    return study_from_file(file, name, settings, **changes)


def is_unchanged(file: "StudyFile", name: str, study: "Study") -> bool:
    """True if the options left the study as its file describes it."""
    try:
        return study_of(file, name, StudyOptions()) == study
    except SettingError:  # without the options the file is incomplete
        return False
