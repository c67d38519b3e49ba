"""A table for the terminal: the folds of a network's cross-validation."""

from dlx.report.findings.cross_validation import CrossValidation
from dlx.report.terminal.grid import Column, Grid, Line, Row, Trimmed
from dlx.report.terminal.trial_tables import DICE, classes_table, collapse_lines, run_cells
from dlx.report.wording.folds import foot_lines
from dlx.report.wording.formatting import signed, spell
from dlx.settings.text import counted
from dlx.study.run_id import seed_of


def folds_table(found: CrossValidation) -> Trimmed:
    """A row a fold and seed, mean and standard deviation over folds, the mean over all cases and an interval."""
    header, records = found.header, [*found.records.values()]
    has_seeds = len(header.seeds) > 1
    rows = []
    for run, record in sorted(found.records.items(), key=lambda item: (seed_of(item[0]), item[0])):
        name = (str(run[0]), *[str(run[1])] * has_seeds) if not isinstance(run, int) else (str(run),)
        rows.append(Row((*name, *run_cells(record))))
    train, val, gap = (found.over_folds(metric) for metric in DICE)
    if val.n > 1:
        empty, rest = ("",) * has_seeds, ("", "")
        mean = ("mean", *empty, spell(train.mean), spell(val.mean), signed(gap.mean), *rest)
        rows.append(Row(mean, starts_section=True))
        rows.append(Row(("sd", *empty, *(spell(estimate.sd) for estimate in (train, val, gap)), *rest)))
    names = ("fold", *["seed"] * has_seeds)
    titles: list[str | tuple[str, ...]] = [
        *names,
        "train Dice",
        "val Dice",
        "gap",
        ("best val Dice", "(epoch)"),
        "seconds",
    ]
    seeds = f" x {counted(len(header.seeds), 'seed')}" if has_seeds else f", seed {header.seeds[0]}"
    grid = Grid(
        tuple(Column(title, is_number=True) for title in titles),
        tuple(rows),
        title=f"{found.label}: {len(header.folds)} folds{seeds}",
    )
    results = [record.result for record in records if record.result is not None]
    collapse, lines = collapse_lines(found.label, found.records)
    over = "folds and seeds" if has_seeds else "folds"
    return Trimmed((grid, *lines, *map(Line, foot_lines(found)), *classes_table(results, collapse, over=over)))
