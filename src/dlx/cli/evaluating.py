"""The steps of `dlx evaluate` before its results: sets of predictions from options, their files, and measuring them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from dlx.cli.output.console import note, notes
from dlx.cli.output.evaluation_outcome import print_evaluation_head
from dlx.cli.output.reading_bar import reading_bar
from dlx.cli.parsing import spell_stop
from dlx.evaluation.evaluate import Evaluation, Rules, evaluate
from dlx.evaluation.labels import find_table
from dlx.evaluation.pairs import Truths, check_complete, find_predictions
from dlx.settings.spec import Geometry
from dlx.system.errors import SettingError
from dlx.system.files import expand_home
from dlx.system.interrupts import exit_code


def parse_sets(texts: Sequence[str]) -> dict[str, Path]:
    """The path of each set of predictions by its name: NAME in NAME=PATH, else the name of the folder or file.

    Raises SettingError for a name that is empty, no name for a folder, or given twice.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        if not equals or Path(expand_home(text)).exists():
            name, rest = "", text
        path = Path(expand_home(rest))
        name = name or path.name or path.resolve().name
        if name in ("", ".", "..") or "/" in name or not name.isprintable():
            raise SettingError(f"-p {text}: {name!r} cannot name a set of predictions; give one: -p NAME={path}")
        if name in found:
            raise SettingError(f"-p {text}: another set is named {name!r} too; give it a name: -p NAME={path}")
        found[name] = path
    return found


def positive(option: str, given: float | None, default: float) -> float:
    """The value of an option, which must be above 0; SettingError if it is not."""
    value = default if given is None else given
    if not (math.isfinite(value) and value > 0):
        raise SettingError(f"{option} {value:g}: expected a number above 0")
    return value


def evaluate_sets(
    paths: Mapping[str, Path],
    truths: Truths,
    labels: str | None,
    tolerance_mm: float,
    geometry: Geometry,
    *,
    allow_missing: bool,
    quiet: bool,
) -> Evaluation:
    """Finds the files, prints what is measured, and measures it with a progress bar; a stop exits with its code."""
    sets = [find_predictions(label, path, truths) for label, path in paths.items()]
    if not allow_missing:
        check_complete(sets, truths)
    rules = Rules(find_table(truths, sets, labels), tolerance_mm, geometry)
    if not quiet:
        print_evaluation_head(truths, sets, rules.table)
    try:
        with reading_bar(notes(), quiet=quiet, what="measuring cases") as progress:
            return evaluate(truths, sets, rules, progress)
    except KeyboardInterrupt as stop:
        note(f"{spell_stop(stop)}; nothing was written")
        raise typer.Exit(exit_code(stop)) from None
