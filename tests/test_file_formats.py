"""docs/file-formats.md describes every field of every record, every column, and every file that a study writes."""

import json
import re
from itertools import takewhile
from pathlib import Path

import pytest
from safetensors import safe_open

import dlx.prediction.manifest
import dlx.records.archive  # noqa: F401 - likewise
from dlx.data.cache_file import KINDS
from dlx.report.files.csv_tables import CASE_COLUMNS, RESULT_COLUMNS
from dlx.report.files.epochs_csv import EPOCH_COLUMNS
from dlx.study.results import Record
from pages import text_of
from small import SMALL_ARGS

PAGE = text_of("docs/file-formats.md")
RECORDS = {record.__name__: record for record in Record.__subclasses__()}


def first_column(text):
    """The code in the first column of the first table of a text, and the cells of its second column."""
    lines = [line for line in text.splitlines() if line]
    start = next((number for number, line in enumerate(lines) if line.startswith("| ---")), len(lines))
    rows = takewhile(lambda line: line.startswith("|"), lines[start + 1 :])
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    return [name.strip("`") for name, *_ in cells], [meaning for _, meaning, *_ in cells]


def section(title):
    """The text below a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}$(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/file-formats.md: no heading {title!r}"
    return found[1]


@pytest.mark.parametrize("name", RECORDS)
def test_each_field_of_a_record_is_described(name):
    fields, meanings = first_column(section(name))
    assert fields == list(RECORDS[name].model_fields)
    assert all(meanings)


def test_each_column_of_the_csv_files_is_described():
    tables = re.split(r"^`\w+\.csv` has a row", section("`cases.csv`, `results.csv`, `epochs.csv`"), flags=re.MULTILINE)
    columns = [first_column(table)[0] for table in tables[1:]]
    assert columns == [list(CASE_COLUMNS), list(RESULT_COLUMNS), list(EPOCH_COLUMNS)]


def test_each_tensor_of_prepared_data_is_described():
    assert first_column(section("Prepared data"))[0] == list(KINDS)


@pytest.mark.slow
def test_each_file_of_a_study_and_each_key_of_a_checkpoint_is_described(dlx):
    dlx("sweep-dropout", *SMALL_ARGS, "--p", "0.5", "--seeds", "1", "--out", "study")
    study = Path("study")
    names = {path.name for path in study.rglob("*") if path.is_file()}
    assert {"study.json", "result.json"} <= names
    assert sorted(name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", PAGE)) == []
    checkpoint = next(study.rglob("last.safetensors"))
    with safe_open(checkpoint, framework="numpy") as file:
        header = json.loads(file.metadata()["dlx"])
        parts = {name.partition(".")[0] for name in file.keys()}  # noqa: SIM118 - not a dict
    assert sorted(first_column(section("Checkpoints"))[0]) == sorted(header)
    assert all(f"- `{part}." in section("Checkpoints") for part in parts)
