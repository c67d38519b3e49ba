"""`dlx compare-schedulers`: a constant learning rate against torch's schedules, scaled to the length of the run."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlx.cli.options import StudyOptions, takes_options
from dlx.cli.settings_from_options import settings_from

if TYPE_CHECKING:
    from dlx.study.axes import Axis

CONTROL = "constant"
COSINE_PERIODS = 4  # half periods of the second cosine: the rate falls and rises twice, to see whether rising helps


@takes_options(StudyOptions, without=("scheduler",))
def compare_schedulers(
    options: StudyOptions,
    scheduler: Annotated[
        list[str] | None,
        typer.Option(
            "--scheduler",
            help="Schedule to compare, e.g. step:step_size=30,gamma=0.1; repeatable.",
            show_default="all schedules",
        ),
    ] = None,
) -> None:
    """Compare learning-rate schedules with a constant rate, over several seeds.

    --dry-run prints each schedule's formula and plots its rate over the epochs.
    """
    from dlx.cli.running import run_axis_study
    from dlx.settings.layers import make_spec, with_one_thread

    settings = with_one_thread(settings_from(options))
    axis = scheduler_axis(scheduler, make_spec(settings).train.epochs)
    question = "Which learning-rate schedule helps, against a constant rate?"
    run_axis_study("compare-schedulers", question, settings, axis, options, folder_suffix="schedulers")


def scheduler_axis(chosen: list[str] | None, epochs: int) -> "Axis":
    """The control and the chosen schedules, or all of them with defaults that scale with the number of epochs."""
    from dlx.settings.part import Part
    from dlx.settings.registry import PARTS
    from dlx.study.axes import Axis

    if chosen is not None:
        labels = [str(Part.model_validate(text)) for text in chosen]
        return Axis(key="scheduler", values=(CONTROL, *(label for label in labels if label != CONTROL)))
    names = [CONTROL, *(name for name in PARTS["scheduler"] if name != CONTROL)]
    tables: list[dict[str, Any]] = [{"label": name, "scheduler": name} for name in names]
    period = max(1, epochs // COSINE_PERIODS)
    by_group = {"encoder": [[0.0, 0.1]]}  # the encoder at a tenth of the rate; the other groups warm up and decay
    tables += [
        {"label": f"cosine, {COSINE_PERIODS} spans", "scheduler": {"name": "cosine", "t_max": period}},
        {"label": "lambda by group", "scheduler": {"name": "lambda", "groups": by_group}},
    ]
    return Axis(name="scheduler", tables=tuple(tables))
