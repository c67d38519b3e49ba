"""`dlx predict`: what it writes is what training measured, on the voxels of the files and with their geometry."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from typer.testing import CliRunner

from dlx.cli.main import app
from dlx.engine import checkpoint
from dlx.evaluation.labels import table_from_json
from dlx.prediction import batch_memory, output_folder
from dlx.prediction.ensemble import Ensemble
from dlx.prediction.manifest import NAME
from dlx.prediction.predict import plan_predictions, predict
from dlx.prediction.trained_network import load_network
from dlx.records.folder import StudyFolder
from dlx.settings.own import code
from dlx.system.errors import DataError, FilesError, SettingError
from made_own_networks import write_nets
from made_scans import IN_2D, KINDS, TRAIN, dice, dice_of_cases, make_data, train, voxels_of

INSTANCE = ("--set", "model.norm=instance")


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / NAME).read_text().splitlines()]


def geometry_of(path: Path) -> tuple[Any, ...]:
    image = sitk.ReadImage(str(path))
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


def probabilities_of(path: Path) -> np.ndarray[Any, Any]:
    with np.load(path) as arrays:
        (name,) = arrays.files
        assert name == "probabilities"
        return np.asarray(arrays[name])


def run_command(*args: str) -> None:
    """A command line in the working folder, which has to succeed."""
    result = CliRunner().invoke(app, [*args, *([] if args[0] != "train" else ["--cache-dir", "cache"])])
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with `data`, four cases in four orientations, and runs on them that tests only read: `two` of two seeds,
    `across` whose slices lie across another axis, `cubes` of a 3D network.
    """
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data = make_data("orientations", run_command)
        train(run_command, "orientations", data, "--seeds", "2", "--max-parallel", "1", out="two")
        train(run_command, "orientations", data, "--set", "batch.slice_axis=2", *INSTANCE, out="across")
        train(run_command, "3d", data, out="cubes")
    return folder


@pytest.fixture
def images(made, tmp_path) -> Path:
    """The images of the cases in a folder of its own."""
    return Path(shutil.copytree(made / "data/imagesTr", tmp_path / "images"))


def trial(run: Path, seed: int = 0) -> Path:
    (found,) = run.glob(f"trials/*-seed{seed}-*")
    return found


def saved(out: Path) -> dict[str, bytes]:
    """The predictions in a folder."""
    hidden = (NAME, output_folder.LOCK, "dataset.json")
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name not in hidden}


# what is written


def kinds_of_images(data: Path) -> list[Path]:
    found = [*data.glob("imagesTr/*"), *data.glob("subject-*-T1.hdr")]
    assert found
    return sorted(found)


def truth_of(data: Path, case: str, ending: str) -> Path:
    return data / f"{case}-label{ending}" if ending == ".hdr" else data / f"labelsTr/{case}{ending}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "3d"])
def test_predictions_have_the_dice_that_training_measured_and_the_geometry_of_the_images(dlx, kind):
    data = make_data(kind, dlx)
    run = train(dlx, kind, data)
    printed = dlx("predict", "-i", str(data), "-o", "out", "-m", str(run), "--save-probabilities").stdout
    recorded = dice_of_cases(run)
    assert f"{len(recorded)} cases predicted" in printed
    method = lines_of(Path("out"))[0]["method"]
    labels = {name: np.atleast_1d(values) for name, values in method["labels"].items()}
    seen = set()
    for image in kinds_of_images(data):
        case = image.name.partition("_0")[0].partition("-T1")[0]
        ending = image.name[image.name.index(".") :]
        written = Path("out") / f"{case}{ending}"
        assert geometry_of(written) == geometry_of(image)
        prediction, truth = voxels_of(written), voxels_of(truth_of(data, case, ending))
        assert prediction.dtype == (np.uint32 if kind == "tif" else np.uint8)
        seen |= {*np.unique(prediction).tolist()}
        probabilities = probabilities_of(Path(f"out/{case}.npz"))
        assert probabilities.dtype == np.float32
        assert probabilities.shape[1:] == prediction.shape
        if kind == "regions":
            whole, inner = probabilities > 0.5
            np.testing.assert_array_equal(prediction, np.where(inner, 2, np.where(whole, 1, 0)))
            regions = {"whole": (whole, truth > 0), "inner": (inner, truth == 2)}
        else:
            values = np.array([values[0] for values in labels.values()])
            np.testing.assert_array_equal(prediction, values[probabilities.argmax(0)])
            np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
            is_known = truth != 2 if kind == "ignored" else np.ones_like(truth, bool)
            of_class = {name: np.isin(prediction, of) & is_known for name, of in labels.items() if name != "background"}
            regions = {name: (found, np.isin(truth, labels[name]) & is_known) for name, found in of_class.items()}
        assert {name: dice(*pair) for name, pair in regions.items()} == recorded[case]
    assert len(seen) > 1
    table = table_from_json([Path("out")])  # the labels of the data set, by their names
    assert {one.name: [*one.values] for one in table.classes} == {
        name: [*values] for name, values in labels.items() if name != "background"
    }
    assert table.ignored_value == (2 if kind == "ignored" else None)


def test_a_dataset_json_of_another_tool_beside_predictions_stays(made, images, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/dataset.json").write_text('{"labels": {"background": 0}}')
    predict(images, tmp_path / "out", made / "two")
    assert json.loads((tmp_path / "out/dataset.json").read_text()) == {"labels": {"background": 0}}


@pytest.mark.parametrize(
    "runs", [["two"], ["two", "across"], ["cubes", "two", "across"]], ids=["seeds", "two axes", "2D and 3D"]
)
def test_several_networks_predict_the_mean_of_their_probabilities(made, images, tmp_path, runs):
    predict(images, tmp_path / "mean", [made / run for run in runs], save_probabilities=True)
    trials = [path for run in runs for path in sorted((made / run).glob("trials/*"))]
    assert len(trials) == len(runs) + 1
    for number, one in enumerate(trials):
        predict(images, tmp_path / str(number), one, save_probabilities=True)
    for case in ("c0", "c1", "c2", "c3"):
        each = [probabilities_of(tmp_path / f"{number}/{case}.npz") for number in range(len(trials))]
        assert all(np.abs(one - each[0]).max() > 1e-3 for one in each[1:])
        mean = probabilities_of(tmp_path / f"mean/{case}.npz")
        np.testing.assert_allclose(mean, np.mean(each, axis=0), atol=1e-6)
        np.testing.assert_array_equal(voxels_of(tmp_path / f"mean/{case}.nii.gz"), mean.argmax(0))


@pytest.mark.gpu
@pytest.mark.parametrize("run", ["two", "cubes"])
def test_a_gpu_predicts_what_the_processor_does(made, images, tmp_path, run):
    for device in ("cpu", "cuda"):
        predict(images, tmp_path / device, made / run, device=device, save_probabilities=True)
    for case in ("c0", "c3"):
        one, other = (probabilities_of(tmp_path / f"{device}/{case}.npz") for device in ("cpu", "cuda"))
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_tta_is_as_trained_or_on_or_off(made, images, tmp_path):
    found = {}
    for tta in ("auto", "off", "on"):
        predict(images / "c0_0000.nii.gz", tmp_path / tta, made / "across", tta=tta, save_probabilities=True)
        found[tta] = probabilities_of(tmp_path / f"{tta}/c0.npz")
    np.testing.assert_array_equal(found["auto"], found["off"])  # it was trained without
    network = load_network(trial(made / "across") / "last.safetensors")
    mirrored = Ensemble([network], tta="on")
    assert mirrored.members[0].mirrored_axes == (0, 1)
    assert np.abs(found["on"] - found["off"]).max() > 1e-4
    assert any("flips no image" in line for line in mirrored.remarks)


def test_a_checkpoint_holds_the_averaged_weights_that_validation_measures(made):
    path = trial(made / "two") / "last.safetensors"
    content, network = checkpoint.read(path), load_network(path).network
    plain, averaged = content.part("model"), content.part("ema")
    name = next(name for name, weight in plain.items() if weight.ndim > 1)
    assert (network.state_dict()[name] == averaged[f"module.{name}"]).all()
    assert not (network.state_dict()[name] == plain[name]).all()


def test_best_is_another_checkpoint_than_last_which_is_the_default(made, images, tmp_path):
    run = Path(shutil.copytree(made / "two", tmp_path / "run"))
    shutil.copy(trial(run, 1) / "last.safetensors", trial(run, 0) / "best.safetensors")
    plans = {one: plan_predictions(images, tmp_path / "out", run, checkpoint=one) for one in ("best", "last", None)}
    digests = {one: [member.trained.digest for member in plan.ensemble.members] for one, plan in plans.items()}
    assert digests["last"] == digests[None] != digests["best"]
    assert digests["best"][0] == digests["last"][1]
    assert [member.trained.name for member in plans[None].ensemble.members] == [f"{run}: seed 0", f"{run}: seed 1"]


def test_a_scan_larger_than_the_memory_for_a_batch_is_predicted_in_smaller_ones(made, images, tmp_path, monkeypatch):
    predict(images, tmp_path / "whole", made / "two", save_probabilities=True)
    monkeypatch.setattr(batch_memory, "memory_bytes", lambda device: 2**19)
    plan = plan_predictions(images, tmp_path / "parts", made / "two", save_probabilities=True)
    list(plan.run())
    assert any(bytes_of_one is not None for bytes_of_one in plan.ensemble._memory.known.values())
    for case in ("c0", "c3"):
        one, other = (probabilities_of(tmp_path / f"{name}/{case}.npz") for name in ("whole", "parts"))
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.slow
def test_runs_on_voxels_of_one_size_may_differ_in_what_they_do_with_another(dlx):
    data = make_data("3d", dlx)  # all cases alike: nothing is resampled, so the trial has the same id
    for way in ("auto", "none"):
        train(dlx, "orientations", data, "--set", f"data.spacing_mm={way}", out=way)
    paths = [trial(Path(way)) / "last.safetensors" for way in ("auto", "none")]
    networks = [load_network(path) for path in paths]
    assert networks[0].trial == networks[1].trial
    assert networks[0].digest != networks[1].digest
    image = sitk.ReadImage("data/imagesTr/c0_0000.nii.gz")
    image.SetSpacing((2.0, 0.8, 1.4))
    Path("new").mkdir()
    sitk.WriteImage(image, "new/x.nii.gz")
    found = {}
    for name, runs in {"auto": ["auto"], "none": ["none"], "both": ["auto", "none"]}.items():
        predict("new", name + "-out", runs, save_probabilities=True)
        found[name] = probabilities_of(Path(f"{name}-out/x.npz"))
        assert geometry_of(Path(f"{name}-out/x.nii.gz")) == geometry_of(Path("new/x.nii.gz"))
    assert np.abs(found["auto"] - found["none"]).max() > 1e-3
    np.testing.assert_allclose(found["both"], (found["auto"] + found["none"]) / 2, atol=1e-6)


# going on


def test_the_same_command_again_predicts_nothing(dlx, made, images):
    command = ["predict", "-i", str(images), "-o", "out", "-m", str(made / "across")]
    assert "4 cases predicted" in dlx(*command).stdout
    before = {path.name: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    printed = dlx(*command).stdout
    assert "0 cases predicted, 4 already complete" in printed
    assert {path.name: path.stat().st_mtime_ns for path in Path("out").iterdir()} == before


def test_only_what_is_missing_or_of_another_input_is_predicted_again(made, images, tmp_path):
    def again(**options: Any) -> list[str]:
        return [case.id for case in predict(images, out, made / "across", **options) if not case.was_done]

    out = tmp_path / "out"
    assert again() == ["c0", "c1", "c2", "c3"]
    (out / "c1.nii.gz").unlink()
    assert again() == ["c1"]
    os.utime(images / "c2_0000.nii.gz")  # the time alone
    assert again() == []
    shutil.copy(images / "c0_0000.nii.gz", images / "c3_0000.nii.gz")
    assert again() == ["c3"]
    assert voxels_of(out / "c3.nii.gz").tolist() == voxels_of(out / "c0.nii.gz").tolist()
    images = Path(shutil.move(images, tmp_path / "moved"))
    assert again() == []
    assert again(save_probabilities=True) == ["c0", "c1", "c2", "c3"]
    assert again() == []  # more than is asked for is there


def test_files_of_other_runs_and_changed_files_are_replaced_only_if_asked(dlx, made, images):
    command = ["predict", "-i", str(images), "-o", "out", "-m"]
    dlx(*command, str(made / "across"), "--save-probabilities")
    before = saved(Path("out"))
    with pytest.raises(SettingError, match=r"out: holds 4 files of other runs .*'c0.nii.gz', .*--overwrite"):
        dlx(*command, str(made / "cubes"))
    with pytest.raises(SettingError, match="another --tta"):
        dlx(*command, str(made / "across"), "--tta", "on")
    assert saved(Path("out")) == before
    Path("out/c2.nii.gz").write_bytes(before["c0.nii.gz"])
    with pytest.raises(SettingError, match=r"1 file that dlx predict did not write, or that changed .*'c2.nii.gz'"):
        dlx(*command, str(made / "across"))
    dlx(*command, str(made / "across"), "--overwrite")
    assert {**saved(Path("out")), "c2.npz": before["c2.npz"]} == before  # c2 was predicted again, without probabilities
    dlx(*command, str(made / "cubes"), "--overwrite")
    assert set(saved(Path("out"))) == {"c0.nii.gz", "c1.nii.gz", "c2.nii.gz", "c3.nii.gz"}  # no old probabilities


def test_a_file_without_a_line_is_not_taken_for_a_prediction(made, images, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/c1.nii.gz").write_bytes(b"mine")
    with pytest.raises(SettingError, match=r"did not write, or that changed since \('c1.nii.gz'\)"):
        predict(images, tmp_path / "out", made / "two")
    assert (tmp_path / "out/c1.nii.gz").read_bytes() == b"mine"
    assert not any(path.suffix == ".gz" and path.name != "c1.nii.gz" for path in (tmp_path / "out").iterdir())


def test_an_interrupt_leaves_complete_files_and_the_rest_follows(made, images, tmp_path):
    def interrupt(done: float, total: int, case: str) -> None:
        if case == "c2" and done > 2.1:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"save_probabilities": True}
    with pytest.raises(KeyboardInterrupt):
        predict(images, tmp_path / "out", made / "cubes", progress=interrupt, **options)
    assert set(saved(tmp_path / "out")) == {"c0.nii.gz", "c0.npz", "c1.nii.gz", "c1.npz"}
    seen = []
    predict(images, tmp_path / "out", made / "cubes", progress=lambda *facts: seen.append(facts), **options)
    assert {case for _, _, case in seen} == {"c2", "c3"}
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[-1] == (4.0, 4, "c3")
    predict(images, tmp_path / "at once", made / "cubes", **options)
    assert saved(tmp_path / "out") == saved(tmp_path / "at once")


def test_what_a_kill_leaves_is_cleared_and_predicted(made, images, tmp_path):
    out = tmp_path / "out"
    predict(images, out, made / "across")
    (out / ".c0.nii.gz.0123456789abcdef.tmp").write_bytes(b"half")
    manifest = out / NAME
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[:-1]) + lines[-1][:50])  # killed while the line of c3 was written
    (out / "c3.nii.gz").unlink()  # which is before its file gets its name
    done = predict(images, out, made / "across")
    assert [case.id for case in done if not case.was_done] == ["c3"]
    assert set(saved(out)) == {f"c{k}.nii.gz" for k in range(4)}
    assert len(lines_of(out)) == 5


def test_a_damaged_manifest_is_named(made, images, tmp_path):
    predict(images, tmp_path / "out", made / "across")
    (tmp_path / "out" / NAME).write_text('{"case": 7}\n')
    with pytest.raises(DataError, match=rf"{NAME}: line 1: "):
        predict(images, tmp_path / "out", made / "across")


def test_two_processes_do_not_write_into_one_folder(made, images, tmp_path, monkeypatch):
    monkeypatch.setattr(output_folder, "LOCK_WAIT_S", 0.0)
    with (
        output_folder.OutputFolder.opened(tmp_path / "out"),
        pytest.raises(DataError, match="another process is writing predictions"),
    ):
        predict(images, tmp_path / "out", made / "across")


# which images


def test_scans_that_cannot_be_read_are_named_after_the_others_were_predicted(made, images, tmp_path):
    (images / "c1_0000.nii.gz").write_bytes(b"\x1f\x8bnothing")
    (images / "c3_0000.nii.gz").unlink()
    os.mkfifo(images / "x.nii.gz")
    for name, voxels in (("air", np.zeros((4, 5, 6), np.int16)), ("dots", np.arange(1, 10, dtype=np.int16))):
        image = sitk.GetImageFromArray(voxels.reshape(voxels.shape if voxels.ndim > 1 else (1, 1, 9)))
        sitk.WriteImage(image, str(images / f"{name}_0000.nii.gz"))
    with pytest.raises(FilesError) as caught:
        predict([images, images / "x.nii.gz"], tmp_path / "out", made / "across")
    wrong = str(caught.value).splitlines()
    assert [line.partition(": ")[0] for line in wrong] == [
        f"{images}/{name}.nii.gz" for name in ("air_0000", "c1_0000", "dots_0000", "x")
    ]
    assert "slices of 1 x 1 voxels are too small" in wrong[2]
    assert "data.normalize=zscore" in wrong[0]
    assert set(saved(tmp_path / "out")) == {"c0.nii.gz", "c2.nii.gz"}


@pytest.mark.parametrize("given", ["", "/", "file"])
def test_the_folder_of_the_images_is_not_written_into(made, images, given):
    out = {"": str(images), "/": f"{images}/../images/", "file": str(images / "c0_0000.nii.gz")}[given]
    with pytest.raises(SettingError, match=f"-o {out.rstrip('/')}: is "):
        predict(images, out, made / "across")


def test_a_scan_without_directions_is_predicted_with_a_note(made, tmp_path):
    image = sitk.ReadImage(str(made / "data/imagesTr/c0_0000.nii.gz"))
    sitk.WriteImage(image, str(tmp_path / "c0.mha"))
    kept = [line for line in (tmp_path / "c0.mha").read_bytes().split(b"\n") if not line.startswith(b"TransformMatrix")]
    (tmp_path / "c0.mha").write_bytes(b"\n".join(kept))
    plan = plan_predictions(tmp_path / "c0.mha", tmp_path / "out", made / "across")
    list(plan.run())
    (line,) = plan.notes()
    assert "give no orientation ('c0')" in line


def test_masks_that_were_given_as_images_are_noted(made, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(made / "data/labelsTr/c1.nii.gz", tmp_path / "in/c1_0000.nii.gz")
    shutil.copy(made / "data/imagesTr/c0_0000.nii.gz", tmp_path / "in/c0_0000.nii.gz")
    plan = plan_predictions(tmp_path / "in", tmp_path / "out", made / "across")
    list(plan.run())
    assert [note for note in plan.notes() if "1 scan ('c1') may be a mask" in note]


# which runs


@pytest.fixture
def study(made, tmp_path) -> Path:
    """The run of two seeds as a study of two variants."""
    folder = Path(shutil.copytree(made / "two", tmp_path / "study"))
    header = StudyFolder(folder).header()
    assert header is not None
    (variant,) = header.variants
    labels = ("p=0", "p=0.1")
    trials = [entry.model_copy(update={"label": label}) for entry, label in zip(header.trials, labels, strict=True)]
    variants = [variant.model_copy(update={"label": label}) for label in labels]
    changed = header.model_copy(update={"variants": tuple(variants), "trials": tuple(trials), "control": "p=0"})
    (folder / "study.json").write_text(changed.model_dump_json())
    return folder


@pytest.mark.parametrize("label", ["p=0.1", "p=0", "p=0 (control)"])
def test_a_variant_of_a_study_is_named_by_its_label(study, images, tmp_path, label):
    plan = plan_predictions(images, tmp_path / "out", f"{study}:{label}")
    seed = 1 if label == "p=0.1" else 0
    (member,) = plan.ensemble.members
    assert member.trained.name == f"{study}: {label.removesuffix(' (control)')}, seed {seed}"
    assert member.trained.digest == load_network(trial(study, seed) / "last.safetensors").digest


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ("{study}", r"is a study of 2 variants \('p=0', 'p=0.1'\): name one, as in -m .*:p=0$"),
        ("{study}:p=0.2", r"no variant 'p=0.2': did you mean 'p=0"),
        ("{study}/nothing", "nothing: no such folder of a run"),
        ("{study}/nothing:p=0", "no such folder of a run"),
        ("{images}", "holds no run"),
        ("{images}/c0_0000.nii.gz", "not a checkpoint"),
        ("{archive}", "an archive of records holds no checkpoints"),
        ("{empty}", "not a readable checkpoint"),
    ],
)
def test_what_is_no_run_is_refused(study, images, tmp_path, run, words):
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "empty.safetensors").touch()
    places = {
        "study": study,
        "images": images,
        "archive": tmp_path / "a.jsonl",
        "empty": tmp_path / "empty.safetensors",
    }
    with pytest.raises(DataError, match=words) as caught:
        predict(images, tmp_path / "out", run.format(**places))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_trials_that_have_not_finished_are_left_out_or_refused_unless_a_checkpoint_is_named(made, images, tmp_path):
    run = Path(shutil.copytree(made / "two", tmp_path / "run"))
    (trial(run, 1) / "result.json").unlink()
    plan = plan_predictions(images, tmp_path / "out", run)
    assert len(plan.ensemble.members) == 1
    assert any("1 trial left out" in line and "seed 1 has not finished" in line for line in plan.remarks)
    with pytest.raises(DataError, match="has not finished; --checkpoint last"):
        plan_predictions(images, tmp_path / "out", trial(run, 1))
    named = plan_predictions(images, tmp_path / "out", run, checkpoint="last")
    assert len(named.ensemble.members) == 2
    assert any("though not finished" in line for line in named.remarks)
    assert len(plan_predictions(images, tmp_path / "out", trial(run, 1), checkpoint="best").ensemble.members) == 1
    for seed in (0, 1):
        shutil.rmtree(trial(run, seed))
    with pytest.raises(DataError, match=r"no trial to predict with: .* has no last\.safetensors") as caught:
        plan_predictions(images, tmp_path / "out", run)
    assert "--checkpoint" not in str(caught.value)  # there is none


def test_a_diverged_trial_without_a_checkpoint_is_called_diverged(made, images, tmp_path):
    run = Path(shutil.copytree(made / "across", tmp_path / "run"))
    record = json.loads((trial(run) / "result.json").read_text())
    (trial(run) / "result.json").write_text(
        json.dumps(record | {"status": "diverged", "cause": "a loss of nan", "result": None})
    )
    with pytest.raises(DataError, match=r"seed 0 diverged: a loss of nan; --checkpoint last or best predicts"):
        plan_predictions(images, tmp_path / "out", run)
    for path in trial(run).glob("*.safetensors"):
        path.unlink()
    with pytest.raises(DataError, match=r"seed 0 diverged: a loss of nan, and has no last\.safetensors$"):
        plan_predictions(images, tmp_path / "out", run)


def changed_checkpoint(path: Path, out: Path, **header: Any) -> Path:
    content = checkpoint.read(path)
    checkpoint.write(out, checkpoint.Checkpoint(content.tensors, content.header | header))
    return out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"classes": ["background", "first", "two"]},
            "their classes differ: 'background', 'one', 'two' and 'background', ",
        ),
        ({"channels": ["T2"]}, "their channels differ: 'T1' and 'T2'"),
        ({"label_values": [0, 1, 4]}, "their label values differ: 0, 1, 2 and 0, 1, 4"),
        (
            {"regions": [[1, 2], [2]], "region_order": [1, 2]},
            "their regions differ: none and 'one: 1, 2, written as 1', ",
        ),
    ],
)
def test_runs_that_do_not_fit_one_another_are_not_averaged(made, images, tmp_path, change, words):
    path = trial(made / "two") / "last.safetensors"
    settings = checkpoint.read(path).header["settings"]
    header = {"settings": settings | change} if {*change} <= {*settings} else change
    other = changed_checkpoint(path, tmp_path / "other.safetensors", **header)
    if "regions" in change:  # of which each has an output, and the background none
        content = checkpoint.read(other)
        parts = {k: t[1:] if ".head." in k else t for k, t in content.tensors.items()}
        checkpoint.write(other, checkpoint.Checkpoint(parts, content.header))
    with pytest.raises(SettingError, match=f"{path} and {other} cannot be averaged: {words}"):
        predict(images, tmp_path / "out", [path, other])


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"label_values": [0, 1, -2]}, "label_values"),
        ({"label_values": [0, 1]}, "do not fit"),
        ({"regions": [[1, 9], [2]], "region_order": [1, 2]}, "regions do not fit"),
        ({"regions": [[1], [2]], "region_order": [7, 1]}, "order of its regions"),
        ({"windows": [None, None]}, "windows do not fit"),
        ({"grid": {"spacing_mm": "wide"}}, "grid"),
        ({"settings": {}}, "lacks"),
        ({"settings": 3}, "settings"),
    ],
)
def test_a_checkpoint_with_a_malformed_header_is_refused_in_one_line(made, tmp_path, header, words):
    path = changed_checkpoint(trial(made / "two") / "last.safetensors", tmp_path / "a.safetensors", **header)
    with pytest.raises(DataError, match=words) as caught:
        load_network(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_from_before_grids_and_regions_can_be_used(made, tmp_path):
    content = checkpoint.read(trial(made / "two") / "last.safetensors")
    added = ("grid", "regions", "region_order", "ignored_value", "windows")
    header = {key: value for key, value in content.header.items() if key not in added}
    checkpoint.write(tmp_path / "a.safetensors", checkpoint.Checkpoint(content.tensors, header))
    assert load_network(tmp_path / "a.safetensors").dataset.grid is None
    predict(made / "data", tmp_path / "out", tmp_path / "a.safetensors")
    assert len(saved(tmp_path / "out")) == 4


def test_a_checkpoint_names_no_code(made, tmp_path):
    path = trial(made / "two") / "last.safetensors"
    settings = checkpoint.read(path).header["settings"] | {"model": {"name": "os:system", "args": {}}}
    with pytest.raises(SettingError, match="model 'os:system' is code of your own"):
        load_network(changed_checkpoint(path, tmp_path / "a.safetensors", settings=settings))


@pytest.mark.slow
def test_a_network_of_the_users_own_is_loaded_only_if_it_is_named(dlx, monkeypatch):
    for name in ("_vouched", "_loaded", "_served"):
        monkeypatch.setattr(code, name, {})
    Path("nets").mkdir()
    nets = write_nets(Path("nets"))
    data = make_data("3d", dlx)
    dlx("train", "--data", str(data), "--model", "nets/nets.py:Net", *TRAIN, *IN_2D[2:], "--out", "own")
    for name in ("_vouched", "_loaded", "_served"):
        monkeypatch.setattr(code, name, {})  # as in another process
    with pytest.raises(SettingError, match=r"never loaded from records: name it: --model PATH/nets\.py:Net"):
        dlx("predict", "-i", str(data), "-o", "out", "-m", "own")
    assert code._loaded == {}
    dlx("predict", "-i", str(data), "-o", "out", "-m", "own", "--model", "nets/nets.py:Net")
    for case, recorded in dice_of_cases(Path("own")).items():
        prediction, truth = (voxels_of(Path(folder) / f"{case}.nii.gz") for folder in ("out", data / "labelsTr"))
        assert {"one": dice(prediction == 1, truth == 1), "two": dice(prediction == 2, truth == 2)} == recorded
    nets.write_text(nets.read_text() + "\n# changed\n")
    with pytest.raises(SettingError, match="is not the recorded code: it has changed since"):
        dlx("predict", "-i", str(data), "-o", "new", "-m", "own", "--model", "nets/nets.py:Net")


def test_weights_of_another_network_or_not_finite_are_refused(made, tmp_path):
    path = trial(made / "two") / "last.safetensors"
    content = checkpoint.read(path)
    tensors = {name: tensor for name, tensor in content.tensors.items() if not name.startswith("ema.")}
    name = next(name for name in tensors if name.startswith("model."))
    for change, words in (({}, "not those of its network"), ({name: tensors[name] * float("nan")}, "not finite")):
        kept = {key: tensor for key, tensor in tensors.items() if key != name} | change
        checkpoint.write(tmp_path / "a.safetensors", checkpoint.Checkpoint(kept, content.header))
        with pytest.raises(DataError, match=words):
            load_network(tmp_path / "a.safetensors")


@pytest.mark.slow
def test_ctrl_c_exits_with_130_and_says_how_to_go_on(made, images, tmp_path):
    for copy in range(30):
        shutil.copy(images / "c0_0000.nii.gz", images / f"d{copy}_0000.nii.gz")
    command = [sys.executable, "-m", "dlx", "predict", "-i", images, "-o", tmp_path / "out", "-m", made / "cubes"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out/c0.nii.gz").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, noted = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "predicted" in printed
    assert "the same command goes on" in noted
    assert "Traceback" not in noted
    files = saved(tmp_path / "out")
    assert {name.partition(".")[2] for name in files} == {"nii.gz"}
    assert len(files) < 34
    assert f"{34 - len(files)} cases predicted" in CliRunner().invoke(app, [str(word) for word in command[3:]]).output


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"tta": True}, "--tta True"), ({"images": 3}, "images"), ({"runs": None}, "runs"), ({"model": 3}, "model")],
)
def test_arguments_of_wrong_types_are_refused_with_their_names(made, images, tmp_path, wrong, named):
    with pytest.raises(SettingError, match=named):
        predict(**{"images": images, "out": tmp_path / "out", "runs": made / "two"} | wrong)
    assert not (tmp_path / "out").exists()


def test_an_unknown_device_is_refused_in_one_line(dlx, made, images):
    with pytest.raises(SettingError, match="device: expected auto, cpu"):
        dlx("predict", "-i", str(images), "-o", "out", "-m", str(made / "two"), "--device", "abacus")
