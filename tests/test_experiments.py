"""Every study under experiments/: it loads, builds, and has records that belong to its present settings."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dlx.execution.planning.plan import make_plan
from dlx.records.archive import read_study
from dlx.report.files.writing import write_report
from dlx.report.findings.summary import summarize_study
from dlx.settings.layers import merge, nest, parse_assignment, read_recipe, read_toml, with_one_thread
from dlx.study.study import read_study_file, study_from_file
from dlx.trial.resolve import settings_id

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "experiments").glob("*.toml"))
IN_FULL = re.compile(r"^# In full on a GPU: add +(--recipe .*)$", re.MULTILINE)
DRAWN = re.compile(r"^# +\.venv/bin/python (experiments/make_\w+\.py) (.*)$", re.MULTILINE)
MANY_PLANS = ("batch-norm", "cross-validation", "down-sampling", "dropout-kinds", "samples")  # or many volumes
LARGE_BYTES = 500_000  # of records, whose page takes seconds
every_study = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def parameters(files):
    """A study of the hippocampus is slow: it is planned over 260 volumes, and the memory of the large networks of
    `strong` is estimated. So is one whose data are drawn to files. The slowest are long.
    """

    def marks(path):
        text = path.read_text(encoding="utf-8")
        drawn = DRAWN.search(text)
        is_slow = "Task04_Hippocampus" in text
        is_long = drawn is not None or path.stem.startswith("strong") or path.stem in MANY_PLANS
        return [pytest.mark.slow] * is_slow + [pytest.mark.long] * is_long

    return [pytest.param(path, id=path.stem, marks=marks(path)) for path in files]


def study_of(path):
    file = read_study_file(read_toml(path), path)
    return study_from_file(file, path.stem, with_one_thread(merge(read_recipe(file.recipe), file.base)))


def records_of(path):
    """What is recorded of the study, once it has run."""
    archive = path.with_suffix(".jsonl")
    assert archive.exists(), f"it has not run yet: dlx run experiments/{path.name}"
    return read_study(archive)


def draw_data(path, folder):
    """Runs the script that the file's head tells for its data, in `folder`; False where it tells none."""
    found = DRAWN.search(path.read_text(encoding="utf-8"))
    if found is not None:
        subprocess.run([sys.executable, ROOT / found[1], *shlex.split(found[2])], cwd=folder, check=True)
    return found is not None


def in_full(path):
    """The study with the options that the file's head tells for a GPU; None where it tells none."""
    found = IN_FULL.search(path.read_text(encoding="utf-8"))
    if found is None:
        return None
    given = dict(zip(*[iter(shlex.split(found[1]))] * 2, strict=True))
    file = read_study_file(read_toml(path), path)
    settings = nest([("loss", given["--loss"])] if "--loss" in given else [])
    settings |= nest([parse_assignment(given["--set"])] if "--set" in given else [])
    return study_from_file(file, path.stem, with_one_thread(merge(read_recipe(given["--recipe"]), file.base, settings)))


def without_compute(settings):
    """Precision and threads are chosen by the machine."""
    return {key: value for key, value in settings.items() if key != "compute"}


def test_there_are_studies_and_every_record_belongs_to_one():
    assert FILES
    assert {path.stem for path in (ROOT / "experiments").glob("*.jsonl")} <= {path.stem for path in FILES}


@every_study
def test_its_records_were_declared_as_the_file_says(path):
    study, header = study_of(path), records_of(path).header
    assert [variant.label for variant in header.variants] == [variant.label for variant in study.variants]
    for field in ("question", "metric", "smallest_effect", "control", "seeds", "axes"):
        assert getattr(header, field) == getattr(study, field), f"dlx run experiments/{path.name} again: {field}"
    assert list(header.claims) == [claim.model_dump(mode="json") for claim in study.claims]
    assert all(path.with_suffix(ending).exists() for ending in (".md", ".svg"))


@every_study
def test_its_trials_are_named_by_a_hash_of_their_settings(path):
    records = [trial.record for trial in records_of(path).trials if trial.record]
    assert records
    assert [settings_id(record.settings) for record in records] == [record.trial for record in records]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path,
            id=path.stem,
            marks=[pytest.mark.long] * (path.with_suffix(".jsonl").stat().st_size > LARGE_BYTES),
        )
        for path in FILES
    ],
)
def test_its_page_is_what_its_records_give(path, tmp_path):
    records = records_of(path)
    page, *_ = write_report(tmp_path / path.stem, summarize_study(records), records, with_png=False)
    assert page.read_text(encoding="utf-8") == path.with_suffix(".md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", parameters(FILES))
def test_every_trial_is_there_and_has_the_files_settings(path, cache, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path if draw_data(path, tmp_path) else ROOT)
    study = study_of(path)
    source = study.base.data.path
    if source is not None and not source.is_dir():
        pytest.skip(f"no folder {source} on this machine")
    plan = make_plan(study, tmp_path, cache_dir=cache)
    records = {(trial.entry.label, trial.entry.run): trial.record for trial in records_of(path).trials if trial.record}
    assert len(records) == len(plan.trials)
    for planned in plan.trials:
        record = records[planned.trial.label, planned.trial.run]
        assert without_compute(record.settings) == without_compute(planned.resolved.settings(planned.trial.seed))


@pytest.mark.parametrize("path", parameters(sorted((ROOT / "experiments").glob("**/*.toml"))))
def test_it_can_be_run_in_full(path, cache, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    study = study_of(path) if path.parent.name == "full" else in_full(path)
    if study is None:
        pytest.skip("tells of no run in full")
    source = study.base.data.path
    if source is None:
        assert study.base.data.source.args["subjects"] == 10  # the phantom at this size takes minutes to draw
        return
    if not source.is_dir():
        pytest.skip(f"no folder {source} on this machine")
    plan = make_plan(study, tmp_path, cache_dir=cache)
    assert {planned.resolved.spec.model.args["width"] for planned in plan.trials} == {64}
