"""Machines that lack something: a home folder, shared memory, a writable cache, UTF-8 names, room on the disk."""

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from dlx.execution.trials import stores
from dlx.records.folder import append_line
from dlx.system.errors import DataError, SettingError
from dlx.system.files import expand_home, home_folder, naming, read_json, replacing, write_json
from small import SMALL_ARGS

ONE_EPOCH = ["train", *SMALL_ARGS, "--epochs", "1"]
SWEEP = ["sweep-dropout", "--p", "0.5", *SMALL_ARGS, "--epochs", "1"]


@pytest.fixture
def homeless(monkeypatch):
    """As in a container that is run with a user id which nobody has given a name."""

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "DLX_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_home_folder_a_run_goes_on_without_a_cache_and_says_so(homeless, dlx, monkeypatch):
    monkeypatch.delenv("DLX_CACHE_DIR")  # which the fixture `dlx` sets
    shown = dlx(*ONE_EPOCH).stderr
    assert "not kept" in shown
    assert "HOME" in shown


def test_without_a_home_folder_a_tilde_is_refused_with_its_place(homeless):
    assert home_folder() is None
    with pytest.raises(DataError, match=r"~/x: .*home"):
        expand_home("~/x")


@pytest.mark.parametrize("kind", ["file", "below a file", "read-only", "proc"])
def test_a_cache_that_cannot_be_written_is_a_note(dlx, tmp_path, monkeypatch, kind):
    (tmp_path / "file").touch()
    places = {"file": "file", "below a file": "file/x", "read-only": "/sys/x", "proc": "/proc/self/x"}
    shown = dlx(*ONE_EPOCH, "--cache-dir", places[kind]).stderr
    assert "not kept in the cache" in shown


def test_tildes_are_expanded_in_options_arguments_and_settings(dlx, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    dlx("make-phantom", "~/d", "--subjects", "4", "--size", "16")
    Path("home/c.toml").write_text('data.source = "~/d"\n')
    options = ["--val-fraction", "0.25", "--epochs", "1", "--steps-per-epoch", "1", "--device", "cpu", "--threads", "1"]
    dlx("train", "--config=~/c.toml", *options, "--out=~/r")
    dlx("train", "--data", "folder:path=~/d", *options, "--out=~/r", "--cache-dir=~/cache")
    assert len(list(Path("home/r/trials").iterdir())) == 1
    assert read_json(Path("home/r/study.json"))["settings"]["data"]["source"]["args"]["path"] == str(
        tmp_path / "home/d"
    )
    assert list(Path("home/cache").iterdir())
    assert not Path("~").exists()


def results(folder):
    found = {}
    for path in Path(folder).glob("trials/*/result.json"):
        record = read_json(path)
        epochs = [json.loads(line)["result"] for line in (path.parent / "epochs.jsonl").read_text().splitlines()]
        found[record["trial"]] = (record["result"], epochs)
    return found


@pytest.mark.long
def test_where_shared_memory_is_too_small_trials_run_here_with_the_same_records(dlx, monkeypatch):
    dlx(*SWEEP, "--seeds", "1", "--out", "workers")
    monkeypatch.setattr(stores, "SPARE_BYTES", 1 << 60)
    shown = dlx(*SWEEP, "--seeds", "1", "--out", "here").stderr
    assert "one trial at a time" in shown
    assert "--shm-size" in shown
    assert len(results("here")) == 2
    assert results("here") == results("workers")
    with pytest.raises(SettingError, match=r"--max-parallel 2: .*shared memory"):
        dlx(*SWEEP, "--max-parallel", "2")


def test_seeds_that_run_in_this_process_anyway_need_no_shared_memory(dlx, monkeypatch):
    monkeypatch.setattr(stores, "SPARE_BYTES", 1 << 60)
    assert "shared memory" not in dlx(*ONE_EPOCH, "--seeds", "2", "--max-parallel", "1", "--dry-run").stdout


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch shares memory in files")
def test_a_missing_or_small_place_for_shared_memory_is_known_before_it_is_used(monkeypatch, tmp_path):
    assert stores.lack_of_shared_memory({}) is None
    monkeypatch.setattr(stores, "SHARED_MEMORY", str(tmp_path / "none"))
    assert "is missing" in stores.lack_of_shared_memory({})


def test_data_in_a_folder_whose_name_is_not_utf8_are_refused_in_one_line(dlx):
    name = os.fsdecode(b"caf\xe9")
    with pytest.raises(SettingError, match=r"data\.source: .*caf\\xe9 .*UTF-8"):
        dlx("train", "--data", name, "--epochs", "1")


def test_the_command_for_a_phantom_reaches_a_folder_whose_name_is_not_utf8(dlx):
    shown = dlx("make-phantom", os.fsdecode(b"caf\xe9"), "--subjects", "1", "--size", "16").stdout
    assert shown.splitlines()[-1] == r"dlx train --data $'caf\xe9'"


def test_records_go_to_a_folder_whose_name_is_not_utf8(dlx, monkeypatch):
    name = os.fsdecode(b"caf\xe9")
    monkeypatch.setattr(sys, "argv", ["dlx", *ONE_EPOCH, "--out", name])
    shown = dlx(*ONE_EPOCH, "--out", name).stderr
    assert r"--out $'caf\xe9'" in read_json(Path(name) / "study.json")["command"]
    assert r"--out $'caf\xe9' --fresh" in shown


def test_an_error_of_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left") as raised:
        append_line(Path("/dev/full"), "a line")
    assert raised.value.filename == "/dev/full"
    path = tmp_path / "document.json"
    with pytest.raises(OSError, match="no room") as raised, replacing(path):
        raise OSError(28, "no room")
    assert raised.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as raised, naming(path):
        (tmp_path / "other").read_bytes()
    assert raised.value.filename == str(tmp_path / "other")
    write_json(path, {})


def run_dlx(*args, **environment):
    dlx = Path(sys.executable).with_name("dlx")
    return subprocess.run(
        ["bash", "-c", f"exec {dlx} {' '.join(args)}"], capture_output=True, env=os.environ | environment, timeout=100
    )


def test_an_output_that_cannot_be_written_is_one_line():
    result = run_dlx("--version", ">/dev/full")
    assert result.returncode == 2
    line, *others = result.stderr.decode().splitlines()
    assert line.startswith("dlx: standard output")
    assert line.endswith("No space left on device")
    assert others == []


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_output_is_no_traceback(redirection):
    result = run_dlx("report", "nothing-of-this-name", redirection)
    assert result.returncode == 2
    assert b"Traceback" not in result.stderr


def test_what_an_output_cannot_encode_is_escaped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ("make-phantom", "aŵ", "--subjects", "1", "--size", "16")
    result = run_dlx(*args, PYTHONIOENCODING="latin-1", PYTHONUTF8="1")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(rb"a\u0175: 1 subject")
