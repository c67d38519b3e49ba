"""epochs.csv: a row for each epoch of each trial, with the values of the records."""

import csv
import io
from dataclasses import replace

import pytest

from dlx.records.archive import portable, read_study, write_archive
from dlx.report.files.epochs_csv import epochs_table
from dlx.report.files.writing import write_tables
from made_records import made_study, write_folder

COLUMNS = (
    "study,variant,seed,fold,trial,epoch,loss,train_soft_dice_running,train_dice_subset,val_dice,gap_subset,"
    "val_soft_dice,train_seconds,evaluate_seconds,lr,val_dice:csf,val_dice:grey matter"
)


def rows_of(records):
    return list(csv.DictReader(io.StringIO(epochs_table(records).csv(), newline="")))


def with_rates(records, **rates):
    """The records with these rates of parameter groups in every epoch."""
    trials = []
    for trial in records.trials:
        results = [epoch.result.model_copy(update={"lr": rates}) for epoch in trial.epochs]
        epochs = tuple(e.model_copy(update={"result": r}) for e, r in zip(trial.epochs, results, strict=True))
        trials.append(replace(trial, epochs=epochs))
    return replace(records, trials=tuple(trials))


def test_each_epoch_of_each_trial_has_a_row_with_all_digits_of_its_record():
    records = made_study(seeds=[0, 1], epochs=4, diverged=[("p=0.1", 0)], running={("p=0.1", 1): 3})
    rows = rows_of(records)
    assert ",".join(rows[0]) == COLUMNS
    assert [(row["variant"], row["seed"], row["epoch"]) for row in rows] == [
        *(("p=0", "0", str(epoch)) for epoch in (1, 2, 3, 4)),
        *(("p=0", "1", str(epoch)) for epoch in (1, 2, 3, 4)),
        *(("p=0.1", "0", str(epoch)) for epoch in (1, 2)),  # it diverged in the third part
        *(("p=0.1", "1", str(epoch)) for epoch in (1, 2, 3)),
    ]
    last = next(t for t in records.trials if (t.entry.label, t.entry.seed) == ("p=0.1", 1)).epochs[-1]
    row = rows[-1]
    assert row["trial"] == "p=0.1 1"
    assert float(row["loss"]) == last.result.loss
    assert float(row["val_dice"]) == last.result.val_dice
    assert float(row["gap_subset"]) == last.result.train_dice_subset - last.result.val_dice
    assert float(row["val_dice:grey matter"]) == last.result.val_dice_per_class["grey matter"]
    assert (row["lr"], row["train_seconds"], row["evaluate_seconds"]) == ("0.001", "1.5", "0.5")
    assert row["val_soft_dice"] == ""


def test_what_an_epoch_did_not_measure_is_an_empty_cell():
    first, second = rows_of(made_study(seeds=[0], epochs=2, every=2))[:2]
    assert (first["val_dice"], first["val_dice:csf"], first["gap_subset"]) == ("", "", "")
    assert second["val_dice"] != ""


def test_one_rate_of_all_groups_is_one_column_and_unlike_rates_have_one_each():
    records = made_study(seeds=[0], epochs=1)
    assert {row["lr"] for row in rows_of(with_rates(records, encoder=0.1, decoder=0.1))} == {"0.1"}
    rows = rows_of(with_rates(records, encoder=0.1, decoder=0.01))
    assert "lr" not in rows[0]
    assert {(row["lr:encoder"], row["lr:decoder"]) for row in rows} == {("0.1", "0.01")}


def test_a_study_without_an_epoch_has_the_columns_alone():
    records = made_study(seeds=[0], epochs=2, running={("p=0", 0): 0, ("p=0.1", 0): 0})
    assert epochs_table(records).csv().count("\n") == 1


def test_folder_and_archive_give_the_same_file(tmp_path):
    records = made_study(seeds=[0, 1], running={("p=0.1", 1): 2})
    write_folder(tmp_path / "run", records)
    write_archive(tmp_path / "run.jsonl", portable(records))
    *_, own = write_tables(tmp_path / "run" / "report", read_study(tmp_path / "run"))
    *_, beside = write_tables(tmp_path / "run", read_study(tmp_path / "run.jsonl"))
    assert (own.name, beside.name) == ("epochs.csv", "run-epochs.csv")
    assert own.read_bytes() == beside.read_bytes() == epochs_table(records).csv().encode()


def test_pandas_draws_curves_from_it(tmp_path):
    pandas = pytest.importorskip("pandas")
    records = made_study(seeds=[0, 1], epochs=3)
    *_, path = write_tables(tmp_path / "made", records)
    curves = pandas.read_csv(path).pivot_table(index="epoch", columns="variant", values="val_dice")
    by_hand = [trial.epochs[1].result.val_dice for trial in records.trials if trial.entry.label == "p=0.1"]
    assert curves.loc[2, "p=0.1"] == pytest.approx(sum(by_hand) / 2)
