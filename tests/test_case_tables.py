"""The files for a statistician, cases.csv and results.csv, and the table of the hardest cases."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from dlx.records.archive import StudyRecords, portable, read_study, write_archive
from dlx.report.files.csv_tables import cases_table, results_table
from dlx.report.files.writing import write_tables
from dlx.report.findings.hardest_cases import hardest_cases, shown_variants
from dlx.report.findings.summary import summarize_study
from dlx.report.page.page import make_page
from dlx.report.page.sections import page_content
from dlx.report.wording.rows import hard_case_rows
from dlx.study.results import CaseScores
from made_records import made_study, write_folder

CASE_COLUMNS = "study,variant,seed,fold,case,person,class,dice,hd95,distance_unit,surface_dice"
RESULT_COLUMNS = (
    "study,variant,seed,fold,status,parameters,epochs,train_dice,val_dice,gap,best_epoch,best_val_dice,hd95,"
    "distance_unit,surface_dice,seconds"
)
SUM = 0.1 + 0.2  # 0.30000000000000004: 15 digits would lose the last


def scores(*dice, **others):
    """A case with these Dice of its classes, `a`, `b` and so on."""
    return CaseScores(dice=dict(zip("abcd", dice, strict=False)), **others)


def with_val(records, cases, **changes):
    """The same trials with these validation cases, of all trials or by label and seed; `changes` of the result."""
    trials = []
    for trial in records.trials:
        if trial.record is not None and trial.record.result is not None:
            found = cases.get((trial.entry.label, trial.entry.seed), cases)
            val = trial.record.result.val.model_copy(update={"cases": found})
            result = trial.record.result.model_copy(update={"val": val, **changes})
            trial = replace(trial, record=trial.record.model_copy(update={"result": result}))
        trials.append(trial)
    return replace(records, trials=tuple(trials))


def in_folds(records, num_folds):
    """The same records with each seed's trials as those of one fold, counted from 0."""
    entries = {t.entry.trial: t.entry.model_copy(update={"fold": t.entry.seed % num_folds}) for t in records.trials}
    header = records.header.model_copy(update={"folds": tuple(range(num_folds)), "trials": tuple(entries.values())})
    trials = tuple(replace(trial, entry=entries[trial.entry.trial]) for trial in records.trials)
    return StudyRecords(header, trials, records.looks)


def read_back(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


ONE_CASE = {
    "scan 1": scores(
        SUM, None, hd95_mm={"a": 12.5, "b": None}, surface_dice={"a": 1.0, "b": None}
    ),  # class b is in neither the mask nor the prediction
    "scan 2": scores(0.0, 1e-7),  # surfaces were not measured
}


def test_cases_csv_has_a_row_for_each_variant_run_case_and_class():
    records = with_val(made_study(seeds=[3], persons={"scan 1": "Ann", "scan 2": "Ann"}), ONE_CASE)
    rows = cases_table(records).csv()
    assert rows.replace('"', "").splitlines() == [
        CASE_COLUMNS,
        "made,p=0,3,,scan 1,Ann,a,0.30000000000000004,12.5,mm,1.0",
        "made,p=0,3,,scan 1,Ann,b,,,mm,",
        "made,p=0,3,,scan 2,Ann,a,0.0,,mm,",
        "made,p=0,3,,scan 2,Ann,b,1e-07,,mm,",
        "made,p=0.1,3,,scan 1,Ann,a,0.30000000000000004,12.5,mm,1.0",
        "made,p=0.1,3,,scan 1,Ann,b,,,mm,",
        "made,p=0.1,3,,scan 2,Ann,a,0.0,,mm,",
        "made,p=0.1,3,,scan 2,Ann,b,1e-07,,mm,",
    ]
    assert rows.splitlines()[1].startswith('"made","p=0",3,,"scan 1"')  # text is quoted, numbers are not


def test_a_case_without_a_known_person_is_a_person_of_its_own_and_distances_may_be_pixels():
    records = with_val(made_study({"p=0": (0.9, 0.8)}, seeds=[0]), {"scan": scores(0.5)}, distance_unit="px")
    (row,) = read_back(cases_table(records).csv())
    assert (row["case"], row["person"], row["distance_unit"]) == ("scan", "scan", "px")


def test_folds_are_a_column_and_rows_are_in_their_order():
    records = in_folds(with_val(made_study({"p=0": (0.9, 0.8)}, seeds=[0, 1, 2]), {"scan": scores(0.5)}), 2)
    expected = [("0", "0"), ("0", "2"), ("1", "1")]
    for table in (cases_table(records).csv(), results_table(records).csv()):
        assert [(row["fold"], row["seed"]) for row in read_back(table)] == expected


def test_results_csv_has_a_row_for_each_trial_with_the_values_on_the_axes():
    finals = {("p=0", 0): (0.875, 0.75), ("p=0.1", 0): (0.75, 0.625)}
    rows = results_table(made_study(seeds=[0], finals=finals, epochs=1)).csv().replace('"', "").splitlines()
    assert rows == [
        f"{RESULT_COLUMNS},dropout.p",
        "made,p=0,0,,done,1234,1,0.875,0.75,0.125,1,0.75,2.5,mm,0.75,20.0,0.0",
        "made,p=0.1,0,,done,1234,1,0.75,0.625,0.125,1,0.625,3.75,mm,0.625,20.0,0.1",
    ]


def test_the_mean_of_a_surface_metric_is_missing_if_a_class_has_none():
    records = made_study({"p=0": (0.9, 0.8)}, seeds=[0])
    (trial,) = records.trials
    val = trial.record.result.val.model_copy(update={"hd95_mm_per_class": {"csf": 3.0, "grey matter": None}})
    result = trial.record.result.model_copy(update={"val": val})
    records = replace(records, trials=(replace(trial, record=trial.record.model_copy(update={"result": result})),))
    (row,) = read_back(results_table(records).csv())
    assert row["hd95"] == ""
    assert float(row["surface_dice"]) == pytest.approx(records.trials[0].record.result.val.dice)


def test_trials_without_a_result_are_rows_of_results_csv_alone():
    records = made_study(seeds=[0, 1], diverged=[("p=0.1", 0)], running={("p=0.1", 1): 2}, epochs=9)
    found = {(row["variant"], row["seed"]): row for row in read_back(results_table(records).csv())}
    assert [row["status"] for row in found.values()] == ["done", "done", "diverged", "unfinished"]
    diverged, unfinished = found["p=0.1", "0"], found["p=0.1", "1"]
    measured = ("train_dice", "val_dice", "gap", "best_epoch", "best_val_dice", "hd95", "distance_unit", "surface_dice")
    assert {row[name] for row in (diverged, unfinished) for name in measured} == {""}
    assert [diverged[name] for name in ("parameters", "epochs", "seconds", "dropout.p")] == ["1234", "3", "20.0", "0.1"]
    assert [unfinished[name] for name in ("parameters", "epochs", "seconds", "dropout.p")] == ["", "2", "", "0.1"]
    assert {row["variant"] for row in read_back(cases_table(records).csv())} == {"p=0"}


ODD = ["=1+1", "a,b", 'say "aah"', "@SUM(A1)", "-2", "è scan", "x;y", "' tab\there"]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_read_back_equal(name):
    records = made_study({name: (0.9, 0.8)}, seeds=[0], name=name, persons={name: name}, values={name: name}, axis=name)
    val = {name: CaseScores(dice={name: 0.5})}
    (row,) = read_back(cases_table(with_val(records, val)).csv())
    assert {row[column] for column in ("study", "variant", "case", "person", "class")} == {name}
    (row,) = read_back(results_table(records).csv())
    assert {row["study"], row["variant"], row[name]} == {name}


def test_values_on_an_axis_are_spelled_as_in_labels():
    values = {"p=0": None, "b": True, "c": {"name": "step", "args": {"gamma": 0.1}}, "d": 8, "e": "8", "f": [8, 16]}
    records = made_study(dict.fromkeys(values, (0.9, 0.8)), seeds=[0], values=values, axis="x")
    cells = [line.rpartition(",20.0,")[2] for line in results_table(records).csv().splitlines()[1:]]
    assert cells == ['"none"', "true", '"step:gamma=0.1"', "8", '"8"', '"[8, 16]"']


def test_an_axis_named_as_another_column_gets_a_name_of_its_own():
    records = made_study(seeds=[0], axis="variant")  # axes of tables without a name are called so
    assert results_table(records).csv().splitlines()[0].endswith('"seconds","axis:variant"')


def test_folder_and_archive_give_the_same_bytes(tmp_path):
    records = made_study(seeds=[0, 1], diverged=[("p=0.1", 0)], running={("p=0.1", 1): 2})
    write_folder(tmp_path / "folder", records)
    write_archive(tmp_path / "made.jsonl", portable(records))
    own = write_tables(tmp_path / "folder" / "report", read_study(tmp_path / "folder"))
    assert own == [tmp_path / "folder" / name for name in ("cases.csv", "results.csv", "epochs.csv")]
    beside = write_tables(tmp_path / "made", read_study(tmp_path / "made.jsonl"))
    assert beside == [tmp_path / name for name in ("made-cases.csv", "made-results.csv", "made-epochs.csv")]
    assert [path.read_bytes() for path in own] == [path.read_bytes() for path in beside]
    assert own[0].read_bytes() == cases_table(records).csv().encode()
    assert b"\r" not in own[1].read_bytes()


def test_pandas_reads_both_in_one_line(tmp_path):
    pandas = pytest.importorskip("pandas")
    cases, results, _ = write_tables(tmp_path / "made", with_val(made_study(seeds=[0, 1]), ONE_CASE))
    found = pandas.read_csv(cases)
    assert found.dice.max() == pytest.approx(SUM, rel=1e-15)  # before version 3 pandas may err in the last digit
    assert len(found) == 2 * 2 * 2 * 2
    assert pandas.read_csv(results).groupby("variant").size().to_dict() == {"p=0": 2, "p=0.1": 2}


# Two seeds of the control and of two variants, two classes. Case `odd` has class b in some runs only, so that only its
# class a is compared; `none` has no class in all runs.
HARD = {
    ("p=0", 0): {"odd": scores(0.2, 0.9), "easy": scores(0.9, 0.9), "none": scores(None, 0.1)},
    ("p=0", 1): {"odd": scores(0.4, None), "easy": scores(0.9, 0.7), "none": scores(0.1, None)},
    ("p=0.1", 0): {"odd": scores(0.6, 0.9), "easy": scores(1.0, 0.8), "none": scores(0.1, 0.1)},
    ("p=0.1", 1): {"odd": scores(0.8, 0.9), "easy": scores(1.0, 0.8), "none": scores(0.1, 0.1)},
    ("p=0.2", 0): {"odd": scores(0.1, 0.9), "easy": scores(0.5, 0.5), "none": scores(0.1, 0.1)},
}


def hard_study():
    variants = {"p=0": (0.9, 0.7), "p=0.1": (0.9, 0.8), "p=0.2": (0.9, 0.5)}
    records = made_study(variants, seeds=[0, 1], spread=0.0, diverged=[("p=0.2", 1)])
    return with_val(records, HARD)


def test_the_hardest_cases_worked_out_by_hand():
    summary = summarize_study(hard_study())
    assert [variant.label for variant in shown_variants(summary)] == ["p=0", "p=0.1"]  # the control, the highest other
    odd, easy = hardest_cases(summary)
    assert (odd.case, easy.case) == ("odd", "easy")
    assert odd.mean == pytest.approx((0.3 + 0.7 + 0.1) / 3)  # the mean of the variants' means
    assert easy.mean == pytest.approx((0.85 + 0.9 + 0.5) / 3)
    assert [found.mean for found in odd.of_variants] == pytest.approx([0.3, 0.7])
    assert [found.sd for found in odd.of_variants] == pytest.approx([0.02**0.5, 0.02**0.5])
    (row, _) = hard_case_rows(summary)
    assert (row.name, row.mean, row.spreads) == ("odd", "0.367", ("0.300 ± 0.141", "0.700 ± 0.141"))


def test_the_variant_with_the_highest_mean_is_another_than_the_control_even_if_that_is_higher():
    records = made_study({"p=0": (0.9, 0.9), "p=0.1": (0.9, 0.7), "p=0.2": (0.9, 0.8)}, spread=0.0)
    assert [variant.label for variant in shown_variants(summarize_study(records))] == ["p=0", "p=0.2"]


def test_ten_cases_are_shown_lowest_first_and_equal_ones_in_the_order_of_the_data():
    dice = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.2, 0.95, 0.3]
    records = with_val(made_study(seeds=[0]), {f"case {i}": scores(value) for i, value in enumerate(dice)})
    names = [row.name for row in hard_case_rows(summarize_study(records))]
    assert names == [f"case {i}" for i in (8, 7, 9, 6, 11, 5, 4, 3, 2, 1)]


def test_one_case_alone_is_not_the_hardest():
    records = with_val(made_study(seeds=[0]), {"scan": scores(0.5)})
    assert hard_case_rows(summarize_study(records)) == []
    assert "Hardest" not in make_page(page_content(summarize_study(records), records), None)


def test_the_page_shows_the_hardest_cases():
    records = hard_study()
    section = make_page(page_content(summarize_study(records), records), None).split("## Hardest validation cases")[1]
    titles = "| case | mean of all variants | p=0 (control) | p=0.1 (highest of the others) |"
    assert section.strip().splitlines()[0] == titles
    assert "| odd | 0.367 | 0.300 ± 0.141 | 0.700 ± 0.141 |" in section


def test_the_terminal_shows_the_hardest_cases_only_if_asked(dlx):
    write_archive(Path("made.jsonl"), hard_study())
    assert "hardest" not in dlx("report", "made.jsonl").stdout
    shown = dlx("report", "made.jsonl", "--per-case").stdout
    assert re.search(r"odd +0\.367 ", shown)
    assert Path("made-cases.csv").exists()


def test_a_train_run_leaves_both_files(dlx):
    from small import SMALL_ARGS

    dlx("train", *SMALL_ARGS, "--epochs", "1", "--out", "out")
    (result,) = read_back(Path("out/results.csv").read_text())
    assert result["status"] == "done"
    cases = read_back(Path("out/cases.csv").read_text())
    assert {row["class"] for row in cases} == {"CSF", "GM", "WM"}
    before = Path("out/cases.csv").read_bytes()
    dlx("report", "out")
    assert Path("out/cases.csv").read_bytes() == before
