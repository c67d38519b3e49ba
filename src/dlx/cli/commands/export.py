"""`dlx export`: trained networks as ONNX or TorchScript files for other programs."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Folder of a run (a file for each seed and fold), FOLDER:LABEL for a variant of a study, folder of a "
            "trial, or a checkpoint.",
        ),
    ],
    out: Annotated[
        str | None,  # a Path would lose the slash at the end, which makes it a folder
        typer.Option(
            "-o",
            "--out",
            metavar="PATH",
            help="File, or folder of files that are named after the trials.",
            show_default="beside the checkpoint",
        ),
    ] = None,
    file_format: Annotated[
        Literal["onnx", "torchscript"], typer.Option("--format", help="Kind of file: .onnx, or .pt for libtorch.")
    ] = "onnx",
    checkpoint: Annotated[
        Literal["last", "best"] | None,
        typer.Option(
            help="Checkpoint of each trial: after the last epoch, or of the best validated one. If given, trials that "
            "have not finished are exported too.",
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
    opset: Annotated[int, typer.Option(help="ONNX: version of the operator set, 18 to 23.")] = 18,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "-i",
            "--images",
            metavar="IMAGES",
            help="Image file or folder on which the labels of file and network are compared; repeatable.",
            show_default="up to 3 cases of the run's data",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that dlx export did not write.")
    ] = False,
) -> None:
    """Write the trained network of a run as a file for other programs, with its preparation beside it as .json.

    The file is compared with the network before it is kept. docs/export.md shows how to use it without dlx.
    """
    from dlx.cli.output.exporting import print_exported, working
    from dlx.cli.output.prediction import print_notes
    from dlx.exporting.export import plan_exports

    plan = plan_exports(
        run,
        out,
        format=file_format,
        checkpoint=checkpoint,
        model=model or (),
        opset=opset,
        images=images or (),
        overwrite=overwrite,
    )
    print_notes(plan.remarks)
    for one in plan.checkpoints:
        with working(f"exporting {one.name}"):
            exported = plan.export(one)
        print_exported(exported)
