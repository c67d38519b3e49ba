"""The plan of a study in words: what its verdicts depend on, and the designs that would settle the open ones."""

from dlx.report.findings.planning import MAX_TIMES_PATIENTS, PlannedStudy, StudyPlan, plan_study
from dlx.report.findings.summary import Summary
from dlx.report.wording.formatting import spell_seconds
from dlx.report.wording.verdicts import FOR
from dlx.settings.text import counted
from dlx.statistics.comparison import Comparison
from dlx.statistics.power import FoldDesign, PatientDesign, PowerDesign, SeedDesign
from dlx.study.scope import Scope

LARGEST_NUMBER = 10_000  # of seeds or patients


def spell_needed(row: Comparison) -> str:
    """`12 seeds`, `9 seeds or 144 patients`; a dash if the verdict is settled or the variance unknown."""
    is_unknown = isinstance(row.design, FoldDesign) and row.design.num_seeds == 1  # one does not tell the parts apart
    if row.verdict.is_settled or row.needed is None or is_unknown:
        return "-"
    each = " a fold" * (row.scope is Scope.PROCEDURE)
    seeds = "" if row.needed.seeds is None else spell_number(row.needed.seeds, "seed") + each
    patients = "" if row.needed.patients is None else spell_number(row.needed.patients, "patient")
    return " or ".join(filter(None, (seeds, patients))) or "no number"


def spell_number(number: int, what: str) -> str:
    """`12 seeds`; above LARGEST_NUMBER no exact number, which the measured variances do not carry."""
    return counted(number, what) if number <= LARGEST_NUMBER else f"over {LARGEST_NUMBER:,} {what}s"


def plan_lines(summary: Summary) -> list[str]:
    """What the verdicts depend on, and what finds the smallest effect of interest; empty if no verdict is open."""
    plan = plan_study(summary)
    return [] if plan is None else _spell_plan(plan, summary)


def _spell_plan(plan: StudyPlan, summary: Summary) -> list[str]:
    design, found, lines = plan.design, plan.needed, []
    shares = spell_shares(design)
    if shares:
        lines.append(f"The variance of a difference {FOR[summary.scope]}: {shares}.")
    present, ways = _present(design), [_way(study, plan) for study in plan.studies]
    if isinstance(design, FoldDesign) and design.num_seeds == 1:
        lines.append("With one seed in each fold the parts of folds and seeds are unknown: a second seed shows them.")
    elif found.seeds is None:
        nor = (
            f", nor would {MAX_TIMES_PATIENTS} times the subjects"
            if isinstance(design, FoldDesign) and not ways
            else ""
        )
        lines.append(f"More seeds cannot settle this{present}{nor}.")
    if not isinstance(design, SeedDesign) and design.num_seeds > 1 and found.patients is None:
        lines.append(f"More patients cannot settle this with these {design.num_seeds} seeds.")
    if ways:
        of = "" if plan.num_open == 1 else f" (medians of {plan.num_open} open comparisons)"
        lines.append(f"To find a difference of {plan.effect:g} with 80 % power{of}: {', or '.join(ways)}.")
    return lines


def _present(design: PowerDesign) -> str:
    """What stays as it is where the seeds change."""
    if isinstance(design, PatientDesign):
        return f" with these {design.num_patients} patients"
    return f" with these {design.num_folds} folds" if isinstance(design, FoldDesign) else ""


def _way(study: PlannedStudy, plan: StudyPlan) -> str:
    """`22 seeds with these 52 patients`."""
    if study.scope is Scope.PROCEDURE and not isinstance(plan.design, FoldDesign):
        return (
            f"for new training sets, {study.num_folds} folds x {counted(study.num_seeds, 'seed')} over all "
            f"{study.num_patients} subjects, if other training sets add no variance"
        )
    if study.num_patients is None:
        where = f" in each of these {study.num_folds} folds" if study.num_folds else _present(plan.design)
        return counted(study.num_seeds, "seed") + where
    if isinstance(plan.design, FoldDesign):
        return (
            f"{study.num_patients} subjects in {study.num_folds} folds with these {study.num_seeds} seeds, if folds "
            "differ by their patients alone"
        )
    if study.num_seeds != plan.design.num_seeds:
        return f"{spell_number(study.num_seeds, 'seed')} and {spell_number(study.num_patients, 'patient')}"
    return f"{spell_number(study.num_patients, 'patient')} with these {study.num_seeds} seeds"


def spell_shares(design: PowerDesign) -> str:
    """`35 % from seeds, 60 % from patients and 5 % from the two together`; empty if there is nothing to tell apart."""
    if isinstance(design, PatientDesign):
        each = {
            "seeds": float(design.parts.seed) / design.num_seeds,
            "patients": float(design.parts.patient) / design.num_patients,
            "the two together": float(design.parts.residual) / (design.num_seeds * design.num_patients),
        }
    elif isinstance(design, FoldDesign) and design.num_seeds > 1:
        each = {
            "folds (their patients and training sets)": float(design.parts.fold),
            "seeds": float(design.parts.run) / design.num_seeds,
        }
    else:
        return ""
    total = sum(each.values()) or 1.0
    *shares, last = (f"{100 * value / total:.0f} % from {name}" for name, value in each.items())
    return f"{', '.join(shares)} and {last}"


def design_lines(summary: Summary) -> list[str]:
    """What `dlx report --plan` prints: the parts of the variance, and each design with its cost."""
    plan, header = plan_study(summary), summary.header
    if plan is None:
        rows = [variant.comparison for variant in summary.variants if variant.comparison is not None]
        if rows and all(row.verdict.is_settled for row in rows):
            return ["Every verdict is settled: no plan is needed."]
        effect = f"{header.smallest_effect:g}"
        return [f"No variance can be estimated from these records yet: no plan to find a difference of {effect}."]
    lines = _spell_plan(plan, summary)
    return [*lines, *(_spell_design(study) for study in plan.studies)]


def _spell_design(study: PlannedStudy) -> str:
    """`Design: 22 seeds: 132 trials, 102 of them new, about 56 min 10 s one after the other.`"""
    folds = f" in each of {study.num_folds} folds" * bool(study.num_folds)
    patients = "" if study.num_patients is None else f", {spell_number(study.num_patients, 'validation patient')}"
    new = f", {study.num_new} of them new" if study.num_new < study.num_trials else ""
    cost = "" if study.seconds is None else f", about {spell_seconds(study.seconds)} one after the other"
    trials = counted(study.num_trials, "trial")
    return f"Design: {counted(study.num_seeds, 'seed')}{folds}{patients}: {trials}{new}{cost}."
