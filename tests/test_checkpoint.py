import pytest
import torch

from dlx.engine import checkpoint
from dlx.engine.fit import TrialProgress, fit
from dlx.records.schema import EpochRecord
from dlx.system.errors import DataError, SettingError
from small import small_job, small_resolved

SCHEDULERS = [
    "constant",
    "linear-tail",
    "exponential",
    "step:step_size=1",
    "multistep:milestones=[1,2]",
    "cosine",
    "plateau",
]


def train(job, progress, path=None, stop_after=None):
    results = []
    for event in fit(job, progress):
        if isinstance(event, EpochRecord):
            results.append(event.result)
            if path is not None:
                header = {"trial": "x", "progress": vars(progress)}
                checkpoint.write(path, checkpoint.snapshot(job, header))
            if event.result.epoch == stop_after:
                break
    return results


def pairs():
    """Every optimizer with every scheduler. Fast: each scheduler with adam, and each optimizer with plateau."""
    for optimizer in ("adam", "adamw", "sgd"):
        for scheduler in SCHEDULERS:
            is_fast = optimizer == "adam" or scheduler == "plateau"
            yield pytest.param(optimizer, scheduler, marks=[] if is_fast else [pytest.mark.slow])


@pytest.mark.parametrize(("optimizer", "scheduler"), list(pairs()))
def test_resuming_gives_the_same_records_and_weights_as_going_on(tmp_path, optimizer, scheduler):
    change = {
        "scheduler": scheduler,
        "optimizer": {"name": optimizer},
        "dropout": {"p": 0.2},
        "train": {"epochs": 4, "steps_per_epoch": 2, "ema_decay": 0.9},
    }
    alone = small_job(change)
    expected = train(alone, TrialProgress())
    path = tmp_path / "last.safetensors"
    first = train(small_job(change), TrialProgress(), path, stop_after=2)
    saved = checkpoint.read(path)
    resumed = small_job(change)
    checkpoint.restore(saved, resumed)
    rest = train(resumed, TrialProgress(**saved.header["progress"]))
    assert first + rest == expected
    assert checkpoint.weights_hash(resumed.model) == checkpoint.weights_hash(alone.model)
    assert checkpoint.weights_hash(resumed.ema) == checkpoint.weights_hash(alone.ema)


def test_a_checkpoint_is_a_copy_that_later_steps_do_not_change():
    job = small_job()
    saved = checkpoint.snapshot(job, {})
    before = saved.tensors["model.head.weight"].clone()
    train(job, TrialProgress())
    assert torch.equal(saved.tensors["model.head.weight"], before)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x02}q\x00.", bytes(64)])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "last.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"last.safetensors: not a readable checkpoint"):
        checkpoint.read(path)


def test_a_checkpoint_cut_short_is_refused(tmp_path):
    job = small_job()
    path = tmp_path / "last.safetensors"
    checkpoint.write(path, checkpoint.snapshot(job, {}))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="not a readable checkpoint"):
        checkpoint.read(path)


def test_a_checkpoint_of_another_network_is_refused():
    job, other = small_job(), small_job({"model": {"width": 6}})
    saved = checkpoint.snapshot(job, {})
    with pytest.raises(DataError, match="of another network"):
        checkpoint.restore(saved, other)


def without(key):
    return lambda header: header.pop(key)


def as_value(*path, value):
    def change(header):
        for key in path[:-1]:
            header = header[key]
        header[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "damage",
    [
        without("optimizer"),
        without("scheduler"),
        as_value("optimizer", value={}),
        as_value("optimizer", value="x"),
        as_value("optimizer", "plain", value=[1]),
        as_value("optimizer", "plain", value={"first": {}}),
        as_value("optimizer", "param_groups", value=[]),
        as_value("optimizer", "param_groups", value={"pairs": 3}),
        as_value("optimizer", "param_groups", value=None),
        as_value("scheduler", value={"pairs": [[1]]}),
        as_value("scheduler", value=None),
    ],
)
def test_a_malformed_checkpoint_is_refused_in_one_line(tmp_path, damage):
    job = small_job()
    train(job, TrialProgress())
    saved = checkpoint.snapshot(job, {})
    damage(saved.header)
    checkpoint.write(tmp_path / "last.safetensors", saved)
    again = small_job()
    with pytest.raises(DataError, match=r"^the checkpoint is malformed: .+$"):
        checkpoint.restore(checkpoint.read(tmp_path / "last.safetensors"), again)


@pytest.mark.parametrize("name", ["optimizer.999.exp_avg", "optimizer.x.exp_avg", "optimizer"])
def test_a_checkpoint_with_a_tensor_of_no_parameter_is_refused(name):
    job = small_job()
    train(job, TrialProgress())
    saved = checkpoint.snapshot(job, {})
    saved.tensors[f"{name}."] = torch.zeros(3)
    with pytest.raises(DataError, match="the checkpoint is malformed"):
        checkpoint.restore(saved, job)


def test_a_writers_error_is_not_lost(tmp_path):
    job = small_job()
    saved = checkpoint.snapshot(job, {})
    (tmp_path / "file").touch()
    writer = checkpoint.CheckpointWriter()
    writer.submit(saved, tmp_path / "file" / "last.safetensors")
    with pytest.raises(OSError, match="file"):
        writer.close()


def test_weights_from_a_checkpoint_start_another_trial(tmp_path):
    job = small_job()
    train(job, TrialProgress())
    path = tmp_path / "first.safetensors"
    checkpoint.write(path, checkpoint.snapshot(job, {}))
    tuned = small_job({"train": {"init_from": str(path)}}, seed=5)
    assert checkpoint.weights_hash(tuned.model) == checkpoint.weights_hash(job.model)


def test_weights_that_do_not_fit_are_listed_and_a_checkpoint_without_any_fit_is_refused(tmp_path):
    job = small_job()
    path = tmp_path / "first.safetensors"
    checkpoint.write(path, checkpoint.snapshot(job, {}))
    wider = small_resolved({"train": {"init_from": str(path)}, "model": {"levels": 3}})
    assert any("not in it or of another shape" in remark for remark in wider.remarks)
    with pytest.raises(SettingError, match="none of its weights fit"):
        small_resolved({"train": {"init_from": str(path)}, "model": {"width": 7, "norm": "none"}})
    with pytest.raises(DataError, match="not a readable checkpoint"):
        small_resolved({"train": {"init_from": str(tmp_path / "missing")}})


def test_the_best_checkpoint_is_another_name_of_the_last_and_stays_when_that_is_replaced(tmp_path):
    job = small_job()
    last, best = tmp_path / "last.safetensors", tmp_path / "best.safetensors"
    checkpoint.write(last, checkpoint.snapshot(job, {"epoch": 1}), also=best)
    assert best.samefile(last)
    checkpoint.write(last, checkpoint.snapshot(job, {"epoch": 2}))
    assert [checkpoint.read(path).header["epoch"] for path in (best, last)] == [1, 2]
    checkpoint.write(last, checkpoint.snapshot(job, {"epoch": 3}), also=best)
    assert [checkpoint.read(path).header["epoch"] for path in (best, last)] == [3, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "last.safetensors"]


def test_where_there_are_no_hard_links_the_best_checkpoint_is_a_copy(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError("no hard links on this file system")

    monkeypatch.setattr("os.link", refused)
    job = small_job()
    last, best = tmp_path / "last.safetensors", tmp_path / "best.safetensors"
    checkpoint.write(last, checkpoint.snapshot(job, {}), also=best)
    assert not best.samefile(last)
    assert best.read_bytes() == last.read_bytes()


def test_snapshots_of_a_trial_use_the_same_memory_and_hold_the_state_of_their_time():
    job, buffers = small_job({"train": {"ema_decay": 0.9}}), checkpoint.HostBuffers()
    places, progress = set(), TrialProgress()
    for event in fit(job, progress):
        if isinstance(event, EpochRecord):
            saved, fresh = checkpoint.snapshot(job, {}, buffers), checkpoint.snapshot(job, {})
            assert saved.tensors.keys() == fresh.tensors.keys()
            assert all(torch.equal(saved.tensors[name], fresh.tensors[name]) for name in fresh.tensors)
            assert all(tensor.is_contiguous() for tensor in saved.tensors.values())
            places.add(saved.tensors["model.head.weight"].data_ptr())
    assert len(places) == 1
