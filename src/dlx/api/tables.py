"""The records of a study as tables of pandas, with the columns of its CSV files."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlx.api.arguments import Location, as_path
from dlx.records.archive import StudyRecords, read_study
from dlx.report.files.csv_tables import ValueTable, cases_table, results_table
from dlx.report.files.epochs_csv import epochs_table
from dlx.system.errors import DlxError

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class RecordTables:
    """`results`: a row for each trial. `cases`: a row for each trial, validation case and class. `epochs`: a row for
    each trial and epoch. docs/studies.md and docs/trackers.md describe the columns.
    """

    results: "pandas.DataFrame"
    cases: "pandas.DataFrame"
    epochs: "pandas.DataFrame"


def read_records(folder: Location) -> RecordTables:
    """The records in a study's folder or .jsonl file, finished or not, as tables. Needs pandas (`dlx[pandas]`).

    Raises DataError if the path has no readable records.
    """
    return tables_of_records(read_study(as_path("folder", folder)))


def tables_of_records(records: StudyRecords) -> RecordTables:
    """The tables of records that were read."""
    tables = (results_table(records), cases_table(records), epochs_table(records))
    return RecordTables(*map(as_frame, tables))


def as_frame(table: ValueTable) -> "pandas.DataFrame":
    """A table of pandas; DlxError if pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise DlxError("tables need pandas, which is not installed: pip install 'dlx[pandas]'") from None
    frame = pandas.DataFrame(list(table.rows), columns=list(table.columns))
    empty = [name for name in table.columns if len(frame) and frame[name].isna().all()]
    return frame.astype(dict.fromkeys(empty, float))  # NaN, as in a column where only some values are missing
