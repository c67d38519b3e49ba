"""`dlx ls`: which folders and archives it finds, what it says of each, and that listing a verdict is no look at it."""

import json
import os
from dataclasses import replace
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from dlx.records.archive import read_study, write_archive
from dlx.records.finding import find_studies
from dlx.records.folder import StudyFolder
from dlx.report.findings.summary import summarize_study
from dlx.report.listing.entries import ListedStudy, entry_of, list_studies
from dlx.report.listing.verdicts import shown_verdicts
from dlx.report.terminal.listing import StudyList
from dlx.report.wording.verdicts import spell_in_short
from dlx.statistics.verdict import Verdict
from dlx.system.errors import DataError
from made_records import made_look, made_study, write_folder


def looked_at(records):
    """The records with a look at their present verdicts."""
    look = summarize_study(records).look.model_copy(update={"shown_utc": "2026-01-01T00:00:00+00:00"})
    return replace(records, looks=(look,))


def verdicts_of(records):
    return shown_verdicts(records, lambda: records)


def listed(folder):
    return {study.name: study for study in list_studies(folder)}


def paths_of(folder, **limits):
    return {str(place.path.relative_to(folder)) for place in find_studies(folder, **limits) if place.cause is None}


# what is found


def test_runs_and_archives_are_found_in_folders_within_folders(tmp_path):
    records = made_study(seeds=[0, 1])
    for name in ("a", "group/b", "group/of/groups/c"):
        write_folder(tmp_path / name, records)
    write_archive(tmp_path / "group/d.jsonl", records)
    (tmp_path / "log.jsonl").write_text('{"epoch": 1}\n')  # another program's
    (tmp_path / "a/looks.jsonl").write_text(made_look(2).model_dump_json() + "\n")
    assert paths_of(tmp_path) == {"a", "group/b", "group/of/groups/c", "group/d.jsonl"}


def test_a_run_within_a_run_is_found_but_nothing_in_folders_of_trials_or_hidden_ones(tmp_path):
    records = made_study(seeds=[0])
    for name in ("run", "run/second", "run/trials/inner", "run/declared/inner", ".hidden/run"):
        write_folder(tmp_path / name, records)
    assert paths_of(tmp_path) == {"run", "run/second"}


def test_links_are_followed_and_loops_of_links_end(tmp_path):
    write_folder(tmp_path / "elsewhere/run", made_study(seeds=[0]))
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "up").symlink_to("..")
    (runs / "self").symlink_to("self")
    (runs / "gone").symlink_to("nowhere")
    assert paths_of(runs) == {"up/elsewhere/run"}


def test_the_search_ends_at_a_depth_and_a_number_of_folders(tmp_path):
    write_folder(tmp_path / "1/2/3/4/5/6/7/8", made_study(seeds=[0]))
    write_folder(tmp_path / "1/2/3/4/5/6/7/8/9", made_study(seeds=[0]))
    assert paths_of(tmp_path) == {"1/2/3/4/5/6/7/8"}
    *_, last = find_studies(tmp_path, max_folders=5)
    assert last.path == tmp_path
    assert "5 folders" in last.cause


def test_a_folder_or_archive_may_be_the_run_itself(tmp_path):
    write_folder(tmp_path / "run", made_study(seeds=[0]))
    write_archive(tmp_path / "run.jsonl", made_study(seeds=[0]))
    assert [study.name for study in list_studies(tmp_path / "run")] == ["run"]
    assert [study.name for study in list_studies(tmp_path / "run.jsonl")] == ["run.jsonl"]


# what is said of a study


def test_trials_are_counted_by_how_they_are(tmp_path):
    running = {("p=0.1", 1): 2, ("p=0.1", 2): 1}
    write_folder(tmp_path / "run", made_study(seeds=[0, 1, 2], diverged=[("p=0", 2)], running=running))
    folder = StudyFolder(tmp_path / "run")
    entry = next(e for e in folder.header().trials if (e.label, e.seed) == ("p=0.1", 1))
    with FileLock(folder.trial(entry).path / ".lock"):
        study = listed(tmp_path)["run"]
    assert (study.num_trials, study.num_done, study.num_diverged, study.num_failed) == (6, 3, 1, 0)
    assert study.num_running == 1
    assert listed(tmp_path)["run"].num_running == 0


def test_the_newest_comes_first_and_an_archive_is_as_old_as_its_trials(tmp_path):
    for name, seconds in (("old", 1_000), ("new", 4_000_000_000)):
        write_folder(tmp_path / name, made_study(seeds=[0]))
        for path in (tmp_path / name).rglob("*.json*"):
            os.utime(path, (seconds, seconds))
    write_archive(tmp_path / "made.jsonl", made_study(seeds=[0]))  # its trials started at 2026-01-01T00:00:00Z
    studies = list_studies(tmp_path)
    assert [study.name for study in studies] == ["new", "made.jsonl", "old"]
    assert studies[1].changed_s == 1_767_225_600 + 20  # a trial takes 20 s
    assert studies[2].changed_s == 1_000


@pytest.mark.parametrize(
    ("started", "seconds"),
    [
        ("2026-01-01T00:00:00+00:00", 1e300),
        ("2026-01-01T00:00:00+00:00", -1e300),
        ("9999-12-31T23:59:59+00:00", 5.0),
        ("0001-01-01T00:00:00+00:00", 5.0),
    ],
)
def test_an_archive_with_impossible_times_is_listed(tmp_path, started, seconds):
    records = made_study(seeds=[0])
    trials = []
    for trial in records.trials:
        run = trial.record.run.model_copy(update={"started_utc": started, "seconds": seconds})
        trials.append(replace(trial, record=trial.record.model_copy(update={"run": run})))
    write_archive(tmp_path / "a.jsonl", replace(records, trials=tuple(trials)))
    studies = list_studies(tmp_path)
    assert "1970" <= entry_of(studies[0])["changed_utc"][:4] <= "2100"
    assert "a.jsonl" in "".join(printed(studies, 80))


def test_a_study_without_a_question_has_its_name(tmp_path):
    write_folder(tmp_path / "run", made_study(seeds=[0], question="", name="train unet2"))
    assert listed(tmp_path)["run"].question == "train unet2"


# verdicts


def test_verdicts_are_listed_where_they_were_shown_and_only_there():
    records = made_study({"p=0": (0.9, 0.8), "p=0.1": (0.9, 0.9), "p=0.2": (0.9, 0.7), "p=0.3": (0.9, 0.7)})
    assert verdicts_of(records) == []
    assert spell_in_short(verdicts_of(looked_at(records))) == "1 better, 2 worse"


def test_a_look_at_fewer_seeds_or_other_variants_shows_no_verdicts_of_more():
    few, many = made_study(seeds=range(3)), made_study(seeds=range(5))
    assert verdicts_of(replace(many, looks=looked_at(few).looks)) == []
    one = made_study({"p=0": (0.9, 0.8), "p=0.1": (0.9, 0.9)})
    two = made_study({"p=0": (0.9, 0.8), "p=0.1": (0.9, 0.9), "p=0.2": (0.9, 0.7)})
    assert verdicts_of(replace(two, looks=looked_at(one).looks)) == []


def test_an_old_look_without_trials_counts_by_its_numbers():
    records = made_study(seeds=range(5))
    assert len(verdicts_of(replace(records, looks=(made_look(5),)))) == 1
    assert verdicts_of(replace(records, looks=(made_look(3),))) == []


def test_an_open_study_and_one_of_a_single_network_have_no_verdict():
    running = made_study(running={("p=0.1", 4): 3})
    assert verdicts_of(replace(running, looks=(made_look(5),))) == []
    assert verdicts_of(replace(made_study({"a": (0.9, 0.8)}, control=None), looks=(made_look(5),))) == []


def test_listing_is_no_look(tmp_path, dlx):
    write_folder(Path("runs/run"), made_study())
    before = sorted(path for path in Path("runs").rglob("*"))
    assert " better" not in dlx("ls").stdout
    assert sorted(path for path in Path("runs").rglob("*")) == before
    dlx("show", "runs/run")
    assert StudyFolder(Path("runs/run")).looks() != []
    assert " better" in dlx("ls").stdout


def test_verdicts_that_need_epochs_are_found_though_listing_reads_none(tmp_path):
    idle = looked_at(made_study({"p=0": (0.9, 0.8), "p=0.1": (0.9, 0.8)}, idle=["p=0.1"]))
    write_folder(tmp_path / "idle", idle)
    jitter = looked_at(made_study(metric="jitter", epochs=40))
    write_folder(tmp_path / "jitter", jitter)
    found = listed(tmp_path)
    assert found["idle"].verdict == "no effect"
    assert found["jitter"].verdict == spell_in_short([summarize_study(jitter).variants[1].comparison.verdict])
    assert read_study(tmp_path / "idle", with_epochs=False).trials[0].epochs == ()


def test_equal_weights_with_unlike_epochs_are_no_missing_effect(tmp_path):
    records = made_study({"p=0": (0.9, 0.8), "p=0.1": (0.9, 0.8)}, idle=["p=0.1"])
    trials = []
    for trial in records.trials:
        if trial.entry.label == "p=0.1":
            result = trial.epochs[0].result.model_copy(update={"loss": 9.0})
            trial = replace(trial, epochs=(trial.epochs[0].model_copy(update={"result": result}), *trial.epochs[1:]))
        trials.append(trial)
    write_folder(tmp_path / "run", looked_at(replace(records, trials=tuple(trials))))
    assert listed(tmp_path)["run"].verdict == "no difference"


@pytest.mark.parametrize("scope", ["seeds", "patients"])
def test_without_power_verdicts_and_intervals_stay_and_only_what_is_needed_is_left_out(scope):
    records = made_study(spread=0.02, scope=scope, num_persons=3, num_val_persons=3)
    full, brief = summarize_study(records), summarize_study(records, with_power=False)
    for variant, other in zip(full.variants, brief.variants, strict=True):
        if variant.comparison is not None:
            assert other.comparison == replace(variant.comparison, needed=None)
    assert brief.noise_floor == replace(full.noise_floor, detectable_effect=None)
    assert any(v.comparison.needed for v in full.variants if v.comparison)


def test_verdicts_in_short():
    assert spell_in_short([]) == "-"
    assert spell_in_short([Verdict.NO_DIFFERENCE]) == "no difference"
    many = [Verdict.CANNOT_TELL, Verdict.WORSE, Verdict.CANNOT_TELL, Verdict.BETTER]
    assert spell_in_short(many) == "1 better, 1 worse, 2 cannot tell"


# damage


def cut_result(path):
    next(path.glob("trials/*/result.json")).write_text('{"trial": "x"')


def other_header(path):
    (path / "study.json").write_text('{"name": 3}')


def header_is_a_pipe(path):
    (path / "study.json").unlink()
    os.mkfifo(path / "study.json")


def header_is_a_folder(path):
    (path / "study.json").unlink()
    (path / "study.json").mkdir()


def settings_are_no_table(path):
    """The setting that would say why a value is missing is no table."""
    for result in path.glob("trials/p=0.1*/result.json"):
        document = json.loads(result.read_text())
        document["settings"]["evaluate"] = 3
        document["result"]["val"]["hd95_mm_per_class"] = None
        result.write_text(json.dumps(document))


@pytest.mark.parametrize("spoil", [cut_result, other_header, header_is_a_pipe, header_is_a_folder])
def test_a_damaged_run_is_a_row_with_the_cause_and_the_others_are_listed(tmp_path, spoil):
    for name in ("good", "bad"):
        write_folder(tmp_path / name, looked_at(made_study()))
    spoil(tmp_path / "bad")
    found = listed(tmp_path)
    assert found["good"].cause is None
    assert found["bad"].cause
    assert str(tmp_path) not in found["bad"].cause  # the name says where
    assert entry_of(found["bad"])["trials"] is None


def test_records_that_fit_the_schema_but_make_no_sense_are_a_row_too(tmp_path):
    for name in ("good", "bad"):
        write_folder(tmp_path / name, looked_at(made_study(metric="hd95_mm")))
    settings_are_no_table(tmp_path / "bad")
    found = listed(tmp_path)
    assert found["good"].cause is None
    assert found["bad"].cause.startswith("TypeError")


@pytest.mark.parametrize("content", [b'{"study": {', b'{"study": {"name": 1}}', b'{"study": {"name": "\xff"}}'])
def test_a_damaged_archive_is_a_row_with_the_cause(tmp_path, content):
    (tmp_path / "bad.jsonl").write_bytes(content)
    (study,) = list_studies(tmp_path)
    assert (study.name, study.num_trials) == ("bad.jsonl", 0)
    assert study.cause


# what is printed


def printed(studies, width, encoding="utf-8"):
    """The lines of a list in a terminal of this width."""
    file = TextIOWrapper(BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, markup=False, emoji=False, highlight=False, no_color=True)
    console.print(StudyList(studies), crop=False)
    file.flush()
    return file.buffer.getvalue().decode(encoding).splitlines()


def study_named(name="run", **fields):
    values = {"question": "Does it help, and at which rate?", "num_trials": 6, "num_done": 6, "verdict": "better"}
    return ListedStudy(Path(name), name, 0.0, **(values | fields))


def test_a_wide_terminal_has_a_line_for_each_study():
    counts = {"num_done": 3, "num_running": 1, "num_failed": 2, "num_diverged": 1}
    lines = printed([study_named(), study_named("other", **counts, verdict="-")], 140)
    assert lines[0].split() == ["run", "trials", "age", "verdict", "question"]
    assert lines[1].startswith("run ")
    assert lines[1].endswith("Does it help, and at which rate?")
    assert "3 of 6, 1 running, 2 failed, 1 diverged" in lines[2]
    assert len(lines) == 3


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 140])
def test_no_line_is_wider_than_the_terminal_and_only_questions_are_cut(width):
    studies = [study_named("a" * 18), study_named("b" * 10, verdict="2 worse, 11 cannot tell", question="w" * 300)]
    lines = printed(studies, width)
    assert max(map(len, lines)) <= max(width, 2 + len("6 of 6, 20000 days, 2 worse, 11 cannot tell"))
    text = " ".join(lines)
    assert all(part in text for part in ("a" * 18, "b" * 10, "2 worse, 11 cannot tell", "6 of 6"))
    assert "…" in text


def test_in_ascii_and_with_control_characters_nothing_is_lost():
    lines = printed([study_named("\x1b[31m[bold]", question="é" * 200)], 80, "ascii")
    assert "\\x1b[31m[bold]" in lines[1]
    assert lines[2].endswith("...")
    assert all(line.isascii() for line in lines)


def test_the_cause_of_an_unreadable_one_is_printed():
    assert any("study.json: damaged" in line for line in printed([study_named(cause="study.json: damaged")], 80))


def test_json_is_one_list(dlx):
    write_folder(Path("runs/run"), looked_at(made_study()))
    (study,) = json.loads(dlx("ls", "--json").stdout)
    assert (study["failed"], study["diverged"], study["running"]) == (0, 0, 0)
    assert (study["name"], study["path"], study["done"], study["trials"]) == ("run", "runs/run", 10, 10)
    assert study["verdict"] == "better"
    assert study["changed_utc"].endswith("+00:00")


def test_an_empty_folder_says_what_to_do_and_a_missing_one_is_refused(dlx):
    Path("my runs").mkdir()
    assert "dlx train --out 'my runs/NAME'" in dlx("ls", "my runs").stdout
    with pytest.raises(DataError, match="runs: no such folder"):
        dlx("ls")
    assert json.loads(dlx("ls", "my runs", "--json").stdout) == []
