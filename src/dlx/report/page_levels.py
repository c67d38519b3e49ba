"""What the levels of a network carry, where a study probed them: the figures and the page's tables."""

from collections.abc import Mapping, Sequence

from dlx.records.schema import EpochResult, LevelProbe
from dlx.report.markdown import Lines, escape, link_target, name_of, table
from dlx.report.summary import Summary
from dlx.report.variants import VariantSummary

MEASURES = {  # field of a probe -> its title, and whether its axis is logarithmic
    "mean_abs": ("mean |feature|", True),
    "variance": ("variance of features", True),
    "dead_fraction": ("share of dead channels", False),
    "gradient_norm": ("norm of gradient", True),
    "weight_norm": ("norm of weights", True),
}

ByLevel = Mapping[str, float]  # level, in the order of the forward pass -> mean over seeds


def is_probed(summary: Summary) -> bool:
    return any(by_level(variant, last=False, field="mean_abs") for variant in summary.variants)


def by_level(variant: VariantSummary, *, last: bool, field: str) -> ByLevel:
    """A probe's figure at each level in the first or the last epoch, the mean over seeds; empty where not probed."""
    found: dict[str, list[float]] = {}
    for epochs in variant.epochs.values():
        for level, probe in _levels(epochs, last=last).items():
            found.setdefault(level, []).append(getattr(probe, field))
    return {level: sum(values) / len(values) for level, values in found.items()}


def _share(variant: VariantSummary, *, last: bool) -> str:
    """Of the size of the first level's features, what the deepest level's have: the mean over seeds."""
    probed = [[epoch for epoch in epochs if epoch.levels] for epochs in variant.epochs.values()]
    shares = [epochs[-1 if last else 0].deepest_to_first for epochs in probed if epochs]
    known = [share for share in shares if share is not None]
    return f"{sum(known) / len(known):.3g}" if known else "-"


def _levels(epochs: Sequence[EpochResult], *, last: bool) -> dict[str, LevelProbe]:
    probed = [epoch.levels for epoch in epochs if epoch.levels]
    return probed[-1 if last else 0] if probed else {}


def describe_levels(summary: Summary, figure_name: str | None) -> Lines:
    """The page's section: one table a measure, of the first weights and of the last epoch."""
    if not is_probed(summary):
        return []
    lines = ["## Levels of the network", ""]
    lines += [f"![Features, gradients and weights by level]({link_target(figure_name)})", ""] if figure_name else []
    levels = list(dict.fromkeys(level for v in summary.variants for level in by_level(v, last=False, field="mean_abs")))
    for field, (title, _) in MEASURES.items():
        rows = []
        for variant in summary.variants:
            first, last = (by_level(variant, last=late, field=field) for late in (False, True))
            cells = [f"{first[level]:.3g} → {last[level]:.3g}" if level in first else "-" for level in levels]
            share = [" → ".join(_share(variant, last=late) for late in (False, True))] if field == "mean_abs" else []
            rows.append((name_of(variant), *cells, *share))
        titles = ("variant", *map(escape, levels), *(["deepest / first of the encoder"] if field == "mean_abs" else []))
        lines += [f"**{title[0].upper()}{title[1:]}**", "", *table(titles, rows), ""]
    lines += [
        "Measured in the first training step of the first epoch (the first weights) → of the last epoch; mean over "
        "seeds. Features: of a level's last block, after its ReLU. Dead: 0 in the whole batch. Weights: as they are "
        "after the step.",
    ]
    return lines
