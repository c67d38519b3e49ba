"""Measures sets of predictions against the same true masks, case by case."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dlx.data.geometry.pictures import distance_unit
from dlx.data.geometry.same_voxels import check_same_voxels
from dlx.data.layouts.listing import list_some
from dlx.data.notes import FileNote, describe_notes
from dlx.data.volumes.header import Note
from dlx.evaluation.label_volume import MAX_VALUES, LabelVolume, read_labels
from dlx.evaluation.labels import LabelClass, LabelTable
from dlx.evaluation.measure import CaseMeasures, measure
from dlx.evaluation.pairs import PredictionFiles, Truths
from dlx.scoring.means import set_scores
from dlx.settings.spec import Geometry
from dlx.study.results import DistanceUnit, SetScores
from dlx.system.cpu_cores import available_cores
from dlx.system.errors import DataError, files_error

STRICT = "--geometry strict refuses this"


@dataclass(frozen=True)
class EvaluatedSet:
    """The scores of one set of predictions.

    `unknown_values` are label values of predictions that are of no class, each with the number of files that have it.
    """

    predictions: PredictionFiles
    scores: SetScores
    unknown_values: Mapping[int, int]


@dataclass(frozen=True)
class Evaluation:
    """Sets of predictions measured on the same cases, with the same classes.

    `left_out` are the true masks without a prediction in every set. `remarks` are lines for the user.
    """

    truths: Truths
    table: LabelTable
    classes: tuple[LabelClass, ...]
    cases: tuple[str, ...]
    left_out: tuple[str, ...]
    tolerance_mm: float
    unit: DistanceUnit
    sets: tuple[EvaluatedSet, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Rules:
    """How predictions are measured."""

    table: LabelTable
    tolerance_mm: float
    geometry: Geometry = "image"

    @property
    def max_values(self) -> int | None:
        """How many values a mask may have; any number if the user says which of them to measure."""
        return MAX_VALUES if self.table.classes is None or self.table.allowed is not None else None


@dataclass
class _Found:
    """What is collected over the cases; the lists have an entry for each set of predictions."""

    measures: list[list[CaseMeasures]]
    predicted_values: list[Counter[int]]  # with the number of files that have them
    true_values: set[int] = field(default_factory=set)
    spacings: list[tuple[float, float, float]] = field(default_factory=list)
    notes: list[FileNote] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def evaluate(
    truths: Truths,
    sets: Sequence[PredictionFiles],
    rules: Rules,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measures the cases that have a prediction in every set; `progress(done, total)` is called after each case.

    Raises DataError after all cases were tried, with a line for each problem: files that cannot be read, that are no
    masks, or do not lie on the same voxels, and values in true masks that are not declared. In memory are one true
    mask and one prediction, 1 to 4 bytes for each voxel, and what scoring takes (`scoring.surface`).
    """
    cases = tuple(case for case in truths.files if all(case in one.files for one in sets))
    if not cases:
        raise DataError(f"no true mask in {truths.path} has a prediction in each of the {len(sets)} folders")
    found = _Found([[] for _ in sets], [Counter() for _ in sets])
    for done, case in enumerate(cases, 1):
        _measure_case(truths.files[case], [one.files[case] for one in sets], rules, found)
        if progress is not None:
            progress(done, len(cases))
    if found.wrong:
        raise files_error(found.wrong)
    classes = rules.table.classes or tuple(_class_of(value) for value in sorted(found.true_values))
    if not classes:
        raise DataError(f"{truths.path}: no true mask has a label: all voxels are 0")
    _check_any_class(classes, rules.table, found, truths)
    measured = []
    for one, measures, values in zip(sets, found.measures, found.predicted_values, strict=True):
        scores = {case: of.scores(classes) for case, of in zip(cases, measures, strict=True)}
        unknown = _unknown_values(values, classes, rules.table, found.true_values)
        measured.append(EvaluatedSet(one, set_scores(scores, [one.name for one in classes]), unknown))
    return Evaluation(
        truths=truths,
        table=rules.table,
        classes=classes,
        cases=cases,
        left_out=tuple(case for case in truths.files if case not in cases),
        tolerance_mm=rules.tolerance_mm,
        unit=distance_unit([str(truths.files[case]) for case in cases], found.spacings),
        sets=tuple(measured),
        remarks=describe_notes(found.notes, reference="true mask", strict=STRICT),
    )


def _check_any_class(classes: Sequence[LabelClass], table: LabelTable, found: _Found, truths: Truths) -> None:
    """DataError if true masks have labels, but no mask has any of those that the user chose: a probable mistake."""
    seen = found.true_values.union(*found.predicted_values)
    is_chosen = table.classes is not None and table.allowed is None
    if is_chosen and found.true_values and not seen & {value for one in classes for value in one.values}:
        values = list_some([str(value) for value in sorted({value for one in classes for value in one.values})], 5)
        there = list_some([str(value) for value in sorted(found.true_values)], 5)
        raise DataError(
            f"{truths.path}: no mask has a label that --labels chooses ({values}); the true masks have {there}"
        )


def _measure_case(path: Path, files: Sequence[Path], rules: Rules, found: _Found) -> None:
    """Measures the predictions of one case; problems are collected."""
    try:
        truth = read_labels(path, geometry=rules.geometry, max_values=rules.max_values)
        _check_true_values(truth, rules.table, path)
    except DataError as error:
        found.wrong.append(str(error))
        return
    found.true_values |= {*truth.values} - {0}
    found.spacings.append(truth.volume.spacing_mm)
    found.notes += [_of_file(path, note) for note in truth.volume.notes]
    for number, file in enumerate(files):
        try:
            prediction = _read_prediction(file, path, truth, rules, found)
        except DataError as error:
            found.wrong.append(str(error))
            continue
        found.predicted_values[number].update(prediction.values)
        present = sorted({*truth.values, *prediction.values} - {0})
        measures = measure(
            prediction,
            truth,
            rules.table.classes or [_class_of(value) for value in present],
            truth.volume.spacing_mm,
            rules.tolerance_mm,
            ignored_value=rules.table.ignored_value,
            threads=available_cores(),
        )
        found.measures[number].append(measures)


def _read_prediction(file: Path, path: Path, truth: LabelVolume, rules: Rules, found: _Found) -> LabelVolume:
    """A prediction on the voxels of its true mask, which has the `path`; DataError if it lies on others."""
    _check_two_files(file, path)
    prediction = read_labels(file, geometry=rules.geometry, max_values=rules.max_values)
    differences = check_same_voxels(
        truth.volume,
        prediction.volume,
        str(path),
        str(file),
        geometry=rules.geometry,
        kinds=("truth", "prediction"),
        option="--geometry",
    )
    notes = [_of_spacing(note, truth, prediction) for note in differences]
    found.notes += [_of_file(file, note) for note in (*prediction.volume.notes, *notes)]
    return prediction


def _of_spacing(note: Note, truth: LabelVolume, prediction: LabelVolume) -> Note:
    """A note on unlike resolutions of pictures as one on spacings: the true mask's counts."""
    if note.kind != "resolution":
        return note
    ratio = np.divide(prediction.volume.spacing_mm, truth.volume.spacing_mm)
    return Note("spacing", note.detail, float(np.abs(ratio - 1).max()))


def _unknown_values(
    values: Mapping[int, int], classes: Sequence[LabelClass], table: LabelTable, true_values: set[int]
) -> dict[int, int]:
    """The predicted values that are of no class and in no true mask, each with the number of files that have it."""
    known = ({0, *true_values} | (table.allowed or set())) - {table.ignored_value}
    known |= {value for one in classes for value in one.values}
    return {value: values[value] for value in sorted(values) if value not in known}


def _class_of(value: int) -> LabelClass:
    """The class of a label value without a name."""
    return LabelClass(str(value), (value,))


def _check_true_values(truth: LabelVolume, table: LabelTable, path: Path) -> None:
    """DataError if a true mask has values that are not declared, or, if any are allowed and measured, below 0."""
    below = [value for value in truth.values if value < 0]
    if table.allowed is not None:
        strange = [value for value in truth.values if value not in table.allowed]
        if strange:
            raise DataError(
                f"{path}: {_shown(strange)} not declared in {table.source}; declare them there, or choose what is "
                "measured with --labels"
            )
    elif table.classes is None and below:
        raise DataError(f"{path}: not a mask: {_shown(below)} below 0")


def _shown(values: Sequence[int]) -> str:
    """`the label value 7 is`, `the label values 7, 8 and 3 more are`."""
    some = list_some([str(value) for value in values], 5)
    return f"the label value {some} is" if len(values) == 1 else f"the label values {some} are"


def _check_two_files(prediction: Path, truth: Path) -> None:
    """DataError if both are one file, which would be measured against itself."""
    try:
        is_same = prediction.samefile(truth)
    except OSError:
        return  # reading it gives the cause
    if is_same:
        raise DataError(f"{prediction}: prediction and true mask are the same file")


def _of_file(path: Path, note: Note) -> FileNote:
    return FileNote(note.kind, f"{path.parent.name}/{path.name}", note.detail, note.amount)
