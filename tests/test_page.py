"""The markdown page of a study: what a reader finds on it, and that any label leaves its tables whole."""

import re
from dataclasses import replace

import pytest

from dlx.report.findings.summary import summarize_study
from dlx.report.page.markdown import escape, table
from dlx.report.page.page import make_page
from dlx.report.page.sections import page_content
from made_records import DROPOUT, dropout_sweep, made_look, made_study


def page_of(records, figure_name=None):
    return make_page(page_content(summarize_study(records), records), figure_name)


def cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def tables(page):
    """Each table as its rows of cells."""
    blocks = re.findall(r"(?:^\|.*\n)+", page, flags=re.MULTILINE)
    return [[cells(line) for line in block.splitlines()] for block in blocks]


def row_of(page, title, label):
    section = page.split(f"## {title}")[1].split("\n## ")[0]
    return next(row for row in tables(section)[0] if row[0] == label)


def test_a_table_of_one_row_worked_by_hand():
    assert table(("variant", "n"), [("p=0", "5")]) == ["| variant | n |", "| --- | ---: |", "| p=0 | 5 |"]


def test_markdown_takes_escaped_text_as_it_is():
    assert escape("a|b *c* _d_ $e$\nf") == r"a\|b \*c\* \_d\_ \$e\$ f"


def test_the_page_starts_with_the_name_the_question_and_the_command():
    page = page_of(made_study(name="sweep", question="Does it help?", command="dlx run sweep.toml"))
    subjects = "2 training and 1 validation subject."
    assert page.startswith(f"# sweep\n\nDoes it help?\n\n{subjects}\n\n```sh\ndlx run sweep.toml\n```\n")


def test_figures_differences_and_verdict_worked_by_hand():
    finals = {("a", 0): (0.9, 0.7), ("a", 1): (0.9, 0.8), ("b", 0): (0.8, 0.75), ("b", 1): (0.8, 0.85)}
    page = page_of(made_study({"a": (0, 0), "b": (0, 0)}, finals=finals, seeds=[0, 1], values={"a": 0, "b": 1}))
    assert row_of(page, "After the last epoch", "a (control)")[1:5] == [
        "2",
        "0.900 ± 0.000",
        "0.750 ± 0.071",
        "+0.150 ± 0.071",
    ]
    row = row_of(page, "Difference", "b")  # both seeds rise by 0.05
    assert row[3] == "+0.050"
    assert row[-1] == "2"


def test_trials_of_unlike_lengths_give_a_range_of_epochs():
    study = made_study({"a": (0.9, 0.8), "b": (0.9, 0.8)}, seeds=[0, 1], epochs=10)
    assert "\n- epochs: 10\n" in page_of(study)
    shorter = study.trials[-1]
    record = shorter.record.model_copy(update={"result": shorter.record.result.model_copy(update={"epochs": 5})})
    trials = (*study.trials[:-1], replace(shorter, record=record))
    assert "\n- epochs: 5 to 10\n" in page_of(replace(study, trials=trials))
    unfinished = [replace(trial, record=None) for trial in study.trials[:-1]]
    assert "\n- epochs: 5 to 10\n" in page_of(replace(study, trials=(*unfinished, trials[-1])))


def test_no_figure_of_several_seeds_stands_without_its_spread():
    page = page_of(made_study())
    row = row_of(page, "After the last epoch", "p=0.1")
    assert all("±" in cell for cell in row[2:])
    assert all("±" in cell for cell in row_of(page, "Validation Dice of each class", "p=0.1")[1:])


def test_a_collapsed_variant_has_the_range_of_its_runs_and_the_seeds_are_named():
    finals = {("p=0.1", seed): (0.9, 0.8 + 0.01 * seed) for seed in range(4)}
    page = page_of(made_study(finals=finals, collapsed=[("p=0.1", 4)]))  # made as train 0.12, validation 0.10
    row = row_of(page, "After the last epoch", "p=0.1")
    assert row[2:5] == ["0.120 to 0.900", "0.100 to 0.830", "+0.020 to +0.100"]
    assert "**p=0.1: 1 of 5 runs collapsed (seed 4).**" in page
    assert row_of(page, "Spread of validation Dice", "p=0.1")[1] == "collapsed"


def test_a_collapsed_run_of_the_control_is_left_out_of_the_noise_floor_and_named():
    page = page_of(made_study(collapsed=[("p=0", 2)]))
    assert "Noise floor (the control alone, 4 runs)" in page
    assert "Left out: 1 of 5 runs of the control collapsed (seed 2)." in page


def test_the_page_says_which_direction_is_better():
    assert "in validation Dice: higher is better" in page_of(made_study())
    assert "HD95 (mm): lower is better" in page_of(made_study(metric="hd95_mm"))


def test_the_page_warns_where_evaluation_differs_from_training():
    page = page_of(made_study({"p=0": (0.9, 0.8), "p=0.3": (0.3, 0.2)}, running_dice={("p=0.3", 1): 0.89}))
    assert "**p=0.3: evaluation differs from training (seed 1)" in page


def test_the_best_epoch_is_named_as_selected_on_validation_data():
    assert "best epoch's validation Dice (selected on validation data)" in page_of(made_study())


def test_the_verdicts_name_their_tests_and_the_smallest_effect():
    page = page_of(made_study(smallest_effect=0.02))
    for words in (
        "paired t",
        "Holm",
        "not corrected",
        "two one-sided tests against ±0.02",
        "80 % power",
        "Noise floor",
    ):
        assert words in page.replace("\n", " ")


def test_no_page_calls_a_variant_the_best():
    for records in (made_study(), dropout_sweep()):
        assert set(re.findall(r"\bbest (\w+)", page_of(records))) == {"epoch", "run"}


@pytest.mark.parametrize("label", ["a|b", "a_b_", "$x$", "<b>", "`c`", "multistep:milestones=[3, 5],gamma=0.1"])
def test_tables_stay_whole_with_any_label(label):
    page = page_of(made_study({"control": (0.9, 0.8), label: (0.9, 0.8)}, diverged=[(label, 1)], axis="odd"))
    for rows in tables(page):
        assert len({len(row) for row in rows}) == 1
    assert escape(label) in page


def test_a_running_study_says_how_many_trials_are_done():
    assert "**8 of 10 trials done" in page_of(made_study(running={("p=0.1", 4): 3, ("p=0", 4): 3}))
    assert "the study still runs" not in page_of(made_study())


def test_a_diverged_trial_is_listed_with_its_cause():
    page = page_of(made_study(diverged=[("p=0.1", 2)]))
    assert row_of(page, "Trials that did not finish", "p=0.1") == [
        "p=0.1",
        "diverged: the loss is nan in epoch 4",
        "2",
    ]
    assert "**1 of 10 trials diverged or failed" in page
    assert row_of(page, "Difference", "p=0.1")[1].startswith("**collapsed**")


def test_an_idle_setting_is_marked_loudly():
    page = page_of(made_study(idle=["p=0.1"]))
    assert row_of(page, "Difference", "p=0.1")[1].startswith("**no effect: setting not reached**")


def test_looks_are_on_the_page():
    page = page_of(made_study(looks=[made_look(3)]))
    assert "2026-01-01T03:00:00Z at 3 seeds" in page
    assert "no longer a 5 % verdict" in page


def test_a_variant_that_was_added_after_a_look_is_named():
    looks = [made_look(3), made_look(5)]
    looks = [
        look.model_copy(update={"variants": seen, "shown_utc": when})
        for look, seen, when in zip(looks, [("p=0.1",), ("p=0.1", "p=0.2")], ["2026-01-01", "2026-01-02"], strict=True)
    ]
    page = page_of(made_study({**DROPOUT, "p=0.2": (0.9, 0.83)}, looks=looks))
    assert "Added after the first of these: p=0.2." in page
    assert "Added after" not in page_of(made_study(looks=looks[:1]))


def test_claims_have_what_was_measured_and_a_verdict():
    claim = {"text": "p = 0.1 helps", "kind": "greater", "metric": "val_dice", "variant": "p=0.1"}
    row = row_of(page_of(made_study(claims=(claim,))), "Claims", "p = 0.1 helps")
    assert row[1] == "p=0.1 minus p=0, val Dice"
    assert row[2].startswith("confirmed")


def test_spread_over_seeds_and_over_cases_are_kept_apart():
    finals = {("p=0", 0): (0.9, 0.7), ("p=0", 1): (0.9, 0.8)}
    page = page_of(made_study(finals=finals, seeds=[0, 1]))
    assert row_of(page, "Spread of validation Dice", "p=0 (control)")[1:] == ["0.071", "0.030"]  # cases are 0.03 apart


def test_the_figure_is_linked_where_there_is_one():
    assert "](made.svg)" in page_of(made_study(), "made.svg")
    assert "![" not in page_of(made_study())


def test_a_metric_of_its_own_has_a_column():
    page = page_of(made_study(metric="hd95_mm"))
    assert "HD95 (mm)" in tables(page.split("## After the last epoch")[1])[0][0]


def test_a_study_of_one_variant_has_no_verdicts():
    page = page_of(made_study({"unet2": (0.9, 0.8)}, control=None, axes=()))
    assert "Difference" not in page
    assert row_of(page, "After the last epoch", "unet2")[1] == "5"


def test_a_page_is_made_before_anything_has_ended():
    page = page_of(made_study(running={(label, seed): 0 for label in ("p=0", "p=0.1") for seed in range(5)}))
    assert "**0 of 10 trials done" in page
    assert "nan" not in page
