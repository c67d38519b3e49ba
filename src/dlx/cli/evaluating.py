"""The steps of `dlx evaluate` before its results: names of sets from options, and measuring with a progress bar."""

from collections.abc import Sequence
from pathlib import Path

import typer

from dlx.api.evaluations import EvaluatedPredictions, EvaluationPlan, name_sets
from dlx.cli.output.console import note, notes
from dlx.cli.output.evaluation_outcome import print_evaluation_head
from dlx.cli.output.reading_bar import reading_bar
from dlx.cli.parsing import spell_stop
from dlx.system.files import expand_home
from dlx.system.interrupts import exit_code


def parse_sets(texts: Sequence[str]) -> dict[str, Path]:
    """The path of each set of predictions by its name: NAME in NAME=PATH, else the name of the folder or file."""
    pairs = []
    for text in texts:
        name, equals, rest = text.partition("=")
        if not equals or Path(expand_home(text)).exists():
            name, rest = "", text
        pairs.append((name, Path(expand_home(rest))))
    return name_sets(pairs)


def measure_plan(plan: EvaluationPlan, *, quiet: bool) -> EvaluatedPredictions:
    """Prints what is measured, and measures it with a progress bar; a stop exits with its code."""
    if not quiet:
        print_evaluation_head(plan.truths, plan.sets, plan.rules.table)
    try:
        with reading_bar(notes(), quiet=quiet, what="measuring cases") as progress:
            return plan.measure(progress)
    except KeyboardInterrupt as stop:
        note(f"{spell_stop(stop)}; nothing was written")
        raise typer.Exit(exit_code(stop)) from None
