"""The learning rates that trials applied, over epochs: variants with the same rates stand together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlx.report.findings.summary import Summary
from dlx.report.findings.variants import VariantSummary
from dlx.report.plotted.epoch_curves import Curve
from dlx.study.results import EpochResult


@dataclass(frozen=True)
class RateLine:
    """One course of the rate; `groups` are the parameter groups that follow it, empty if all do."""

    groups: str
    rates: Curve


@dataclass(frozen=True)
class RatePanel:
    """The courses of the rate that these variants have in common; several if groups or runs differ."""

    labels: tuple[str, ...]
    lines: tuple[RateLine, ...]


def rate_panels(summary: Summary) -> list[RatePanel]:
    """A panel for each set of variants whose trials applied the same rates; none before the first epoch.

    Trials that have not ended are with those of the same scheduler that applied the same rates so far.
    """
    schedulers = {entry.label: entry.scheduler for entry in summary.header.variants}
    found: list[RatePanel] = []
    for variant in summary.variants:
        lines = tuple(_lines_of(variant))
        if not lines:
            continue
        equal = [at for at, panel in enumerate(found) if panel.lines == lines]
        alike = [
            at
            for at, panel in enumerate(found)
            if schedulers[panel.labels[0]] == schedulers[variant.label] and _agree(panel.lines, lines)
        ]
        at = next(iter(equal + alike), None)
        if at is None:
            found.append(RatePanel((variant.label,), lines))
        else:
            longest = max(found[at].lines, lines, key=lambda known: max(len(line.rates) for line in known))
            found[at] = RatePanel((*found[at].labels, variant.label), longest)
    return found


def _agree(first: Sequence[RateLine], second: Sequence[RateLine]) -> bool:
    """Whether both have the same courses up to the end of the shorter one, as of trials that have not ended."""
    if [line.groups for line in first] != [line.groups for line in second]:
        return False
    pairs = [(tuple(a.rates.items()), tuple(b.rates.items())) for a, b in zip(first, second, strict=True)]
    return all(a[: len(b)] == b[: len(a)] for a, b in pairs)


def _lines_of(variant: VariantSummary) -> list[RateLine]:
    """The unlike courses over all runs; that of a run which is shorter than another one and the same so far is left
    out.
    """
    lines: dict[tuple[str, tuple[float, ...]], Curve] = {}
    for epochs in variant.epochs.values():
        for groups, rates in _by_course(epochs).items():
            lines.setdefault((groups, tuple(rates.values())), rates)
    return [
        RateLine(groups, rates)
        for (groups, course), rates in lines.items()
        if not any(
            groups == other and len(longer) > len(course) and longer[: len(course)] == course for other, longer in lines
        )
    ]


def _by_course(epochs: Sequence[EpochResult]) -> Mapping[str, Curve]:
    """The groups of parameters, by name, and their rates; groups of the same rates stand together."""
    names = list(dict.fromkeys(name for epoch in epochs for name in epoch.lr))
    courses: dict[tuple[tuple[int, float], ...], list[str]] = {}
    for name in names:
        points = tuple((epoch.epoch, epoch.lr[name]) for epoch in epochs if name in epoch.lr)
        courses.setdefault(points, []).append(name)
    is_one = len(courses) == 1
    return {"" if is_one else ", ".join(groups): dict(points) for points, groups in courses.items()}
