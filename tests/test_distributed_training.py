"""One trial on several processes: equal to one process, all ranks end alike, and losses say whether they average."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import made_scans
from cluster_processes import free_port
from dlx.api.studies import one_network
from dlx.cli.options import TrainOptions
from dlx.cli.ranks import for_ranks, refuse_ranks
from dlx.engine import group
from dlx.engine.device import Compute
from dlx.settings import registry
from dlx.settings.layers import make_spec
from dlx.system.cpu_cores import available_cores
from dlx.system.errors import SettingError
from dlx.system.ranks import ALONE, Ranks, ranks_of
from dlx.trial.ranks import check_ranks

# float32 sums over two halves of a batch instead of over all of it: measured 4e-7 within 50 steps at this rate. At
# five times the rate training is chaotic and amplifies any rounding: then one process with two threads and one with one
# thread differ by up to 3e-2, as much as two ranks do.
LOSS_TOLERANCE = 5e-6
WEIGHT_TOLERANCE = 1e-4  # of each tensor's norm, after 50 steps
PATIENCE_S = 100

TINY = [
    *("--data", "phantom:subjects=3,size=24", "--val", "subject-3", "--batch-size", "4", "--epochs", "50"),
    *("--steps-per-epoch", "1", "--set", "evaluate.every=50", "--optimizer", "sgd", "--lr", "0.01"),
    *("--set", "model.norm=group", "--set", "model.width=4", "--set", "model.levels=2", "--device", "cpu"),
    *("--threads", "1", "--set", "compute.precision=float32", "--no-pictures", "--quiet"),
]
AUGMENTED = [
    *("--set", "augment.flip=0.5", "--set", "augment.rotate_deg=15", "--set", "augment.noise=0.1"),
    *("--set", "augment.intensity=0.1", "--set", "augment.blur=0.3", "--set", "augment.gamma=0.3"),
]
PARTS = [*TINY, *AUGMENTED, "--loss", "ce+focal", "--dropout", "0.3"]
GATHERED = [*TINY, *AUGMENTED, "--loss", "dice+ce", "--clip-grad-norm", "1", "--ema", "0.9"]
GATHERED += ["--set", "evaluate.soft_dice=true"]


def start(arguments, ranks, cache):
    """Starts `dlx` in a session of its own, under torchrun if there are several ranks."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port", str(free_port())]
    command = [sys.executable, *(launcher if ranks > 1 else []), "-m", "dlx", *map(str, arguments)]
    environment = os.environ | {"DLX_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )


def end(process):
    """The exit code and the lines of dlx; kills everything that does not end."""
    try:
        output, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, [line for line in output.splitlines() if line.startswith("dlx: ")], output


def train(arguments, ranks, out, cache):
    code, _, output = end(start(["train", *arguments, "--out", out], ranks, cache))
    assert code == 0, output
    return out


def result_of(folder):
    return json.loads(next(folder.glob("trials/*/result.json")).read_text())


def epochs_of(folder):
    lines = next(folder.glob("trials/*/epochs.jsonl")).read_text().splitlines()
    return [json.loads(line)["result"] for line in lines]


def wait_for_epochs(folder, process, count):
    """Returns when `count` epochs are recorded."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        found = list(folder.glob("trials/*/epochs.jsonl"))
        if found and len(found[0].read_text().splitlines()) >= count:
            return
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError(f"{count} epochs were never recorded: {process.communicate()[0]}")


def process_of_rank(launcher, rank):
    """The process of a rank: a child of torchrun with this RANK in its environment."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            is_rank = f"RANK={rank}".encode() in (status.parent / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if parent == launcher.pid and is_rank:
            return int(status.parent.name)
    raise AssertionError(f"no process has rank {rank}")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def together(tmp_path_factory, cache):
    return train(PARTS, 2, tmp_path_factory.mktemp("parts") / "two", cache)


def assert_equal_runs(two, one):
    losses = [[epoch["loss"] for epoch in epochs_of(folder)] for folder in (two, one)]
    assert len(losses[0]) == 50
    assert losses[0] == pytest.approx(losses[1], rel=LOSS_TOLERANCE)
    first, second = (result_of(folder) for folder in (two, one))
    assert first["result"]["batches_hash"] == second["result"]["batches_hash"]
    assert first["result"]["val"]["dice"] == pytest.approx(second["result"]["val"]["dice"], abs=1e-3)
    weights = [load_file(next(folder.glob("trials/*/last.safetensors"))) for folder in (two, one)]
    names = [name for name in weights[1] if name.startswith("model.") and weights[1][name].ndim > 0]
    assert names
    for name in names:
        a, b = (tensors[name].double() for tensors in weights)
        assert (a - b).norm() <= WEIGHT_TOLERANCE * b.norm() + 1e-6, name


@pytest.mark.slow
def test_two_ranks_train_as_one_process_does_where_the_loss_averages(together, tmp_path, cache):
    assert_equal_runs(together, train(PARTS, 1, tmp_path / "one", cache))
    record = result_of(together)
    assert record["run"]["num_ranks"] == record["settings"]["compute"]["num_ranks"] == 2


@pytest.mark.long
def test_two_ranks_train_as_one_process_does_where_the_loss_is_gathered(tmp_path, cache):
    two, one = train(GATHERED, 2, tmp_path / "two", cache), train(GATHERED, 1, tmp_path / "one", cache)
    assert_equal_runs(two, one)
    soft = [[epoch["train_soft_dice_running"] for epoch in epochs_of(folder)] for folder in (two, one)]
    assert soft[0] == pytest.approx(soft[1], rel=1e-4)


# at the rate above, one process with two threads and one with one thread differ by 4e-5 on some of these data
STABLE = ["--lr", "0.002"]
VOLUMES = ["model.dims=3", "model.levels=3", "model.deep_supervision=1", "batch.patch_size_px=[8,16,16]"]
KINDS = {
    "volumes with deep supervision": VOLUMES,
    "blocks": ["batch.kind=block"],
    "regions": ["data.source=phantom:subjects=3,size=24,regions=true"],
    "Lovász": ["loss=lovasz+focal:gamma=1"],
    "patches around classes": ["batch.foreground_fraction=0.5", "batch.foreground_by=class", "dropout.kind=dropout2d"],
}


@pytest.mark.long
@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_two_ranks_train_as_one_process_does_for_each_kind_of_batch_and_loss(settings, tmp_path, cache):
    words = [word for setting in settings for word in ("--set", setting)]
    two, one = (train([*TINY, *AUGMENTED, *STABLE, *words], ranks, tmp_path / str(ranks), cache) for ranks in (2, 1))
    assert_equal_runs(two, one)


@pytest.mark.long
def test_two_ranks_train_as_one_process_does_where_a_label_is_ignored(dlx, tmp_path, cache):
    arguments = [
        "--data",
        made_scans.make_data("ignored", dlx).absolute(),
        "--val",
        "c3",
        *TINY[4:],
        *AUGMENTED,
        *STABLE,
    ]
    two, one = (train(arguments, ranks, tmp_path / str(ranks), cache) for ranks in (2, 1))
    assert_equal_runs(two, one)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds ranks in /proc")
@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_killed_rank_ends_all_with_one_line_and_the_same_command_resumes(rank, together, tmp_path, cache):
    out = tmp_path / "killed"
    process = start(["train", *PARTS, "--out", out], 2, cache)
    wait_for_epochs(out, process, 2)
    os.kill(process_of_rank(process, rank), signal.SIGKILL)
    code, lines, output = end(process)
    assert code != 0
    assert len(lines) == 1, output
    assert f"rank {rank} of 2" in lines[0]
    assert "same command resumes" in lines[0]
    assert not list(out.glob("trials/*/result.json"))
    if rank == 0:
        return  # resuming does not depend on which rank was lost
    train(PARTS, 2, out, cache)
    assert epochs_of(out) == epochs_of(together)
    assert result_of(out)["result"] == result_of(together)["result"]


@pytest.mark.long
def test_ctrl_c_ends_all_ranks_and_loses_none(tmp_path, cache):
    out = tmp_path / "stopped"
    process = start(["train", *PARTS, "--out", out], 2, cache)
    wait_for_epochs(out, process, 2)
    process.send_signal(signal.SIGINT)
    code, lines, output = end(process)
    assert code != 0
    assert "lost" not in output
    assert len(lines) <= 1, output
    assert "resume with" in output
    assert len(epochs_of(out)) >= 2


@pytest.mark.long
def test_a_batch_that_ranks_cannot_divide_is_refused_in_one_line(tmp_path, cache):
    code, lines, output = end(start(["train", *PARTS, "--batch-size", "3", "--out", tmp_path / "odd"], 2, cache))
    assert code != 0
    assert len(lines) == 1, output
    assert lines[0].startswith("dlx: batch.size: 3 ")


def test_a_study_and_several_seeds_are_refused_under_torchrun(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingError, match="a study: torchrun is for dlx train"):
        refuse_ranks("a study")
    two_seeds = one_network({}, [0, 1])
    with pytest.raises(SettingError, match="one seed and one fold"):
        for_ranks(two_seeds, Ranks(0, 2), TrainOptions())


@pytest.mark.parametrize("command", ["predict", "evaluate", "ls", "report", "sweep-dropout"])
def test_commands_other_than_train_are_refused_under_torchrun(dlx, monkeypatch, command):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingError, match=rf"^{command}: torchrun is for dlx train"):
        dlx(command)


def test_an_error_of_the_network_that_all_ranks_see_is_reported_by_the_first(monkeypatch):
    monkeypatch.setattr(group, "FAREWELL_S", 0.1)
    left = {}
    for rank in (1, 0):
        one = object.__new__(group.Group)
        one.ranks, one.left, one.has_agent, one.store = Ranks(rank, 2), None, True, MadeStore(left)
        one.store.set(f"left/{1 - rank}", "stopped")
        ends = pytest.raises(SystemExit) if rank else pytest.raises(group.RankLost, match="NCCL error: unhandled")
        with ends, one.together():
            raise RuntimeError("NCCL error: unhandled system error\nmore")


class MadeStore:
    """The store of torchrun, as a dictionary."""

    def __init__(self, content):
        self.content = content

    def set(self, key, value):
        self.content[key] = value.encode()

    def get(self, key):
        return self.content[key]

    def check(self, keys):
        return all(key in self.content for key in keys)


def test_a_rank_trains_on_its_own_share_of_the_cores_unless_threads_are_given():
    study = for_ranks(one_network({}, [0]), Ranks(1, 2, 1, 2), TrainOptions())
    compute = study.variants[0].spec.compute
    assert (compute.num_ranks, compute.threads) == (2, max(1, available_cores() // 2))


def test_batch_norm_and_probes_of_several_ranks_are_refused_on_a_cpu():
    spec = make_spec({})
    spec = spec.model_copy(update={"compute": spec.compute.model_copy(update={"num_ranks": 2})})
    spec = spec.model_copy(update={"batch": spec.batch.model_copy(update={"size": 4})})
    compute = Compute(torch.device("cpu"), "float32", 1, memory=None, cores=1)
    with pytest.raises(SettingError, match=r"model\.norm=group"):
        check_ranks(spec, torch.nn.BatchNorm2d(2), compute)
    assert check_ranks(spec, torch.nn.GroupNorm(1, 2), compute) == []
    on_gpu = Compute(torch.device("cuda"), "float32", 1, memory=None, cores=1)
    assert "sync_batchnorm" in check_ranks(spec, torch.nn.BatchNorm2d(2), on_gpu)[0]
    probed = spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update={"probes": True})})
    with pytest.raises(SettingError, match=r"evaluate\.probes"):
        check_ranks(probed, torch.nn.GroupNorm(1, 2), compute)


ARGUMENTS = {
    "ce": {"class_weights": [1.0, 2.0, 3.0]},
    "dice": {"batch": False},
    "focal": {"class_weights": [1.0, 2.0, 3.0]},
}
LOSSES = [(name, {}) for name in registry.PARTS["loss"]] + list(ARGUMENTS.items())


@pytest.mark.parametrize(("name", "arguments"), LOSSES)
def test_a_loss_is_the_mean_of_its_parts_exactly_if_it_says_so(name, arguments):
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 8, 8, generator=draws, dtype=torch.float64, requires_grad=True)
    mask = torch.randint(3, (4, 8, 8), generator=draws)
    mask[:2, :5] = 0  # parts of unlike classes
    loss = registry.load("loss", name)(3, **arguments)
    whole = loss(logits, mask)
    parts = torch.stack([loss(a, b) for a, b in zip(logits.chunk(2), mask.chunk(2), strict=True)]).mean()
    gradients = [torch.autograd.grad(value, logits)[0] for value in (whole, parts)]
    is_equal = torch.allclose(whole, parts, rtol=1e-9) and torch.allclose(*gradients, rtol=1e-9, atol=1e-12)
    assert is_equal == getattr(loss, "is_mean_of_parts", False)


def test_ranks_are_those_of_the_environment_and_their_parts_cover_a_batch():
    variables = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert ranks_of({}) == ALONE
    assert ranks_of(variables) == Ranks(1, 4, 1, 2)
    parts = [list(range(8))[Ranks(rank, 4).part(8)] for rank in range(4)]
    assert parts == [[0, 1], [2, 3], [4, 5], [6, 7]]
    for wrong in ({"RANK": "4"}, {"RANK": "one"}, {"LOCAL_RANK": "2"}):
        with pytest.raises(SettingError):
            ranks_of(variables | wrong)
