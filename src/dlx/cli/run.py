"""`dlx run`: runs a study that a TOML file describes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlx.cli.options import StudyOptions, takes_options
from dlx.cli.settings_from_options import add_command_line_layers, changes_no_setting, seeds_from
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
    from dlx.cli.console import note
    from dlx.cli.running import run_study, with_one_thread
    from dlx.settings.layers import merge, read_recipe, read_toml
    from dlx.study.study import read_study_file, study_from_file

    study_file = read_study_file(read_toml(file), file)
    recipe = read_recipe(options.recipe or study_file.recipe)
    settings = with_one_thread(merge(*add_command_line_layers(options, recipe, study_file.base)))
    changes: dict[str, object] = {}
    if options.seeds is not None or options.seed is not None:
        changes["seeds"] = seeds_from(options)
    if options.smallest_effect is not None:
        changes["smallest_effect"] = options.smallest_effect
    try:
        study = study_from_file(study_file, file.stem, settings, **changes)
    except SettingError as error:
        raise SettingError(f"{file}: {error}" if changes_no_setting(options) else str(error)) from None
    folder, beside = Path("runs") / file.stem, file.with_suffix("")
    if is_unchanged(study_file, file.stem, study):
        run_study(study, folder, options, beside=beside)
        return
    if not options.dry_run:
        place = options.out or folder
        note(f"note     these options change the study of {file}: records and report are written to {place} only")
    run_study(study, folder, options)


def is_unchanged(file: "StudyFile", name: str, study: "Study") -> bool:
    """True if the options left the study as its file describes it."""
    from dlx.cli.running import with_one_thread
    from dlx.settings.layers import merge, read_recipe
    from dlx.study.study import study_from_file

    try:
        plain = study_from_file(file, name, with_one_thread(merge(read_recipe(file.recipe), file.base)))
    except SettingError:  # without the options the file is incomplete
        return False
    return plain == study
