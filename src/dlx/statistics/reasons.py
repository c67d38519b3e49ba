"""The reasons of verdicts, as values. Their words are in `dlx.report.wording.verdicts`."""

from dataclasses import dataclass

from dlx.statistics.collapse import Collapse
from dlx.statistics.verdict import Verdict
from dlx.study.scope import Scope


@dataclass(frozen=True)
class CollapsedPair:
    """What collapsed of a variant and of its control; one of the two may be empty."""

    variant: Collapse
    control: Collapse


@dataclass(frozen=True)
class CollapsedVariants:
    """What collapsed of the variants that a claim compares."""

    collapses: tuple[tuple[str, Collapse], ...]


@dataclass(frozen=True)
class SameRecords:
    """Every epoch and the final weights equal the control's; `is_plateau`: because the plateau rule never fired."""

    is_plateau: bool


@dataclass(frozen=True)
class NotMeasured:
    """Why the metric is missing although the runs ended, in the words of `dlx.study.metrics`."""

    why: str


@dataclass(frozen=True)
class MissingRuns:
    """How many of the declared runs have a value or a pair, and how many are left out for their unlike devices."""

    n: int
    num_declared: int
    num_on_unlike_devices: int = 0


@dataclass(frozen=True)
class TooFew:
    """Fewer than two seeds, or pairs with this rival; or fewer than two patients that all runs have a value of."""

    scope: Scope
    rival: str | None = None


@dataclass(frozen=True)
class FewPatients:
    """Fewer patients than a verdict about new ones takes."""

    n: int
    least: int


@dataclass(frozen=True)
class SettledFor:
    """A narrower scope, in which there is a verdict."""

    scope: Scope
    verdict: Verdict


@dataclass(frozen=True)
class NothingLearned:
    """No run of the variant or its control learned this class; None: any class."""

    class_name: str | None


@dataclass(frozen=True)
class SmallDifference:
    """The difference is real, but shown to be smaller than the smallest effect of interest."""

    limit: float


@dataclass(frozen=True)
class LostByCorrection:
    """0 lies outside the interval, or the interval `within` this of 0, but the corrected p is not below 5 %."""

    num_variants: int
    within: float | None = None


@dataclass(frozen=True)
class EarlierLooks:
    """Verdicts were shown at fewer runs, which raises the rate of false alarms; None if the rate is unknown."""

    num_runs: tuple[int, ...]
    false_alarm_rate: float | None


@dataclass(frozen=True)
class AboveMargin:
    """The position of the 95 % interval relative to the margin of a claim `greater` or `rises`."""

    margin: float


@dataclass(frozen=True)
class WithinMargin:
    """The result of the equivalence tests for the margin of a claim `within`."""

    margin: float


@dataclass(frozen=True)
class AgainstRivals:
    """The rivals that decide a claim `best`: the closest, the one that is better, or those not shown to be worse."""

    labels: tuple[str, ...]


Reason = (
    SameRecords
    | CollapsedPair
    | CollapsedVariants
    | NotMeasured
    | MissingRuns
    | TooFew
    | FewPatients
    | SettledFor
    | NothingLearned
    | SmallDifference
    | LostByCorrection
    | EarlierLooks
    | AboveMargin
    | WithinMargin
    | AgainstRivals
)
