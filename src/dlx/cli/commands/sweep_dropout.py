"""`dlx sweep-dropout`: compares dropout rates with a control without dropout."""

from typing import Annotated

import typer

from dlx.cli.options import StudyOptions, takes_options
from dlx.cli.settings_from_options import settings_from

PLACES = {"every": "every block"}  # as the question has them; others as they are typed


@takes_options(StudyOptions, without=("dropout", "dropout_kind", "dropout_where"))
def sweep_dropout(
    options: StudyOptions,
    p: Annotated[str, typer.Option("--p", help="Dropout rates: 0.1..0.8, 0.1..0.5:0.05, 0.1,0.3 or a combination.")] = (
        "0.1..0.8"
    ),
    kind: Annotated[
        str, typer.Option("--kind", help="dropout (elements), dropout2d or dropout3d (channels).")
    ] = "dropout",
    where: Annotated[str, typer.Option("--where", help="every (block), decoder or bottleneck.")] = "every",
) -> None:
    """Compare dropout rates with no dropout, over several seeds.

    Running it again with more rates or seeds runs only the trials that are missing.
    """
    from dlx.cli.running import run_axis_study
    from dlx.settings.layers import merge, with_one_thread
    from dlx.settings.part import Part
    from dlx.settings.text import parse_grid
    from dlx.study.axes import Axis

    rates = tuple(rate for rate in parse_grid(p) if rate != 0)
    settings = merge(with_one_thread(settings_from(options)), {"dropout": {"kind": kind, "where": where}})
    axis = Axis(key="dropout.p", values=(0, *rates))
    place = "modules of the network" if Part.model_validate(settings["model"]).is_own else PLACES.get(where, where)
    question = f"Does {kind} ({place}) help, and at which rate?"
    run_axis_study("sweep-dropout", question, settings, axis, options, folder_suffix=f"sweep-{kind}-{where}")
