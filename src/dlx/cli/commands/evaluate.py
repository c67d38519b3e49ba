"""`dlx evaluate`: measures predicted masks against true ones, and compares sets of predictions. Imports no torch."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def evaluate(
    predictions: Annotated[
        list[str],
        typer.Option(
            "--predictions",
            "-p",
            metavar="[NAME=]FOLDER",
            help="Folder of predicted masks, or one mask; repeat it to compare others with the first.",
        ),
    ],
    truth: Annotated[
        Path, typer.Option("--truth", "-t", help="True masks: their folder, a data set's folder, or one mask.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of summary.json and cases.csv.",
            show_default="that of the predictions",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="1,2",
            help="What to measure, by value or name: 1,2 or liver=1,tumour=2; several values of one class: whole=1+2.",
            show_default="dataset.json's labels, else all values in the true masks",
        ),
    ] = None,
    tolerance_mm: Annotated[
        float | None,
        typer.Option(
            "--tolerance-mm",
            help="Distance within which surfaces count as equal in the surface Dice.",
            show_default="1, as in training",
        ),
    ] = None,
    geometry: Annotated[
        Literal["truth", "strict"],
        typer.Option(help="Headers that differ slightly though the voxels correspond: use the true mask's, or refuse."),
    ] = "truth",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Measure the cases that have a prediction if some have none.")
    ] = False,
    groups: Annotated[
        Path | None,
        typer.Option(
            help="JSON file {case: person}, for comparisons.", show_default="groups.json beside the true masks"
        ),
    ] = None,
    smallest_effect: Annotated[
        float | None, typer.Option(help="The smallest difference in Dice that matters to you.", show_default="0.01")
    ] = None,
    per_case: Annotated[bool, typer.Option("--per-case", help="Show every case, not only the hardest.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result, no progress.")] = False,
) -> None:
    """Measure predicted masks, of any tool, against true ones: Dice, HD95 and surface Dice of each case and class.

    Files are matched by name. With several -p the others are compared with the first, patient by
    patient, with a verdict for new patients.
    """
    from dlx.api.evaluations import plan_evaluation
    from dlx.cli.evaluating import measure_plan, parse_sets
    from dlx.cli.output.console import note
    from dlx.cli.output.evaluation_outcome import print_evaluation

    plan = plan_evaluation(
        parse_sets(predictions),
        truth,
        out,
        labels=labels,
        tolerance_mm=tolerance_mm,
        geometry=geometry,
        allow_missing=allow_missing,
        groups=groups,
        smallest_effect=smallest_effect,
    )
    found = measure_plan(plan, quiet=quiet or as_json)
    written: tuple[Path, ...] = ()
    try:
        written = found.write()
    finally:  # a full disk must not hide the result
        print_evaluation(found, as_json=as_json, per_case=per_case)
    if not (quiet or as_json):
        nothing = "nothing (-o FOLDER writes summary.json and cases.csv)"
        note(f"\nwritten:      {', '.join(map(str, written)) or nothing}")
