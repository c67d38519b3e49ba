"""Every study under experiments/: it loads, builds, and has records that belong to its present settings."""

from pathlib import Path

import pytest

from dlx.archive import finished, read_study
from dlx.cli.running import with_one_thread
from dlx.run.plan import make_plan
from dlx.settings import merge, read_recipe, read_toml
from dlx.studies import read_study_file, study_from_file

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "experiments").glob("*.toml"))
every_study = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def study_of(path):
    file = read_study_file(read_toml(path), path)
    return study_from_file(file, path.stem, with_one_thread(merge(read_recipe(file.recipe), file.base)))


def without_compute(settings):
    """Precision and threads are chosen by the machine."""
    return {key: value for key, value in settings.items() if key != "compute"}


def test_there_are_studies_and_every_record_belongs_to_one():
    assert FILES
    assert {path.stem for path in (ROOT / "experiments").glob("*.jsonl")} == {path.stem for path in FILES}


@every_study
def test_its_records_were_declared_as_the_file_says(path):
    study, header = study_of(path), read_study(path.with_suffix(".jsonl")).header
    assert [variant.label for variant in header.variants] == [variant.label for variant in study.variants]
    for field in ("question", "metric", "smallest_effect", "control", "seeds", "axes"):
        assert getattr(header, field) == getattr(study, field), field
    assert list(header.claims) == [claim.model_dump(mode="json") for claim in study.claims]
    assert all(path.with_suffix(ending).exists() for ending in (".md", ".svg"))


@every_study
def test_every_trial_is_there_and_has_the_files_settings(path, cache, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    study = study_of(path)
    source = study.base.data.source.args.get("path")
    if source and not Path(source).is_dir():
        pytest.skip(f"no folder {source} on this machine")
    plan = make_plan(study, tmp_path, cache_dir=cache)
    records = {
        (record.label, record.seed): record for record in finished(read_study(path.with_suffix(".jsonl")).trials)
    }
    assert len(records) == len(plan.trials)
    for planned in plan.trials:
        record = records[planned.trial.label, planned.trial.seed]
        assert without_compute(record.settings) == without_compute(planned.resolved.settings(planned.trial.seed))
