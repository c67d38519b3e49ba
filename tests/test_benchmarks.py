"""The benchmarks: every contender does equal work, and tables and ratios are what their records say."""

import argparse
import importlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import dice_over_time, figure, records, report  # noqa: E402
from benchmarks.checks import (  # noqa: E402
    dice_checks,
    dice_curve_checks,
    gpu_checks,
    step_3d_checks,
    step_checks,
)
from benchmarks.contenders import (  # noqa: E402
    CONTENDERS,
    CONTENDERS_3D,
    Contender,
    dlx_dice,
    monai_3d_dice,
    selected,
)
from benchmarks.contenders.ceilings import convolutions_of, convolutions_s  # noqa: E402
from benchmarks.contenders.looking import SHARES, Looks  # noqa: E402
from benchmarks.plain import (  # noqa: E402
    LOSSES,
    PlainUNet2,
    PlainUNet3d,
    count_parameters,
    lovasz_softmax,
    mean_dice,
    standard_gflop,
)
from benchmarks.run import run_contender  # noqa: E402
from benchmarks.workload import STEP_3D, Workload, as_text, from_text  # noqa: E402

from dlx.models.unet import unet2  # noqa: E402
from dlx.scoring.overlap import dice_from_counts, overlap_counts, summarize  # noqa: E402
from dlx.training.losses import CrossEntropy, SoftDice, SumLoss  # noqa: E402
from dlx.training.lovasz import LovaszSoftmax  # noqa: E402
from dlx.trial.build import make_model  # noqa: E402

TINY = Workload(width=4, slices=8, side=16, volume=20, warm_up=1, steps=1, threads=1)
PARAMETERS = count_parameters(PlainUNet2(2, 4, 4))
TINY_3D = replace(STEP_3D, width=2, patch=(24, 32, 24), volume=36, warm_up=1, steps=1, threads=1)
EVERY = {2: (CONTENDERS, TINY, PARAMETERS), 3: (CONTENDERS_3D, TINY_3D, count_parameters(PlainUNet3d(1, 3, 2)))}


def in_process(dims):
    return [c for c in EVERY[dims][0] if c.module != "nnunet_trainer" and c.variant != "compile"]


@pytest.mark.parametrize(
    ("dims", "contender"),
    [
        pytest.param(dims, contender, id=f"{dims}D, {contender.name}")
        for dims in EVERY
        for contender in in_process(dims)
    ],
)
def test_contender_trains_a_step_with_as_many_parameters_as_dlx(dims, contender):
    if contender.module == "monai_loop":
        pytest.importorskip("monai")
    _, tiny, parameters = EVERY[dims]
    module = importlib.import_module(f"benchmarks.contenders.{contender.module}")
    step, facts = module.make_step(replace(tiny, precision=contender.precision, loss=contender.loss or tiny.loss))
    step(0)
    step(1)
    assert facts["parameters"] == parameters


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ["nnU-Net's trainer, our network", "nnU-Net, stock"])
def test_nnunet_trains_a_step_in_a_process_of_its_own(name, dims):
    contenders, tiny, parameters = EVERY[dims]
    contender = next(contender for contender in contenders if contender.name == name)
    try:
        contender.python()
    except LookupError as missing:
        pytest.skip(str(missing))
    run = run_contender(contender, tiny)
    assert run.get("error") is None
    assert (run["parameters"] == parameters) == (contender.variant != "stock")


def test_a_workload_survives_the_command_line():
    assert from_text(as_text(TINY_3D)) == TINY_3D
    assert from_text(as_text(TINY)) == TINY


def test_a_step_in_3d_takes_patches_of_the_volumes():
    images, masks = TINY_3D.volumes()
    boxes = TINY_3D.boxes()[1]
    image, mask = TINY_3D.cut(images, masks, boxes)
    assert tuple(image.shape) == TINY_3D.batch_shape == (2, 1, 24, 32, 24)
    subject, (d, h, w) = boxes[1]
    assert image[1, 0, 3, 4, 5].item() == images[subject, 0, d.start + 3, h.start + 4, w.start + 5]
    assert mask[1, 3, 4, 5].item() == masks[subject, d.start + 3, h.start + 4, w.start + 5]


def test_the_plain_network_in_3d_gives_dlx_s_logits_with_its_weights():
    ours = unet2(1, 3, width=2, norm="instance", dims=3, up="transposed", activation="leaky-relu")
    plain = PlainUNet3d(1, 3, 2)
    with torch.no_grad():
        for target, source in zip(in_order_of_calls(plain), ours.parameters(), strict=True):
            target.copy_(source.normal_(std=0.2))
    image = torch.randn(2, 1, 16, 24, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain(image), ours(image), rtol=1e-4, atol=1e-4)


def in_order_of_calls(plain):
    """Parameters in the order of dlx's: level by level, where the plain decoder keeps its two kinds of layers apart."""
    levels = [layer for pair in zip(plain.up, plain.merge, strict=True) for layer in pair]
    return [tensor for module in (plain.encoder, *levels, plain.head) for tensor in module.parameters()]


def test_the_plain_loss_in_3d_is_dlx_s_in_value_and_gradient():
    generator = torch.Generator().manual_seed(0)
    mask = torch.randint(2, (2, 4, 5, 6), generator=generator)  # the last of three classes is absent
    logits = torch.randn(2, 3, 4, 5, 6, generator=generator, requires_grad=True)
    results = []
    for loss in (LOSSES["dice+ce"], SumLoss([SoftDice(3), CrossEntropy(3)])):
        value = loss(logits, mask)
        results.append((value, *torch.autograd.grad(value, logits)))
    torch.testing.assert_close(*results)


def test_the_ceiling_of_convolutions_counts_those_of_the_step():
    layers = convolutions_of(TINY_3D)
    assert len(layers) == 8 + 3 * 3 + 1  # encoder, decoder, head
    assert layers[0][1] == (2, 1, 24, 32, 24)
    assert layers[-1][1] == (2, 2, 24, 32, 24)
    assert convolutions_s(TINY_3D) > 0
    # a multiplication and an addition for each weight and voxel of the map that is not enlarged, with both gradients
    # thrice; the first layer has no gradient to the image
    operations = [2 * layer.weight.numel() * shape.numel() // shape[1] for layer, shape in layers]
    assert standard_gflop(TINY_3D) == pytest.approx((3 * sum(operations) - operations[0]) / 1e9)


@pytest.mark.slow
def test_a_contender_that_ends_with_an_error_is_a_row_that_says_why():
    contender = next(contender for contender in CONTENDERS if contender.name == "notes' loop")
    run = run_contender(contender, replace(TINY, loss="no such loss"))
    assert "no such loss" in run["error"]


def test_plain_network_has_the_parameters_and_operations_of_the_notes():
    assert count_parameters(PlainUNet2(2, 4, 64)) == 8_563_652
    assert standard_gflop(Workload(slices=1)) == pytest.approx(18.60, abs=0.005)
    assert standard_gflop(Workload()) == pytest.approx(64 * 18.60, abs=0.5)


def test_plain_lovasz_is_dlx_s_exact_one_in_value_and_gradient():
    generator = torch.Generator().manual_seed(0)
    mask = torch.randint(3, (2, 8, 8), generator=generator)  # the last of four classes is absent
    logits = torch.randn(2, 4, 8, 8, generator=generator, requires_grad=True)
    results = []
    for loss in (lovasz_softmax, LovaszSoftmax(4, bins=None)):
        value = loss(logits, mask)
        results.append((value, *torch.autograd.grad(value, logits)))
    (plain, plain_gradient), (ours, our_gradient) = results
    assert plain.item() == pytest.approx(ours.item(), rel=1e-6)
    torch.testing.assert_close(plain_gradient, our_gradient, rtol=1e-4, atol=1e-6)


def step_document(**seconds):
    """A record in which each contender took these seconds, repeat by repeat; `None` is an error."""
    run = {"precision": "bf16", "parameters": 5, "cold_s": 3.0, "peak_mib": 100.0}
    return {
        "kind": "step",
        "device": "cpu",
        "date": "2026-01-01",
        "machine": {"device": "a processor", "cores": 2, "torch": "2"},
        "quiet": {"busy_cores": 0.0},
        "workload": {"width": 64, "slices": 64, "side": 64, "loss": "lovasz+focal"},
        "ceilings": {
            "matmul_bf16_gflops": 1000.0,
            "matmul_float32_gflops": 200.0,
            "copy_gb_per_s": 10.0,
            "step_gflop": 1700.0,
        },
        "runs": {
            name: [{"error": "not here"}] if times is None else [{"step_s": time, **run} for time in times]
            for name, times in seconds.items()
        },
    }


DOCUMENT = step_document(
    **{
        "dlx": [2.0, 2.0, 1.0],
        "dlx, cross-entropy": [2.0, 1.9, 1.0],
        "notes' loop": [12.0, 10.0, 9.0],
        "tuned loop": [2.2, 2.6, 3.0],
        "tuned loop, compiled": [3.0, 2.2, 3.0],
        "MONAI, as it comes": None,
    }
)


def test_ratios_are_taken_within_a_repeat():
    rows = {row["name"]: row for row in report.summarize(DOCUMENT)}
    assert rows["notes' loop"]["times_dlx"] == 6.0  # the median of 6, 5 and 9, and not 10 / 2
    assert rows["dlx"]["of_bf16_matmul"] == pytest.approx(0.85)
    assert rows["dlx"]["range_s"] == [1.0, 2.0]
    assert rows["MONAI, as it comes"] == {"name": "MONAI, as it comes", "missing": "not here"}


def test_checks_say_what_holds_and_what_was_not_measured():
    lines = {line.name: line for line in step_checks(DOCUMENT)}
    assert lines["times the notes' loop (float32)"].holds is True
    tuned = lines["times the tuned loop (the faster of plain and compiled)"]
    assert (tuned.measured, tuned.holds) == ("1.10 (1.10 to 3.00)", False)
    assert lines["times MONAI as it comes (float32)"].holds is None
    assert lines["standard FLOPs of the step in the bf16 matrix product's rate"].holds is True
    assert lines["Lovász step in cross-entropy steps"].measured == "1.000 (1.000 to 1.053)"
    assert any(line.target == "at most 3.0 ms" and line.holds is False for line in gpu_checks(DOCUMENT))


DOCUMENT_3D = {
    **step_document(
        **{
            "dlx": [1.0, 1.1, 1.0],
            "dlx, float32": [2.0, 2.0, 2.5],
            "MONAI, as it comes": [1.2, 1.2, 1.2],
            "nnU-Net's trainer, our network": [2.6, 2.6, 2.6],
        }
    ),
    "kind": "step-3d",
    "workload": {"width": 16, "slices": 64, "side": 64, "patch": [40, 56, 40], "patches": 2, "loss": "dice+ce"},
}
DOCUMENT_3D["ceilings"] = {**DOCUMENT_3D["ceilings"], "convolution_float32_gflops": 1000.0}


def test_checks_in_3d_are_in_units_of_the_convolutions():
    float32, ours, monai, _, nnunet, _ = step_3d_checks(DOCUMENT_3D)
    assert (float32.measured, float32.holds) == ("0.85 (0.68 to 0.85)", True)
    assert (ours.measured, ours.holds) == ("1.70 (1.55 to 1.70)", True)
    assert (monai.measured, monai.holds) == ("1.20 (1.09 to 1.20)", False)
    assert nnunet.holds is True
    rows = {row["name"]: row for row in report.summarize(DOCUMENT_3D)}
    assert rows["dlx, float32"]["of_float32_convolution"] == pytest.approx(0.85)


def dice_document(ours, theirs):
    runs = {"dlx": ours, "MONAI, as it comes": theirs}
    made = {
        name: [
            {"seed": 0, "reached_s": at, "dice": 0.87 if at else 0.85, "looks": [[at or 120.0, 0.85]], "wall_s": 30.0}
            for at in times
        ]
        for name, times in runs.items()
    }
    return {**DOCUMENT, "kind": "dice", "target": 0.86, "limit_s": 120.0, "note": "a note", "runs": made}


def test_a_peer_that_never_gets_there_bounds_the_ratio_and_one_of_ours_fails_it():
    in_time, share = dice_checks(dice_document([20.0, 30.0], [None, 80.0]))
    assert (in_time.holds, share.holds) == (True, True)
    assert share.measured == "less than 0.27 (0.17 to 0.38)"
    assert [line.holds for line in dice_checks(dice_document([20.0, None], [None, 80.0]))] == [False, False]


FACTS = {"looking_s": 30.0, "steps": 7, "parameters": 8, "quiet": {"busy_cores": 0.0}}
CURVE = {
    **{key: value for key, value in DOCUMENT.items() if key not in ("workload", "ceilings", "quiet")},
    "kind": "dice-curve",
    "data": "Task04_Hippocampus",
    "limit_s": 3600.0,
    "seed": 0,
    "threads": 2,
    "note": "a note",
    "runs": {
        name: {"looks": looks, "mirrored_look": mirrored, "wall_s": wall_s, **FACTS, **more}
        for name, looks, mirrored, wall_s, more in (
            ("dlx, quick", [[10.0, 0.8], [18.0, 0.867]], None, 25.0, {}),
            ("dlx, strong", [[60.0, 0.85], [300.0, 0.87], [720.0, 0.8804]], None, 810.0, {}),
            ("MONAI, its recipe", [[60.0, 0.0], [900.0, 0.86], [3600.0, 0.875]], [3600.0, 0.886], 4000.0, {}),
            ("nnU-Net, stock", [[120.0, 0.7], [1800.0, 0.85]], None, 1900.0, {"ended": "killed"}),
        )
    },
}


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


def refuse_to_sleep(seconds):
    raise AssertionError(f"a sleep of {seconds} s")


@pytest.mark.parametrize(
    ("module", "arguments", "known"),
    [
        ("dice_over_time", [], [*dice_over_time.RECIPES, *dice_over_time.PEERS]),
        ("run", [], [contender.name for contender in CONTENDERS]),
        ("run", ["--dims", "3"], [contender.name for contender in CONTENDERS_3D]),
    ],
    ids=["dice_over_time", "run", "run in 3D"],
)
def test_a_misspelled_contender_is_a_usage_error_before_anything_is_measured(
    module, arguments, known, monkeypatch, capsys, tmp_path
):
    asked = f"{known[0]}; no such contender"
    monkeypatch.setattr(sys, "argv", [module, "--only", asked, "--out", str(tmp_path / "record.json"), *arguments])
    monkeypatch.setattr(time, "sleep", refuse_to_sleep)  # the first measurement, of a quiet machine, sleeps
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"benchmarks.{module}").main()
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "'no such contender'" in message
    assert all(name in message for name in known)


@pytest.mark.parametrize(
    ("only", "names"),
    [(None, ["dlx", "MONAI, bf16", "notes' loop"]), ("notes' loop;dlx", ["dlx", "notes' loop"])],
)
def test_selected_contenders_are_in_the_order_of_the_table(only, names):
    assert selected(argparse.ArgumentParser(), only, ["dlx", "MONAI, bf16", "notes' loop"]) == names


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


def test_plain_dice_is_dlx_s():
    generator = torch.Generator().manual_seed(0)
    pairs = [tuple(torch.randint(3, (4, 5, 6), generator=generator) for _ in range(2)) for _ in range(3)]
    pairs.append((torch.zeros(4, 5, 6, dtype=torch.long), torch.zeros(4, 5, 6, dtype=torch.long)))  # has no class
    counts = torch.stack([overlap_counts(prediction, mask, 3) for prediction, mask in pairs])
    assert mean_dice(pairs, 3) == pytest.approx(summarize(dice_from_counts(counts)).mean, abs=1e-12)


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


@pytest.mark.slow
def test_a_peer_that_fails_is_a_row_that_says_why(decathlon):
    pytest.importorskip("monai")
    split = {"train": ["no such case"], "val": [], "classes": 3}
    run = dice_over_time.run_peer(peer_arguments(decathlon), dice_over_time.PEERS["MONAI, its recipe"], split)
    assert run.keys() == {"error"}


@pytest.mark.slow
def test_dlx_train_is_timed_as_a_user_types_it_with_the_seed_and_threads_asked_for(decathlon):
    short = ["--epochs", "2", "--set", "train.steps_per_epoch=1"]
    trained = dlx_dice.train(decathlon, "cpu", short, seed=3, threads=1)
    assert trained.steps == 2
    settings = trained.outcome["settings"]
    assert (settings["seed"], settings["compute"]["threads"]) == (3, 1)
    assert 0 < trained.training_s < trained.wall_s
    with pytest.raises(RuntimeError, match="no-such"):
        dlx_dice.train(decathlon, "cpu", ["--recipe", "no-such"], seed=3, threads=1)


def test_the_summary_is_made_of_the_newest_records(tmp_path):
    point = [{"x": 1, "s": 1.0, "mib": 2.0}, {"x": 2, "s": 1.5, "mib": 2.0}]
    words = {"labels": {"width": "w"}, "seconds": {"width": "s"}, "memory": {"width": "MiB"}}
    scaling = {**DOCUMENT, "kind": "scaling", "axes": {"width": point}, **words, "note": "a note"}
    old = step_document(dlx=[99.0])
    dice = dice_document([20.0], [80.0])
    for day, document in ((1, old), (2, DOCUMENT), (3, DOCUMENT_3D), (1, dice), (1, CURVE), (1, scaling)):
        name = f"2026-01-0{day}-{document['kind']}-cpu.json"
        (tmp_path / name).write_text(json.dumps(document), encoding="utf-8")
    text = report.write_summary(tmp_path).read_text(encoding="utf-8")
    assert "missing: not here" in text
    assert "99.0" not in text
    assert "3D, 2 patches of 40 x 56 x 40" in text
    kinds = ("step", "step-3d", "dice", "dice-curve", "scaling")
    assert {path.name for path in tmp_path.glob("*.svg")} == {f"{kind}-cpu.svg" for kind in kinds}


def test_the_plain_network_of_the_hippocampus_run_is_dlx_s_own():
    from dlx.settings.layers import make_spec, read_recipe
    from small import small_resolved

    dataset = replace(small_resolved().dataset, channels=("MRI",), classes=("background", "a", "b"))
    model = make_model(make_spec(read_recipe("quick")), dataset)
    assert count_parameters(model) == count_parameters(PlainUNet2(1, 3, 16, levels=3))
