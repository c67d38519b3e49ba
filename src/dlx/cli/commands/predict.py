"""`dlx predict`: label volumes for new scans, by one trained network or the mean of several."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dlx.system.interrupts import exit_code, stop_caught

if TYPE_CHECKING:
    from dlx.prediction.predict import FailedCase, PredictedCase

Tta = Literal["auto", "on", "off"]


def predict(
    images: Annotated[
        list[Path],
        typer.Option(
            "-i",
            "--images",
            metavar="IMAGES",
            help="Image file, or folder of images or of a data set; repeatable. Several channels are files named "
            "CASE_0000, CASE_0001.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="Folder of the label volumes; created if missing.")
    ],
    runs: Annotated[
        list[str],
        typer.Option(
            "-m",
            "--run",
            metavar="RUN",
            help="Folder of a run (all its seeds and folds are averaged), FOLDER:LABEL for a variant of a study, "
            "folder of a trial, or a checkpoint; repeatable.",
        ),
    ],
    checkpoint: Annotated[
        Literal["last", "best"] | None,
        typer.Option(
            help="Checkpoint of each trial: after the last epoch, or of the best validated one. If given, trials that "
            "have not finished are used too.",
            show_default="last",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.py:NAME",
            help="Code of a network of your own that a run was trained with, as it was named there; repeatable.",
        ),
    ] = None,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Write the class probabilities too, as CASE.npz.")
    ] = False,
    tta: Annotated[
        Tta, typer.Option(help="Average predictions over mirrored images: as in training (auto), on or off.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files of other runs, and files that changed since.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")] = False,
) -> None:
    """Predict label volumes for new scans, with one trained network or the mean of several.

    A volume has the format, geometry and name of its image, and the training data's label values.

    The same command goes on where it was stopped.
    """
    from dlx.cli.output.prediction import print_end, print_notes, progress_bar
    from dlx.prediction.predict import check_outcomes, plan_predictions

    plan = plan_predictions(
        images,
        out,
        runs,
        checkpoint=checkpoint,
        model=model or (),
        save_probabilities=save_probabilities,
        tta=tta,
        device=device,
        overwrite=overwrite,
    )
    print_notes(plan.remarks)
    outcomes: list[PredictedCase | FailedCase] = []
    interrupt: KeyboardInterrupt | None = None
    try:
        with progress_bar(quiet=quiet) as progress:
            outcomes.extend(plan.run(progress))
    except KeyboardInterrupt as stop:
        interrupt = stop
        stop_caught()
    print_notes(plan.notes())
    print_end(plan, outcomes, interrupt)
    if interrupt is not None:
        raise typer.Exit(exit_code(interrupt))
    check_outcomes(outcomes)
