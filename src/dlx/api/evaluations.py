"""Measures predicted masks of any tool, as `dlx evaluate` does: a plan, the scores with comparisons, their files."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlx.api.arguments import Location, as_path
from dlx.api.tables import as_frame
from dlx.evaluation.evaluate import Evaluation, Rules
from dlx.evaluation.evaluate import evaluate as measure_sets
from dlx.evaluation.labels import find_table
from dlx.evaluation.pairs import PredictionFiles, Truths, check_complete, find_predictions, find_truths
from dlx.evaluation.persons import persons_of
from dlx.report.predictions.comparison import SetComparison, compare_sets
from dlx.report.predictions.document import evaluation_document, scores_table
from dlx.report.predictions.files import Places, write_evaluation
from dlx.report.predictions.remarks import remarks_on
from dlx.report.terminal.predictions_tables import evaluation_tables
from dlx.report.terminal.tables import TEXT_WIDTH, as_text
from dlx.settings.spec import EvaluateSpec
from dlx.study.study import SMALLEST_EFFECT
from dlx.system.errors import SettingError

if TYPE_CHECKING:
    import pandas

Progress = Callable[[int, int], None]  # cases that are measured, all cases
Predictions = Location | Sequence[Location] | Mapping[str, Location]
Headers = Literal["truth", "strict"]


@dataclass(frozen=True)
class EvaluationPlan:
    """What is measured, and where the results go: all that is known before the first file is read."""

    truths: Truths
    sets: tuple[PredictionFiles, ...]
    rules: Rules
    persons: Mapping[str, str]
    remarks: tuple[str, ...]
    smallest_effect: float
    places: Places

    def measure(self, progress: Progress | None = None) -> "EvaluatedPredictions":
        """Reads and measures all cases; DataError if files cannot be measured. Nothing is written yet."""
        found = measure_sets(self.truths, self.sets, self.rules, progress)
        compared = compare_sets(found, self.persons, self.smallest_effect) if len(self.sets) > 1 else ()
        return EvaluatedPredictions(self, found, compared)


@dataclass(frozen=True)
class EvaluatedPredictions:
    """The scores of predictions, and the files that hold them. `print` shows their tables.

    `comparisons` are of each set of predictions but the first with the first.
    """

    plan: EvaluationPlan = field(repr=False)
    evaluation: Evaluation = field(repr=False)
    comparisons: tuple[SetComparison, ...] = field(repr=False)
    files: tuple[Path, ...] = ()

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the scores must know."""
        return (*self.plan.remarks, *remarks_on(self.evaluation, self.plan.persons))

    @property
    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        return evaluation_document(self.evaluation, self.comparisons, self.remarks)

    @property
    def cases(self) -> "pandas.DataFrame":
        """A row for each set, case and class, with the columns of `cases.csv`. Needs pandas (`dlx[pandas]`)."""
        return as_frame(scores_table(self.evaluation, self.evaluation.sets, self.plan.persons))

    def write(self) -> tuple[Path, ...]:
        """Writes `summary.json` and `cases.csv` of each set, and `comparison.json` of several."""
        return tuple(write_evaluation(self.plan.places, self.evaluation, self.comparisons, self.plan.persons))

    def tables(self, *, per_case: bool = False) -> list[Any]:
        """The tables for a terminal, with the remarks below them; `per_case` shows all cases."""
        plan = self.plan
        return evaluation_tables(
            self.evaluation, self.comparisons, self.remarks, plan.persons, plan.smallest_effect, per_case=per_case
        )

    def __str__(self) -> str:
        return as_text(self.tables(), TEXT_WIDTH)


def evaluate(
    predictions: Predictions,
    truth: Location,
    out: Location | None = None,
    *,
    labels: str | None = None,
    tolerance_mm: float | None = None,
    geometry: Headers = "truth",
    allow_missing: bool = False,
    groups: Location | None = None,
    smallest_effect: float | None = None,
    write: bool = True,
    progress: Progress | None = None,
) -> EvaluatedPredictions:
    """Measures predicted masks, of any tool, against true ones: Dice, HD95 and surface Dice of each case and class.

    `predictions` is a folder of masks or one mask; of several, in a list or by name, the others are compared with the
    first, patient by patient. `truth` is the folder of the true masks, that of a data set, or one mask. `labels`
    chooses what is measured (`"1,2"`, `"liver=1,tumour=2"`), `groups` names the persons of the cases in a JSON file.
    Files are written to `out`, by default into the folders of the predictions, as `dlx evaluate` does, unless `write`
    is False. `progress` is called with the numbers of measured and of all cases. Raises DlxError.
    """
    plan = plan_evaluation(
        name_sets(_as_pairs(predictions)),
        as_path("truth", truth),
        None if out is None else as_path("out", out),
        labels=labels,
        tolerance_mm=tolerance_mm,
        geometry=geometry,
        allow_missing=allow_missing,
        groups=None if groups is None else as_path("groups", groups),
        smallest_effect=smallest_effect,
        has_files=write,
    )
    found = plan.measure(progress)
    return replace(found, files=found.write()) if write else found


def plan_evaluation(
    predictions: Mapping[str, Path],
    truth: Path,
    out: Path | None,
    *,
    labels: str | None,
    tolerance_mm: float | None,
    geometry: Headers,
    allow_missing: bool,
    groups: Path | None,
    smallest_effect: float | None,
    has_files: bool = True,
) -> EvaluationPlan:
    """Finds the files of named sets and checks all that is known by their names; DlxError for what is wrong."""
    if geometry not in ("truth", "strict"):
        raise SettingError(f"--geometry {geometry}: expected truth or strict")
    if not isinstance(labels, str | None):
        raise SettingError(f"--labels: expected a text such as '1,2' (got {labels!r})")
    effect = _positive("--smallest-effect", smallest_effect, SMALLEST_EFFECT)
    tolerance = _positive("--tolerance-mm", tolerance_mm, EvaluateSpec().surface_tolerance_mm)
    truths = find_truths(truth)
    persons, remarks = persons_of(truths, groups)
    places = Places.choose(predictions, out) if has_files else Places({}, None)
    places.check()
    sets = tuple(find_predictions(label, path, truths) for label, path in predictions.items())
    if not allow_missing:
        check_complete(sets, truths)
    rules = Rules(find_table(truths, sets, labels), tolerance, "strict" if geometry == "strict" else "image")
    return EvaluationPlan(truths, sets, rules, persons, remarks, effect, places)


def name_sets(pairs: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """The path of each set of predictions by its name; a set without one has that of its folder or file.

    Raises SettingError for a name that is no name for a folder, or given twice.
    """
    found: dict[str, Path] = {}
    for given, path in pairs:
        name = given or path.name or path.resolve().name
        if name in ("", ".", "..") or "/" in name or not name.isprintable():
            raise SettingError(f"predictions {path}: {name!r} cannot name a set of predictions; give one: NAME={path}")
        if name in found:
            raise SettingError(f"predictions {path}: another set is named {name!r} too; give it a name: NAME={path}")
        found[name] = path
    if not found:
        raise SettingError("predictions: expected a folder of masks or one mask, or several")
    return found


def _as_pairs(predictions: Any) -> list[tuple[str, Path]]:
    if isinstance(predictions, Mapping):
        return [(str(name), as_path("predictions", path)) for name, path in predictions.items()]
    several = [predictions] if isinstance(predictions, str | PathLike) else predictions
    if not isinstance(several, Iterable) or isinstance(several, bytes):
        raise SettingError(f"predictions: expected a path, or several (got {predictions!r})")
    return [("", as_path("predictions", path)) for path in several]


def _positive(option: str, given: Any, default: float) -> float:
    """The value of an option; SettingError unless it is a number above 0."""
    value = default if given is None else given
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and value > 0):
        raise SettingError(f"{option} {f'{value:g}' if is_number else repr(value)}: expected a number above 0")
    return float(value)
