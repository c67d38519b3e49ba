import errno
import fcntl
import subprocess
import sys

import pytest

from dlx.records.folder import TrialFolder
from dlx.records.schema import EpochRecord, EpochRun
from dlx.study.results import EpochResult
from dlx.system.errors import DataError
from dlx.system.files import read_json, replacing, write_atomically, write_json


def record(epoch, loss=0.1):
    result = EpochResult(epoch=epoch, lr={"all": 0.1 + 0.2}, loss=loss, val_dice=1 / 3)
    return EpochRecord(result=result, run=EpochRun(train_s=1.5, evaluate_s=0.25))


@pytest.fixture
def folder(tmp_path):
    folder = TrialFolder(tmp_path, "unet2: p=0.1/x", 3, "0123456789abcdef")
    folder.begin({"seed": 3})
    return folder


def test_a_trials_folder_has_a_name_that_every_file_system_takes(folder):
    assert folder.path.name == "unet2-p=0.1-x-seed3-01234567"


def test_epochs_read_back_bit_for_bit(folder):
    written = [record(epoch, loss=0.1 * epoch) for epoch in (1, 2, 3)]
    for line in written:
        folder.append(line)
    assert folder.epochs() == written
    assert folder.epochs()[0].result.lr["all"] == 0.30000000000000004


def test_a_line_cut_short_by_a_kill_is_left_out(folder):
    folder.append(record(1))
    with (folder.path / "epochs.jsonl").open("ab") as file:
        file.write(b'{"result": {"epo')
    assert [line.result.epoch for line in folder.epochs()] == [1]


def test_restoring_makes_the_records_those_of_the_checkpoint_whatever_was_there(folder):
    for epoch in (1, 2, 3):
        folder.append(record(epoch))
    with (folder.path / "epochs.jsonl").open("ab") as file:
        file.write(b'garbage\n{"resu')
    folder.restore([record(1), record(2)])
    folder.append(record(3))
    assert [line.result.epoch for line in folder.epochs()] == [1, 2, 3]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_refused_with_its_line(folder, number):
    folder.append(record(1))
    path = folder.path / "epochs.jsonl"
    path.write_text(path.read_text().replace('"train_s":1.5', f'"train_s":{number}'))
    with pytest.raises(DataError, match=rf"epochs\.jsonl: line 1\b.*{number}"):
        folder.epochs()


def test_a_damaged_record_names_the_field(folder):
    folder.append(record(1))
    path = folder.path / "epochs.jsonl"
    path.write_text(path.read_text().replace('"train_s":1.5', '"train":1.5'))
    with pytest.raises(DataError, match=r"line 1\b.*run\.train"):
        folder.epochs()


def test_a_damaged_record_is_refused_with_its_line(folder):
    folder.append(record(1))
    with (folder.path / "epochs.jsonl").open("ab") as file:
        file.write(b"garbage\n")
    with pytest.raises(DataError, match=r"epochs\.jsonl: line 2\b"):
        folder.epochs()


def test_a_record_that_cannot_be_read_is_not_taken_for_a_missing_one(folder):
    (folder.path / "result.json").mkdir(parents=True)
    with pytest.raises(OSError, match=r"result\.json"):
        folder.result()


@pytest.mark.slow
def test_a_trial_is_run_by_one_process_at_a_time(folder):
    with folder.locked(), pytest.raises(DataError, match="another process"), folder.locked():
        pass
    with folder.locked():
        pass


def test_a_lock_that_the_file_system_refuses_is_not_taken_for_another_process(folder, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(OSError, match="No locks available") as caught, folder.locked():
        pass
    assert (caught.value.errno, caught.value.filename) == (errno.ENOLCK, str(folder.path / ".lock"))


def test_a_killed_process_leaves_no_lock_and_its_temporary_files_are_removed(folder):
    folder.append(record(1))
    kept = {".lock", *(path.name for path in folder.path.iterdir())}
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(folder.path.parents[1])], check=False)
    assert killed.returncode == -9
    assert len(list(folder.path.iterdir())) == len(kept) + 1
    with folder.locked():
        assert {path.name for path in folder.path.iterdir()} == kept


KILLED_WRITER = """
import os, sys
from pathlib import Path
from dlx.records.folder import TrialFolder
from dlx.system.files import replacing
folder = TrialFolder(Path(sys.argv[1]), "unet2", 3, "0123456789abcdef")
with folder.locked(), replacing(folder.last) as file:
    file.write(b"half")
    os.kill(os.getpid(), 9)
"""


def test_a_trial_that_starts_again_keeps_nothing_of_the_earlier_attempt(folder):
    folder.append(record(1))
    for path in (folder.last, folder.best, folder.error):
        path.write_bytes(b"x")
    folder.clear()
    assert [path.name for path in folder.path.iterdir()] == ["settings.json"]


def test_an_atomic_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def no_space(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    with pytest.raises(OSError, match="No space left"), replacing(path, tmp_path / "part") as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(DataError, match=r"b.json: not valid JSON"):
        read_json(tmp_path / "b.json")
