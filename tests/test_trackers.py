"""TensorBoard's files and MLflow's runs: read back by the programs' own readers, they hold what the records hold."""

import base64
import json
import os
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from dlx.cli.running import check_trackers
from dlx.records.archive import read_study, write_archive
from dlx.records.folder import StudyFolder
from dlx.records.palette import ERROR_COLOURS, class_colours
from dlx.report.files.writing import write_trackers
from dlx.report.trackers import mlflow, tensorboard
from dlx.report.trackers.slices import GAP_PX, MIN_SIDE_PX, OPACITY, draw_slice, name_of
from dlx.report.trackers.times import epoch_times
from dlx.report.trackers.values import epoch_values, final_values, hyperparameters
from dlx.study.axes import Axis, make_variants
from dlx.system.errors import DataError, SettingError
from made_records import made_study, write_folder
from small import SETTINGS
from test_pictures import made_picture

STARTED_S = 1_767_225_600  # 2026-01-01T00:00:00Z, when made trials start; their epochs take 2 s


def read_back(folder):
    """The accumulator of a folder with one run, as TensorBoard itself reads it; all images are kept."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def points_of(folder):
    """Tag -> [(step, value)]."""
    found = read_back(folder)
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def expected_points(trial):
    """The same from the records: in float32, as TensorBoard keeps scalars."""
    points = {}
    for epoch in trial.epochs:
        for tag, value in epoch_values(epoch).items():
            points.setdefault(tag, []).append((epoch.result.epoch, float(np.float32(value))))
    for tag, value in final_values(trial.record).items() if trial.record else ():
        points[tag] = [(trial.record.result.epochs, float(np.float32(value)))]
    return points


def folder_of(root, trial):
    return root / tensorboard.trial_folder_name(trial.entry)


# the values


def test_the_values_of_an_epoch_have_the_names_of_the_documentation():
    trial = made_study(seeds=[0], epochs=2).trials[0]
    result = trial.epochs[1].result
    assert epoch_values(trial.epochs[1]) == {
        "loss/train": result.loss,
        "dice/val": result.val_dice,
        "dice/train_subset": result.train_dice_subset,
        "dice/gap_subset": result.train_dice_subset - result.val_dice,
        "soft_dice/train_running": result.train_soft_dice_running,
        "dice_of_class/val/csf": result.val_dice_per_class["csf"],
        "dice_of_class/val/grey matter": result.val_dice_per_class["grey matter"],
        "lr": 0.001,
        "seconds/train": 1.5,
        "seconds/evaluate": 0.5,
    }
    unlike = result.model_copy(update={"lr": {"encoder": 0.1, "head": 0.2}, "val_dice": None})
    found = epoch_values(trial.epochs[1].model_copy(update={"result": unlike}))
    assert (found["lr/encoder"], found["lr/head"]) == (0.1, 0.2)
    assert "lr" not in found
    assert "dice/val" not in found


def test_final_values_are_those_of_the_result():
    record = made_study(seeds=[0]).trials[0].record
    found = final_values(record)
    val, train = record.result.val, record.result.train
    assert found["final/val_dice"] == val.dice
    assert found["final/gap"] == train.dice - val.dice
    assert found["final/val_hd95_mm"] == pytest.approx(sum(val.hd95_mm_per_class.values()) / 2)
    assert found["final_of_class/train_dice/csf"] == train.dice_per_class["csf"]
    assert final_values(record.model_copy(update={"result": None})) == {}


def test_a_trial_is_told_from_others_by_variant_seed_fold_and_its_place_on_the_axes():
    header = made_study(seeds=[0, 1]).header
    found = hyperparameters(header, {})
    assert found["p=0.1 1"] == {"dropout.p": 0.1, "variant": "p=0.1", "seed": 1}
    entries = tuple(entry.model_copy(update={"fold": 3}) for entry in header.trials)
    folds = header.model_copy(update={"trials": entries, "folds": (3,)})
    assert hyperparameters(folds, {})["p=0 0"]["fold"] == 3


def test_an_axis_of_tables_is_also_spelled_out_in_the_settings_that_differ():
    tables = [{"label": "nothing"}, {"label": "decay", "optimizer": {"weight_decay": 0.5}}]
    tables.append({"label": "steps", "scheduler": "step:step_size=2"})
    variants = make_variants(SETTINGS, [Axis(name="remedy", tables=tables)])
    records = made_study({v.label: (0.9, 0.8) for v in variants}, seeds=[0], axis="remedy")
    settings = {f"{v.label} 0": v.spec.model_dump(mode="json") | {"seed": 5} for v in variants}
    found = hyperparameters(records.header, settings)
    assert found["decay 0"]["optimizer.weight_decay"] == 0.5
    assert found["steps 0"]["scheduler"] == "step:step_size=2"
    assert set(found["nothing 0"]) == {"optimizer.weight_decay", "scheduler", "remedy", "variant", "seed"}
    unknown = hyperparameters(records.header, {"decay 0": None})  # of a trial that has not begun
    assert set(unknown["decay 0"]) == {"remedy", "variant", "seed"}


# TensorBoard


def test_tensorboards_reader_finds_the_values_of_the_records(tmp_path):
    records = made_study(seeds=[0, 1], epochs=6, every=2, diverged=[("p=0.1", 0)], running={("p=0.1", 1): 3})
    assert tensorboard.write_events(tmp_path / "tensorboard", records) == tmp_path / "tensorboard"
    for trial in records.trials:
        expected = expected_points(trial)
        assert points_of(folder_of(tmp_path / "tensorboard", trial)) == expected
        assert expected


def test_epochs_are_dated_by_the_start_of_the_trial_and_their_seconds(tmp_path):
    trial = made_study(seeds=[0], epochs=3).trials[0]
    tensorboard.write_trial_events(tmp_path, {}, trial)
    assert [event.wall_time for event in read_back(tmp_path).Scalars("lr")] == [STARTED_S + 2 * e for e in (1, 2, 3)]
    running = replace(trial, record=None)
    first, second, third = epoch_times(running)
    assert (second - first, third - second) == pytest.approx((2.0, 2.0))


def test_a_trial_that_was_watched_has_the_same_points_as_one_that_is_written_afterwards(tmp_path):
    trial = made_study(seeds=[0], epochs=5).trials[0]
    parameters = {"dropout.p": 0.0}
    live = tensorboard.TrialEvents(tmp_path / "live/trial", parameters, STARTED_S, ())
    for epoch in trial.epochs:
        live.append(epoch)
        assert points_of(tmp_path / "live/trial")["loss/train"][-1][0] == epoch.result.epoch  # at once, for a reader
    live.finish(trial.record)
    live.close()
    tensorboard.write_trial_events(tmp_path / "after/trial", parameters, trial)
    (watched,), (written,) = (list((tmp_path / name / "trial").iterdir()) for name in ("live", "after"))
    assert watched.read_bytes() == written.read_bytes()


def test_a_resumed_trial_has_each_epoch_once(tmp_path):
    trial = made_study(seeds=[0], epochs=5).trials[0]
    first = tensorboard.TrialEvents(tmp_path, {}, STARTED_S, ())
    for epoch in trial.epochs[:4]:
        first.append(epoch)
    first.close()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-10])  # the process was killed while it wrote
    file.rename(tmp_path / "events.out.tfevents.0000000001.dlx")
    # the checkpoint is of epoch 3: epoch 4 is trained again
    again = tensorboard.TrialEvents(tmp_path, {}, STARTED_S, trial.epochs[:3])
    for epoch in trial.epochs[3:]:
        again.append(epoch)
    again.finish(trial.record)
    again.close()
    assert len(list(tmp_path.iterdir())) == 1
    assert points_of(tmp_path) == expected_points(trial)


def test_files_of_other_programs_in_the_folder_stay(tmp_path):
    other = tmp_path / "events.out.tfevents.1.host.5.0"
    other.write_bytes(b"")
    tensorboard.write_trial_events(tmp_path, {}, made_study(seeds=[0], epochs=1).trials[0])
    assert other.exists()


def test_the_file_of_a_running_trial_is_left_to_the_process_that_runs_it(tmp_path):
    write_folder(tmp_path, made_study(seeds=[0], running={("p=0.1", 0): 3}))
    records = read_study(tmp_path)
    running = next(trial for trial in records.trials if trial.record is None)
    own = folder_of(tmp_path / "tensorboard", running)
    with FileLock(running.folder / ".lock"):
        tensorboard.write_events(tmp_path / "tensorboard", records)
        assert len(points_of(own)["loss/train"]) == 3  # it had none
        before = [path.stat().st_ino for path in own.iterdir()]
        tensorboard.write_events(tmp_path / "tensorboard", records)
        assert [path.stat().st_ino for path in own.iterdir()] == before
    tensorboard.write_events(tmp_path / "tensorboard", records)
    assert [path.stat().st_ino for path in own.iterdir()] != before


def hparams_of(logdir, low=None):
    """What the hparams plugin's own backend makes of a folder: the types of parameters, and sessions (of p >= low)."""
    from tensorboard import context
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    runs = plugin_event_multiplexer.EventMultiplexer()
    runs.AddRunsFromDirectory(str(logdir))
    runs.Reload()
    provider = data_provider.MultiplexerDataProvider(runs, str(logdir))
    backend = backend_context.Context(base_plugin.TBContext(data_provider=provider, logdir=str(logdir)))
    request = context.RequestContext()
    metadata = backend.hparams_metadata(request, "")
    experiment = backend.experiment_from_metadata(
        request, "", True, metadata, backend.hparams_from_data_provider(request, "", None)
    )
    statuses = list(api_pb2.Status.values())
    asked = api_pb2.ListSessionGroupsRequest(start_index=0, slice_size=100, allowed_statuses=statuses)
    if low is not None:
        column = asked.col_params.add(hparam="dropout.p")
        column.filter_interval.min_value, column.filter_interval.max_value = low, 1.0
    found = list_session_groups.Handler(request, backend, "", asked).run().session_groups
    return {info.name: api_pb2.DataType.Name(info.type) for info in experiment.hparam_infos}, found


def test_the_hparams_plugin_filters_trials_by_their_place_on_the_axis_and_shows_their_scores(tmp_path):
    records = made_study(seeds=[0, 1], epochs=2, diverged=[("p=0", 1)])
    tensorboard.write_events(tmp_path, records)
    types, sessions = hparams_of(tmp_path)
    assert types == {
        "dropout.p": "DATA_TYPE_FLOAT64",
        "seed": "DATA_TYPE_FLOAT64",
        "variant": "DATA_TYPE_STRING",
    }
    statuses = {group.hparams["variant"].string_value: group.sessions[0].status for group in sessions}
    assert len(sessions) == 4
    assert len(set(statuses.values())) == 2  # success and failure
    _, filtered = hparams_of(tmp_path, low=0.05)
    assert {group.hparams["variant"].string_value for group in filtered} == {"p=0.1"}
    trial = next(trial for trial in records.trials if trial.entry.label == "p=0.1" and trial.entry.seed == 1)
    group = next(group for group in filtered if group.hparams["seed"].number_value == 1)
    scores = {value.name.tag: value.value for value in group.metric_values}
    assert scores["final/val_dice"] == float(np.float32(trial.record.result.val.dice))


def test_a_slice_shows_image_truth_prediction_and_errors():
    image = np.array([[0, 100], [200, 252]], np.uint8)
    truth, prediction = np.array([[0, 1], [1, 255]], np.uint8), np.array([[2, 1], [0, 1]], np.uint8)
    picture = made_picture(image=image, truth=truth, prediction=prediction, pixel_size=(1.0, 2.0))
    height, width, png = draw_slice(picture)
    times = MIN_SIDE_PX // 4  # a row is one pixel high, a column two wide: 2 x 4 pixels at their smallest
    assert (height, width) == (2 * times, 4 * 4 * times + 3 * GAP_PX)
    with Image.open(BytesIO(png)) as opened:
        pixels = np.asarray(opened).astype(int)
    assert pixels.shape == (height, width, 3)
    panels = [pixels[:, start : start + 4 * times] for start in range(0, width, 4 * times + GAP_PX)]
    corners = [panel[::times, :: 2 * times] for panel in panels]
    grey = picture.arrays().image.astype(int)

    def mixed(row, column, rgb):
        return [round((1 - OPACITY) * grey[row, column] + OPACITY * level) for level in rgb]

    one, two, _ = class_colours(3)
    missed, too_much, _ = ERROR_COLOURS.values()
    assert (corners[0] == grey[..., None]).all()
    assert corners[1][0, 1].tolist() == mixed(0, 1, one)
    assert corners[1][0, 0].tolist() == [grey[0, 0]] * 3  # background
    assert corners[1][1, 1].tolist() == mixed(1, 1, (128, 128, 128))  # ignored
    assert corners[2][0, 0].tolist() == mixed(0, 0, two)
    assert corners[3][1, 0].tolist() == mixed(1, 0, missed)
    assert corners[3][0, 0].tolist() == mixed(0, 0, too_much)
    assert corners[3][0, 1].tolist() == [grey[0, 1]] * 3  # right
    assert corners[3][1, 1].tolist() == [grey[1, 1]] * 3  # ignored voxels are never wrong
    assert (pixels[:, 4 * times : 4 * times + GAP_PX] == 255).all()


def test_pictures_of_cases_are_read_back_by_tensorboard(tmp_path):
    trial = made_study(seeds=[0], epochs=2).trials[0]
    pictures = (made_picture(), made_picture(case="case 2", rank="best"))
    tensorboard.write_trial_events(tmp_path, {}, replace(trial, pictures=pictures))
    found = read_back(tmp_path)
    assert found.Tags()["images"] == ["validation/hardest: case 1", "validation/best: case 2"]
    (event,) = found.Images(name_of(pictures[0]))
    assert event.step == 2
    assert event.encoded_image_string == draw_slice(pictures[0]).png


def test_a_damaged_picture_is_an_error_that_names_the_case():
    png = base64.b64decode(made_picture().image)
    with pytest.raises(DataError, match="case 1"):
        draw_slice(made_picture().model_copy(update={"image": base64.b64encode(png[:45]).decode()}))


# MLflow


def runs_of(folder):
    """Trial id -> its active run, and a function for the history of a metric."""
    with mlflow.local_only():
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=folder.absolute().as_uri())
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = {run.data.tags["dlx.trial"]: run for run in client.search_runs(ids)}
        return runs, lambda run, key: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]


@pytest.mark.slow
def test_mlflows_client_finds_a_run_for_each_trial_that_ended_with_the_values_of_its_record(tmp_path):
    records = made_study(seeds=[0, 1], epochs=3, diverged=[("p=0.1", 0)], running={("p=0.1", 1): 2})
    folder = tmp_path / "a #folder"  # a path that must be quoted in a URI
    mlflow.write_runs(folder, records)
    runs, history = runs_of(folder)
    assert set(runs) == {"p=0 0", "p=0 1", "p=0.1 0"}
    trial = records.trials[0]
    run = runs["p=0 0"]
    assert history(run, "dice.val") == [(e.result.epoch, e.result.val_dice) for e in trial.epochs]
    assert history(run, "final.val_dice") == [(3, trial.record.result.val.dice)]
    assert (
        run.data.metrics["dice_of_class.val.grey matter"] == trial.epochs[-1].result.val_dice_per_class["grey matter"]
    )
    assert (run.data.params["dropout.p"], run.data.params["seed"], run.data.params["variant"]) == ("0.0", "0", "p=0")
    assert run.data.params["evaluate.train_subset"] == "2"
    assert run.data.params["split.train"] == '["a","c"]'
    assert (run.info.status, runs["p=0.1 0"].info.status) == ("FINISHED", "FAILED")
    assert runs["p=0.1 0"].data.tags["dlx.cause"] == "the loss is nan in epoch 4"
    assert run.info.run_name == tensorboard.trial_folder_name(trial.entry)
    assert (run.info.start_time, run.info.end_time) == (1000 * STARTED_S, 1000 * (STARTED_S + 20))


@pytest.mark.slow
def test_a_second_writing_adds_nothing_and_replaces_what_changed_or_was_cut_short(tmp_path):
    records = made_study(seeds=[0], epochs=2)
    mlflow.write_runs(tmp_path, records)
    before = {trial: run.info.run_id for trial, run in runs_of(tmp_path)[0].items()}
    (cut,) = tmp_path.glob(f"*/{before['p=0.1 0']}")
    (cut / "tags" / mlflow.DIGEST).unlink()  # as if the process had been killed before
    trial = records.trials[0]
    longer = trial.record.model_copy(update={"parameters": 99})
    mlflow.write_runs(tmp_path, records)
    after = {trial: run.info.run_id for trial, run in runs_of(tmp_path)[0].items()}
    assert after["p=0 0"] == before["p=0 0"]
    assert after["p=0.1 0"] != before["p=0.1 0"]
    mlflow.write_runs(tmp_path, replace(records, trials=(replace(trial, record=longer),)))
    assert runs_of(tmp_path)[0]["p=0 0"].info.run_id != before["p=0 0"]


@pytest.mark.slow
def test_mlflow_leaves_the_environment_as_it_was_and_says_what_it_cannot_write(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "false")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    mlflow.write_runs(tmp_path / "runs", made_study(seeds=[0], epochs=1))
    assert os.environ["MLFLOW_ALLOW_FILE_STORE"] == "false"
    assert "DO_NOT_TRACK" not in os.environ
    next((tmp_path / "runs").glob("*/meta.yaml")).write_text("a: [")
    with pytest.raises(DataError, match=r"MLflow cannot read or write its runs.*meta\.yaml"):
        mlflow.write_runs(tmp_path / "runs", made_study(seeds=[0], epochs=1))


NO_NETWORK = """
import socket, sys
tried = []
def refuse(*args, **others):
    tried.append(args[:2])
    raise OSError("no network")
socket.getaddrinfo = refuse
socket.socket.connect = refuse
socket.socket.sendto = refuse
import time
from pathlib import Path
from dlx.records.archive import read_study
from dlx.report.trackers.mlflow import write_runs
write_runs(Path("mlruns"), read_study(Path("made.jsonl")))
time.sleep(1.0)  # a thread of telemetry would have begun by now
assert "torch" not in sys.modules
print("tried:", tried)
"""


@pytest.mark.slow
def test_mlflow_asks_for_no_network_and_needs_no_torch(tmp_path):
    write_archive(tmp_path / "made.jsonl", made_study(seeds=[0], epochs=1))
    outside = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST")}
    command = [sys.executable, "-W", "error", "-c", NO_NETWORK]
    done = subprocess.run(command, cwd=tmp_path, env=outside, capture_output=True, text=True, check=True)
    assert done.stdout == "tried: []\n"
    assert done.stderr == ""
    assert len(list((tmp_path / "mlruns").glob("*/*/meta.yaml"))) == 2


@pytest.mark.parametrize("names", [("dice/val/a|b", "dice/val/a?b"), ("..", "/"), ("x" * 400, "x" * 401)])
def test_names_that_mlflow_does_not_take_are_changed_and_stay_apart(names):
    found = mlflow.unique_names(dict.fromkeys(names))
    assert len(set(found.values())) == len(names)
    assert all(0 < len(name) <= 250 and "/" not in name and name.strip(".") for name in found.values())
    assert mlflow.unique_names({"dice/val": 1}) == {"dice/val": "dice.val"}


# commands


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_package_that_is_not_installed_is_named_with_the_command_that_installs_it(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingError, match=rf"pip install 'dlx\[{name}\]'"):
        check_trackers(**({"tensorboard": False, "mlflow": False} | {name: True}))
    check_trackers(tensorboard=False, mlflow=False)


@pytest.mark.slow  # the report's figure
def test_report_writes_the_files_of_a_study_and_beside_an_archive_under_its_name(dlx):
    records = made_study({"unet2": (0.9, 0.8)}, control=None, seeds=[0], epochs=2)
    write_archive(Path("made.jsonl"), records)
    assert "made-tensorboard" in dlx("report", "made.jsonl", "--tensorboard").stderr
    write_folder(Path("run"), records)
    assert write_trackers(Path("run/report"), records, tensorboard=True, mlflow=False) == [Path("run/tensorboard")]
    for folder in (Path("run/tensorboard"), Path("made-tensorboard")):
        assert points_of(folder_of(folder, records.trials[0])) == expected_points(records.trials[0])
    assert "tensorboard --logdir run/tensorboard" in dlx("show", "run").stdout
    with pytest.raises(SettingError, match="--tensorboard and --plan"):
        dlx("report", "run", "--plan", "--tensorboard")


@pytest.mark.slow
def test_a_sweep_leaves_the_files_of_both_and_again_after_it_was_extended(dlx):
    from small import SMALL_ARGS

    args = ["sweep-dropout", *SMALL_ARGS, "--epochs", "2", "--seeds", "1", "--out", "run", "--max-parallel", "1"]
    dlx(*args, "--p", "0.1", "--tensorboard")
    result = dlx(*args, "--p", "0.1,0.5", "--tensorboard", "--mlflow")
    assert "tensorboard:  tensorboard --logdir run/tensorboard" in result.stderr
    assert "mlflow:       MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri run/mlruns" in result.stderr
    records = read_study(Path("run"))
    assert len(records.trials) == 3
    runs, history = runs_of(Path("run/mlruns"))
    for trial in records.trials:
        folder = folder_of(Path("run/tensorboard"), trial)
        assert points_of(folder) == expected_points(trial)
        images = read_back(folder).Tags()["images"]
        assert images == [name_of(picture) for picture in trial.read_pictures()]
        assert images
        run = runs[trial.entry.trial]
        assert history(run, "loss.train") == [(e.result.epoch, e.result.loss) for e in trial.epochs]
        assert run.data.params["variant"] == trial.entry.label
    _, sessions = hparams_of(Path("run/tensorboard"))
    assert sorted(group.hparams["dropout.p"].number_value for group in sessions) == [0.0, 0.1, 0.5]


@pytest.mark.slow
def test_a_tracker_that_cannot_write_is_a_note_and_the_run_goes_on(dlx):
    from small import SMALL_ARGS

    Path("run").mkdir()
    Path("run/tensorboard").write_text("in the way")
    result = dlx("train", *SMALL_ARGS, "--epochs", "2", "--out", "run", "--tensorboard", "--json")
    assert json.loads(result.stdout)["trials"][0]["status"] == "done"
    assert "note     --tensorboard stopped: run/tensorboard" in result.stderr
    assert "dlx report run --tensorboard" in result.stderr
    assert StudyFolder(Path("run")).header() is not None
