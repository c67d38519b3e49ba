"""`dlx show`: a run or study as it was printed, how far its trials are, and a single trial."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from dlx.records.archive import read_study, write_archive
from dlx.records.folder import StudyFolder, TrialFolder
from dlx.records.one_trial import is_trial_folder, read_trial
from dlx.report.files.document import records_document
from dlx.report.findings.summary import summarize_study
from dlx.report.shown.changed_settings import changed_settings
from dlx.report.shown.head import recorded_head
from dlx.report.shown.states import count_states, states_of
from dlx.report.terminal.tables import as_text, tables_of
from dlx.settings.spec import Spec
from dlx.system.errors import DataError
from dlx.system.file_locks import is_locked
from made_records import made_study, write_folder
from small import SMALL_ARGS

ONE_NETWORK = {"unet2": (0.9, 0.8)}


def resolved(p=0.0, **changes):
    """Settings of a trial as it records them, so far as `dlx show` reads them."""
    dropout = {"p": p} if p == 0 else {"p": p, "kind": "dropout", "where": "every"}
    settings = {
        "channels": ["T1", "T2"],
        "classes": ["background", "csf", "grey matter"],
        "split": {"train": ["a", "b", "c"], "val": ["d"]},
        "batch": {"kind": "patches", "size": 4, "patch_size_px": [16, 24]},
        "model": {"name": "unet2", "args": {"width": 8, "levels": 3, "norm": "batch", "dims": 3}},
        "dropout": dropout,
        "loss": [{"name": "dice", "args": {"smooth": 1e-5}}, {"name": "ce", "args": {}}],
        "optimizer": {"name": {"name": "adamw", "args": {"beta2": 0.95}}, "lr": 0.002},
        "scheduler": {"name": "cosine", "args": {}},
        "train": {"epochs": 10, "steps_per_epoch": 30},
        "evaluate": {"every": 2, "train_subset": 2, "surface_tolerance_mm": 1.0},
        "compute": {"device": "cpu", "precision": "float32", "threads": 1},
    }
    return settings | changes


def given(**changes):
    """The settings that a header records: every setting, as it was asked for."""
    spec = Spec.model_validate({"data": {"source": "phantom:subjects=4"}, "train": {"epochs": 10}} | changes)
    return spec.model_dump(mode="json")


def with_settings(records, **changes):
    """The records with complete settings, of which p is the variant's."""
    trials = []
    for trial in records.trials:
        if trial.record is not None:
            p = float(trial.entry.label.removeprefix("p=")) if trial.entry.label.startswith("p=") else 0.0
            record = trial.record.model_copy(update={"settings": resolved(p, **changes)})
            trial = replace(trial, record=record)
        trials.append(trial)
    return replace(records, trials=tuple(trials), header=records.header.model_copy(update={"settings": given()}))


def written(path, records):
    """The records in a folder, in which each trial that began has its settings; as they are read back."""
    write_folder(path, records)
    for trial in records.trials:
        folder = StudyFolder(path).trial(trial.entry)
        if trial.epochs:
            folder.begin(resolved())
    return read_study(path)


def table_of(records):
    """What the commands print at the end of a study, in a terminal of 80 columns."""
    return as_text(tables_of(summarize_study(records), records), 80)


def folder_of(path, label, seed):
    entries = StudyFolder(path).header().trials
    return StudyFolder(path).trial(next(e for e in entries if (e.label, e.seed) == (label, seed))).path


# a run or study


def test_a_study_is_shown_with_its_head_the_tables_of_its_report_and_its_files(dlx):
    records = written(Path("run"), with_settings(made_study(remarks=("beware",))))
    for name in ("report.md", "report.png", "progress.png", "results.csv", "cases.csv"):
        Path("run", name).touch()
    head, table, foot = dlx("show", "run").stdout.partition(table_of(records))
    assert table
    assert "data     phantom:subjects=4: T1, T2 -> csf, grey matter\n" in head
    assert "split    3 training and 1 validation subject\n" in head
    assert "network  unet2 (3D, width 8, 3 levels), 1,234 parameters; loss dice+ce; adamw, cosine\n" in head
    assert "training 10 epochs of 30 steps, 4 patches of 16 x 24; validated every 2 epochs, with 2 of 3" in head
    assert "device   cpu (cpu (made)), float32, 1 thread\n" in head
    assert "note     beware\n" in head
    assert "variants p=0 (control); p=0.1\n" in head
    assert "trials   10 (2 variants x 5 seeds: 0, 1, 2, 3, 4), 10 ended\n" in head
    assert "report:       run/report.md, report.png, progress.png\n" in foot
    assert "tables:       run/results.csv, cases.csv\n" in foot
    assert "repeat with:  dlx sweep-dropout --p 0.1 --seeds 5 --fresh\n" in foot
    assert "each trial:   dlx show 'run/trials/p=0-seed0-p=0 0'   (and 9 more)\n" in foot


def test_showing_verdicts_is_a_look_that_is_noted_once(dlx):
    written(Path("run"), made_study())
    dlx("show", "run")
    (look,) = StudyFolder(Path("run")).looks()
    assert look.variants == ("p=0.1",)
    dlx("show", "run", "--json")
    assert StudyFolder(Path("run")).looks() == [look]


def test_a_study_without_a_verdict_yet_is_shown_without_a_look(dlx):
    written(Path("run"), made_study(running={("p=0.1", 4): 3}))
    dlx("show", "run")
    assert StudyFolder(Path("run")).looks() == []


def test_a_look_that_cannot_be_noted_is_a_warning(dlx):
    written(Path("run"), made_study())
    Path("run/looks.jsonl").symlink_to("missing/looks.jsonl")
    result = dlx("show", "run")
    assert "better" in result.stdout
    assert "this look at the verdicts is not in the records" in result.stderr


def test_an_archive_is_shown_and_stays_as_it_is(dlx):
    records = with_settings(made_study())
    write_archive(Path("made.jsonl"), records)
    before = Path("made.jsonl").read_bytes()
    for name in ("made.md", "made.svg", "made-epochs.csv"):
        Path(name).touch()
    shown = dlx("show", "made.jsonl").stdout
    assert table_of(records) in shown
    assert "network  unet2" in shown
    assert "records:      made.jsonl\nreport:       made.md, made.svg\ntables:       made-epochs.csv\n" in shown
    assert "each trial" not in shown
    assert Path("made.jsonl").read_bytes() == before


def test_the_seeds_of_one_network_are_shown_as_train_prints_them(dlx):
    records = with_settings(made_study(ONE_NETWORK, control=None, seeds=[0, 1]))
    written(Path("run"), records)
    shown = dlx("show", "run").stdout
    assert "unet2: 2 seeds" in shown
    assert "spread" in shown
    assert "variants" not in shown


def test_trials_that_have_not_ended_are_shown_with_how_far_they_are(dlx):
    running = {("p=0", 1): 4, ("p=0.1", 0): 3, ("p=0.1", 1): 0}
    records = written(Path("run"), made_study(seeds=[0, 1], every=2, running=running))
    lock = folder_of(Path("run"), "p=0", 1) / ".lock"
    with FileLock(lock):
        assert [s.state for s in states_of(records)] == ["done", "running", "stopped", "waiting"]
        shown = dlx("show", "run").stdout
    assert "1 of 4 trials done, 1 running, 1 stopped, 1 waiting" in shown
    val = records.trials[1].epochs[3].result.val_dice
    assert re.search(rf"p=0, seed 1 +running +4 of 10 +0\.\d{{4}} +0\.\d{{3}} +{val:.3f}\n", shown)
    assert re.search(r"p=0.1, seed 0 +stopped +3 of 10 ", shown)
    assert "waiting trials: 1" in shown
    assert "resume with:  dlx sweep-dropout --p 0.1 --seeds 5\n" in shown
    assert [s.state for s in states_of(read_study(Path("run")))] == ["done", "stopped", "stopped", "waiting"]


def test_the_last_validation_is_shown_of_a_trial_whose_last_epoch_was_not_validated(tmp_path):
    records = written(tmp_path, made_study(seeds=[0], every=2, running={("p=0", 0): 5, ("p=0.1", 0): 1}))
    first, second = states_of(records)
    assert (first.last.epoch, first.last_validated.epoch) == (5, 4)
    assert second.last_validated is None


def test_the_cause_of_a_trial_that_failed_is_shown(dlx):
    records = made_study(ONE_NETWORK, control=None, seeds=[0], diverged=[("unet2", 0)])
    written(Path("run"), records)
    shown = dlx("show", "run").stdout
    assert "0 of 1 trial done, 1 diverged" in shown
    assert "unet2, seed 0: diverged: the loss is nan in epoch 4" in shown


def test_a_run_of_which_nothing_is_recorded_yet_is_shown(dlx):
    records = made_study(seeds=[0], running={("p=0", 0): 0, ("p=0.1", 0): 0})
    StudyFolder(Path("run")).write_header(records.header)
    shown = dlx("show", "run").stdout
    assert "Does dropout narrow the gap" in shown
    assert "0 of 2 trials done, 2 waiting" in shown
    assert count_states(states_of(read_study(Path("run")))) == "0 of 2 trials done, 2 waiting"


def test_the_json_document_is_that_of_the_report_with_progress_and_files(dlx):
    records = written(Path("run"), made_study(seeds=[0, 1], running={("p=0.1", 1): 3}))
    Path("run/epochs.csv").touch()
    shown = json.loads(dlx("show", "run", "--json").stdout)
    report = json.loads(json.dumps(records_document(summarize_study(records), records)))
    assert {key: value for key, value in shown.items() if key not in ("progress", "files")} == report
    last = shown["progress"][-1]
    assert (last["label"], last["seed"], last["state"], last["epoch"], last["epochs"]) == ("p=0.1", 1, "stopped", 3, 10)
    assert shown["files"] == ["run/epochs.csv"]


def test_persons_and_folds_are_in_the_line_of_the_split():
    records = made_study(ONE_NETWORK, control=None, seeds=[0], persons={"a": "x", "b": "x"})
    assert "split    3 training scans of 2 persons, 1 validation scan of 1 person" in recorded_head(
        with_settings(records)
    )


@pytest.mark.parametrize("settings", [{}, {"split": 3, "loss": [[1]]}, {"train": {"epochs": "many"}}])
def test_settings_that_make_no_sense_are_not_known(settings):
    records = made_study(ONE_NETWORK, control=None, seeds=[0])
    (trial,) = records.trials
    trial = replace(trial, record=trial.record.model_copy(update={"settings": settings}))
    assert recorded_head(replace(records, trials=(trial,))) == ["data     unknown"]


def test_a_folder_without_a_study_names_the_command_that_lists_it(dlx):
    Path("my runs").mkdir()
    with pytest.raises(DataError, match=r"no study\.json.*dlx ls 'my runs'"):
        dlx("show", "my runs")
    with pytest.raises(DataError, match="no such file or folder"):
        dlx("show", "gone")


# a single trial


def test_a_trial_is_shown_with_what_differs_its_epochs_scores_and_hardest_cases(dlx):
    written(Path("run"), with_settings(made_study(epochs=12)))
    path = folder_of(Path("run"), "p=0.1", 2)
    (path / "last.safetensors").touch()
    shown = dlx("show", str(path)).stdout
    assert shown.startswith("p=0.1, seed 2 of made: done\n")
    assert re.search(r"data.source +phantom:subjects=4 +phantom +-\n", shown)
    assert re.search(r"dropout.p +0.1 +0.0 +0.0\n", shown)
    assert "dropout.kind" not in shown  # the control drops nothing, and so has no kind
    assert "the last 10 of 12 epochs" in shown
    assert re.search(r"\n +12 +0.001 ", shown)
    assert "p=0.1, seed 2: after epoch 12" in shown
    assert "the hardest of 3 validation cases" in shown
    scores = read_trial(path).history.record.result.val
    lowest = min(scores.cases, key=lambda case: sum(scores.cases[case].dice.values()))
    *_, first = shown.partition("the hardest of")[2].split("────\n")
    assert first.strip().startswith(lowest)
    assert f"files:        {path}/last.safetensors, epochs.jsonl" in shown


def test_settings_are_compared_with_defaults_and_the_control_of_the_same_seed(tmp_path):
    records = with_settings(made_study(seeds=[0, 1]))
    records = replace(
        records,
        header=records.header.model_copy(update={"settings": given(optimizer={"name": "sgd:momentum=0.5", "lr": 0.1})}),
    )
    written(tmp_path, records)
    found = {s.key: s for s in changed_settings(read_trial(folder_of(tmp_path, "p=0.1", 1)))}
    assert (found["optimizer.lr"].value, found["optimizer.lr"].default) == ("0.1", "0.002")
    assert found["optimizer.name"].value == "sgd:momentum=0.5"
    assert (found["dropout.p"].value, found["dropout.p"].control) == ("0.1", "0.0")
    assert "train.epochs" not in found  # 10 is the default
    of_control = changed_settings(read_trial(folder_of(tmp_path, "p=0", 1)))
    assert {s.control for s in of_control} == {"-"}


def test_a_running_trial_is_shown_without_scores(dlx):
    written(Path("run"), made_study(seeds=[0], running={("p=0.1", 0): 3}))
    path = folder_of(Path("run"), "p=0.1", 0)
    with FileLock(path / ".lock"):
        shown = dlx("show", str(path)).stdout
        document = json.loads(dlx("show", str(path), "--json").stdout)
    assert shown.startswith("p=0.1, seed 0 of made: running, 3 of 10 epochs\n")
    assert "all 3 epochs" in shown
    assert "after epoch" not in shown
    assert (document["state"], document["epoch"], document["cases"]) == ("running", 3, None)
    assert len(document["epochs_recorded"]) == 3


def test_a_trial_that_failed_says_why(dlx):
    written(Path("run"), made_study(seeds=[0], diverged=[("p=0.1", 0)]))
    assert "diverged: the loss is nan in epoch 4" in dlx("show", str(folder_of(Path("run"), "p=0.1", 0))).stdout


def test_a_trial_whose_study_is_not_there_is_shown_from_its_own_files(dlx):
    written(Path("run"), with_settings(made_study(seeds=[0])))
    path = folder_of(Path("run"), "p=0.1", 0).rename("copied")
    shown = dlx("show", str(path)).stdout
    assert shown.startswith("p=0.1, seed 0: done\n")
    assert "data     unknown: T1, T2 -> csf, grey matter" in shown
    (path / "result.json").unlink()
    assert dlx("show", str(path)).stdout.startswith("copied, seed 0: stopped")


def test_the_name_of_a_folder_tells_label_fold_seed_and_id(tmp_path):
    path = tmp_path / "trials" / "p=0.1-fold2-seed3-0123abcd"
    TrialFolder.at(path).begin(resolved())
    entry = read_trial(path).history.entry
    assert (entry.label, entry.fold, entry.seed, entry.trial) == ("p=0.1", 2, 3, "0123abcd")
    assert is_trial_folder(path)
    assert not is_trial_folder(path.parent)


@pytest.mark.parametrize("content", ["[1]", "{", '{"a": 1, "a": 2}'])
def test_damaged_settings_of_a_trial_are_refused(dlx, content):
    Path("trial").mkdir()
    Path("trial/settings.json").write_text(content)
    with pytest.raises(DataError, match=r"trial/settings\.json"):
        dlx("show", "trial")


# locks


def test_a_lock_is_seen_while_it_is_held_and_looking_does_not_take_or_change_it(tmp_path):
    path = tmp_path / ".lock"
    assert not is_locked(path)
    assert not path.exists()
    with FileLock(path):
        assert is_locked(path)
        assert is_locked(path)
    assert not is_locked(path)
    with FileLock(path, timeout=0):  # nothing holds it
        pass
    assert not is_locked(tmp_path)  # a folder


def test_another_study_is_not_begun_in_a_folder_in_which_one_runs(dlx):
    dlx("train", *SMALL_ARGS, "--out", "run")
    header = Path("run/study.json").read_bytes()
    (trial,) = Path("run/trials").iterdir()
    with TrialFolder.at(trial).locked():
        with pytest.raises(DataError, match=r"^run: another study is running in this folder \(dlx.*--out\)$"):
            dlx("train", *SMALL_ARGS, "--lr", "0.01", "--out", "run")
        assert Path("run/study.json").read_bytes() == header
        with pytest.raises(DataError, match="another study is running"):  # other variants of one control
            dlx("train", *SMALL_ARGS, "--seeds", "0,1", "--out", "run")
    dlx("train", *SMALL_ARGS, "--lr", "0.01", "--out", "run")


def test_folds_of_an_earlier_study_do_not_stay(dlx):
    at = SMALL_ARGS.index("--val-fraction")
    dlx("train", *SMALL_ARGS[:at], *SMALL_ARGS[at + 2 :], "--fold", "all", "--folds", "3", "--out", "run")
    assert Path("run/splits_final.json").exists()
    dlx("train", *SMALL_ARGS, "--out", "run")
    assert not Path("run/splits_final.json").exists()


def test_a_trial_that_this_process_runs_is_running(tmp_path):
    folder = TrialFolder.at(tmp_path / "trial")
    with folder.locked():
        assert folder.is_running()
    assert not folder.is_running()
