"""`sweep-dropout`, `compare-schedulers`, `run` and `report` as a user meets them."""

import json
import re
import shutil
from pathlib import Path

import pytest

from dlx.system.errors import DlxError
from dlx.system.files import read_json
from dlx.trial import evaluation_memory
from small import SMALL_ARGS

pytestmark = pytest.mark.usefixtures("without_figures")

SMALL = [*SMALL_ARGS, "--epochs", "2"]
SWEEP = ["sweep-dropout", "--p", "0.1,0.5", "--seeds", "2", *SMALL, "--out", "out"]


def epoch_lines(folder):
    return (Path(folder) / "epochs.jsonl").read_text().splitlines()


def results(folder):
    """Trial id -> the half of its record that must repeat, with its epochs."""
    found = {}
    for path in (Path(folder) / "trials").glob("*/result.json"):
        record = read_json(path)
        epochs = [json.loads(line)["result"] for line in (path.parent / "epochs.jsonl").read_text().splitlines()]
        found[record["trial"]] = (record["result"], epochs)
    return found


def test_a_dry_run_lists_the_control_and_each_rate(dlx, tmp_path):
    document = json.loads(dlx("sweep-dropout", "--p", "0.1..0.8", *SMALL, "--dry-run", "--json").stdout)
    labels = [variant["label"] for variant in document["variants"]]
    assert labels == ["p=0", *(f"p=0.{digit}" for digit in range(1, 9))]
    assert document["control"] == "p=0"
    assert document["cost"]["trials"] == 9 * 5
    assert document["cost"]["epochs"] == 9 * 5 * 2
    assert document["cost"]["seconds"] > 0
    assert not (tmp_path / "runs").exists()


def test_a_note_says_briefly_which_variants_it_is_of(dlx):
    shown = dlx("sweep-dropout", "--p", "0.1..0.3", *SMALL, "--dry-run").stdout
    assert "note     all but p=0: dropout comes before batch norm" in shown
    shown = dlx("sweep-dropout", "--p", "0.1", *SMALL, "--dry-run").stdout
    assert "note     p=0.1: dropout comes before batch norm" in shown


def test_a_sweep_compares_each_rate_with_the_control_and_runs_only_what_is_missing(dlx):
    first = dlx(*SWEEP)
    assert "variants p=0 (control); p=0.1; p=0.5" in first.stderr
    assert "6/6" in first.stderr
    for expected in ("p=0 (control)", "train Dice", "verdict", "Noise floor", "Holm", "selected on the validation"):
        assert expected in " ".join(first.stdout.split())
    document = json.loads(dlx(*SWEEP, "--json").stdout)
    assert [variant["label"] for variant in document["variants"]] == ["p=0", "p=0.1", "p=0.5"]
    assert [trial["status"] for trial in document["trials"]] == ["done"] * 6
    assert document["noise_floor"] > 0
    keys = {"label", "n", "train_dice", "val_dice", "gap", "jitter", "difference", "interval", "verdict"}
    assert all(keys | {"seeds_needed", "patients_needed", "scopes"} <= set(variant) for variant in document["variants"])
    by_label = {variant["label"]: variant for variant in document["variants"]}
    values = {label: [t["val_dice"] for t in document["trials"] if t["label"] == label] for label in by_label}
    for label in ("p=0.1", "p=0.5"):
        expected = sum(values[label]) / 2 - sum(values["p=0"]) / 2
        assert by_label[label]["difference"] == pytest.approx(expected, abs=1e-12)
    before = results("out")
    more = dlx("sweep-dropout", "--p", "0.1,0.3,0.5", "--seeds", "2", *SMALL, "--out", "out")
    assert "9 (3 variants" not in more.stderr
    assert "8 (4 variants x 2 seeds: 0, 1), 2 to run" in more.stderr
    after = results("out")
    assert len(after) == 8
    assert {trial: after[trial] for trial in before} == before
    for name in ("report.md", "report.svg", "report.png", "study.json", "looks.jsonl"):
        assert (Path("out") / name).stat().st_size > 0


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_workers_or_the_order(dlx):
    dlx(*SWEEP, "--max-parallel", "1")
    dlx("sweep-dropout", "--p", "0.5,0.1", "--seeds", "1,0", *SMALL, "--out", "two", "--max-parallel", "2")
    one, two = results("out"), results("two")
    assert len(one) == 6
    assert one == two
    dlx("train", *SMALL, "--dropout", "0.5", "--seed", "1", "--out", "alone")
    ((trial, alone),) = results("alone").items()
    assert one[trial] == alone


BASE = """
[base]
data.source = "phantom:subjects=4,size=24"
split.val_fraction = 0.25
model = { name = "unet2", width = 4, levels = 2 }
batch = { size = 4, patch_size_px = [16, 16] }
train = { epochs = 2, steps_per_epoch = 3 }
compute = { device = "cpu", precision = "float32" }
"""  # the same as SMALL
TWO_RATES = f'seeds = 1{BASE}[axes]\n"dropout.p" = [0, 0.5]\n'


def test_a_trial_that_diverges_is_a_row_with_its_cause_and_the_others_go_on(dlx):
    Path("study.toml").write_text(
        f'question = "What does a wild rate do?"\nseeds = 1{BASE}[[axes]]\nname = "rate"\n'
        '[[axes.tables]]\nlabel = "tame"\n'
        '[[axes.tables]]\nlabel = "wild"\noptimizer = { name = "sgd", lr = 1e30 }\n'
        '[[axes.tables]]\nlabel = "slow"\noptimizer = { lr = 1e-4 }\n'
    )
    result = dlx("run", "study.toml", "--json", expect=1)
    document = json.loads(result.stdout)
    assert {trial["label"]: trial["status"] for trial in document["trials"]} == {
        "tame": "done",
        "wild": "diverged",
        "slow": "done",
    }
    again = dlx("run", "study.toml", expect=1)
    assert "wild, seed 0: diverged" in again.stderr
    assert "the only run diverged" in again.stdout
    for ending in ("jsonl", "md", "svg"):
        assert Path(f"study.{ending}").exists()


@pytest.mark.slow
def test_a_study_file_with_options_that_change_it_leaves_what_is_beside_it_alone(dlx):
    Path("two.toml").write_text(TWO_RATES)
    dlx("run", "two.toml")
    before = {path: path.read_bytes() for path in Path().glob("two*")}
    beside = {"two.jsonl", "two.md", "two.html", "two.svg", "two-cases.csv", "two-results.csv", "two-epochs.csv"}
    assert {path.name for path in before} == {"two.toml", *beside}
    for name in ("cases", "results"):
        assert before[Path(f"two-{name}.csv")] == Path(f"runs/two/{name}.csv").read_bytes()
    changed = dlx("run", "two.toml", "--epochs", "1", "--quiet")
    assert re.search("note .*two.toml.* runs/two", changed.stderr)
    assert {path: path.read_bytes() for path in Path().glob("two*")} == before
    assert len(list(Path("runs/two/trials").iterdir())) == 4
    same = dlx("run", "two.toml", "--epochs", "2", "--max-parallel", "1")  # what the file says itself
    assert "two.jsonl" in same.stderr


@pytest.mark.slow
def test_looks_of_the_archive_beside_a_study_are_kept(dlx):
    Path("two.toml").write_text(TWO_RATES.replace("seeds = 1", "seeds = 2"))
    dlx("run", "two.toml")
    shutil.rmtree("runs")  # another machine has only what is beside the file
    Path("two.toml").write_text(TWO_RATES.replace("seeds = 1", "seeds = 3"))
    dlx("run", "two.toml")
    looks = [json.loads(line)["look"] for line in Path("two.jsonl").read_text().splitlines() if '{"look"' in line]
    assert [look["num_seeds"] for look in looks] == [2, 3]


@pytest.mark.slow
def test_the_table_is_printed_though_the_report_cannot_be_written(dlx):
    dlx(*SWEEP)
    Path("out/report.md").unlink()
    Path("out/report.md").mkdir()
    with pytest.raises(OSError, match=r"report\.md"):
        dlx(*SWEEP)
    assert "verdict" in dlx.last_output()


@pytest.mark.parametrize(
    ("blocked", "words"),
    [
        (lambda: Path("two.svg").mkdir(), "two.svg: is a folder"),
        (lambda: Path("two-cases.csv").mkdir(), "two-cases.csv: is a folder"),
        (lambda: Path("two.jsonl").write_text("{}"), "two.jsonl: not the records .* move it away"),
    ],
)
def test_records_that_could_not_be_kept_beside_the_file_are_refused_before_the_start(dlx, blocked, words):
    Path("two.toml").write_text(TWO_RATES)
    blocked()
    with pytest.raises(DlxError, match=words) as refusal:
        dlx("run", "two.toml")
    assert "\n" not in str(refusal.value)
    assert not Path("runs").exists()


def test_a_folder_that_takes_no_files_is_refused_before_the_start(dlx):
    Path("two.toml").write_text(TWO_RATES)
    with Path("two.toml").open() as file, pytest.raises(DlxError, match="/proc/self/fd: records are kept beside"):
        dlx("run", f"/proc/self/fd/{file.fileno()}")


@pytest.mark.parametrize("command", [SWEEP, ["compare-schedulers", *SMALL], ["run", "two.toml"]])
def test_a_study_needs_no_resume(dlx, command):
    Path("two.toml").write_text(TWO_RATES)
    with pytest.raises(DlxError, match="--resume"):
        dlx(*command, "--resume")


@pytest.mark.slow
def test_a_setting_that_changes_nothing_is_marked_loudly(dlx):
    Path("idle.toml").write_text(
        'seeds = 2\n[[axes]]\nname = "clip"\n[[axes.tables]]\nlabel = "none"\n'
        '[[axes.tables]]\nlabel = "clipped at a million"\noptimizer = { clip_grad_norm = 1e6 }\n'
        '[[axes.tables]]\nlabel = "plateau"\nscheduler = "plateau:patience=50"\n'
        '[[axes.tables]]\nlabel = "decay"\noptimizer = { weight_decay = 0.5 }\n'
    )
    result = dlx("run", "idle.toml", *SMALL, "--scheduler", "constant", "--json")
    rows = {row["label"]: row for row in json.loads(result.stdout)["variants"]}
    assert rows["plateau"]["verdict"].startswith("no effect")
    assert not rows["decay"]["verdict"].startswith("no effect")
    assert "never fired" in rows["plateau"]["reason"]
    shown = dlx("run", "idle.toml", *SMALL, "--scheduler", "constant").stdout.split()
    assert {"plateau", "rule", "never", "fired:"} <= set(shown)  # in a column, on several lines


def test_compare_schedulers_knows_all_of_them_and_draws_their_rates(dlx):
    result = dlx("compare-schedulers", *SMALL, "--epochs", "20", "--dry-run")
    for name in ("linear-tail", "exponential", "multistep", "cosine, 4 spans", "plateau", "lambda by group"):
        assert name in result.stdout
    assert "lr * gamma^e" in result.stdout
    assert "█▇" in result.stdout


def test_variants_of_one_schedule_share_a_row_of_the_dry_run(dlx):
    changes = {
        "base": "",
        "wide": "model.width = 8",
        "tail": 'scheduler = "linear-tail"',
        "decay": "optimizer.weight_decay = 0.1",
    }
    written = "".join(f'[[axes.tables]]\nlabel = "{label}"\n{setting}\n' for label, setting in changes.items())
    Path("study.toml").write_text(f'question = "?"\nseeds = 1{BASE}[[axes]]\nname = "change"\n{written}')
    shown = dlx("run", "study.toml", "--dry-run").stdout
    table = shown[shown.index("learning rate by epoch") :]
    rows = [line.split("  ")[1] for line in table.splitlines()[4:] if line.startswith("  ")]
    assert [row for row in rows if row] == ["all but tail", "cosine", "tail", "linear-tail"]


@pytest.mark.slow
def test_schedules_can_be_chosen_and_the_constant_rate_is_the_control(dlx):
    args = ["compare-schedulers", "--scheduler", "step:step_size=1,gamma=0.1", "--scheduler", "cosine", "--seeds", "2"]
    document = json.loads(dlx(*args, *SMALL, "--json").stdout)
    assert document["control"] == "constant"
    assert [row["label"] for row in document["variants"]] == ["constant", "step:step_size=1,gamma=0.1", "cosine"]
    rates = [
        [json.loads(line)["result"]["lr"]["encoder"] for line in epoch_lines(t["folder"])]
        for t in document["trials"]
        if t["label"].startswith("step")
    ]
    assert rates[0] == pytest.approx([0.002, 0.0002])


def test_a_report_is_rebuilt_from_records_alone_and_folders_merge(dlx):
    dlx(*SWEEP[:4], "1", *SWEEP[5:-1], "a")
    dlx(*SWEEP[:3], "--seeds", "1,2", *SMALL, "--out", "b")
    document = json.loads(dlx("report", "a", "b", "--json").stdout)
    assert [row["n"] for row in document["variants"]] == [3, 3, 3]
    page = Path("a/merged.md").read_bytes()
    picture = Path("a/merged.svg").read_bytes()
    own = Path("a/report.md").read_bytes()
    dlx("report", "a", "b")
    assert Path("a/merged.png").exists()
    assert (Path("a/merged.md").read_bytes(), Path("a/merged.svg").read_bytes()) == (page, picture)
    assert Path("a/report.md").read_bytes() == own


@pytest.mark.slow
def test_dlx_report_shows_the_table_even_if_it_cannot_write_the_report(dlx):
    dlx(*SWEEP)
    Path("file").touch()
    with pytest.raises(OSError, match="file"):
        dlx("report", "out", "--out", "file/report")
    assert "paired by seed" in dlx.last_output()


@pytest.mark.slow
def test_a_folder_that_another_study_takes_over_is_named_even_quietly(dlx):
    dlx(*SWEEP)
    taken = dlx("train", *SMALL, "--lr", "0.01", "--out", "out", "--quiet")
    assert "out held another study" in taken.stderr
    assert "held another study" not in dlx("train", *SMALL, "--lr", "0.01", "--seeds", "2", "--out", "out").stderr


@pytest.mark.slow
def test_variants_that_a_sweep_leaves_out_are_named(dlx):
    dlx(*SWEEP)
    labels = [variant["label"] for variant in json.loads(Path("out/study.json").read_text())["variants"][1:]]
    at = SWEEP.index("--p")
    other = dlx(*SWEEP[:at], "--p", "0.45", *SWEEP[at + 2 :])
    assert f"out also holds {', '.join(labels)}, which the report leaves out from now on" in other.stderr


@pytest.mark.slow
def test_folders_of_unlike_settings_do_not_merge(dlx):
    dlx(*SWEEP[:4], "1", *SWEEP[5:-1], "a")
    dlx(*SWEEP[:4], "1", *SWEEP[5:-1], "b", "--lr", "0.01")
    with pytest.raises(DlxError, match="has other settings"):
        dlx("report", "a", "b")


@pytest.mark.slow
def test_seeds_added_after_a_look_are_no_longer_a_5_percent_verdict(dlx):
    wide = ["--smallest-effect", "0.9"]  # so wide that the equivalence tests of 3 seeds always decide
    dlx(*SWEEP, *wide)
    three = ["sweep-dropout", "--p", "0.1,0.5", "--seeds", "3", *SMALL, "--out", "out"]
    more = json.loads(dlx(*three, *wide, "--json").stdout)
    looks = [json.loads(line) for line in Path("out/looks.jsonl").read_text().splitlines()]
    assert [look["num_seeds"] for look in looks] == [2, 3]
    for row in more["variants"][1:]:
        assert "after a look at 2" in row["reason"]


@pytest.mark.slow
def test_variants_chosen_after_a_look_give_a_remark(dlx):
    dlx(*SWEEP)
    fewer = dlx("sweep-dropout", "--p", "0.5", "--seeds", "2", *SMALL, "--out", "out")
    assert "verdicts were shown before over other seeds or variants (up to 2)" in " ".join(fewer.stdout.split())
    other = dlx("sweep-dropout", "--p", "0.5", "--seeds", "2", *SMALL, "--lr", "0.01", "--out", "out")
    assert "were shown before" not in other.stdout  # another control: another study


@pytest.mark.slow
def test_what_is_declared_after_results_gives_a_remark(dlx):
    dlx(*SWEEP)
    late = dlx(*SWEEP, "--smallest-effect", "0.5")
    assert "declared after results were there: smallest effect" in late.stdout
    assert "declared after results were there: smallest effect" in dlx(*SWEEP, "--smallest-effect", "0.5").stdout


@pytest.mark.slow
def test_what_is_declared_after_results_gives_a_remark_even_if_another_study_used_the_folder_meanwhile(dlx):
    dlx(*SWEEP)
    dlx("train", *SMALL, "--threads", "1", "--out", "out")  # the control's own trial
    assert "after results" not in dlx(*SWEEP).stdout
    dlx("train", *SMALL, "--lr", "0.01", "--out", "out")
    late = dlx(*SWEEP, "--smallest-effect", "0.5").stdout
    assert "declared after results were there: smallest effect" in late


CLAIMED = """
[[claims]]
text = "{text}"
kind = "{kind}"
variant = "p=0.5"
"""


@pytest.mark.slow
def test_a_claim_that_is_added_or_changed_after_results_is_marked_for_good(dlx):
    study = Path("two.toml")
    early = CLAIMED.format(text="helps", kind="greater")
    study.write_text(TWO_RATES + early)
    assert "claims declared before the start\n" in dlx("run", "two.toml").stdout
    study.write_text(TWO_RATES + early + CLAIMED.format(text="harms", kind="less"))
    dlx("run", "two.toml")
    page = Path("two.md").read_text()
    rows = {name: line for line in page.splitlines() for name in ("helps", "harms") if line.startswith(f"| {name}")}
    assert "declared after results were there" in rows["harms"]
    assert "after results" not in rows["helps"]
    assert "Declared before the start unless marked" in page
    study.write_text(TWO_RATES + CLAIMED.format(text="harms", kind="less"))
    dlx("run", "two.toml")
    page = Path("two.md").read_text()
    assert "declared after results were there: without the claim 'helps'" in page
    assert "| harms" in page
    shutil.rmtree("runs")  # as on another machine: the records beside the file tell what was there
    study.write_text(TWO_RATES + CLAIMED.format(text="matters", kind="less"))
    dlx("run", "two.toml")
    (row,) = [line for line in Path("two.md").read_text().splitlines() if line.startswith("| matters")]
    assert "declared after results were there" in row


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ('"split.seed" = [0, 1, 2]', "validate on different subjects"),
        ('"dropout.p" = [0, 0.5]\n"dropout.kind" = ["dropout", "dropout2d"]', "same settings"),
    ],
)
def test_variants_that_cannot_be_compared_are_refused(dlx, axes, words):
    Path("odd.toml").write_text(f"seeds = 2\n[axes]\n{axes}\n")
    with pytest.raises(DlxError, match=words):
        dlx("run", "odd.toml", *SMALL)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["sweep-dropout", "--p", "0.1..1.2"], "variant 'p=1': dropout.p"),
        (["sweep-dropout", "--p", "x"], "no number"),
        (["sweep-dropout", "--p", "0"], "only the control 'p=0'"),
        (["compare-schedulers", "--scheduler", "constant"], "only the control 'constant'"),
        (["sweep-dropout", "--kind", "dropuot"], "dropout.kind"),
        (["sweep-dropout", "--smallest-effect", "0"], "smallest_effect"),
        (["compare-schedulers", "--scheduler", "stepp"], "did you mean 'step'"),
        (["sweep-dropout", "--val", "nobody"], "^split: val and val_fraction"),  # of the study, not of a variant
        (["run", "nowhere.toml"], "nowhere.toml: cannot be read"),
    ],
)
def test_invalid_options_are_refused_before_anything_trains(dlx, tmp_path, args, words):
    with pytest.raises(DlxError, match=words) as refusal:
        dlx(*args, *SMALL)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_report_of_an_archive_writes_no_png(dlx):
    Path("two.toml").write_text(TWO_RATES)
    dlx("run", "two.toml")
    beside = {path: path.read_bytes() for path in Path().glob("two.*")}
    dlx("report", "two.jsonl")
    assert {path: path.read_bytes() for path in Path().glob("two.*")} == beside


def test_a_report_of_nothing_is_refused(dlx):
    with pytest.raises(DlxError, match="nowhere: no such file or folder"):
        dlx("report", "nowhere")


def test_a_failed_row_that_is_shown_again_says_how_to_run_it_again(dlx):
    wild = ["train", *SMALL, "--optimizer", "sgd", "--lr", "1e30", "--out", "wild"]
    assert "--retry-failed" not in dlx(*wild, expect=1).stderr
    assert "in an earlier run; --retry-failed runs it again" in dlx(*wild, expect=1).stderr


def test_the_line_of_an_epoch_says_which_training_subjects_it_is_of(dlx):
    shown = dlx("train", *SMALL, "--set", "evaluate.train_subset=2", "--out", "one").stderr
    assert "with 2 of 3 training subjects" in shown
    assert re.search(r"train \(2 of 3\) 0\.\d{3}  val 0\.\d{3}", shown)


@pytest.mark.slow
def test_a_study_that_began_with_rarer_validation_keeps_it(dlx):
    """Its validation costs more than a tenth of training: once was enough before, and five times are now."""
    five = ["--epochs", "5", "--quiet", "--json"]
    options = ["sweep-dropout", "--p", "0.5", "--seeds", "1", *SMALL_ARGS, *five]
    rare = json.loads(dlx(*options, "--set", "evaluate.every=5", "--out", "out").stdout)["trials"]
    assert [trial["best_epoch"] for trial in rare] == [5, 5]
    again = json.loads(dlx(*options, "--out", "out", "--dry-run").stdout)["trials"]
    assert [trial["status"] for trial in again] == ["done", "done"]
    new = json.loads(dlx(*options, "--out", "new", "--dry-run").stdout)
    assert [trial["status"] for trial in new["trials"]] == ["waiting", "waiting"]
    assert {trial["id"] for trial in new["trials"]}.isdisjoint(trial["id"] for trial in again)


def test_a_study_that_began_with_a_larger_evaluation_batch_keeps_it(dlx, monkeypatch):
    options = ["train", *SMALL, "--set", "evaluate.every=2", "--json"]
    dlx(*options, "--quiet", "--out", "out")
    begun = json.loads(dlx(*options, "--out", "out", "--dry-run").stdout)["trials"]
    monkeypatch.setattr(evaluation_memory, "ROOMY_EVALUATION_BYTES_PER_VOXEL", 2**40)
    monkeypatch.setattr(evaluation_memory, "MAX_EVALUATION_BYTES", 1)  # now one slice at a time is chosen
    again = json.loads(dlx(*options, "--out", "out", "--dry-run").stdout)["trials"]
    assert [(trial["id"], trial["status"]) for trial in again] == [(trial["id"], "done") for trial in begun]
    new = json.loads(dlx(*options, "--out", "new", "--dry-run").stdout)["trials"]
    assert {trial["id"] for trial in new}.isdisjoint(trial["id"] for trial in begun)
