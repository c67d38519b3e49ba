"""Verdicts and reasons in words."""

from dataclasses import replace

import pytest

from dlx.report.wording.verdicts import (
    VERDICTS,
    spell_collapse,
    spell_collapsed_runs,
    spell_reason,
    spell_reasons,
    spell_scoped_verdict,
    spell_verdict,
)
from dlx.statistics import reasons as why
from dlx.statistics.claims import ClaimResult
from dlx.statistics.collapse import Collapse
from dlx.statistics.comparison import Design, Runs, compare
from dlx.statistics.verdict import Verdict
from dlx.study.scope import Scope

NONE = Collapse((), 5)
RUNS = Collapse((1, 3), 5)
CLASSES = Collapse((4,), 5, (("CSF", (2,)), ("GM", (2, 3)), ("WM", (2, 4))))


def test_every_verdict_has_words_of_its_own():
    assert set(VERDICTS) == set(Verdict)
    assert len(set(VERDICTS.values())) == len(Verdict)


def test_equivalence_names_the_smallest_effect():
    runs = Runs(dict.fromkeys(range(3), 0.8), NONE)
    (row,) = compare(runs, {"same": runs}, Design(range(3), 0.02)).rows
    assert (spell_verdict(row), spell_reasons(row)) == ("no difference larger than 0.02", "")


def test_a_setting_without_effect_has_a_reason():
    values = dict.fromkeys(range(3), 0.8)
    same = Runs(values, NONE, unreached=why.SameRecords(is_plateau=False))
    (row,) = compare(Runs(values, NONE), {"same": same}, Design(range(3), 0.02)).rows
    assert spell_verdict(row).startswith("no effect")
    assert "equal the control's" in spell_reasons(row)


def test_reasons_are_joined():
    result = ClaimResult(
        Verdict.CONFIRMED, Scope.PATIENTS, 0.1, (0.05, 0.15), 5, 5, (why.AboveMargin(0.0), why.EarlierLooks((3,), None))
    )
    assert spell_reasons(result) == (
        "the 95 % interval lies above 0; runs were added after a look at 3: no longer a 5 % verdict"
    )


def test_a_verdict_names_its_scope_unless_it_is_about_the_runs_themselves():
    result = ClaimResult(Verdict.CONFIRMED, Scope.PATIENTS, 0.1, (0.05, 0.15), 5, 5)
    assert spell_scoped_verdict(result) == "confirmed for new patients"
    assert spell_scoped_verdict(replace(result, scope=Scope.PROCEDURE)) == "confirmed for new training sets"
    assert spell_scoped_verdict(replace(result, verdict=Verdict.INCOMPLETE)) == "incomplete"


@pytest.mark.parametrize(
    ("reason", "verdict", "words"),
    [
        (why.MissingRuns(3, 5), Verdict.INCOMPLETE, "3 of 5 runs"),
        (why.MissingRuns(3, 5, 1), Verdict.INCOMPLETE, "3 of 5 runs (1 on unlike devices)"),
        (why.SameRecords(is_plateau=True), Verdict.NO_EFFECT, "the plateau rule never fired: the rate stayed as it "
         "was"),
        (why.TooFew(Scope.SEEDS, "b"), Verdict.CANNOT_TELL, "fewer than two seeds with 'b'"),
        (why.TooFew(Scope.PATIENTS), Verdict.CANNOT_TELL, "fewer than two patients that all runs have a value of"),
        (why.SettledFor(Scope.SEEDS, Verdict.WORSE), Verdict.CANNOT_TELL, "worse for new seeds only"),
        (why.NothingLearned("GM"), Verdict.CANNOT_TELL, "no run of either learned GM (Dice below 0.1)"),
        (why.NothingLearned(None), Verdict.CANNOT_TELL, "no run of either learned anything (Dice below 0.1)"),
        (why.EarlierLooks((2, 3), 0.0815), Verdict.BETTER, "runs were added after looks at 2, 3: no longer a 5 % "
         "verdict (about 8.2 % false alarms)"),
        (why.LostByCorrection(4), Verdict.CANNOT_TELL, "0 is outside the interval, but not after correction for "
         "4 variants"),
        (why.LostByCorrection(8, within=0.01), Verdict.CANNOT_TELL, "the interval is within ±0.01, but not after "
         "correction for 8 variants"),
        (why.AboveMargin(0.01), Verdict.CONTRADICTED, "the 95 % interval lies below -0.01"),
        (why.AboveMargin(0.0), Verdict.CONTRADICTED, "the 95 % interval lies below 0"),
        (why.WithinMargin(0.01), Verdict.CONFIRMED, "shown to be within 0.01 of 0"),
        (why.AgainstRivals(("a", "b")), Verdict.CANNOT_TELL, "not shown to be better than 'a', 'b'"),
        (why.AgainstRivals(("a",)), Verdict.CONTRADICTED, "'a' is better"),
        (why.CollapsedPair(RUNS, NONE), Verdict.COLLAPSED, "2 of 5 runs collapsed (seeds 1, 3)"),
        (why.CollapsedPair(NONE, RUNS), Verdict.COLLAPSED, "2 of 5 runs of the control collapsed (seeds 1, 3)"),
        (why.CollapsedVariants((("a", RUNS), ("b", CLASSES))), Verdict.CANNOT_TELL, "runs collapsed: a (seeds 1, 3); "
         "b (seed 4; seed 2 never learned CSF, WM; seeds 2, 3 never learned GM)"),
    ],
)  # fmt: skip
def test_a_reason_in_words(reason, verdict, words):
    assert spell_reason(reason, verdict) == words


@pytest.mark.parametrize("margin", [why.AboveMargin(0.1), why.WithinMargin(0.1), why.AgainstRivals(("a",))])
def test_the_reasons_of_claims_have_words_for_each_verdict_they_can_have(margin):
    for verdict in (Verdict.CONFIRMED, Verdict.CONTRADICTED, Verdict.CANNOT_TELL):
        assert spell_reason(margin, verdict)


def test_a_variant_that_always_diverged_is_not_called_collapsed():
    assert spell_collapse(Collapse((0, 1), 2)) == "all 2 runs diverged or failed"
    assert spell_collapse(Collapse((0,), 1)) == "the only run diverged or failed"
    assert spell_collapse(NONE) == spell_collapsed_runs(NONE) == ""
