"""The files that `dlx evaluate` writes: summary.json and cases.csv of each set of predictions, and comparison.json."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dlx
from dlx.evaluation.evaluate import Evaluation
from dlx.report.files.csv_tables import ValueTable
from dlx.report.predictions.comparison import SetComparison
from dlx.report.predictions.document import COLUMNS, comparison_entry, scores_table, set_summary
from dlx.system.errors import SettingError
from dlx.system.files import write_atomically, write_json
from dlx.system.own_files import is_own_json

SUMMARY, TABLE, COMPARISON = "summary.json", "cases.csv", "comparison.json"
ELSEWHERE = "-o FOLDER writes the results elsewhere"


@dataclass(frozen=True)
class Places:
    """Where results go: the folder of each set by its label, and one for all of them together; None: nowhere."""

    of_sets: Mapping[str, Path]
    together: Path | None

    @classmethod
    def choose(cls, sets: Mapping[str, Path], out: Path | None) -> "Places":
        """In `out`, in which several sets have a folder each; else in the folder of each set.

        The predictions of single files are written nowhere, unless `out` is given.
        """
        if out is None:
            return cls({label: path for label, path in sets.items() if path.is_dir()}, None)
        if len(sets) == 1:
            return cls(dict.fromkeys(sets, out), None)
        return cls({label: out / label for label in sets}, out)

    def check(self) -> None:
        """SettingError if a folder cannot be written, or holds a file of the same name that dlx did not write."""
        for folder in filter(None, (*self.of_sets.values(), self.together)):
            _check_can_write(folder)
            for name in (SUMMARY, COMPARISON):
                if (folder / name).exists() and not is_own_json(folder / name):
                    raise SettingError(f"{folder / name}: was not written by dlx evaluate and is kept; {ELSEWHERE}")
            if (folder / TABLE).exists() and not _is_own_table(folder / TABLE):
                raise SettingError(f"{folder / TABLE}: was not written by dlx evaluate and is kept; {ELSEWHERE}")


def _check_can_write(folder: Path) -> None:
    """SettingError unless files can be written in a folder, or in the nearest one above it that exists."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise SettingError(f"{folder}: {existing} is a file, not a folder; {ELSEWHERE}")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise SettingError(f"{folder}: cannot be written: {error.strerror or error}; {ELSEWHERE}") from error


def _is_own_table(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline(1000).strip() == ",".join(f'"{name}"' for name in COLUMNS)
    except OSError:
        return False


def write_evaluation(
    places: Places, evaluation: Evaluation, compared: Sequence[SetComparison], persons: Mapping[str, str]
) -> list[Path]:
    """Writes the results; returns the paths.

    The folder of a set of which some predictions were left out, because another set lacks them, gets none: results of
    all its cases may be there.
    """
    written = []
    for one in evaluation.sets:
        folder = places.of_sets.get(one.predictions.label)
        is_partial = any(case in one.predictions.files for case in evaluation.left_out)
        if folder is not None and not (is_partial and places.together is None):
            write_json(folder / SUMMARY, set_summary(evaluation, one))
            written.append(folder / SUMMARY)
            if places.together is None:
                written.append(_write_table(folder, scores_table(evaluation, [one], persons)))
    if places.together is not None:
        document = {"comparisons": [comparison_entry(evaluation, found) for found in compared]}
        written.append(places.together / COMPARISON)
        write_json(written[-1], document | {"written_by": f"dlx {dlx.__version__}"})
        written.append(_write_table(places.together, scores_table(evaluation, evaluation.sets, persons)))
    return written


def _write_table(folder: Path, table: ValueTable) -> Path:
    write_atomically(folder / TABLE, table.csv().encode(errors="backslashreplace"))
    return folder / TABLE
