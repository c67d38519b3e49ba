"""`data.normalize=ct`: windows of the training cases alone, the same for training and evaluation."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dlx.cli.main import app
from dlx.data.cases import IGNORED, Case, Dataset
from dlx.data.dataset import open_dataset
from dlx.data.intensities.ct import MAX_FOREGROUND, Window, ct, describe_windows, mixed, sample_foreground, windows_of
from dlx.data.intensities.normalize import zscore
from dlx.data.phantom.ct import AIR, METAL, ct_phantom_case
from dlx.engine import checkpoint
from dlx.engine.fit import TrialProgress, begin_epoch, fit
from dlx.execution.trials.stores import host_stores
from dlx.records.schema import EpochRecord
from dlx.settings.binding import bind_part, bind_parts
from dlx.settings.part import Part
from dlx.system.errors import DataError, SettingError
from dlx.trial.build import make_job
from dlx.trial.resolve import Resolved, resolve
from small import make_store, small_spec

CT = bind_part("normalizer", Part.model_validate("ct"))
SOURCE = "ct-phantom:subjects=4,size=24,metal={}"


@lru_cache
def phantom(metal: int = 0) -> Dataset:
    return open_dataset(spec(metal).data, cache_dir=None)


def spec(metal: int = 0, **change: Any) -> Any:
    return bind_parts(small_spec({"data": {"source": SOURCE.format(metal), "normalize": "ct"}}, change))


def resolved(dataset: Dataset, **change: Any) -> Resolved:
    return resolve(spec(**change), dataset)


def case_of(values: list[float]) -> Case:
    """A case whose sampled labelled voxels have these values."""
    zero = np.zeros((1, 1, 1, 1), np.float16)
    foreground = np.array([values], np.float32)
    return Case("c", zero, zero[..., 0].astype(np.uint8), (1.0, 1.0, 1.0), zero[0, 0, 0], "", foreground=foreground)


def test_a_window_by_hand() -> None:
    # 0 to 200: the percentiles 0.5 and 99.5 are 1 and 199. Clipped, the mean is 100, and the squares of the distances
    # from it sum up to 2 (1 + 4 + ... + 99^2) + 2 * 99^2 = 2 * 328350 + 19602.
    values = np.random.default_rng(0).permutation(201).astype(float).tolist()
    (window,) = windows_of(CT, ["CT"], [case_of(values[:50]), case_of(values[50:])])
    assert window is not None
    assert (window.low, window.high, window.mean) == pytest.approx((1.0, 199.0, 100.0), abs=1e-12)
    assert window.std == pytest.approx(np.sqrt(676302 / 201), rel=1e-12)


def test_the_window_is_that_of_the_training_cases_labelled_voxels() -> None:
    dataset = phantom()
    one = resolved(dataset)
    raw = [ct_phantom_case(index, seed=0, size_px=(24, 24, 24)) for index in range(4)]
    training = [raw[int(case.removeprefix("subject-")) - 1] for case in one.split.train]
    assert len(training) == 3
    values = np.concatenate([image[0][mask > 0] for image, mask in training]).astype(np.float64)
    assert all((mask > 0).sum() < MAX_FOREGROUND for _, mask in training)
    low, high = np.quantile(values, [0.005, 0.995])
    clipped = np.clip(values, low, high)
    (window,) = one.windows
    assert window is not None
    assert (window.low, window.high) == pytest.approx((low, high))
    assert (window.mean, window.std) == pytest.approx((clipped.mean(), clipped.std()), rel=1e-12)
    assert any(f"clipped to {window.low:.4g} to {window.high:.4g}" in line for line in one.remarks)


def test_percentiles_are_settings() -> None:
    tight = bind_part("normalizer", Part.model_validate("ct:low=10,high=90"))
    (window,) = windows_of(tight, ["CT"], [case_of(list(range(11)))])
    assert window is not None
    assert (window.low, window.high) == (1.0, 9.0)


@pytest.mark.parametrize("text", ["ct:low=-100,high=300", "ct:high=300", "ct:low=-1000"])
def test_a_window_in_hounsfield_units_is_refused_by_saying_so(text: str) -> None:
    with pytest.raises(SettingError, match="not a value in HU"):
        bind_part("normalizer", Part.model_validate(text))


def test_ignored_voxels_are_not_sampled() -> None:
    mask = np.array([[[0, 1, IGNORED, 2]]], np.uint8)
    assert sample_foreground(np.arange(4.0).reshape(1, 1, 1, 4), mask).tolist() == [[1.0, 3.0]]


def test_large_masks_are_sampled_evenly_and_alike_each_time() -> None:
    mask = np.ones((40, 40, 40), np.uint8)
    mask[0] = 0
    image = np.arange(mask.size, dtype=np.float32).reshape(1, *mask.shape)
    sample = sample_foreground(image, mask)
    assert 5_000 < sample.shape[1] <= MAX_FOREGROUND
    assert sample.min() == 1600
    assert len(np.unique(np.diff(sample[0]))) == 1
    np.testing.assert_array_equal(sample, sample_foreground(image, mask))
    assert sample_foreground(image, mask * 0).shape == (1, 0)


def changed(dataset: Dataset, case_id: str, values: np.ndarray[Any, Any]) -> Dataset:
    """The data set with another image (and other labelled values) in one case."""
    cases = tuple(
        replace(
            case,
            image=values[..., None].astype(np.float16),
            foreground=values[case.mask > 0][None].astype(np.float32),
        )
        if case.id == case_id
        else case
        for case in dataset.cases
    )
    return replace(dataset, cases=cases)


def test_a_validation_image_changes_no_window_and_a_training_image_does() -> None:
    dataset = phantom()
    one = resolved(dataset)
    wild = np.random.default_rng(0).normal(0, 10_000, (24, 24, 24))
    assert resolved(changed(dataset, one.split.val[0], wild)).windows == one.windows
    assert resolved(changed(dataset, one.split.train[0], wild)).windows != one.windows


def whole(job: Any, case: int) -> np.ndarray[Any, Any]:
    gathered: np.ndarray[Any, Any] = job.evaluator._gather(case, [(0, 0, 0)], job.evaluator.store.shapes[case])[
        0
    ].numpy()
    return gathered


def job_of(one: Resolved, seed: int = 0) -> Any:
    return make_job(one, make_store(one), seed)


def test_metal_in_one_subject_changes_nothing_but_its_own_clipped_voxels() -> None:
    one = resolved(phantom())
    number = int(one.split.train[0].removeprefix("subject-"))
    with_metal = phantom(number)
    assert with_metal.cases[number - 1].image.max() == METAL
    other = resolved(with_metal)
    assert other.windows == one.windows
    before, after = job_of(one), job_of(other)
    for case in range(4):
        np.testing.assert_array_equal(whole(after, case), whole(before, case))  # bone is clipped to the same value
    # among the labelled voxels, too, a few cannot move the window by more than a few ranks
    case = with_metal.cases[number - 1]
    values = case.image[..., 0].astype(np.float64)
    values[tuple(np.argwhere(case.mask > 0)[:5].T)] = METAL
    (moved,), (window,) = resolved(changed(with_metal, case.id, values)).windows, one.windows
    assert moved is not None
    assert window is not None
    assert abs(moved.high - window.high) <= 3.0
    assert moved.std == pytest.approx(window.std, rel=0.01)


def test_training_and_evaluation_see_the_same_clipped_and_scaled_values() -> None:
    one = resolved(phantom(1), batch={"patch_size_px": [32, 32]})  # larger than a slice: it shows the padding
    (window,) = one.windows
    assert window is not None
    job = job_of(one)
    assert job.step.source.store is job.evaluator.store
    begin_epoch(job, TrialProgress(), 1)
    images, _ = job.step.source.batch(0)
    cases, starts = job.step.source.drawn
    for image, case, start in zip(images.numpy(), cases[0].tolist(), starts[0].tolist(), strict=True):
        raw, _ = ct_phantom_case(int(one.dataset.cases[case].id[8:]) - 1, seed=0, size_px=(24, 24, 24), metal=1)
        expected = (np.clip(raw[0], window.low, window.high) - window.mean) / window.std
        np.testing.assert_allclose(whole(job, case)[0], expected, atol=1e-6)
        padded = np.full((32, 32), (window.low - window.mean) / window.std)
        padded[4:28, 4:28] = expected[start[0]]
        assert start[1:] == [-4, -4]
        np.testing.assert_allclose(image[0], padded, atol=1e-6)


def test_folds_share_one_store_and_have_windows_of_their_own() -> None:
    dataset = phantom()
    folds = [resolved(dataset, split={"val_fraction": None, "fold": fold, "folds": 2}) for fold in (0, 1)]
    (store,) = host_stores(folds).values()
    jobs = [make_job(fold, store, 0) for fold in folds]
    assert folds[0].windows != folds[1].windows
    assert store.windowing is None
    for fold, job in zip(folds, jobs, strict=True):
        (window,), view = fold.windows, job.evaluator.store
        assert window is not None
        assert view.images.data_ptr() == store.images.data_ptr()
        np.testing.assert_allclose(whole(job, 0).max(), (window.high - window.mean) / window.std, atol=1e-6)


def results(job: Any, progress: TrialProgress, stop_after: int | None = None) -> list[Any]:
    found = []
    for event in fit(job, progress):
        if isinstance(event, EpochRecord):
            found.append(event.result)
            if event.result.epoch == stop_after:
                break
    return found


def test_resuming_is_exact() -> None:
    one = resolved(phantom(1))
    alone = job_of(one)
    expected = results(alone, TrialProgress())
    begun, progress = job_of(one), TrialProgress()
    first = results(begun, progress, stop_after=1)
    saved = checkpoint.snapshot(begun, {})
    resumed = job_of(resolved(phantom(1)))
    checkpoint.restore(saved, resumed)
    assert first + results(resumed, progress) == expected
    assert checkpoint.weights_hash(resumed.model) == checkpoint.weights_hash(alone.model)


def test_a_checkpoint_keeps_the_windows_with_which_new_scans_are_prepared(tmp_path: Path) -> None:
    asked = ["--data", SOURCE.format(1), "--set", "data.normalize=ct", "--model", "unet2:width=4,levels=2"]
    small = ["--epochs", "1", "--steps-per-epoch", "1", "--val", "subject-2", "--threads", "1", "--device", "cpu"]
    run = CliRunner().invoke(
        app, ["train", *asked, *small, "--out", str(tmp_path / "run"), "--cache-dir", str(tmp_path)]
    )
    assert run.exit_code == 0, run.output
    assert "channel 'CT': clipped to" in run.output
    (path,) = (tmp_path / "run").glob("trials/*/last.safetensors")
    (window,) = checkpoint.read(path).header["windows"]
    values = np.concatenate([case.foreground for case in phantom(1).cases if case.id != "subject-2"], 1)
    assert Window(**window).low == pytest.approx(float(np.percentile(values, 0.5)))


def test_channels_of_one_image_by_schemes_of_their_own() -> None:
    image = np.random.default_rng(0).normal(50, 20, (2, 5, 6, 7))
    values, pad_value = mixed(image, schemes=("ct", "zscore"))
    np.testing.assert_array_equal(values[0], image[0].astype(np.float32))
    np.testing.assert_array_equal(values[1], zscore(image[1:], over="all")[0][0])
    assert pad_value.tolist() == [values[0].min(), 0.0]
    with pytest.raises(DataError, match="3 schemes for 2 channels"):
        mixed(image, schemes=("ct", "ct", "ct"))
    with pytest.raises(DataError, match=r"channel 1 .*rgb"):
        mixed(image - 100, schemes=("ct", "rgb"))


def test_only_ct_channels_of_a_mixed_image_have_a_window() -> None:
    change = {"data": {"source": "phantom:subjects=4,size=24", "normalize": "mixed:schemes=[zscore,ct]"}}
    asked = small_spec(change)
    dataset = open_dataset(asked.data, cache_dir=None)
    one = resolve(asked, dataset)
    first, second = one.windows
    assert first is None
    assert second is not None
    gathered = whole(job_of(one), 0)
    np.testing.assert_array_equal(gathered[0], dataset.cases[0].image[..., 0].astype(np.float32))
    raw = dataset.cases[0].image[..., 1].astype(np.float64)
    expected = (raw.clip(second.low, second.high) - second.mean) / second.std
    np.testing.assert_allclose(gathered[1], expected, atol=1e-6)
    assert [line.split(":")[0] for line in describe_windows(one.windows, dataset.channels, 3)] == ["channel 'T2'"]


def test_the_pad_value_is_the_air_of_the_image() -> None:
    values, pad_value = ct(np.array([[[[AIR, 3.0, METAL]]]]))
    assert values[0, 0, 0].tolist() == [AIR, 3.0, METAL]
    assert pad_value.tolist() == [AIR]


@pytest.mark.parametrize(
    ("values", "cause"), [([], "no training case has a labelled voxel"), ([7.0] * 9, "both 7: choose another")]
)
def test_training_cases_without_statistics_are_refused(values: list[float], cause: str) -> None:
    with pytest.raises(DataError, match=rf"channel 'CT'.*{cause}"):
        windows_of(CT, ["CT"], [case_of(values)])


def test_other_normalisers_have_no_windows_and_gather_from_the_store_itself() -> None:
    one = resolve(small_spec(), open_dataset(small_spec().data, cache_dir=None))
    store = make_store(one)
    assert one.windows == ()
    assert make_job(one, store, 0).evaluator.store is store


def test_metal_of_a_subject_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingError, match="no subject 5 among 4"):
        open_dataset(spec(5).data, cache_dir=None)


def test_the_ct_phantom_is_air_bone_brain_and_metal() -> None:
    image, mask = ct_phantom_case(0, seed=0, size_px=(32, 32, 32), metal=1)
    means = [image[0][mask == k].mean() for k in (1, 2, 3)]
    assert means == pytest.approx([8.0, 40.0, 28.0], abs=0.5)
    assert image.min() == AIR
    assert (image == METAL).any()
    assert not (image[0][mask > 0] == METAL).any()
    plain, _ = ct_phantom_case(0, seed=0, size_px=(32, 32, 32))
    np.testing.assert_array_equal(plain[image != METAL], image[image != METAL])
    assert torch.from_numpy(plain).max() < 1000
