"""What float16 loses of an image, and data sets kept as float32 because of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlx.data.batches.voxels import VoxelStore
from dlx.data.cache import load_cache
from dlx.data.cases import Dataset
from dlx.data.checks.remarks import stored_as_float32
from dlx.data.intensities.rounding import MAX_ROUNDING_ERROR, noise_responses, noise_std, rounding_error, stored_type
from dlx.settings.part import Part
from dlx.trial.evaluation_memory import evaluation_bytes
from dlx.trial.resolve import resolve
from small import SMALL_ARGS, small_resolved, small_spec
from test_remarks import made, only, opened, write

NORMAL = np.random.default_rng(0).standard_normal((8, 64, 64))


@pytest.mark.parametrize("std", [0.01, 1.0, 250.0])
def test_the_noise_of_a_flat_image_is_its_standard_deviation(std: float) -> None:
    assert noise_std(noise_responses(1000.0 + std * NORMAL)) == pytest.approx(std, rel=0.03)


def test_slopes_edges_and_constant_air_do_not_count_as_noise() -> None:
    image = 5 * NORMAL + 3.0 * np.arange(64)
    image[:, 20:40, 20:40] += 500.0
    assert noise_std(noise_responses(image)) == pytest.approx(5.0, rel=0.1)
    image[:, 45:] = -1024.0
    assert noise_std(noise_responses(image)) == pytest.approx(5.0, rel=0.15)


def test_an_image_without_variation_has_no_noise() -> None:
    assert noise_std(noise_responses(np.full((4, 8, 8), 3.3))) is None
    assert noise_std(noise_responses(np.arange(3.0).reshape(1, 1, 3))) is None
    assert rounding_error(np.full((1, 4, 8, 8), 3.3, np.float32)) is None


def test_the_error_is_that_of_float16_in_units_of_the_noise() -> None:
    # between 1024 and 2048 float16 holds whole numbers: the error is uniform over one, with deviation 1 / sqrt(12)
    image = (1500.0 + 10.0 * NORMAL).astype(np.float32)
    assert rounding_error(image[None]) == pytest.approx(1 / np.sqrt(12) / 10, rel=0.05)
    assert rounding_error(np.rint(image)[None]) == 0.0
    assert rounding_error(image[None], [(0.0, 1.0)]) is None
    clipped = rounding_error(image[None], [(1490.0, 1510.0)])
    assert clipped == pytest.approx(1 / np.sqrt(12) / 10, rel=0.3)
    worst = np.stack([np.rint(image), image])
    assert rounding_error(worst) == rounding_error(image[None])


def test_the_type_follows_from_the_error() -> None:
    assert stored_type(None) == stored_type(MAX_ROUNDING_ERROR) == np.float16
    assert stored_type(1.01 * MAX_ROUNDING_ERROR) == np.float32
    assert rounding_error(np.full((1, 2, 3, 3), 70_000.0, np.float32)) == np.inf


def with_metal(folder: Path) -> Path:
    """Three cases; one holds a voxel so dark that the others share a narrow range near 1 after `minmax`."""
    images = {f"c{i}": made(i) for i in range(3)}
    images["c1"][0][0, 0, 0] = -1e6
    return write(folder, images)


def test_a_case_that_float16_would_round_too_much_is_kept_as_float32_with_a_remark(tmp_path: Path) -> None:
    dataset = opened(with_metal(tmp_path / "data"), "minmax:over=all")
    assert [case.is_wide for case in dataset.cases] == [False, True, False]
    line = only(stored_as_float32(dataset.cases), "float32")
    assert "1 of 3 cases ('c1')" in line
    assert "% of the image's noise" in line
    assert stored_as_float32(dataset.cases[:1]) == []
    error = dataset.cases[1].rounding_error
    assert error is not None
    assert error > MAX_ROUNDING_ERROR


def test_the_store_holds_both_types_as_they_were_prepared(tmp_path: Path) -> None:
    dataset = opened(with_metal(tmp_path / "data"), "minmax:over=all")
    wide, narrow = VoxelStore(dataset.cases), VoxelStore(dataset.cases[:1])
    assert wide.nbytes == 5 * sum(case.mask.size for case in dataset.cases)
    assert narrow.nbytes == 3 * dataset.cases[0].mask.size
    flat = np.concatenate([case.image.reshape(-1, 1).astype(np.float32) for case in dataset.cases])
    np.testing.assert_array_equal(wide.images.numpy(), flat)


def same_voxels(one: Dataset, other: Dataset) -> bool:
    pairs = zip(one.cases, other.cases, strict=True)
    return all(a.image.dtype == b.image.dtype and np.array_equal(a.image, b.image) for a, b in pairs)


def test_the_cache_keeps_both_types_and_the_foreground(tmp_path: Path) -> None:
    from dlx.data.dataset import open_dataset
    from dlx.settings.spec import DataSpec

    folder = with_metal(tmp_path / "data")
    for number, normalize in enumerate(("minmax:over=all", "ct", "zscore:over=all")):
        spec = DataSpec.model_validate({"source": str(folder), "normalize": normalize})
        cache = tmp_path / str(number)
        first = open_dataset(spec, cache_dir=cache)
        (file,) = cache.glob("*.safetensors")
        for again in (open_dataset(spec, cache_dir=cache), load_cache(file)):
            assert again.fingerprint == first.fingerprint
            assert same_voxels(again, first)
            for a, b in zip(again.cases, first.cases, strict=True):
                assert a.rounding_error == b.rounding_error
                assert (a.foreground is None) == (b.foreground is None) == (normalize != "ct")
                if a.foreground is not None:
                    np.testing.assert_array_equal(a.foreground, b.foreground)


def test_values_beyond_float16_are_kept_as_float32(tmp_path: Path) -> None:
    for normalize in ("none", "ct"):
        dataset = opened(with_metal(tmp_path / normalize), normalize)
        assert dataset.cases[1].image.min() == -1e6
        assert "beyond float16 (65504)" in only(stored_as_float32(dataset.cases), "float32")


def test_the_fingerprint_changes_only_where_the_type_does(tmp_path: Path) -> None:
    from dlx.data.cases import Declaration, fingerprint

    dataset = opened(with_metal(tmp_path), "minmax:over=all")
    declaration = Declaration(
        layout="x", channels=("T1",), class_names=("b", "c"), label_values=(0, 1), normalize=Part(name="minmax")
    )
    narrow = tuple(replace(case, image=case.image.astype(np.float16)) for case in dataset.cases)
    unknown = tuple(replace(case, rounding_error=None) for case in narrow)
    assert fingerprint(declaration, narrow) == fingerprint(declaration, unknown)
    assert fingerprint(declaration, narrow) != fingerprint(declaration, dataset.cases)


def test_float32_and_windows_count_in_the_memory_of_evaluation() -> None:
    import torch

    from dlx.trial.factories import make_model

    resolved = small_resolved()
    with torch.device("meta"):
        model = make_model(resolved.spec, resolved.dataset)
    plain, more = (evaluation_bytes(model, 2, (32, 32), added) for added in (0, 6))
    assert more - plain == 32 * 32 * 2 * 6


def test_a_dry_run_states_the_largest_error_of_what_is_kept_as_float16(tmp_path: Path) -> None:
    folder = with_metal(tmp_path)
    spec = small_spec({"data": {"source": str(folder), "normalize": "minmax:over=all"}})
    dataset = opened(folder, "minmax:over=all")
    errors = [case.rounding_error for case in dataset.cases]
    assert resolve(spec, dataset).rounding_error == max(errors[0] or 0.0, errors[2] or 0.0)


def test_the_document_of_a_dry_run_has_the_largest_error_of_what_is_kept_as_float16(dlx: Any, tmp_path: Path) -> None:
    folder, normalize = with_metal(tmp_path / "data"), "minmax:over=all"
    errors = [case.rounding_error for case in opened(folder, normalize).cases if not case.is_wide]
    data = ("--data", str(folder), "--val", "c2", "--set", f"data.normalize={normalize}")
    shown = dlx("train", *data, *SMALL_ARGS[4:], "--epochs", "1", "--dry-run", "--json")
    assert len(errors) == 2
    assert json.loads(shown.stdout)["rounding_error_fraction"] == pytest.approx(max(error or 0.0 for error in errors))
