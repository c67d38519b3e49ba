"""The differences from the control as figures show them: points with intervals, in a range that holds the headline."""

from collections.abc import Mapping
from dataclasses import dataclass

from dlx.report.findings.summary import Summary
from dlx.report.wording.verdicts import WITHOUT_A_POINT
from dlx.statistics.comparison import Comparison
from dlx.statistics.verdict import Verdict
from dlx.study.metrics import largest_difference
from dlx.study.scope import Scope

Interval = tuple[float, float]


@dataclass(frozen=True)
class ShownDifference:
    """The difference of a variant with its interval, limited to the metric's range; or `note`, why there is none.

    `narrower` are the same of the scopes below the headline's; their intervals may leave the range of the figure.
    """

    label: str
    note: str
    difference: float | None
    interval: Interval | None
    is_shown_to_differ: bool
    narrower: Mapping[Scope, tuple[float | None, Interval | None]]


def shown_differences(summary: Summary) -> list[ShownDifference]:
    """A difference for each variant that is compared with the control."""
    largest = largest_difference(summary.header.metric)
    found = []
    for variant in summary.variants:
        row = variant.comparison
        if row is None:
            continue
        note = WITHOUT_A_POINT[row.verdict] if _has_no_point(row) else ""
        narrower = {
            scope: (row.scopes[scope].difference, clipped(row.scopes[scope].interval, -largest, largest))
            for scope in summary.scopes[1:]
        }
        found.append(
            ShownDifference(
                label=variant.label,
                note=note,
                difference=None if note else row.difference,
                interval=None if note else clipped(row.interval, -largest, largest),
                is_shown_to_differ=row.verdict in (Verdict.BETTER, Verdict.WORSE),
                narrower={} if note else narrower,
            )
        )
    return found


def _has_no_point(row: Comparison) -> bool:
    return row.verdict in (Verdict.COLLAPSED, Verdict.NO_EFFECT) or row.difference is None


def range_of_differences(summary: Summary) -> Interval:
    """The range of the headline's intervals, of zero and of the smallest effect, and a quarter more on both sides.

    Intervals of narrower scopes that leave it are cut, so that few seeds do not hide the headline's.
    """
    effect, largest = summary.header.smallest_effect, largest_difference(summary.header.metric)
    shown = [-effect, effect]
    for variant in summary.variants:
        if variant.comparison is not None and variant.comparison.difference is not None:
            shown += [variant.comparison.difference, *(variant.comparison.interval or ())]
    margin = 0.25 * (max(shown) - min(shown))
    return max(-largest, min(shown) - margin), min(largest, max(shown) + margin)


def cut_ends(interval: Interval | None, low: float, high: float) -> list[float]:
    """The ends of a range beyond which an interval goes on."""
    if interval is None:
        return []
    return [edge for edge, is_cut in ((low, interval[0] < low), (high, interval[1] > high)) if is_cut]


def clipped(interval: Interval | None, low: float, high: float) -> Interval | None:
    """The interval limited to the metric's range, which the t interval of few seeds can exceed."""
    return None if interval is None else (min(max(interval[0], low), high), min(max(interval[1], low), high))
