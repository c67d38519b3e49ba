"""`dlx train` as a user meets it: what it prints, what it leaves, what it refuses, how it goes on."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from dlx.system.errors import DlxError
from dlx.system.files import read_json
from dlx.system.memory import CLEAR_REFS
from small import SMALL_ARGS as SMALL

pytestmark = pytest.mark.usefixtures("without_figures")


def trial_files(folder):
    (trial,) = (Path(folder) / "trials").iterdir()
    return {path.name for path in trial.iterdir() if not path.name.startswith(".")}


def test_a_run_leaves_its_records_and_prints_its_table(dlx):
    result = dlx("train", *SMALL, "--set", "evaluate.every=1", "--epochs", "2", "--out", "out")
    assert trial_files("out") == {
        "settings.json",
        "epochs.jsonl",
        "last.safetensors",
        "best.safetensors",
        "result.json",
        "pictures.json",
        "summary.json",
        "progress.png",
    }
    for expected in ("train Dice", "val Dice", "gap", "CSF", "GM", "WM", "mean", "best epoch", "parameters"):
        assert expected in result.stdout
    assert "epoch 1/2" in result.stderr
    assert "--fresh" in result.stderr


def test_lines_fit_80_columns(dlx):
    result = dlx("train", *SMALL, "--epochs", "2", "--out", "out")
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    epochs = [line for line in result.stderr.splitlines() if line.startswith("epoch")]
    assert len(epochs) == 2
    assert max(len(line.split("  eta ")[0]) for line in epochs) <= 80  # the time left is for logs: a bar has it


def test_json_is_one_document_and_all_of_stdout(dlx):
    document = json.loads(dlx("train", *SMALL, "--epochs", "1", "--json").stdout)
    (trial,) = document["trials"]
    keys = {"label", "seed", "status", "parameters", "epochs", "train_dice", "val_dice", "val_dice_per_class"}
    keys |= {"gap", "seconds", "folder"}
    assert keys <= set(trial)
    assert trial["status"] == "done"
    assert set(trial["val_dice_per_class"]) == {"CSF", "GM", "WM"}
    assert trial["gap"] == trial["train_dice"] - trial["val_dice"]
    assert trial["val_dice"] == pytest.approx(sum(trial["val_dice_per_class"].values()) / 3, abs=1e-12)
    record = read_json(Path(trial["folder"]) / "result.json")
    assert len(record["result"]["train"]["cases"]) == 3
    assert list(record["result"]["val"]["cases"]) == document["study"]["split"]["val"]


def test_the_same_command_again_shows_the_result_and_runs_nothing(dlx):
    first = json.loads(dlx("train", *SMALL, "--epochs", "1", "--json").stdout)
    again = dlx("train", *SMALL, "--epochs", "1")
    assert "nothing was run" in again.stderr
    assert json.loads(dlx("train", *SMALL, "--epochs", "1", "--json").stdout) == first


def test_fresh_runs_again_to_the_same_result(dlx):
    first = json.loads(dlx("train", *SMALL, "--epochs", "1", "--json").stdout)["trials"][0]
    started = read_json(Path(first["folder"]) / "result.json")
    again = json.loads(dlx("train", *SMALL, "--epochs", "1", "--json", "--fresh").stdout)["trials"][0]
    repeated = read_json(Path(again["folder"]) / "result.json")
    assert repeated["result"] == started["result"]
    assert repeated["run"]["seconds"] != started["run"]["seconds"]


def test_seeds_are_trials_of_their_own_with_mean_and_spread(dlx):
    result = dlx("train", *SMALL, "--epochs", "1", "--seeds", "0,3")
    assert "mean" in result.stdout
    assert "spread" in result.stdout
    document = json.loads(dlx("train", *SMALL, "--epochs", "1", "--seeds", "0,3", "--json").stdout)
    assert [trial["seed"] for trial in document["trials"]] == [0, 3]
    assert document["trials"][0]["val_dice"] != document["trials"][1]["val_dice"]


def test_a_dry_run_writes_nothing_and_shows_the_cost(dlx, tmp_path):
    result = dlx("train", *SMALL, "--epochs", "2", "--dry-run")
    assert "Nothing was written" in result.stdout
    assert "train.epochs" in result.stdout
    assert list(tmp_path.iterdir()) == []
    document = json.loads(dlx("train", *SMALL, "--epochs", "2", "--seeds", "3", "--dry-run", "--json").stdout)
    assert document["cost"]["trials"] == 3
    assert document["cost"]["epochs"] == 6
    assert document["cost"]["seconds"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="a process's peak of memory is known on Linux alone")
def test_a_dry_run_shows_the_memory_of_training_and_of_evaluation(dlx):
    args = [*SMALL, "--epochs", "1", "--dry-run"]
    (memory,) = json.loads(dlx("train", *args, "--json").stdout)["cost"]["memory_mib"].values()
    assert set(memory) == {"training", "evaluation"}
    assert all(50 < mib < 50_000 for mib in memory.values())  # no process with torch has less
    words = " ".join(dlx("train", *args).stdout.split())
    assert re.search(r"A trial takes up to [0-9.]+ [MG]iB of memory in training and [0-9.]+ [MG]iB in evalu", words)


def test_quiet_prints_only_the_table(dlx):
    result = dlx("train", *SMALL, "--epochs", "1", "--quiet")
    assert result.stderr == ""
    assert "mean" in result.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--dropout", "1.5"], "dropout.p: expected less than 1"),
        (["--model", "unet3"], "unknown model 'unet3'"),
        (["--model", "unet2:widht=3"], "did you mean 'width'"),
        (["--set", "train.epoch=3"], "did you mean 'train.epochs'"),
        (["--loss", "dice+lovas"], "unknown loss 'lovas': did you mean 'lovasz'"),
        (["--scheduler", "step:gamma=2"], "scheduler 'step': gamma"),
        (["--device", "cuda:7"], "cuda:7"),
        (["--data", "nowhere"], "nowhere"),
        (["--data", "phantmo"], "phantmo.*'phantom'"),
        (["--val", "subject-9"], "val and val_fraction"),
        (["--fold", "7", "--folds", "5"], "fold"),
        (["--recipe", "quikc"], "did you mean 'quick'"),
        (["--seeds", "x"], "expected a number"),
        (["--seed", "1", "--seeds", "2"], "^--seed and --seeds "),
        (["--config", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["--init-from", "nowhere.safetensors"], "not a readable checkpoint"),
        (["--resume", "--out", "nowhere"], "nowhere"),
        (["--resume", "--fresh"], "--resume and --fresh"),
        (["--model", "unet2:dims=3"], "batch.patch_size_px: expected 3 sizes"),
        (["--dropout-kind", "dropout3d", "--dropout", "0.1"], "use dropout2d"),
    ],
)
def test_invalid_options_are_refused_in_one_line_before_anything_trains(dlx, tmp_path, args, words):
    with pytest.raises(DlxError, match=words) as refusal:
        dlx("train", *SMALL, *args)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_refusal_is_one_line_on_stderr_and_exit_code_2(tmp_path):
    command = [sys.executable, "-m", "dlx", "train", "--recipe", "nonsense"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("dlx: unknown recipe 'nonsense'")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_one_line_and_exit_code_2(tmp_path):
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "dlx", "train", *SMALL, "--epochs", "1", "--out", "file/out"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("dlx: ")
    assert "Traceback" not in result.stderr


def test_a_diverged_trial_is_reported_and_exits_with_1(dlx):
    result = dlx("train", *SMALL, "--epochs", "2", "--lr", "1e30", "--optimizer", "sgd", "--json", expect=1)
    (trial,) = json.loads(result.stdout)["trials"]
    assert trial["status"] == "diverged"
    assert "epoch 1" in trial["cause"]
    assert trial["val_dice"] is None
    result = dlx("train", *SMALL, "--epochs", "2", "--lr", "1e30", "--optimizer", "sgd", expect=1)
    assert "diverged" in result.stderr


def test_settings_come_from_recipe_then_file_then_options_then_set(dlx, tmp_path):
    (tmp_path / "my.toml").write_text("[train]\nepochs = 7\nsteps_per_epoch = 5\n[optimizer]\nlr = 0.5\n")
    args = ["--config", "my.toml", "--lr", "0.25", "--set", "optimizer.lr=0.125", "--set", "train.epochs=2"]
    result = dlx("train", *SMALL, *args, "--dry-run", "--json")
    settings = json.loads(result.stdout)["study"]["settings"]
    assert settings["optimizer"]["lr"] == 0.125
    assert settings["train"]["epochs"] == 2
    assert settings["train"]["steps_per_epoch"] == 3  # the option that SMALL gives


# epochs long enough for the signal to come before the last one has ended, also on a busy machine
ARGS = [*SMALL, "--steps-per-epoch", "20", "--epochs", "6", "--dropout", "0.2", "--ema", "0.9"]


def start(folder, *args):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dlx", "train", *args, "--out", str(folder)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)


def stop_in_epoch(process, epoch, how):
    """Sends a signal once the line of the epoch before is printed; gives what was printed afterwards."""
    for line in process.stderr:
        if line.startswith(f"epoch {epoch - 1}/"):
            process.send_signal(how)
            break
    rest = process.communicate(timeout=60)[1]
    return process.returncode, rest


def outcome(folder):
    (trial,) = (Path(folder) / "trials").iterdir()
    epochs = [json.loads(line)["result"] for line in (trial / "epochs.jsonl").read_text().splitlines()]
    return epochs, read_json(trial / "result.json")["result"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [pytest.param(signal.SIGKILL, marks=pytest.mark.long), signal.SIGINT])
def test_stopped_in_epoch_3_and_resumed_it_ends_as_if_left_alone(dlx, tmp_path, how):
    process = start(tmp_path / "stopped", *ARGS)
    code, printed = stop_in_epoch(process, 3, how)
    if how is signal.SIGINT:
        assert code == 130
        assert "resume with:  dlx train" in printed
    assert not (next((tmp_path / "stopped" / "trials").iterdir()) / "result.json").exists()
    resumed = dlx("train", "--resume", "--out", str(tmp_path / "stopped"))
    assert "resuming after epoch" in resumed.stderr
    dlx("train", *ARGS, "--out", str(tmp_path / "alone"))
    stopped, alone = outcome(tmp_path / "stopped"), outcome(tmp_path / "alone")
    assert stopped == alone
    assert [epoch["epoch"] for epoch in alone[0]] == [1, 2, 3, 4, 5, 6]


def test_resuming_with_other_settings_says_what_differs(dlx):
    dlx("train", *SMALL, "--epochs", "1", "--out", "out")
    with pytest.raises(DlxError, match=r"nothing to resume with these settings.*optimizer.lr: 0.002 -> 0.5"):
        dlx("train", *SMALL, "--epochs", "1", "--out", "out", "--lr", "0.5", "--resume")


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder with a trial that was killed in its third epoch of six."""
    folder = tmp_path_factory.mktemp("killed")
    stop_in_epoch(start(folder, *ARGS), 3, signal.SIGKILL)
    return folder


@pytest.fixture
def stopped(killed, tmp_path):
    """The trial's folder in a copy of it."""
    shutil.copytree(killed, tmp_path / "stopped")
    return next((tmp_path / "stopped" / "trials").iterdir())


@pytest.mark.slow
def test_damaged_epoch_records_are_restored_from_the_checkpoint(dlx, stopped, tmp_path):
    (stopped / "epochs.jsonl").write_bytes(b"garbage\n")
    dlx("train", *ARGS, "--out", str(tmp_path / "stopped"))
    assert [epoch["epoch"] for epoch in outcome(tmp_path / "stopped")[0]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_damaged_checkpoint_says_how_to_start_over(dlx, stopped, tmp_path):
    (stopped / "last.safetensors").write_bytes(b"garbage")
    with pytest.raises(DlxError, match=r"not a readable checkpoint.*--fresh starts this trial over"):
        dlx("train", *ARGS, "--out", str(tmp_path / "stopped"))
    dlx("train", *ARGS, "--out", str(tmp_path / "stopped"), "--fresh")


@pytest.mark.slow
def test_a_missing_checkpoint_is_reported(dlx, stopped, tmp_path):
    (stopped / "last.safetensors").unlink()
    assert "checkpoint is missing" in dlx("train", *ARGS, "--out", str(tmp_path / "stopped")).stderr


def test_the_settings_that_a_dry_run_prints_can_be_given_back(dlx):
    printed = dlx("train", *SMALL, "--epochs", "2", "--dropout", "0.1", "--dry-run").stdout.splitlines()
    rows = [line.split(maxsplit=1) for line in printed if line.split(" ")[0].count(".") or line.startswith("loss")]
    assert len(rows) > 40
    assigned = [word for row in rows if len(row) == 2 for word in ("--set", f"{row[0]}={row[1]}")]
    again = dlx("train", *assigned, "--dry-run").stdout.splitlines()
    assert [line for line in again if line.count(".")][:-1] == [line for line in printed if line.count(".")][:-1]


def test_a_dry_run_keeps_no_prepared_data(dlx, tmp_path):
    dlx("train", *SMALL, "--cache-dir", "cache", "--dry-run")
    assert not Path("cache").exists()
    dlx("train", *SMALL, "--epochs", "1", "--cache-dir", "cache")
    assert len(list(Path("cache").iterdir())) == 1


def test_user_text_is_no_markup(dlx):
    result = dlx("train", *SMALL, "--epochs", "1", "--out", "o[/y]")
    assert "o[/y]" in result.stderr


def test_quiet_still_reports_a_failure(dlx):
    result = dlx("train", *SMALL, "--epochs", "1", "--lr", "1e30", "--optimizer", "sgd", "--quiet", expect=1)
    assert "diverged" in result.stderr


@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_a_3d_network_trains_in_either_precision(dlx, precision):
    args = ["train", *SMALL[:-2], "--model", "unet2:width=4,levels=2,dims=3", "--set", "batch.patch_size_px=[8,16,16]"]
    document = json.loads(dlx(*args, "--epochs", "2", "--precision", precision, "--json").stdout)
    folder = Path(document["trials"][0]["folder"])
    assert read_json(folder / "settings.json")["compute"]["precision"] == precision
    losses = [json.loads(line)["result"]["loss"] for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert losses[1] < losses[0]


@pytest.mark.parametrize(("ending", "unit"), [(".png", "px"), (".nii.gz", "mm")])
def test_distances_are_printed_in_the_unit_of_the_files(dlx, tmp_path, ending, unit):
    images = np.random.default_rng(0).integers(1, 99, (2, 24, 24)).astype(np.uint8)
    table = {"channel_names": {"0": "g"}, "labels": {"background": 0, "a": 1}, "file_ending": ending}
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    (tmp_path / "data/dataset.json").write_text(json.dumps(table))
    for case, image in enumerate(images):
        for name, array in (
            (f"imagesTr/c{case}_0000", image),
            (f"labelsTr/c{case}", (image > 50) * np.uint8(1)),
        ):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"data/{name}{ending}"))
    options = ["--data", str(tmp_path / "data"), *SMALL[2:], "--val", "c1", "--epochs", "1", "--out", "out"]
    options = [option for option in options if option not in ("--val-fraction", "0.25")]
    printed = dlx("train", *options).stdout
    assert [word in printed for word in ("1 mm", "1 px")] == [unit == "mm", unit == "px"]
    (entry,) = json.loads(dlx("train", *options, "--json").stdout)["trials"]
    assert entry["distance_unit"] == unit
    assert read_json(Path(entry["folder"]) / "result.json")["result"]["distance_unit"] == unit
