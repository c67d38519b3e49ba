"""Probes of the levels of a network, averaged over a variant's seeds."""

from collections.abc import Mapping

from dlx.report.findings.summary import Summary
from dlx.report.findings.variants import VariantSummary
from dlx.study.results import EpochResult

PROBES = {  # field of a probe -> its title, and whether its axis is logarithmic
    "mean_abs": ("mean |feature|", True),
    "variance": ("variance of features", True),
    "dead_fraction": ("fraction of dead channels", False),
    "gradient_norm": ("norm of gradient", True),
    "weight_norm": ("norm of weights", True),
}

ByLevel = Mapping[str, float]  # level, in the order of the forward pass -> mean over seeds


def is_probed(summary: Summary) -> bool:
    """Whether any epoch of the study probed the network."""
    return bool(levels_of(summary))


def levels_of(summary: Summary) -> list[str]:
    """The names of all levels, in the order of the forward pass."""
    return list(dict.fromkeys(level for v in summary.variants for level in by_level(v, last=False, field="mean_abs")))


def by_level(variant: VariantSummary, *, last: bool, field: str) -> ByLevel:
    """A probe's value at each level in the first or the last probed epoch, the mean over seeds; empty if not probed."""
    found: dict[str, list[float]] = {}
    for epoch in _probed(variant, last=last):
        for level, probe in (epoch.levels or {}).items():
            found.setdefault(level, []).append(getattr(probe, field))
    return {level: sum(values) / len(values) for level, values in found.items()}


def deepest_to_first(variant: VariantSummary, *, last: bool) -> float | None:
    """The size of the deepest level's features over that of the first level's, the mean over seeds."""
    known = [ratio for epoch in _probed(variant, last=last) if (ratio := epoch.deepest_to_first) is not None]
    return sum(known) / len(known) if known else None


def _probed(variant: VariantSummary, *, last: bool) -> list[EpochResult]:
    """The first or the last probed epoch of each seed."""
    probed = [[epoch for epoch in epochs if epoch.levels] for epochs in variant.epochs.values()]
    return [epochs[-1 if last else 0] for epochs in probed if epochs]
