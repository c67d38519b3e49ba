"""Networks of the user's own: fitted to the data, checked before training, trained, swept over dropout, resumed."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from dlx.engine import checkpoint
from dlx.engine.fit import TrialProgress, fit
from dlx.models.layers.dropout import named_dropouts
from dlx.models.own.network import first_tensor
from dlx.records.schema import EpochRecord
from dlx.settings.own import code
from dlx.system.errors import SettingError
from dlx.trial.factories import make_optimizer, parameter_groups
from made_own_networks import line_of, own_job, own_resolved, own_spec, write_nets
from small import SMALL_ARGS

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture(autouse=True)
def nets(tmp_path, monkeypatch):
    """The working folder with `nets.py`, in a process that has vouched for nothing yet."""
    for name in ("_vouched", "_loaded", "_served"):
        monkeypatch.setattr(code, name, {})
    monkeypatch.chdir(tmp_path)
    return write_nets(tmp_path)


def geometry(name, *changes):
    found = own_resolved(name, *changes).spec.model.code
    return found.dims, found.stride


def results(job, progress=None):
    events = fit(job, progress or TrialProgress())
    return [event.result for event in events if isinstance(event, EpochRecord)]


# --- what is found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Net", (2, 2)),
        ("Plain", (2, 1)),
        ("Volumes", (3, 1)),
        ("Strided:step=4", (2, 4)),
        ("Strided:step=6", (2, 6)),
        ("Strided:step=14", (2, 14)),
        ("Strided:step=4,stride=8", (2, 8)),
        ("OneSize:img_size=24,stride=24", (2, 24)),
        ("Values", (2, 1)),
        ("Lazy", (2, 1)),
        ("make", (2, 1)),
        ("AnyDims", (3, 1)),  # the phantom is a volume
        ("AnyDims:dims=2", (2, 1)),
        ("Told", (3, 1)),
        ("Told:spatial_dims=2", (2, 1)),
        ("Told:dims=2", (2, 1)),
    ],
)
def test_dims_and_stride_are_found_by_forward_passes_or_given(name, expected):
    assert geometry(name) == expected


def test_the_data_choose_the_dimensions_with_a_remark_where_the_network_does_not():
    assert any(remark.startswith("model.dims=auto: 3 (the median of") for remark in own_resolved("AnyDims").remarks)
    assert any(remark.startswith("model.spatial_dims: 3 (the median of") for remark in own_resolved("Told").remarks)
    assert not any("model." in remark for remark in own_resolved("AnyDims:dims=3").remarks)


@pytest.mark.parametrize("name", ["Net", "Volumes", "Told:spatial_dims=2", "AnyDims", "make"])
def test_channels_and_classes_reach_the_network_by_their_usual_names(name):
    job = own_job(name)
    image = torch.zeros(1, 2, *[19] * job.model.dims)
    assert job.model(image).shape == (1, 4, *image.shape[2:])


def test_arguments_that_are_given_are_passed_and_change_the_trial(tmp_path):
    assert own_job("Net:width=8").model.network.head.in_channels == 16
    ids = {own_resolved(name).trial_id(0) for name in ("Net", "Net:width=8", "Net:width=4")}
    assert len(ids) == 3
    (tmp_path / "wide.py").write_text("from nets import Net\n")
    spec = own_spec("Net", {"model": {"width": 16}})
    assert spec.model.args == {"width": 16}


def test_settings_name_the_network_without_its_folder_with_arguments_and_digest(nets):
    model = own_resolved("Net:width=8").settings(0)["model"]
    assert set(model) == {"name", "args", "code"}
    assert (model["name"], model["args"]) == ("nets.py:Net", {"width": 8})
    assert model["code"] | {"digest": ""} == {
        "digest": "",
        "version": None,
        "dims": 2,
        "stride": 2,
        "is_channels_last": True,
    }


# --- what is refused


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("OneChannel", r"its output for an image of 3x2x\d+x\d+ is 3x1x\d+x\d+; expected 3x4x"),
        ("Cropped", "its output for an image of 3x2x64x64 is 3x4x60x60; expected 3x4x64x64"),
        ("kwargs", "has no argument of a usual name for channels and outputs, which are not passed$"),
        ("kwargs:in_channels=2", "has no argument of a usual name for outputs, which are not passed$"),
        ("Text", "the network returns a str; expected a tensor"),
        ("Integers", r"the network returns a tensor of torch.int64; expected floating-point logits"),
        ("Detached", "returns logits that depend on no parameter"),
        ("Exits", r"it called sys.exit\(0\)"),
        ("ExitsAtOnce", r"it could not be built: RuntimeError: it called sys.exit\(0\)"),
        ("OneSize:img_size=24", "the size of its argument 'img_size' alone: --set model.stride=SIZE$"),
        ("NoWeights", "has no parameters to train"),
        (
            "FailsAtOnce",
            rf"it could not be built: RuntimeError: no luck at once \(nets.py, line {line_of('no luck at once')}\)",
        ),
        ("made", "is an instance: name a class or a function"),
        ("number", "is of type int"),
        ("nothing", "there is no 'nothing' in 'nets.py': known: Alpha, "),
        ("Net:widht=8", "no argument 'widht': did you mean 'width'"),
        ("Strided", "needs step: give --set model.step=VALUE"),
        ("Plain:dims=3", "fails on an image of .*: RuntimeError: Expected 3D"),
        ("Plain:dims=4", r"expected dims 2 or 3 and a stride from 1 to 1024 \(got dims=4\)"),
        ("Plain:stride=0", r"\(got stride=0\)"),
        ("OnlyOf16", r"AssertionError: 16 x 16 only \(nets.py, line \d+\)"),
        ("AlwaysDrops", r"draws random numbers in evaluation mode \(nets.py, line \d+\).*training=self.training"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_in_one_line(name, message):
    with pytest.raises(SettingError, match=message) as caught:
        own_resolved(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "patch", "message"),
    [
        ("OnlyOf16:stride=16", [24, 24], "fails on a training batch of 4x2x32x32: AssertionError: 16 x 16 only"),
        ("OnlyOf16:stride=16", [16, 16], "fails on a slice of 1x2x32x32: AssertionError: 16 x 16 only"),
        ("Strided:step=4,stride=6", [18, 18], "fails on a training batch of 4x2x18x18"),
    ],
)
def test_the_network_is_tried_at_the_sizes_of_the_data(name, patch, message):
    with pytest.raises(SettingError, match=message):
        own_resolved(name, {"batch": {"patch_size_px": patch}})


# --- what is remarked


@pytest.mark.parametrize(
    ("name", "remark"),
    [
        ("Softmax", "ends in a softmax, but losses expect logits: leave it out"),
        ("Several", "returns 2 tensors: only the first is trained and measured, without deep supervision"),
    ],
)
def test_a_network_that_probably_is_a_mistake_gets_a_remark(name, remark):
    assert [one for one in own_resolved(name).remarks if "nets.py" in one] == [f"model 'nets.py:{name}' {remark}"]


def test_probes_measure_dropout_alone():
    change = {"evaluate": {"probes": True}, "train": {"epochs": 1}}
    (remark,) = (one for one in own_resolved("Net", change).remarks if one.startswith("evaluate.probes"))
    assert remark.endswith("only dropout is measured")
    (result,) = results(own_job("Net", change))
    assert result.levels is None
    assert result.dead_fraction is None
    assert result.coins["network.dropout"].p == 0.2


def test_a_table_of_tensors_and_a_list_stand_for_their_first_tensor():
    first, second = torch.zeros(1), torch.ones(1)
    assert first_tensor({"out": first, "aux": second}) is first
    assert first_tensor((first, second)) is first
    for wrong in (None, "text", [], [[first]], {}):
        with pytest.raises(TypeError, match="the network returns a"):
            first_tensor(wrong)
    assert own_resolved("Table").remarks == ()


# --- the network in the engine


@pytest.mark.parametrize("name", ["Net", "Volumes", "Strided:step=6", "Views", "Values", "Doubles"])
def test_logits_are_of_the_size_of_the_image_and_the_same_twice(name):
    model = own_job(name).model.eval()
    image = torch.randn(2, 2, *(17, 13, 19)[: model.dims])
    with torch.no_grad():
        logits = model(image)
        assert logits.shape == (2, 4, *image.shape[2:])
        assert logits.dtype is torch.float32
        assert torch.equal(logits, model(image))


def test_images_are_padded_to_the_stride_with_zeros_and_cropped_back():
    model = own_job("Strided:step=4").model.eval()
    image = torch.randn(1, 2, 10, 12)
    padded = torch.zeros(1, 2, 12, 12)
    padded[:, :, :10] = image
    with torch.no_grad():
        torch.testing.assert_close(model(image), model.network(padded)[:, :, :10])


def test_a_network_that_fails_on_channels_last_images_gets_contiguous_ones():
    assert own_resolved("Views").spec.model.code.is_channels_last is False
    job = own_job("Views")
    assert job.model.network.conv.weight.is_contiguous()
    assert len(results(job)) == 3
    plain = own_job("Plain").model.network.conv.weight
    assert plain.is_contiguous(memory_format=torch.channels_last)
    assert not plain.is_contiguous()


def test_the_parameters_are_one_group_and_norms_and_biases_are_spared_if_asked():
    resolved = own_resolved("Net", {"optimizer": {"weight_decay": 0.1, "decay_norms_and_biases": False}})
    model = own_job("Net").model
    groups = parameter_groups(model, resolved.spec)
    assert [(group["name"], group["weight_decay"]) for group in groups] == [("network", 0.1), ("network", 0.0)]
    assert all(parameter.ndim > 1 for parameter in groups[0]["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert make_optimizer(model, resolved.spec).param_groups[1]["weight_decay"] == 0.0
    with pytest.raises(SettingError, match=r"has no group 'encoder' \(known: network\)"):
        own_resolved("Net", {"optimizer": {"group_lr": {"encoder": 0.1}}})


def test_the_embedding_is_the_mean_of_the_coarsest_map():
    model = own_job("Net").model.eval()
    image = torch.randn(2, 2, 16, 16)
    with torch.no_grad():
        fine = model.network.fine(image)
        expected = model.network.coarse(fine).mean((2, 3))
        torch.testing.assert_close(model.embed(image), expected)
        (logits,) = model.forward_levels(image)
        assert logits.dtype is torch.float32
        assert torch.equal(logits, model(image))


def test_first_weights_depend_on_the_seed_alone():
    def weights(name, *changes, seed=0):
        return own_job(name, *changes, seed=seed).model.network.head.weight

    assert torch.equal(weights("Net"), weights("Net", {"dropout": {"p": 0.5}}))
    assert torch.equal(weights("Lazy"), weights("Lazy"))
    assert not torch.equal(weights("Net"), weights("Net", seed=1))
    drawn = weights("Plain", {"init": "xavier-uniform"})
    assert drawn.abs().max() <= math.sqrt(6 / (4 + 4))
    assert not torch.equal(drawn, weights("Plain"))


@pytest.mark.parametrize("name", ["Net", "Volumes", "Functional", "Values", "Lazy", "Kinds"])
def test_it_trains_and_repeats_bit_for_bit(name):
    change = {"train": {"epochs": 1, "steps_per_epoch": 2}}
    first, again = own_job(name, change), own_job(name, change)
    assert results(first) == results(again)
    assert checkpoint.weights_hash(first.model) == checkpoint.weights_hash(again.model)


@pytest.mark.parametrize("name", ["Net", "Functional"])
def test_resuming_gives_the_same_records_and_weights_as_going_on(tmp_path, name):
    change = {"train": {"epochs": 4, "steps_per_epoch": 2, "ema_decay": 0.9}}
    alone = own_job(name, change)
    expected = results(alone)
    interrupted, progress, first = own_job(name, change), TrialProgress(), []
    for event in fit(interrupted, progress):
        if isinstance(event, EpochRecord):
            first.append(event.result)
            if len(first) == 2:
                break
    path = tmp_path / "last.safetensors"
    checkpoint.write(path, checkpoint.snapshot(interrupted, {"progress": vars(progress)}))
    torch.rand(7)  # what else a process draws meanwhile
    saved, resumed = checkpoint.read(path), own_job(name, change)
    checkpoint.restore(saved, resumed)
    assert first + results(resumed, TrialProgress(**saved.header["progress"])) == expected
    assert checkpoint.weights_hash(resumed.model) == checkpoint.weights_hash(alone.model)
    assert checkpoint.weights_hash(resumed.ema) == checkpoint.weights_hash(alone.ema)


# --- dropout


def test_torch_s_dropout_modules_become_dlx_s_of_the_same_kind_and_rate():
    job = own_job("Kinds")
    found = {name: (module.kind, module.rate) for name, module in named_dropouts(job.model).items()}
    assert found == {
        "network.one": ("dropout", 0.1),
        "network.list.0": ("dropout2d", 0.2),
        "network.list.1": ("dropout2d", 0.3),
    }
    assert job.model.network.list[2] is job.model.network.one  # a module in two places stays one
    assert all(module.generator is job.noise for module in named_dropouts(job.model).values())
    assert not any(isinstance(module, nn.modules.dropout._DropoutNd) for module in job.model.modules())


def test_without_p_a_network_keeps_its_rates_and_with_p_all_have_it():
    assert own_spec("Kinds").dropout.own_rates
    assert "dropout: the network's own rates (3 modules, p=0.1, 0.2, 0.3)" in own_resolved("Kinds").remarks
    for p in (0.0, 0.5):
        rates = {module.rate for module in named_dropouts(own_job("Kinds", {"dropout": {"p": p}}).model).values()}
        assert rates == {p}
    ids = {own_resolved("Kinds", *change).trial_id(0) for change in ([], [{"dropout": {"p": 0.0}}])}
    assert len(ids) == 2


def test_without_a_dropout_module_own_rates_are_p_of_zero():
    resolved = own_resolved("Plain")
    assert resolved.settings(0)["dropout"] == {"p": 0.0}
    assert resolved.trial_id(0) == own_resolved("Plain", {"dropout": {"p": 0.0}}).trial_id(0)


def test_p_of_zero_is_the_network_without_dropout_bit_for_bit():
    change = {"dropout": {"p": 0.0}, "train": {"epochs": 1, "steps_per_epoch": 3}}
    with_modules, without = own_job("Net", change), own_job("Net:dropout=0.0", change)
    assert [e.model_dump(exclude={"coins"}) for e in results(with_modules)] == [
        e.model_dump(exclude={"coins"}) for e in results(without)
    ]
    assert checkpoint.weights_hash(with_modules.model) == checkpoint.weights_hash(without.model)


def test_trials_that_differ_in_p_see_the_same_noise():
    def kept(p):
        job = own_job("Net", {"dropout": {"p": p}})
        masks = []
        (dropout,) = named_dropouts(job.model).values()
        dropout.on_draw = masks.append
        for _ in zip(fit(job, TrialProgress()), range(2), strict=False):
            pass
        return torch.stack(masks[:1])

    low, high = kept(0.1), kept(0.6)
    assert (high <= low).all()
    assert high.sum() < low.sum()


@pytest.mark.parametrize(
    ("name", "dropout", "message"),
    [
        ("Plain", {"p": 0.1}, "has no dropout module, so dropout.p=0.1 would change nothing: add nn.Dropout modules"),
        ("Volumes", {"p": 0.1}, "change nothing: its argument 'drop_rate' may make some: --set model.drop_rate=0.1"),
        ("Functional", {"p": 0.1}, r"it draws random numbers itself \(nets.py, line \d+\): use nn.Dropout modules"),
        ("Alpha", {"p": 0.1}, r"dropout.p cannot set its AlphaDropout \('alpha'\)"),
        ("Alpha", {"p": 0.0}, r"dropout.p cannot set its AlphaDropout \('alpha'\)"),
        ("Net", {"p": 0.1, "where": "decoder"}, "dropout.where 'decoder'"),
        ("Net", {"p": 0.1, "kind": "dropout2d"}, "dropout.kind 'dropout2d': .* are of the kind dropout$"),
        ("Net:dropout=1.0", {}, r"its dropout module 'dropout' drops everything \(p=1\)"),
        ("Net", {"p": 0.1, "own_rates": True}, "exclude each other"),
    ],
)
def test_a_rate_that_cannot_be_set_is_refused(name, dropout, message):
    with pytest.raises(SettingError, match=message):
        own_resolved(name, {"dropout": dropout})


def test_an_argument_that_makes_dropout_modules_makes_the_sweep_possible():
    assert own_job("Volumes:drop_rate=0.3", {"dropout": {"p": 0.1}}).model.network.drop.rate == 0.1


def test_noise_outside_dropout_modules_is_remarked_where_p_is_set():
    (remark,) = own_resolved("Functional", {"dropout": {"p": 0.0}}).remarks
    line = line_of("F.dropout(image, 0.3, self.training)")
    assert remark.startswith("model 'nets.py:Functional' draws random numbers outside its dropout modules")
    assert f"(nets.py, line {line})" in remark
    assert own_resolved("Functional").remarks == ()
    assert own_resolved("Alpha").remarks == ()


# --- the commands


def words(name, *more):
    small = [word for word in SMALL_ARGS if word not in ("--model", "unet2:width=4,levels=2")]
    return ["--model", f"nets.py:{name}", *small, "--set", "evaluate.every=1", *more]


def test_train_prints_the_network_with_its_digest_and_records_it(dlx):
    result = dlx("train", *words("Net"), "--epochs", "1", "--out", "out")
    digest = own_resolved("Net").spec.model.code.digest
    # 2 -> 4 and 4 -> 8 of 3x3, a norm of 4, 8 -> 4 of 2x2, 8 -> 4 of 1x1
    parameters = (2 * 4 * 9 + 4) + (4 * 8 * 9 + 8) + 8 + (8 * 4 * 4 + 4) + (8 * 4 + 4)
    assert f"network  nets.py:Net (2D, code {digest[:8]}), {parameters} parameters" in result.stderr
    header = json.loads(Path("out/study.json").read_text())
    assert header["settings"]["model"] == {
        "name": "nets.py:Net",
        "args": {},
        "code": {"digest": digest, "version": None, "dims": None, "stride": None, "is_channels_last": True},
    }
    (trial,) = Path("out/trials").iterdir()
    assert json.loads((trial / "settings.json").read_text())["model"]["code"]["digest"] == digest
    assert checkpoint.read(trial / "last.safetensors").header["settings"]["model"]["code"]["digest"] == digest


def test_an_error_in_training_is_a_failed_trial_with_its_line_and_its_traceback(dlx):
    shown = dlx("train", *words("FailsInTraining"), "--epochs", "1", "--out", "out", expect=1).stderr
    (trial,) = Path("out/trials").iterdir()
    line = line_of("no luck in training")
    cause = json.loads((trial / "result.json").read_text())["cause"]
    assert cause == f"RuntimeError: no luck in training (nets.py, line {line})"
    assert f"{cause} (traceback: {trial / 'error.txt'})" in shown
    traceback = (trial / "error.txt").read_text()
    assert f'nets.py", line {line}, in forward' in traceback
    assert traceback.endswith("RuntimeError: no luck in training\n")


def test_what_a_network_prints_is_no_result(dlx):
    result = dlx("train", *words("Prints"), "--epochs", "1", "--json")
    assert json.loads(result.stdout)["trials"][0]["status"] == "done"
    assert "a word" in result.stderr


def test_a_changed_file_makes_other_trials_beside_the_earlier_ones(dlx, nets):
    dlx("train", *words("Plain"), "--epochs", "1")
    nets.write_text(nets.read_text() + "\n# a remark\n")
    dlx("train", *words("Plain"), "--epochs", "1")
    digests = {
        json.loads((trial / "settings.json").read_text())["model"]["code"]["digest"]
        for trial in Path("runs/phantom-nets-Plain/trials").iterdir()
    }
    assert len(digests) == 2
    assert "nothing was run" in dlx("train", *words("Plain"), "--epochs", "1").stderr


@pytest.mark.slow
def test_workers_execute_the_content_that_was_planned_and_a_report_none(dlx, nets):
    """A network whose file changes as soon as it is executed, as an editor would change it while a study runs."""
    changed = "raise RuntimeError(1)\n"
    nets.write_text(f"{nets.read_text()}\n__import__('pathlib').Path(__file__).write_text({changed!r})\n")
    result = dlx("sweep-dropout", *words("Net"), "--p", "0.3", "--seeds", "2", "--epochs", "1", "--out", "out")
    assert nets.read_text() == changed
    assert "Does dropout (modules of the network) help" in result.stdout
    found = [json.loads(path.read_text()) for path in sorted(Path("out/trials").glob("*/result.json"))]
    assert [record["status"] for record in found] == ["done"] * 4
    for seed in (0, 1):  # paired: the same batches
        assert len({record["result"]["batches_hash"] for record in found if record["seed"] == seed}) == 1
    code._vouched.clear()
    assert "p=0.3" in dlx("report", "out").stdout


def test_a_sweep_of_a_network_without_dropout_is_refused_before_anything_runs(dlx):
    with pytest.raises(SettingError, match=r"variant 'p=0\.1': model 'nets\.py:Plain' has no dropout module"):
        dlx("sweep-dropout", *words("Plain"), "--p", "0.1", "--out", "out")
    assert not Path("out").exists()


MONAI = "monai.networks.nets:UNet:spatial_dims=2,channels=[4,8,16],strides=[2,2]"


@pytest.mark.slow
def test_a_monai_unet_is_counted_and_swept_as_it_comes(dlx):
    counted = json.loads(dlx("count-params", MONAI, "--json").stdout)[0]
    assert counted["input"] == [2, 64, 64]
    small = words("x", "--epochs", "1", "--set", "batch.patch_size_px=none", "--out", "out")
    dlx("sweep-dropout", *small, "--model", MONAI, "--p", "0.5", "--seeds", "1", "--max-parallel", "1")
    records = [json.loads(path.read_text()) for path in Path("out/trials").glob("*/result.json")]
    assert sorted(record["settings"]["dropout"]["p"] for record in records) == [0.0, 0.5]
    assert {record["status"] for record in records} == {"done"}
    assert {record["parameters"] for record in records} == {counted["parameters"]}
    known = records[0]["settings"]["model"]["code"]
    assert (known["dims"], known["stride"]) == (2, 4)
    assert known["version"].startswith("monai ")
    assert len({record["result"]["weights_hash"] for record in records}) == 2
    for name, message in [
        ("SegResNet:spatial_dims=2", r"--set model\.dropout_prob=0\.1"),
        ("UNet:spatial_dims=2,chanels=[4,8],strides=[2]", "has no argument 'chanels': did you mean 'channels'"),
        ("UNet", r"needs channels and strides: give --set model\.channels=VALUE"),
    ]:
        with pytest.raises(SettingError, match=message):
            dlx("train", *small, "--model", f"monai.networks.nets:{name}", "--dropout", "0.1")


# --- docs/your-network.md, whose other commands tests/test_doc_commands.py runs

PAGE = Path(__file__).parents[1] / "docs/your-network.md"


@pytest.mark.slow
def test_the_networks_of_monai_on_the_page_are_fitted_and_the_one_in_a_file_is_short():
    page = PAGE.read_text(encoding="utf-8")
    (network,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(network.splitlines()) <= 20
    found = set()
    for name in dict.fromkeys(re.findall(r"'(monai[^']+)'", page)):
        rate = {"dropout": {"p": 0.1}} if "dropout_prob" in name else {}
        spec = own_resolved(name, rate).spec
        found.add((spec.model.name.rpartition(":")[2], spec.model.code.dims, spec.dropout.p))
    assert found == {("UNet", 3, 0.0), ("UNet", 2, 0.0), ("SegResNet", 2, 0.1)}
