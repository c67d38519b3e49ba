"""The lower half of a study's page: classes, spreads, trials that broke off, and all it takes to run it again."""

import json
from collections.abc import Iterable

from dlx.records.archive import StudyRecords, finished
from dlx.report.markdown import Lines, code_block, escape, name_of, table
from dlx.report.summary import Summary, classes_of
from dlx.report.table import class_spread, spell, spell_seconds


def classes(summary: Summary) -> Lines:
    shown = classes_of(summary)
    if not shown:
        return []
    rows = [(name_of(v), *(class_spread(v, name) for name in shown)) for v in summary.variants]
    return [
        "## Validation Dice of each class",
        "",
        *table(("variant", *map(escape, shown)), rows),
        "",
        "After the last epoch, as above.",
    ]


def spreads(summary: Summary) -> Lines:
    rows = [
        (name_of(v), "collapsed" if v.collapse else spell(v.figures["val_dice"].sd), spell(v.case_sd))
        for v in summary.variants
    ]
    return [
        "## Spread of validation Dice",
        "",
        *table(("variant", "over seeds", "over cases"), rows),
        "",
        "Standard deviations, kept apart: over seeds (of the mean over cases), which the tests use, and over "
        "validation cases (of each case's mean over seeds), which says how unlike the subjects are.",
    ]


def failures(records: StudyRecords) -> Lines:
    rows = [
        (escape(record.label), f"{record.status}: {escape(record.cause or 'cause unknown')}", f"{record.seed}")
        for record in finished(records.trials)
        if record.status != "done"
    ]
    return ["## Trials that did not run through", "", *table(("variant", "cause", "seed"), rows, 2)] if rows else []


def settings(summary: Summary) -> Lines:
    header = summary.header
    lines = ["## Settings", ""]
    for axis in header.axes:
        values = dict.fromkeys(escape(variant.values.get(axis)) for variant in header.variants)
        parted = "; " if any("," in value for value in values) else ", "
        lines.append(f"- {escape(axis)}: {parted.join(values)}")
    lines += [f"- epochs: {header.epochs}", f"- seeds: {', '.join(map(str, header.seeds))}", ""]
    whose = "the control" if header.control is not None else "the first variant"
    text = json.dumps(header.settings, indent=2, ensure_ascii=False)
    return [
        *lines,
        "<details>",
        f"<summary>All settings of {whose}</summary>",
        "",
        *code_block(text, "json"),
        "",
        "</details>",
    ]


def environment(records: StudyRecords) -> Lines:
    known = finished(records.trials)
    if not known:
        return []
    versions: dict[str, dict[str, None]] = {}
    for record in known:
        for name, version in record.run.versions.items():
            versions.setdefault(name, {})[version] = None
    compute = [record.settings.get("compute", {}) for record in known]
    facts = {
        "device": _distinct(record.run.device for record in known),
        "precision": _distinct(c.get("precision") for c in compute),
        "threads of each trial": _distinct(c.get("threads") for c in compute),
        "versions": ", ".join(f"{name} {' and '.join(found)}" for name, found in versions.items()),
        "commit": _distinct(record.run.commit for record in known),
        "parameters": _distinct(f"{record.parameters:,}" for record in known),
        "training time, all trials": spell_seconds(sum(record.run.seconds for record in known)),
        "trials done": f"{sum(record.status == 'done' for record in known)} of {len(records.header.trials)}",
    }
    return ["## Where it ran", "", *(f"- {name}: {escape(fact)}" for name, fact in facts.items() if fact)]


def _distinct(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))
