"""What trials of one seed have in common whatever the variant, as their records show; they are compared in pairs."""

from dlx.report.findings.summary import Summary
from dlx.study.run_id import RunId

OF_FIRST_WEIGHTS = ("model", "init")


def have_same_weights(summary: Summary) -> bool:
    """Whether all variants have one network and one way to its first weights, so that a seed gives them the same."""
    settings = [record.settings for variant in summary.variants for record in [*variant.records.values()][:1]]
    firsts = [
        ([one.get(key) for key in OF_FIRST_WEIGHTS], one.get("train", {}).get("init_from"))
        for one in settings
        if isinstance(one.get("train", {}), dict)
    ]
    return all(first == firsts[0] for first in firsts)


def saw_same_patches(summary: Summary) -> bool:
    """Whether the finished trials of each run drew the same patches in the same order."""
    drawn: dict[RunId, set[str]] = {}
    for variant in summary.variants:
        for run, record in variant.records.items():
            if record.result is not None:
                drawn.setdefault(run, set()).add(record.result.batches_hash)
    return all(len(hashes) == 1 for hashes in drawn.values())


def have_same_augmentation(summary: Summary) -> bool:
    """Whether the patches, if they are the same, are also changed in the same way."""
    found = [record.settings.get("augment") for v in summary.variants for record in [*v.records.values()][:1]]
    return saw_same_patches(summary) and all(one == found[0] for one in found)
