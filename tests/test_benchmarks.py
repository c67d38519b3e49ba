"""The benchmarks of a step: every contender does equal work, and tables and ratios are what their records say."""

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

from benchmarks import dice_over_time, records, report  # noqa: E402
from benchmarks.checks import gpu_checks, step_3d_checks, step_checks  # noqa: E402
from benchmarks.contenders import CONTENDERS, CONTENDERS_3D, selected  # noqa: E402
from benchmarks.contenders.ceilings import convolutions_of, convolutions_s  # noqa: E402
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

from dlx.models.architectures.unet import unet2  # noqa: E402
from dlx.scoring.overlap import dice_from_counts, overlap_counts, summarize  # noqa: E402
from dlx.training.losses import CrossEntropy, SoftDice, SumLoss  # noqa: E402
from dlx.training.lovasz import LovaszSoftmax  # noqa: E402
from dlx.trial.build import make_model  # noqa: E402
from made_benchmarks import CURVE, DOCUMENT, DOCUMENT_3D, dice_document, step_document  # noqa: E402

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


def test_checks_in_3d_are_in_units_of_the_convolutions():
    float32, ours, monai, _, nnunet, _ = step_3d_checks(DOCUMENT_3D)
    assert (float32.measured, float32.holds) == ("0.85 (0.68 to 0.85)", True)
    assert (ours.measured, ours.holds) == ("1.70 (1.55 to 1.70)", True)
    assert (monai.measured, monai.holds) == ("1.20 (1.09 to 1.20)", False)
    assert nnunet.holds is True
    rows = {row["name"]: row for row in report.summarize(DOCUMENT_3D)}
    assert rows["dlx, float32"]["of_float32_convolution"] == pytest.approx(0.85)


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


def test_plain_dice_is_dlx_s():
    generator = torch.Generator().manual_seed(0)
    pairs = [tuple(torch.randint(3, (4, 5, 6), generator=generator) for _ in range(2)) for _ in range(3)]
    pairs.append((torch.zeros(4, 5, 6, dtype=torch.long), torch.zeros(4, 5, 6, dtype=torch.long)))  # has no class
    counts = torch.stack([overlap_counts(prediction, mask, 3) for prediction, mask in pairs])
    assert mean_dice(pairs, 3) == pytest.approx(summarize(dice_from_counts(counts)).mean, abs=1e-12)


def test_the_summary_is_made_of_the_newest_records(tmp_path):
    point = [{"x": 1, "s": 1.0, "mib": 2.0}, {"x": 2, "s": 1.5, "mib": 2.0}]
    words = {"labels": {"width": "w"}, "seconds": {"width": "s"}, "memory": {"width": "MiB"}}
    scaling = {**DOCUMENT, "kind": "scaling", "axes": {"width": point}, **words, "note": "a note"}
    old = step_document(dlx=[99.0])
    dice = dice_document([20.0], [80.0])
    for day, document in ((1, old), (2, DOCUMENT), (3, DOCUMENT_3D), (1, dice), (1, CURVE), (1, scaling)):
        write_dated(day, document, tmp_path)
    text = report.write_summary(tmp_path).read_text(encoding="utf-8")
    assert "missing: not here" in text
    assert "99.0" not in text
    assert "3D, 2 patches of 40 x 56 x 40" in text
    kinds = ("step", "step-3d", "dice", "dice-curve", "scaling")
    assert {path.name for path in tmp_path.glob("*.svg")} == {f"{kind}-cpu-a-processor.svg" for kind in kinds}


def write_dated(day, document, folder):
    path = folder / f"2026-01-0{day}-{records.file_stem(document['kind'], document)}.json"
    path.write_text(json.dumps(document), encoding="utf-8")


def test_the_summary_shows_the_newest_record_of_each_machine(tmp_path):
    here = {"device": "a processor", "cores": 2, "torch": "2"}
    there = {"device": "Other (R) CPU", "cores": 4, "torch": "2"}
    for day, machine, seconds in ((1, here, 91.0), (2, here, 92.0), (1, there, 93.0)):
        write_dated(day, {**step_document(dlx=[seconds]), "machine": machine}, tmp_path)
    text = report.write_summary(tmp_path).read_text(encoding="utf-8")
    assert [seconds for seconds in ("91.0", "92.0", "93.0") if seconds in text] == ["92.0", "93.0"]
    assert {path.name for path in tmp_path.glob("*.svg")} == {"step-cpu-a-processor.svg", "step-cpu-other-r-cpu.svg"}
    for machine, seconds in ((here, 92.0), (there, 93.0)):
        found = records.newest("step", {"device": "cpu:0", "machine": machine}, tmp_path)
        assert found["runs"]["dlx"][0]["step_s"] == seconds
    assert records.newest("dice", {"device": "cpu", "machine": here}, tmp_path) is None


def test_the_plain_network_of_the_hippocampus_run_is_dlx_s_own():
    from dlx.settings.layers import make_spec, read_recipe
    from small import small_resolved

    dataset = replace(small_resolved().dataset, channels=("MRI",), classes=("background", "a", "b"))
    model = make_model(make_spec(read_recipe("quick")), dataset)
    assert count_parameters(model) == count_parameters(PlainUNet2(1, 3, 16, levels=3))
