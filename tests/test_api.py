"""The Python interface: it runs what the commands run, with the same records."""

import json
import logging
import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dlx
from made_masks import save

pytestmark = pytest.mark.usefixtures("without_figures")

PHANTOM = "phantom:subjects=3,size=32"
TINY = {"data": PHANTOM, "epochs": 1, "steps_per_epoch": 2, "threads": 1}
OPTIONS = ["--data", PHANTOM, "--epochs", "1", "--steps-per-epoch", "2", "--threads", "1"]


def result_of(folder):
    """The result of the only trial in a folder."""
    (path,) = folder.glob("trials/*/result.json")
    return json.loads(path.read_text())["result"]


def test_every_public_name_can_be_imported_and_is_documented():
    for name in dlx.__all__:
        assert getattr(dlx, name).__doc__, name
        assert name in dir(dlx)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        dlx.no_such_name  # noqa: B018


@pytest.mark.slow
def test_importing_dlx_imports_none_of_its_heavy_packages():
    code = "import sys, dlx; print([name for name in ('torch', 'numpy', 'rich', 'pydantic') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_training_gives_the_result_of_the_command(tmp_path, dlx, cache):
    from dlx import train

    dlx("train", *OPTIONS, "--out", "typed")
    run = train(**TINY, out=tmp_path / "called", cache_dir=cache, pictures=False)
    assert len([*tmp_path.glob("*/trials/*/pictures.json")]) == 1
    assert result_of(tmp_path / "called") == result_of(tmp_path / "typed")
    assert run.failed == {}
    (trial,) = run.document["trials"]
    assert trial["val_dice"] == result_of(tmp_path / "typed")["val"]["dice"]


@pytest.mark.slow
def test_a_study_made_in_python_runs_in_workers_and_gives_tables(tmp_path, cache, caplog):
    pytest.importorskip("pandas")
    study = dlx.make_study({"dropout.p": [0, 0.2]}, name="rates", seeds=[0, 3], **TINY)
    heard = []
    with caplog.at_level(logging.WARNING, "dlx"):
        found = dlx.run(study, tmp_path / "out", cache_dir=cache, on_event=lambda trial, _: heard.append(trial.label))
    assert set(heard) == {"p=0", "p=0.2"}
    assert found.summary.header.control == "p=0"
    results = found.tables.results
    assert sorted(results["seed"]) == [0, 0, 3, 3]
    assert sorted(set(results["dropout.p"])) == [0.0, 0.2]
    assert set(found.tables.cases["variant"]) == {"p=0", "p=0.2"}
    assert "p=0 (control)" in str(found)
    assert {path.name for path in found.files} >= {"report.md", "results.csv"}
    read = dlx.read_records(tmp_path / "out")
    assert read.results.equals(results)
    again = dlx.load_run(tmp_path / "out")
    assert again.document == found.document


@pytest.mark.long
def test_a_script_without_a_guard_of_its_main_module_runs_once(tmp_path, cache):
    script = tmp_path / "script.py"
    script.write_text(
        f"import dlx\nprint('starts')\nstudy = dlx.make_study({{'dropout.p': [0, 0.2]}}, seeds=1, **{TINY!r})\n"
        f"print(dlx.run(study, 'out', cache_dir={str(cache)!r}).failed)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["starts", "{}"]


def test_a_study_file_is_read_as_the_command_reads_it(tmp_path):
    file = tmp_path / "rates.toml"
    file.write_text('seeds = 2\n[base]\ntrain.epochs = 7\n[axes]\n"dropout.p" = [0, 0.3]\n')
    study = dlx.load_study(file)
    assert (study.name, study.seeds, study.base.train.epochs) == ("rates", (0, 1), 7)
    assert study.base.compute.threads == 1
    changed = dlx.load_study(file, seeds=[4], epochs=3, settings={"model.width": 4}, smallest_effect=0.02)
    assert (changed.seeds, changed.base.train.epochs, changed.smallest_effect) == ((4,), 3, 0.02)
    assert changed.base.model.args["width"] == 4


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"epoch": 3}, "epoch"),
        ({"settings": {"train.epoch": 3}}, "train.epoch"),
        ({"epochs": -1}, "train.epochs"),
        ({"seeds": []}, "seeds"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": 10**9}, "seeds"),
        ({"seeds": 1.5}, "seeds"),
        ({"seeds": None}, "seeds"),
        ({"seeds": "3"}, "seeds"),
        ({"settings": {3: 8}}, "settings"),
        ({"settings": ["train.epochs=3"]}, "settings"),
        ({"recipe": 3}, "recipe"),
        ({"max_parallel": "2"}, "max_parallel"),
        ({"max_parallel": 1.5}, "max_parallel"),
        ({"on_event": 3}, "on_event"),
        ({"recipe": "quik"}, "quik"),
        ({"data": "no/such/folder"}, "no/such/folder"),
    ],
)
def test_wrong_arguments_are_refused_with_their_name(arguments, named, tmp_path):
    with pytest.raises(dlx.DlxError, match=named):
        dlx.train(**arguments, out=tmp_path / "out", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("axes", "arguments", "named"),
    [
        ([0, 0.1], {}, "axes"),
        (None, {}, "axes"),
        ({"dropout.p": 0.1}, {}, "dropout.p"),
        ({"dropout.p": []}, {}, "dropout.p"),
        ({"dropout.q": [0, 0.1]}, {}, "dropout.q"),
        ({"dropout.p": [0, 0.1]}, {"name": "../rates"}, "name"),
        ({"dropout.p": [0, 0.1]}, {"name": ""}, "name"),
        ({"dropout.p": [0, 0.1]}, {"name": 3}, "name"),
    ],
)
def test_studies_that_cannot_be_made_are_refused(axes, arguments, named):
    with pytest.raises(dlx.SettingError, match=named):
        dlx.make_study(axes, **arguments)


def test_axes_may_be_grids_and_any_sequence_of_values():
    grid = dlx.make_study({"dropout.p": "0,0.1..0.2"}, seeds=range(2))
    listed = dlx.make_study({"dropout.p": (p for p in (0, 0.1, 0.2))}, seeds=[0, 1])
    assert grid == listed


@pytest.mark.parametrize("path", [3, None, b"runs"])
def test_what_is_no_path_is_refused(path):
    for take in (dlx.load_study, dlx.load_run, dlx.read_records):
        with pytest.raises(dlx.SettingError, match="path"):
            take(path)


def test_only_a_study_can_be_run():
    with pytest.raises(dlx.SettingError, match=r"study\.toml"):
        dlx.run("study.toml")


@pytest.mark.slow
def test_a_file_of_records_is_loaded_with_its_report_beside_it(tmp_path):
    shutil.copy(Path(__file__).parents[1] / "experiments/weight-sharing-phantom.jsonl", tmp_path / "study.jsonl")
    loaded = dlx.load_run(tmp_path / "study.jsonl")
    assert loaded.folder == tmp_path
    assert tmp_path / "study.md" in loaded.files
    assert loaded.document["trials"]


@pytest.mark.slow
def test_an_error_in_on_event_ends_the_workers(tmp_path, cache):
    class StopError(Exception):
        pass

    def workers():
        return [child for child in multiprocessing.active_children() if child.name == "dlx-worker"]

    running = []

    def stop(_trial, _event):
        running.extend(workers())
        raise StopError

    study = dlx.make_study({"dropout.p": [0, 0.2]}, seeds=1, **TINY | {"epochs": 50})
    with pytest.raises(StopError) as stopped:  # which keeps the traceback, and with it the generator of events
        dlx.run(study, tmp_path / "out", cache_dir=cache, on_event=stop, max_parallel=2)
    assert stopped.tb is not None
    assert running
    assert workers() == []


def drawn(folder, shift):
    """A folder of six cases, each a box of class 1 that is shifted."""
    for case in range(6):
        mask = np.zeros((4, 12, 12), np.uint8)
        mask[1:3, 2 + shift : 8 + shift, 2 : 6 + case] = 1
        save(folder / f"case{case}.nii.gz", mask)
    return folder


def test_predictions_are_evaluated_and_compared_as_by_the_command(tmp_path, dlx):
    from dlx import evaluate

    truth, exact, shifted = (drawn(tmp_path / name, shift) for name, shift in (("t", 0), ("a", 0), ("b", 1)))
    printed = dlx("evaluate", "-p", f"b={shifted}", "-p", f"a={exact}", "-t", str(truth), "-o", "typed", "--json")
    heard = []
    found = evaluate(
        {"b": shifted, "a": exact}, truth, tmp_path / "called", progress=lambda done, of: heard.append((done, of))
    )
    assert json.loads(json.dumps(found.document)) == json.loads(printed.stdout)
    assert heard == [(done, 6) for done in range(1, 7)]
    assert {path.relative_to(tmp_path / "called").as_posix() for path in found.files} == {
        "b/summary.json",
        "a/summary.json",
        "comparison.json",
        "cases.csv",
    }
    assert (tmp_path / "called/cases.csv").read_bytes() == (tmp_path / "typed/cases.csv").read_bytes()
    (comparison,) = found.comparisons
    assert comparison.metrics["val_dice"].overall.difference == pytest.approx(1 - 5 / 6)  # rows 3 to 7 of 6 agree
    assert "Dice" in str(found)


def test_scores_are_a_table_of_pandas_and_nothing_is_written_unless_asked(tmp_path):
    pytest.importorskip("pandas")
    truth, exact = drawn(tmp_path / "t", 0), drawn(tmp_path / "a", 0)
    found = dlx.evaluate(exact, truth, write=False)
    assert found.cases["dice"].tolist() == [1.0] * 6
    assert found.files == ()
    assert sorted(path.suffix for path in exact.iterdir()) == [".gz"] * 6


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"predictions": "nowhere"}, "nowhere"),
        ({"predictions": 3}, "predictions"),
        ({"predictions": []}, "predictions"),
        ({"predictions": [3]}, "predictions"),
        ({"predictions": ["t", "t"]}, "another set"),
        ({"predictions": {"a/b": "t"}}, "a/b"),
        ({"predictions": "t", "truth": None}, "truth"),
        ({"predictions": "t", "geometry": "loose"}, "geometry"),
        ({"predictions": "t", "tolerance_mm": "1"}, "tolerance"),
        ({"predictions": "t", "smallest_effect": float("nan")}, "smallest-effect"),
        ({"predictions": "t", "labels": "1,1"}, "labels"),
        ({"predictions": "t", "labels": [1]}, "labels"),
        ({"predictions": "t"}, "same file"),
    ],
)
def test_predictions_that_cannot_be_evaluated_are_refused(arguments, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn(tmp_path / "t", 0)
    with pytest.raises(dlx.DlxError, match=named):
        dlx.evaluate(**{"truth": "t"} | arguments)


def test_records_that_are_not_there_are_a_data_error(tmp_path):
    with pytest.raises(dlx.DataError, match="nowhere"):
        dlx.read_records(tmp_path / "nowhere")
