"""`dlx train --resume RUN --epochs N`: when the longer run equals one from the start, and when it is another trial."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dlx.cli.parsing import with_resumed_run
from dlx.execution.planning.longer import begin, lengthen
from dlx.execution.planning.plan import make_plan
from dlx.settings.layers import settings_differences
from dlx.settings.registry import PARTS
from dlx.system.errors import DlxError
from dlx.system.files import read_json
from dlx.training import schedules
from dlx.trial.resolve import settings_id
from small import SMALL_ARGS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_figures")]

ARGS = [*SMALL_ARGS, "--dropout", "0.2", "--ema", "0.9", "--set", "augment.flip=0.5"]
GROUPS = ["--set", 'optimizer.group_lr={"encoder":0.005}', "--set", "optimizer.decay_norms_and_biases=false"]


def trial_of(folder, epochs, seed=0):
    """The folder of the trial of so many epochs."""
    found = [path.parent for path in Path(folder).glob(f"trials/*seed{seed}-*/settings.json")]
    return next(path for path in found if read_json(path / "settings.json")["train"]["epochs"] == epochs)


def results_of(trial):
    """The halves of its records that repeat bit for bit, and its id."""
    epochs = [json.loads(line)["result"] for line in (trial / "epochs.jsonl").read_text().splitlines()]
    record = read_json(trial / "result.json")
    return record["trial"], epochs, record["result"]


def checkpoint_of(path):
    """The header, with the repeatable half of its records, and the tensors."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["dlx"])
        header["epochs"] = [epoch["result"] for epoch in header["epochs"]]
        return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def content_of(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "args",
    [
        ["--scheduler", "constant"],
        ["--scheduler", "step:step_size=3", "--set", "evaluate.every=3", *GROUPS],  # epoch 4 is validated as the last
        pytest.param(
            ["--scheduler", "plateau:patience=1", "--set", "evaluate.every=1", "--optimizer", "sgd"],
            marks=pytest.mark.long,
        ),
    ],
    ids=["constant", "step", "plateau"],
)
def test_a_schedule_that_does_not_depend_on_the_length_gives_the_run_from_the_start(dlx, args):
    dlx("train", *ARGS, *args, "--epochs", "4", "--out", "run")
    longer = dlx("train", "--resume", "run", "--epochs", "7")
    assert "this is the run of 7 epochs from the start" in longer.stderr
    assert "resuming after epoch 4 of 7" in longer.stderr
    dlx("train", *ARGS, *args, "--epochs", "7", "--out", "whole")
    ours, theirs = trial_of("run", 7), trial_of("whole", 7)
    assert results_of(ours) == results_of(theirs)
    for name in ("last", "best"):
        header, tensors = checkpoint_of(ours / f"{name}.safetensors")
        other, others = checkpoint_of(theirs / f"{name}.safetensors")
        header.pop("scheduler"), other.pop("scheduler")  # of `best`: of the run that trained it
        assert header == other
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensors[key], others[key]) for key in tensors)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two seeds and four epochs with a cosine."""
    from typer.testing import CliRunner

    from dlx.cli.main import app

    folder = tmp_path_factory.mktemp("finished") / "run"
    args = [*ARGS, "--scheduler", "cosine", "--epochs", "4", "--seeds", "2", "--max-parallel", "1"]
    done = CliRunner().invoke(app, ["train", *args, "--out", str(folder)])
    assert done.exit_code == 0, done.output
    return folder


def test_a_stretched_schedule_gives_another_trial_which_says_so(dlx, finished, tmp_path):
    before = content_of(finished)
    args = ["--resume", str(finished), "--epochs", "6", "--out", "longer"]
    shown = dlx("train", *args, "--max-parallel", "1")
    assert content_of(finished) == before
    assert "from 0.000293 in epoch 4 to 0.0005 in epoch 5" in shown.stderr
    assert "repeat with" not in shown.stderr
    for seed in (0, 1):
        earlier, longer = trial_of(finished, 4, seed), trial_of("longer", 6, seed)
        record = read_json(longer / "result.json")
        assert record["settings"]["train"]["continue_from"] == {"trial": results_of(earlier)[0], "epoch": 4}
        assert record["trial"] == settings_id(record["settings"])
        differing = settings_differences(read_json(earlier / "result.json")["settings"], record["settings"])
        assert [line.partition(":")[0] for line in differing] == ["train.continue_from", "train.epochs"]
        _, epochs, result = results_of(longer)
        assert epochs[:4] == results_of(earlier)[1]
        assert result["epochs"] == 6
        whole = schedules.rates("cosine", {}, 0.002, 6)
        assert [epoch["lr"]["encoder"] for epoch in epochs[4:]] == pytest.approx(whole[4:], abs=1e-12)
    header = read_json(Path("longer/study.json"))
    assert header["continued"]["epoch"] == 4
    assert "repeat with" not in dlx("show", "longer").output
    dlx("report", "longer")
    page = " ".join(Path("longer/report.html").read_text(encoding="utf-8").split())
    assert "The first 4 epochs were trained with a schedule of that length or shorter" in page
    dlx("report", str(finished), "--out", "earlier")
    assert "of that length or shorter" not in Path("earlier.html").read_text(encoding="utf-8")
    trials = content_of(Path("longer/trials"))
    for again in (args, ["--resume", "longer"], ["--resume", "longer", "--epochs", "6"]):
        dlx("train", *again, "--max-parallel", "1")
        assert content_of(Path("longer/trials")) == trials
        assert read_json(Path("longer/study.json"))["trials"] == header["trials"]


def test_a_longer_run_that_was_stopped_is_resumed_from_its_own_checkpoint(dlx, finished, tmp_path, cache):
    longer = lengthen(finished, 6)
    plan = make_plan(longer.study, Path("stopped"), command="dlx train --resume run", cache_dir=cache)
    begin(plan, longer)
    assert [task.folder.last.exists() for task in plan.trials] == [True, True]
    assert [task.folder.result() for task in plan.trials] == [None, None]
    planted = content_of(Path("stopped"))
    begin(plan, longer)
    assert content_of(Path("stopped")) == planted
    dlx("train", "--resume", str(finished), "--epochs", "6", "--out", "stopped", "--max-parallel", "1")
    dlx("train", "--resume", str(finished), "--epochs", "6", "--out", "alone", "--max-parallel", "1")
    for seed in (0, 1):
        assert results_of(trial_of("stopped", 6, seed)) == results_of(trial_of("alone", 6, seed))
    trial = trial_of("alone", 6)
    (trial / "result.json").unlink()
    (trial / "last.safetensors").unlink()
    with pytest.raises(DlxError, match=r"last\.safetensors: missing, .* cannot continue an earlier one"):
        dlx("train", "--resume", "alone", "--max-parallel", "1")


def test_in_its_own_folder_the_longer_run_takes_the_place_of_the_earlier_whose_records_stay(dlx):
    args = [*ARGS, "--scheduler", "cosine", "--epochs", "2", "--out", "run"]
    dlx("train", *args)
    before = results_of(trial_of("run", 2))
    dlx("train", "--resume", "run", "--epochs", "3")
    assert read_json(Path("run/study.json"))["epochs"] == 3
    assert results_of(trial_of("run", 2)) == before
    dlx("train", "--resume", "--out", "run", "--epochs", "4")
    last = read_json(trial_of("run", 4) / "result.json")["settings"]["train"]["continue_from"]
    assert last == {"trial": results_of(trial_of("run", 3))[0], "epoch": 3}
    assert "already finished; nothing was run" in dlx("train", *args).stderr


@pytest.mark.long
def test_folds_are_trained_longer_each_from_its_own(dlx):
    folds = [word for word in ARGS if word not in ("--val-fraction", "0.25")]
    folds += ["--folds", "2", "--fold", "all", "--max-parallel", "1"]
    dlx("train", *folds, "--epochs", "2", "--out", "run")
    dlx("train", "--resume", "run", "--epochs", "3", "--max-parallel", "1")
    header = read_json(Path("run/study.json"))
    earlier = {(one["fold"], one["seed"]): one["trial"] for one in header["continued"]["trials"]}
    assert set(earlier) == {(0, 0), (1, 0)}
    for entry in header["trials"]:
        (path,) = Path("run").glob(f"trials/*-{entry['trial'][:8]}/result.json")
        assert read_json(path)["settings"]["train"]["continue_from"]["trial"] == earlier[entry["fold"], entry["seed"]]


def test_a_best_epoch_that_the_longer_run_would_not_validate_makes_it_another(dlx):
    dlx("train", *ARGS, "--scheduler", "constant", "--set", "evaluate.every=3", "--epochs", "4", "--out", "run")
    path = trial_of("run", 4) / "result.json"
    record = read_json(path)
    path.write_text(json.dumps(record | {"result": record["result"] | {"best_epoch": 4}}))
    assert "epoch 4 has the best validation Dice" in lengthen(Path("run"), 7).remark
    path.write_text(json.dumps(record | {"result": record["result"] | {"best_epoch": 3}}))
    assert "from the start" in lengthen(Path("run"), 7).remark
    assert lengthen(Path("run"), 7).study.continued is None


@pytest.mark.parametrize("name", PARTS["scheduler"])
def test_a_replayed_schedule_sets_the_rates_of_the_schedule(name):
    dice = [float(epoch) for epoch in range(5)]
    args = {"groups": {"encoder": [[0.0, 0.1]]}} if name == "lambda" else {}
    groups = [("encoder", 0.1), ("encoder", 0.1), ("head", 0.2)]
    replayed = schedules.replay(name, args, groups, 9, dice)
    for group, lr in groups:
        assert [rates[group] for rates in replayed.rates] == schedules.rates(name, args, lr, 9, group)[:6]
    assert replayed.next_rates == [replayed.rates[5][group] for group, _ in groups]
    assert replayed.state["last_epoch"] == 5


def test_the_value_of_resume_is_told_from_the_next_option():
    assert with_resumed_run(["--resume", "run", "-q"]) == ["--resume", "--resume-run", "run", "-q"]
    assert with_resumed_run(["--resume=run"]) == ["--resume", "--resume-run", "run"]
    assert with_resumed_run(["--resume", "--out", "run"]) == ["--resume", "--out", "run"]
    assert with_resumed_run(["--out", "run", "--resume"]) == ["--out", "run", "--resume"]
    assert with_resumed_run(["--resume", "--", "run"]) == ["--resume", "--", "run"]
    assert with_resumed_run(["--", "--resume", "run"]) == ["--", "--resume", "run"]


@pytest.mark.parametrize(
    ("args", "cause"),
    [
        (["--epochs", "3"], "--epochs 3: .* was trained for 4 epochs; give a larger number"),
        (["--epochs", "8", "--lr", "0.1", "--set", "a=1"], "with its own settings; leave out --lr, --set"),
        (["--epochs", "8", "--fresh"], "--resume and --fresh cannot be combined"),
        (["--epochs", "2000000"], "train.epochs: expected 1,000,000 or less"),
        (["--out", "other"], "a run is resumed in its own folder"),
    ],
)
def test_what_cannot_be_trained_longer_is_refused(dlx, finished, args, cause):
    with pytest.raises(DlxError, match=cause):
        dlx("train", "--resume", str(finished), *args)


def test_a_run_that_did_not_end_well_is_refused(dlx, finished, tmp_path):
    from shutil import copytree

    copytree(finished, "copy")
    trial = trial_of("copy", 4, 1)
    with pytest.raises(DlxError, match="nothing: holds no study"):
        dlx("train", "--resume", "nothing", "--epochs", "8")
    (trial / "last.safetensors").write_bytes(b"short")
    with pytest.raises(DlxError, match=r"last\.safetensors: not a readable checkpoint"):
        dlx("train", "--resume", "copy", "--epochs", "8", "--out", "longer")
    (trial / "last.safetensors").write_bytes((trial_of("copy", 4, 0) / "last.safetensors").read_bytes())
    with pytest.raises(DlxError, match="is not the checkpoint of epoch 4 of this trial"):
        dlx("train", "--resume", "copy", "--epochs", "8", "--out", "longer")
    (trial / "last.safetensors").unlink()
    with pytest.raises(DlxError, match="without it unet2, seed 1 cannot be trained longer"):
        dlx("train", "--resume", "copy", "--epochs", "8")
    record = read_json(trial / "result.json")
    (trial / "result.json").write_text(json.dumps(record | {"settings": record["settings"] | {"results_version": 1}}))
    (trial / "last.safetensors").touch()
    with pytest.raises(DlxError, match="first epochs were trained with other settings: results_version: 1 -> "):
        dlx("train", "--resume", "copy", "--epochs", "8", "--out", "longer")
    (trial / "result.json").write_text(json.dumps(record | {"result": record["result"] | {"epochs": 2}}))
    with pytest.raises(DlxError, match="stopped in epoch 2 of 4"):
        dlx("train", "--resume", "copy", "--epochs", "8")
    (trial / "result.json").write_text(json.dumps(record | {"status": "diverged", "cause": "nan", "result": None}))
    with pytest.raises(DlxError, match="seed 1 diverged and cannot be trained longer: nan"):
        dlx("train", "--resume", "copy", "--epochs", "8")
    (trial / "result.json").unlink()
    with pytest.raises(DlxError, match="seed 1 has not finished; finish it first: dlx train --resume copy"):
        dlx("train", "--resume", "copy", "--epochs", "8")
