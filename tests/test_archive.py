"""Records that leave their machine, and records of several places as one."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dlx.records.archive import StudyRecords, portable, read_study, with_looks, write_archive
from dlx.records.folder import StudyFolder
from dlx.records.merge import merge_studies
from dlx.records.schema import TrialEntry
from dlx.system.errors import DataError
from made_records import made_look, made_study

A, B = Path("a"), Path("b")


def with_settings(records, **settings):
    """The same records, their trials of these settings."""
    trials = tuple(
        t if t.record is None else replace(t, record=t.record.model_copy(update={"settings": settings}))
        for t in records.trials
    )
    return StudyRecords(records.header, trials, records.looks)


def test_records_read_back_as_they_were_written(tmp_path):
    records = made_study()
    write_archive(tmp_path / "made.jsonl", records)
    assert read_study(tmp_path / "made.jsonl") == records


def test_portable_records_contain_no_local_path():
    settings = {
        "data": {"source": {"name": "folder", "args": {"path": "/home/me/scans"}}},
        "split": {"file": "~/splits_final.json", "groups": "../there/groups.json", "val": None},
        "train": {"init_from": "/scratch/best.safetensors", "epochs": 3},
        "loss": [{"name": "dice", "args": {}}],
    }
    command = (
        "dlx run study.toml --data /home/me/scans --set data.source=folder:path=/home/me/scans --out=../../runs/x "
        """--set 'data.source={"name": "folder", "path": "/home/me/my scans"}' --p 0.1..0.8 --cache-dir runs/cache"""
    )
    records = portable(
        with_settings(made_study(settings=settings, command=command), init_from="/home/me/x.safetensors")
    )
    assert records.header.settings == {
        "data": {"source": {"name": "folder", "args": {"path": "scans"}}},
        "split": {"file": "splits_final.json", "groups": "groups.json", "val": None},
        "train": {"init_from": "best.safetensors", "epochs": 3},
        "loss": [{"name": "dice", "args": {}}],
    }
    assert records.header.command == (
        "dlx run study.toml --data scans --set data.source=folder:path=scans --out=x "
        """--set 'data.source={"name": "folder", "path": "my scans"}' --p 0.1..0.8 --cache-dir runs/cache"""
    )
    assert records.trials[0].record.settings == {"init_from": "x.safetensors"}
    assert records.trials[0].record.run.host == ""


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (r"C:\data\scans", "scans"),
        ("C:/data/scans", "scans"),
        (r"\\server\share\scans", "scans"),
        (r"..\scans", "scans"),
        (r"~\scans", "scans"),
        ("/data/my\\scans", "my\\scans"),  # a backslash in a POSIX name
        ("data/scans", "data/scans"),
        (r"data\scans", r"data\scans"),
        ("percentile:over=all", "percentile:over=all"),
    ],
)
def test_paths_of_windows_and_posix_are_local_if_absolute_in_a_home_folder_or_above(path, name):
    records = portable(made_study(settings={"data": {"path": path}}))
    assert records.header.settings == {"data": {"path": name}}


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_an_archive_with_a_number_that_is_not_finite_is_refused(tmp_path, number):
    write_archive(tmp_path / "a.jsonl", made_study())
    text = (tmp_path / "a.jsonl").read_text()
    spoiled = re.sub(r'"seconds": [0-9.]+', f'"seconds": {number}', text)
    assert spoiled != text
    (tmp_path / "a.jsonl").write_text(spoiled)
    with pytest.raises(DataError, match=rf"a\.jsonl: .*{number}"):
        read_study(tmp_path / "a.jsonl")


def test_of_a_trial_that_two_folders_have_the_finished_one_is_taken():
    done, failed = made_study(), made_study(diverged=[("p=0", 1)])
    for both in ([(A, failed), (B, done)], [(A, done), (B, failed)]):
        assert {t.record.status for t in merge_studies(both).trials} == {"done"}


def test_of_two_unfinished_trials_the_one_with_more_epochs_is_taken():
    place = ("p=0", 1)
    few, many = made_study(running={place: 2}), made_study(running={place: 7})
    for both in ([(A, few), (B, many)], [(A, many), (B, few)]):
        (unfinished,) = [t for t in merge_studies(both).trials if t.record is None]
        assert len(unfinished.epochs) == 7


def test_folders_with_other_seeds_of_other_settings_do_not_merge():
    settings = {"model": {"name": "unet2"}, "optimizer": {"lr": 0.01}, "compute": {"device": "cpu", "threads": 1}}
    ours = with_settings(made_study(seeds=[0, 1]), **settings)
    other = with_settings(made_study(seeds=[2, 3]), **settings | {"optimizer": {"lr": 0.02}})
    with_gpu = with_settings(made_study(seeds=[2, 3]), **settings | {"compute": {"device": "cuda", "threads": None}})
    with pytest.raises(DataError, match=r"b: 'p=0' has other settings there: optimizer.lr: 0.01 -> 0.02"):
        merge_studies([(A, ours), (B, other)])
    assert merge_studies([(A, ours), (B, with_gpu)]).header.seeds == (0, 1, 2, 3)


def test_looks_of_the_same_second_have_one_order():
    looks = [made_look(3), made_look(5).model_copy(update={"shown_utc": made_look(3).shown_utc})]
    records = made_study()
    assert len(with_looks(records, looks).looks) == 2
    assert with_looks(records, looks) == with_looks(records, looks[::-1])


def test_looks_of_an_archive_outlive_its_replacement(tmp_path):
    path = tmp_path / "made.jsonl"
    early, late = made_look(3), made_look(5)
    records = made_study(looks=[late])
    assert with_looks(records, []) == records
    write_archive(path, made_study(looks=[early]))
    write_archive(path, with_looks(records, read_study(path).looks))
    assert read_study(path).looks == (early, late)
    assert with_looks(read_study(path), read_study(path).looks) == read_study(path)


CLAIM = {"text": "p = 0.1 is best", "kind": "best", "metric": "val_dice", "variant": "p=0.1"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metric": "val_dcie"}, "unknown metric 'val_dcie': did you mean 'val_dice'"),
        ({"control": "p=9"}, "control 'p=9'"),
        ({"smallest_effect": 0.0}, "smallest_effect: 0.0 .*expected more than 0"),
        ({"claims": (CLAIM | {"kind": "bst"},)}, "claims: kind"),
        ({"claims": (CLAIM | {"variant": "p=9"},)}, "no variant 'p=9'"),
        ({"claims": (CLAIM | {"kind": "falls", "axis": "width"},)}, "axis must be one of dropout.p"),
        ({"trials": (TrialEntry(trial="x", label="p=9", seed=0),)}, "trial x: 'p=9'"),
    ],
)
def test_a_header_that_names_unknown_variants_or_metrics_is_refused(tmp_path, changes, words):
    records = made_study()
    bad = StudyRecords(records.header.model_copy(update=changes), (), ())
    write_archive(tmp_path / "made.jsonl", bad)
    StudyFolder(tmp_path).write_header(bad.header)
    for path in (tmp_path / "made.jsonl", tmp_path):
        with pytest.raises(DataError, match=f"{path}: .*{words}") as refusal:
            read_study(path)
        assert "\n" not in str(refusal.value)


def test_an_archive_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "deep.jsonl").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"deep.jsonl: not the records"):
        read_study(tmp_path / "deep.jsonl")
