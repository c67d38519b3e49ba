"""progress.png: which trials have one, when it is drawn again, and the values of its lines."""

import os
from dataclasses import replace

import pytest
from PIL import Image

from dlx.records.archive import read_study
from dlx.report.figures.progress import MIN_GAP, Curve, _apart
from dlx.report.files.writing import write_progress
from made_records import made_study, write_folder

ONE_NETWORK = {"unet2": (0.9, 0.8)}


def begun(path, **options):
    """A run of one network in its folder, and its records as they are read back."""
    write_folder(path, made_study(ONE_NETWORK, control=None, epochs=3, **options))
    return read_study(path)


def draw(path):
    return write_progress(path / "report", read_study(path))


def test_a_run_of_one_trial_has_one_picture_under_two_names(tmp_path):
    begun(tmp_path, seeds=[0])
    (own,) = tmp_path.glob("trials/*/")
    assert draw(tmp_path) == [tmp_path / "progress.png"]
    with Image.open(tmp_path / "progress.png") as picture:
        assert picture.size[0] == 990  # 9 inches of 110 pixels
    assert (own / "progress.png").samefile(tmp_path / "progress.png")


def test_each_trial_of_one_network_has_a_picture_that_is_drawn_again_after_another_epoch(tmp_path):
    records = begun(tmp_path, seeds=[0, 1, 2], running={("unet2", 1): 2, ("unet2", 2): 0})
    first, second, third = (trial.folder for trial in records.trials)
    draw(tmp_path)
    assert not (third / "progress.png").exists()  # it has no epoch yet
    for folder in (first, second):
        os.utime(folder / "epochs.jsonl", ns=(0, 0))
        os.utime(folder / "progress.png", ns=(10**9, 10**9))
    os.utime(second / "epochs.jsonl", ns=(2 * 10**9, 2 * 10**9))
    draw(tmp_path)
    assert (first / "progress.png").stat().st_mtime_ns == 10**9
    assert (second / "progress.png").stat().st_mtime_ns > 2 * 10**9


def test_a_study_of_variants_has_one_picture_and_its_trials_none(tmp_path):
    write_folder(tmp_path, made_study(seeds=[0, 1], epochs=3))
    assert draw(tmp_path) == [tmp_path / "progress.png"]
    assert list(tmp_path.glob("trials/*/progress.png")) == []


def test_a_report_elsewhere_writes_no_picture_into_the_folders_of_trials(tmp_path):
    records = begun(tmp_path / "run", seeds=[0, 1])
    assert write_progress(tmp_path / "other", records) == [tmp_path / "other-progress.png"]
    assert list(tmp_path.glob("run/trials/*/progress.png")) == []


def test_nothing_is_drawn_before_the_first_epoch(tmp_path):
    records = begun(tmp_path, seeds=[0], running={("unet2", 0): 0})
    assert write_progress(tmp_path / "report", records) == []


@pytest.mark.parametrize("label", ["$x^2$ [b]", "\x1b[31m", "é" * 200])
def test_any_label_and_any_number_of_variants_can_be_drawn(tmp_path, label):
    variants = {f"{label} {number}": (0.9, 0.8) for number in range(12)}
    records = made_study(variants, seeds=[0], epochs=2, values=dict.fromkeys(variants, 1))
    assert write_progress(tmp_path / "made", records)[0].stat().st_size > 10_000


def test_a_line_of_several_trials_is_their_mean_where_they_have_values():
    records = made_study(ONE_NETWORK, control=None, seeds=[0, 1], epochs=4, every=2, running={("unet2", 1): 2})
    points = Curve(records.trials).points(lambda epoch: epoch.result.val_dice)
    first, second = (trial.epochs for trial in records.trials)
    assert list(points) == [2, 4]  # validated every two epochs
    assert points[2] == pytest.approx((first[1].result.val_dice + second[1].result.val_dice) / 2)
    assert points[4] == first[3].result.val_dice  # the second trial has two epochs


def test_names_beside_curves_keep_their_distance_and_their_order():
    moved = _apart({"a": 0.5, "b": 0.51, "c": 0.2})
    assert moved == {"c": 0.2, "a": 0.5, "b": pytest.approx(0.5 + MIN_GAP)}
    high = _apart({"a": 1.0, "b": 1.0})
    assert high["b"] == pytest.approx(1.0)
    assert high["a"] == pytest.approx(1.0 - MIN_GAP)
    assert _apart({}) == {}


def test_a_trial_that_is_read_from_an_archive_has_no_folder_to_draw_into(tmp_path):
    records = begun(tmp_path / "run", seeds=[0])
    trials = tuple(replace(trial, folder=None) for trial in records.trials)
    (path,) = write_progress(tmp_path / "report", replace(records, trials=trials))
    assert path == tmp_path / "progress.png"
