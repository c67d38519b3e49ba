"""Verdicts, reasons and collapsed runs in words, for the terminal, markdown, figures and JSON documents."""

from collections.abc import Sequence

from dlx.settings.text import counted
from dlx.statistics import reasons as why
from dlx.statistics.claims import ClaimResult
from dlx.statistics.collapse import MIN_LEARNED, Collapse
from dlx.statistics.comparison import Comparison
from dlx.statistics.verdict import Verdict
from dlx.study.run_id import RunId, spell_runs
from dlx.study.scope import Scope

LATE = "declared after results were there"

VERDICTS = {
    Verdict.BETTER: "better",
    Verdict.WORSE: "worse",
    Verdict.NO_DIFFERENCE: "no difference larger than {smallest_effect:g}{unit}",
    Verdict.CONFIRMED: "confirmed",
    Verdict.CONTRADICTED: "contradicted",
    Verdict.NOT_CONFIRMED: "not confirmed",
    Verdict.CANNOT_TELL: "cannot tell",
    Verdict.COLLAPSED: "collapsed",
    Verdict.NO_EFFECT: "no effect: setting not reached",
    Verdict.NOT_MEASURED: "not measured",
    Verdict.INCOMPLETE: "incomplete",
}
# in a figure, in place of a point
WITHOUT_A_POINT = VERDICTS | {Verdict.NO_EFFECT: "no effect", Verdict.INCOMPLETE: "no pair yet"}

# in a list of studies, which has a line for each
IN_SHORT = VERDICTS | {Verdict.NO_DIFFERENCE: "no difference", Verdict.NO_EFFECT: "no effect"}

ABOVE_MARGIN = {
    Verdict.CONFIRMED: "the 95 % interval lies above {margin:g}",
    Verdict.CONTRADICTED: "the 95 % interval lies below {negative:g}",
    Verdict.NOT_CONFIRMED: "the 95 % interval ends at or below {margin:g}",
    Verdict.CANNOT_TELL: "the 95 % interval contains {margin:g}",
}
WITHIN_MARGIN = {
    Verdict.CONFIRMED: "shown to be within {margin:g} of 0",
    Verdict.CONTRADICTED: "the 95 % interval lies more than {margin:g} from 0",
    Verdict.CANNOT_TELL: "the 95 % interval is partly more than {margin:g} from 0",
}
AGAINST_RIVALS = {
    Verdict.CONFIRMED: "better than each of the others; the closest is {rivals}",
    Verdict.CONTRADICTED: "{rivals} is better",
    Verdict.CANNOT_TELL: "not shown to be better than {rivals}",
}


# verdicts that say something about the variant, and so for whom
OF_A_SCOPE = {
    Verdict.BETTER,
    Verdict.WORSE,
    Verdict.NO_DIFFERENCE,
    Verdict.CONFIRMED,
    Verdict.CONTRADICTED,
    Verdict.NOT_CONFIRMED,
    Verdict.CANNOT_TELL,
}
FOR = {
    Scope.SEEDS: "for new seeds",
    Scope.PATIENTS: "for new patients",
    Scope.PROCEDURE: "for new training sets",
}

# what the verdicts of a scope are tested by
GROUNDS = {
    Scope.SEEDS: "paired t test over seeds, on these patients alone",
    Scope.PATIENTS: "seeds and patients as crossed random effects, with the training sets of this study",
    Scope.PROCEDURE: "corrected t test over the runs of cross-validation",
}
# of predictions of one network each (`statistics.predictions`)
GROUNDS_OF_PREDICTIONS = "paired t test over patients, of these networks as they are: other seeds may differ"


def spell_verdict(result: Comparison | ClaimResult, unit: str = "") -> str:
    """`better`, `no difference larger than 0.01`, `confirmed`, without its scope; `unit` is that of the metric."""
    effect = result.smallest_effect if isinstance(result, Comparison) else None
    whose = "control " * any(isinstance(reason, why.CollapsedPair) and not reason.variant for reason in result.reasons)
    return whose + VERDICTS[result.verdict].format(smallest_effect=effect, unit=unit and f" {unit}")


def spell_in_short(verdicts: Sequence[Verdict]) -> str:
    """`better` for one variant, `1 better, 3 cannot tell` for several; a dash for none."""
    if len(verdicts) == 1:
        return IN_SHORT[verdicts[0]]
    counts = [(verdicts.count(verdict), IN_SHORT[verdict]) for verdict in Verdict if verdict in verdicts]
    return ", ".join(f"{count} {words}" for count, words in counts) or "-"


def spell_scoped_verdict(result: Comparison | ClaimResult, unit: str = "") -> str:
    """`better for new patients`; verdicts on the runs themselves (`collapsed`) have no scope."""
    words = spell_verdict(result, unit)
    return f"{words} {FOR[result.scope]}" if result.verdict in OF_A_SCOPE else words


def spell_reasons(result: Comparison | ClaimResult) -> str:
    """The reasons of the verdict in words; empty if it has none."""
    effect = result.smallest_effect if isinstance(result, Comparison) else None
    return "; ".join(spell_reason(reason, result.verdict, effect) for reason in result.reasons)


def spell_reason(reason: why.Reason, verdict: Verdict, smallest_effect: float | None = None) -> str:
    """One reason of a verdict; `smallest_effect` is that of a comparison."""
    match reason:
        case why.SameRecords(is_plateau):
            if is_plateau:
                return "the plateau rule never fired: the rate stayed as it was"
            return "every epoch and the final weights equal the control's"
        case why.CollapsedPair(variant, control):
            return "; ".join(filter(None, (spell_collapse(variant), spell_collapse(control, " of the control"))))
        case why.CollapsedVariants(collapses):
            found = (f"{label} ({spell_collapsed_runs(collapse)})" for label, collapse in collapses)
            return f"runs collapsed: {'; '.join(found)}"
        case why.NotMeasured(text):
            return text
        case why.MissingRuns(n, num_declared, num_unlike):
            return f"{n} of {num_declared} runs" + f" ({num_unlike} on unlike devices)" * bool(num_unlike)
        case why.TooFew(scope, rival):
            what = "two patients that all runs have a value of" if scope is Scope.PATIENTS else "two seeds"
            return f"fewer than {what}" + (f" with '{rival}'" if rival is not None else "")
        case why.FewPatients(n, least):
            return f"{counted(n, 'patient')}, fewer than {least}: nothing follows about new ones"
        case why.SettledFor(scope, settled):
            return f"{VERDICTS[settled].format(smallest_effect=smallest_effect)} {FOR[scope]} only"
        case why.NothingLearned(class_name):
            return f"no run of either learned {class_name or 'anything'} (Dice below {MIN_LEARNED:g})"
        case why.SmallDifference(limit):
            return f"but by less than {limit:g}"
        case why.LostByCorrection(num_variants, within):
            where = "0 is outside the interval" if within is None else f"the interval is within ±{within:g}"
            return f"{where}, but not after correction for {num_variants} variants"
        case why.EarlierLooks(num_runs, rate):
            when = f"looks at {', '.join(map(str, num_runs))}" if len(num_runs) > 1 else f"a look at {num_runs[0]}"
            alarms = "" if rate is None else f" (about {100 * rate:.1f} % false alarms)"
            return f"runs were added after {when}: no longer a 5 % verdict{alarms}"
        case why.AboveMargin(margin):
            return ABOVE_MARGIN[verdict].format(margin=margin, negative=-margin or 0.0)
        case why.WithinMargin(margin):
            return WITHIN_MARGIN[verdict].format(margin=margin)
        case why.AgainstRivals(labels):
            return AGAINST_RIVALS[verdict].format(rivals=", ".join(f"'{label}'" for label in labels))


def spell_collapse(collapse: Collapse, whose: str = "") -> str:
    """`1 of 5 runs collapsed (seed 3); seed 2 never learned CSF`; empty if nothing collapsed.

    `whose` (` of the control`) is put after the runs and seeds.
    """
    runs = ""
    if collapse.runs and len(collapse.runs) == collapse.num_runs:
        runs = "the only run" if collapse.num_runs == 1 else f"all {collapse.num_runs} runs"
        runs += f"{whose} diverged or failed"
    elif collapse.runs:
        runs = f"{len(collapse.runs)} of {collapse.num_runs} runs{whose} collapsed ({spell_runs(collapse.runs)})"
    return "; ".join(filter(None, (runs, *_lost_classes(collapse, whose))))


def spell_collapsed_runs(collapse: Collapse) -> str:
    """`seeds 0, 3; seed 2 never learned CSF`, the latter of runs that did not collapse as a whole."""
    whole = spell_runs(collapse.runs)
    return "; ".join(filter(None, (whole, *_lost_classes(collapse.of_other_runs()))))


def _lost_classes(collapse: Collapse, whose: str = "") -> list[str]:
    """A text for each group of runs, with the classes that it lost."""
    classes: dict[tuple[RunId, ...], list[str]] = {}
    for name, runs in collapse.lost:
        classes.setdefault(runs, []).append(name)
    return [f"{spell_runs(runs)}{whose} never learned {', '.join(names)}" for runs, names in classes.items()]
