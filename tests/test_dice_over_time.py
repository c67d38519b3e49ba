"""Dice over the time of training, and time to a Dice: looks, kept runs, tables and checks, the peers' training."""

import argparse
import json
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import dice_over_time, figure, records, report  # noqa: E402
from benchmarks.checks import dice_checks, dice_curve_checks  # noqa: E402
from benchmarks.contenders import Contender, dlx_dice, monai_3d_dice  # noqa: E402
from benchmarks.contenders.looking import SHARES, Looks  # noqa: E402

from made_benchmarks import CURVE, dice_document  # noqa: E402


def test_a_peer_that_never_gets_there_bounds_the_ratio_and_one_of_ours_fails_it():
    in_time, share = dice_checks(dice_document([20.0, 30.0], [None, 80.0]))
    assert (in_time.holds, share.holds) == (True, True)
    assert share.measured == "less than 0.27 (0.17 to 0.38)"
    assert [line.holds for line in dice_checks(dice_document([20.0, None], [None, 80.0]))] == [False, False]


def curve_rows(document):
    """The cells of the report's tables by the first of their row."""
    lines = [line.split("|") for line in report.dice_curve_report(document).splitlines() if "|" in line]
    return {line[1].strip(): [cell.strip() for cell in line[2:-1]] for line in lines}


def test_the_curve_s_table_gives_the_minutes_of_the_first_look_at_each_dice():
    row = curve_rows(CURVE)
    assert row["dlx, strong"] == ["1.0", "5.0", "5.0", "12.0", "", "0.8804", "", "12.0", "7", "8", "0.5"]
    assert row["nnU-Net, stock (ended early: killed)"][:2] == ["30.0", ""]


def test_the_mirrored_look_has_a_column_of_its_own_and_reaches_no_dice():
    table = curve_rows(CURVE)
    row = dict(zip(table["contender"], table["MONAI, its recipe"], strict=True))
    assert (row["min to 0.86"], row["min to 0.87"], row["min to 0.88"], row["min to 0.885"]) == ("15.0", "60.0", "", "")
    assert (row["last Dice"], row["mirrored Dice"]) == ("0.8750", "0.8860")


def test_the_mirrored_look_is_a_diamond_that_no_curve_passes_through():
    pytest.importorskip("matplotlib")
    (axes,) = figure.draw_dice_curve(CURVE).axes
    assert [(line.get_marker(), list(line.get_ydata())) for line in axes.lines] == [
        ("o", [0.8, 0.867]),
        ("o", [0.85, 0.87, 0.8804]),
        ("o", [0.0, 0.86, 0.875]),
        ("D", [0.886]),
        ("o", [0.7, 0.85]),
    ]


def test_a_curve_s_record_without_any_run_is_drawn_too(tmp_path):
    missing = {**CURVE, "runs": {"MONAI, its recipe": {"error": "no module"}}}
    assert "missing: no module" in report.dice_curve_report(missing)
    assert figure.draw(missing, tmp_path / "empty.svg").stat().st_size > 0


def test_the_strong_recipe_is_held_to_its_dice_and_to_its_whole_command():
    early, late = dice_curve_checks(CURVE)
    assert (early.measured, early.holds) == ("0.8804 after 13.5 minutes", True)
    assert late.holds is False  # 0.885 was not reached
    assert [line.holds for line in dice_curve_checks({**CURVE, "runs": {}})] == [None, None]
    slow = {**CURVE["runs"]["dlx, strong"], "wall_s": 901.0}
    assert dice_curve_checks({**CURVE, "runs": {"dlx, strong": slow}})[0].holds is False


def test_runs_of_an_earlier_call_with_the_same_settings_are_kept(tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(CURVE), encoding="utf-8")
    assert dice_over_time.kept_runs(CURVE, path) == CURVE["runs"]
    assert dice_over_time.kept_runs(CURVE, tmp_path / "missing.json") == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("device", "cuda"),
        ("machine", {"cores": 3}),
        ("data", "Task05_Prostate"),
        ("limit_s", 60.0),
        ("seed", 1),
        ("threads", 1),
    ],
)
def test_a_record_is_neither_continued_nor_overwritten_if_one_setting_differs(key, value, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(CURVE), encoding="utf-8")
    with pytest.raises(SystemExit, match=key):
        dice_over_time.kept_runs({**CURVE, key: value}, path)


def test_a_record_without_threads_and_seed_is_not_mixed_with_new_runs(tmp_path):
    path = tmp_path / "record.json"
    old = {key: value for key, value in CURVE.items() if key not in ("seed", "threads")}
    path.write_text(json.dumps(old), encoding="utf-8")
    with pytest.raises(SystemExit, match="seed, threads"):
        dice_over_time.kept_runs(CURVE, path)


@pytest.mark.slow
def test_a_run_that_fails_does_not_replace_a_measured_one(decathlon, monkeypatch, tmp_path):
    path = tmp_path / "record.json"
    peer = "nnU-Net, stock"
    path.write_text(json.dumps({**CURVE, "machine": records.machine("cpu"), "data": decathlon.name}), encoding="utf-8")
    monkeypatch.setitem(dice_over_time.PEERS, peer, Contender(peer, "no_such_module"))
    options = f"--data;{decathlon};--threads;2;--out;{path};--force;--only".split(";")
    monkeypatch.setattr(sys, "argv", ["dice_over_time", *options, peer])
    dice_over_time.main()
    assert json.loads(path.read_text(encoding="utf-8"))["runs"] == dice_over_time.in_order(CURVE["runs"])


@pytest.mark.slow
def test_a_kept_run_keeps_what_was_recorded_of_the_machine_at_its_start(decathlon, monkeypatch, tmp_path, capsys):
    path = tmp_path / "record.json"
    busy = {**CURVE["runs"]["dlx, quick"], "quiet": {"busy_cores": 9999.5}}  # more than there are
    settings = {"machine": records.machine("cpu"), "data": decathlon.name, "runs": {"dlx, quick": busy}}
    path.write_text(json.dumps({**CURVE, **settings}), encoding="utf-8")
    peer = "nnU-Net, stock"
    monkeypatch.setitem(dice_over_time.PEERS, peer, Contender(peer, "no_such_module"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    options = f"--data;{decathlon};--threads;2;--out;{path};--force;--only".split(";")
    monkeypatch.setattr(sys, "argv", ["dice_over_time", *options, peer])
    dice_over_time.main()
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    assert runs["dlx, quick"] == busy
    assert "no_such_module" in runs[peer]["error"]
    assert runs[peer]["quiet"]["busy_cores"] < 9999
    assert "dlx, quick (NOT TO BE TRUSTED: others kept 9999.5 cores busy)" in capsys.readouterr().out


def test_the_curve_s_table_marks_a_run_that_began_on_a_busy_machine_and_no_other():
    busy = {**CURVE["runs"]["nnU-Net, stock"], "quiet": {"busy_cores": 0.7}}
    rows = curve_rows({**CURVE, "runs": {**CURVE["runs"], "nnU-Net, stock": busy}})
    assert [name for name in rows if "0.7 cores" in name] == [
        "nnU-Net, stock (ended early: killed; NOT TO BE TRUSTED: others kept 0.7 cores busy)"
    ]
    assert CURVE["runs"].keys() - rows.keys() == {"nnU-Net, stock"}


def test_looks_are_not_counted_as_training_and_only_the_limit_has_a_mirrored_one(monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr("benchmarks.contenders.looking.time.time", lambda: now[0])
    looks = Looks(started=1000.0, limit_s=600.0)

    def measure(mirrors):
        now[0] += 50.0
        return 0.9 if mirrors else 0.5

    assert not looks.is_due
    now[0] = 1012.0  # past the first, at a sixtieth of the limit
    assert looks.is_due
    looks.look(measure, {"steps": 3})
    assert (looks.trained_s, looks.is_due, looks.is_over) == (12.0, False, False)
    assert looks.mirrored_look is None
    now[0] += 588.0
    looks.look(measure, {"steps": 9})
    assert looks.is_over
    assert len(SHARES) == 8
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == {
        "looks": [[12.0, 0.5], [600.0, 0.5]],
        "mirrored_look": [600.0, 0.9],
        "looking_s": 150.0,
        "wall_s": 750.0,
        "steps": 9,
    }


def test_the_plain_look_at_the_limit_is_printed_before_the_mirrored_one_which_may_fail(capsys):
    looks = Looks(started=time.time() - 5, limit_s=1.0)

    def measure(mirrors):
        if mirrors:
            raise MemoryError
        return 0.5

    with pytest.raises(MemoryError):
        looks.look(measure, {"steps": 9})
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [dice for _, dice in last["looks"]] == [0.5]
    assert last["mirrored_look"] is None


def test_dlx_s_looks_leave_out_evaluation_where_it_is_not_counted():
    epochs = [
        {"run": {"train_s": 2.0, "evaluate_s": 1.0}, "result": {"val_dice": dice}} for dice in (None, 0.6, 0.7, 0.8)
    ]
    trained = dlx_dice.Trained(20.0, epochs, {"run": {"seconds": 15.0}, "result": {"val": {"dice": 0.8}}})
    assert trained.looks(counts_evaluation=True) == [[11.0, 0.6], [14.0, 0.7]]
    assert trained.looks(counts_evaluation=False) == [[9.0, 0.6], [11.0, 0.7]]
    assert trained.training_s == 13.0


@pytest.fixture(scope="module")
def decathlon(tmp_path_factory):
    """Six small volumes in the Decathlon's format, two classes besides the background."""
    nibabel = pytest.importorskip("nibabel")
    folder = tmp_path_factory.mktemp("decathlon") / "Task04_Tiny"
    generator = torch.Generator().manual_seed(0)
    cases = []
    for index in range(6):
        mask = torch.zeros(20, 18, 16)
        mask[4:10, 4:10, 4:10] = 1
        mask[10:15, 8:14, 4:10] = 2
        image = 100 + 40 * mask + 10 * torch.randn(mask.shape, generator=generator)
        name = f"tiny_{index:03}.nii.gz"
        for part, values, kind in (("imagesTr", image, "float32"), ("labelsTr", mask, "uint8")):
            (folder / part).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values.numpy().astype(kind), torch.eye(4).numpy()), folder / part / name)
        cases.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    labels = {"0": "background", "1": "anterior", "2": "posterior"}
    described = {"name": "tiny", "modality": {"0": "MRI"}, "labels": labels, "training": cases}
    (folder / "dataset.json").write_text(json.dumps({**described, "numTraining": 6, "numTest": 0, "test": []}))
    return folder


def peer_arguments(folder):
    return argparse.Namespace(data=folder, device="cpu", threads=1, seed=0, limit_s=0.0)


def test_the_split_of_the_peers_is_that_of_dlx_train(decathlon):
    split = dice_over_time.split_of(decathlon)
    assert split["classes"] == 3
    assert len(split["val"]) == 2
    assert sorted(split["train"] + split["val"]) == [f"tiny_{index:03}" for index in range(6)]


@pytest.mark.slow
def test_monai_trains_in_3d_and_looks_once_when_the_time_is_over(decathlon, monkeypatch, capsys):
    pytest.importorskip("monai")
    monkeypatch.setattr(monai_3d_dice, "PATCH", (16, 16, 16))
    monkeypatch.setattr(monai_3d_dice, "BATCH", 1)
    task = {"folder": str(decathlon), "seed": 0, "device": "cpu", **dice_over_time.split_of(decathlon)}
    monai_3d_dice.train({**task, "val": task["val"][:1]}, Looks(time.time(), limit_s=0.0))
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (len(result["looks"]), result["steps"]) == (1, 1)
    assert 0 <= result["looks"][0][1] <= 1
    assert 0 <= result["mirrored_look"][1] <= 1


@pytest.mark.slow
def test_nnunet_plans_preprocesses_trains_and_is_measured(decathlon):
    try:
        dice_over_time.PEERS["nnU-Net, stock"].python()
    except LookupError as missing:
        pytest.skip(str(missing))
    split = dice_over_time.split_of(decathlon)
    run = dice_over_time.run_peer(
        peer_arguments(decathlon), dice_over_time.PEERS["nnU-Net, stock"], {**split, "val": split["val"][:1]}
    )
    assert "error" not in run, run
    assert (len(run["looks"]), len(run["mirrored_look"]), run["steps"]) == (1, 2, 1)


@pytest.mark.long
def test_a_peer_that_fails_is_a_row_that_says_why(decathlon):
    pytest.importorskip("monai")
    split = {"train": ["no such case"], "val": [], "classes": 3}
    run = dice_over_time.run_peer(peer_arguments(decathlon), dice_over_time.PEERS["MONAI, its recipe"], split)
    assert run.keys() == {"error"}


@pytest.mark.long
def test_dlx_train_is_timed_as_a_user_types_it_with_the_seed_and_threads_asked_for(decathlon):
    short = ["--epochs", "2", "--set", "train.steps_per_epoch=1"]
    trained = dlx_dice.train(decathlon, "cpu", short, seed=3, threads=1)
    assert trained.steps == 2
    settings = trained.outcome["settings"]
    assert (settings["seed"], settings["compute"]["threads"]) == (3, 1)
    assert 0 < trained.training_s < trained.wall_s
    with pytest.raises(RuntimeError, match="no-such"):
        dlx_dice.train(decathlon, "cpu", ["--recipe", "no-such"], seed=3, threads=1)
