"""What a study found, from its records: each variant's scores over its seeds, and how it compares with the control.

Tables, figures and pages show this and compute nothing themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dlx.records.archive import StudyRecords
from dlx.records.schema import Look, StudyHeader
from dlx.report.findings.claims import ClaimOutcome, Ground, judge_claims
from dlx.report.findings.looks import chosen_after, earlier_looks, fewer_runs, this_look
from dlx.report.findings.patients import patient_values
from dlx.report.findings.scope import headline_scope, scope_remarks, test_to_train
from dlx.report.findings.variant_checks import evaluated_unlike_trained, find_same_records
from dlx.report.findings.variants import Placed, VariantSummary, describe_variant, on_one_device, place
from dlx.settings.text import counted
from dlx.statistics import reasons as why
from dlx.statistics.collapse import MIN_LEARNED, Collapse
from dlx.statistics.comparison import Comparisons, Design, NoiseFloor, Runs, compare
from dlx.study.metrics import Direction, direction_of, find_metric, split_metric, title_of
from dlx.study.scope import Scope


@dataclass(frozen=True)
class Summary:
    """A study's variants in their order, the noise floor, the claims' verdicts, and remarks."""

    header: StudyHeader = field(repr=False)
    variants: tuple[VariantSummary, ...]
    scope: Scope  # of the headline verdicts
    why_scope: str
    noise_floor: NoiseFloor | None = field(repr=False)
    claims: tuple[ClaimOutcome, ...] = field(repr=False)
    num_done: int
    remarks: tuple[str, ...]
    look: Look | None = field(repr=False)  # to be recorded when this is shown: verdicts bind at this number of seeds

    @property
    def metric_title(self) -> str:
        """The metric's title, with the unit of its distances."""
        results = [record.result for variant in self.variants for record in variant.records.values() if record.result]
        unit = results[0].distance_unit if results else "mm"
        return title_of(self.header.metric, unit)

    @property
    def unit_of_runs(self) -> str:
        """What tells the runs of a variant apart: `seed`, in cross-validation `fold and seed`."""
        return "fold and seed" if self.header.folds else "seed"

    @property
    def name_of_runs(self) -> str:
        """`seeds`, in cross-validation `folds and seeds`."""
        return "folds and seeds" if self.header.folds else "seeds"

    @property
    def scopes(self) -> list[Scope]:
        """The scopes that the design has, the headline's first, then from the widest to the narrowest."""
        known = {scope for variant in self.variants if variant.comparison for scope in variant.comparison.scopes}
        return [self.scope, *(scope for scope in reversed(Scope) if scope in known - {self.scope})]

    @property
    def direction(self) -> Direction:
        """Which direction of the metric is better."""
        return direction_of(self.header.metric, self.header.direction)

    @property
    def control_collapse(self) -> Collapse:
        """What of the control collapsed."""
        return next((v.collapse.of_metric(self.header.metric) for v in self.variants if v.is_control), Collapse((), 0))


def summarize_study(records: StudyRecords, *, with_power: bool = True) -> Summary:
    """Everything a report says of a study, finished or still running; without power, not what would settle it."""
    header = records.header
    placed = place(records.trials, header)
    variants = {entry.label: describe_variant(entry, placed, header) for entry in header.variants}
    looks = earlier_looks(records)
    scope, why_scope = headline_scope(header, variants.values())
    ratio = test_to_train(header, variants.values())
    compared, remarks = None, [*header.remarks, *_late(header)]
    if header.control is not None:
        design = Design(
            runs=header.runs,
            smallest_effect=header.smallest_effect,
            scope=scope,
            test_to_train=ratio,
            higher_is_better=direction_of(header.metric, header.direction) == "higher",
            earlier_looks=fewer_runs(looks, header, metric=header.metric),
            with_power=with_power,
        )
        compared, unlike = _compare(header, variants, placed, design)
        if unlike:
            remarks.append(f"{counted(unlike, 'pair')} left out: variant and control ran on unlike devices")
        remarks += chosen_after(looks, header)
        remarks += scope_remarks(header, scope, max((row.headline.n for row in compared.rows), default=0))
    rows = {row.label: row for row in compared.rows} if compared else {}
    claims = judge_claims(Ground(header, variants, scope, ratio, fewer_runs(looks, header, metric=None)))
    verdicts = [*(row.verdict for row in rows.values()), *(outcome.result.verdict for outcome in claims)]
    return Summary(
        header=header,
        variants=tuple(
            replace(variant, comparison=rows.get(label), warnings=evaluated_unlike_trained(variant))
            for label, variant in variants.items()
        ),
        scope=scope,
        why_scope=why_scope,
        noise_floor=compared.noise_floor if compared else None,
        claims=claims,
        num_done=sum(trial.record is not None for trial in records.trials),
        remarks=tuple(remarks),
        look=this_look(header, rows, verdicts),
    )


def _late(header: StudyHeader) -> list[str]:
    """A remark on what was declared once results were there; claims say it themselves."""
    claimed = {claim["text"] for claim in header.claims}
    late = [what for what in header.declared_late if what not in claimed]
    return [f"declared after results were there: {'; '.join(late)}"] if late else []


def _is_unlearned(metric: str, pair: tuple[VariantSummary, VariantSummary]) -> bool:
    """Whether no run of a variant or its control learned what a Dice is of: two Dice near 0 show no equality."""
    values = [value for variant in pair for value in variant.by_run[metric].values() if value is not None]
    return find_metric(metric)[0].is_dice and bool(values) and max(values) < MIN_LEARNED


def _compare(
    header: StudyHeader, variants: Mapping[str, VariantSummary], placed: Placed, design: Design
) -> tuple[Comparisons, int]:
    """The comparisons with the control, and how many pairs were left out because their devices are unlike."""
    assert header.control is not None
    control, metric, num_unlike = variants[header.control], header.metric, 0
    lack_of_control = control.lacks(metric)
    runs = {}
    for variant in (variant for variant in variants.values() if variant is not control):
        alike = on_one_device((variant, control), header.runs)
        num_unlike += len(header.runs) - len(alike)
        lack = variant.lacks(metric) or (lack_of_control and f"of the control: {lack_of_control}")
        is_unlearned = _is_unlearned(metric, (variant, control))
        paired = [run for run in alike if all(v.by_run[metric].get(run) is not None for v in (variant, control))]
        tables = patient_values((variant, control), metric, paired, header.persons)
        runs[variant.label] = Runs(
            values={run: value for run, value in variant.by_run[metric].items() if run in alike},
            collapse=variant.collapse.of_metric(metric),
            by_patient=None if tables is None else tables[0] - tables[1],
            unreached=find_same_records(variant.label, control.label, placed, header),
            unmeasured=why.NotMeasured(lack) if lack else None,
            unlearned=why.NothingLearned(split_metric(metric)[1]) if is_unlearned else None,
        )
    return compare(Runs(control.by_run[metric], control.collapse.of_metric(metric)), runs, design), num_unlike
