"""`dlx run`: any study, as a TOML file."""

from pathlib import Path
from typing import Annotated

import typer

from dlx.cli.layers import seeds_from, with_given
from dlx.cli.options import StudyOptions, takes_options


@takes_options(StudyOptions)
def run(
    options: StudyOptions,
    file: Annotated[Path, typer.Argument(help="A study: question, base settings, axes, control, seeds, claims.")],
) -> None:
    """Run a study that a TOML file describes; its records and report are kept beside the file.

    Options go over the file's base settings; its axes stay.
    """
    from dlx.cli.running import run_study, with_one_thread
    from dlx.settings import merge, read_recipe, read_toml
    from dlx.studies import read_study_file, study_from_file

    study_file = read_study_file(read_toml(file), file)
    recipe = read_recipe(options.recipe or study_file.recipe)
    settings = with_one_thread(merge(*with_given(options, recipe, study_file.base)))
    changes: dict[str, object] = {}
    if options.seeds is not None or options.seed is not None:
        changes["seeds"] = seeds_from(options)
    if options.smallest_effect is not None:
        changes["smallest_effect"] = options.smallest_effect
    study = study_from_file(study_file, file.stem, settings, **changes)
    run_study(study, Path("runs") / file.stem, options, archive=file.with_suffix(""))
