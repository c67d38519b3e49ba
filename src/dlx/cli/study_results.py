"""What commands that compare variants print and write: variants and seeds, dry run, verdicts, the report's files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dlx.cli.console import PlainConsole, note, output
from dlx.cli.repeat_commands import resume_command
from dlx.cli.results import print_indented, print_json, print_settings, stopped_line
from dlx.records.archive import StudyRecords, archive_of, finished, portable, write_archive
from dlx.report.document import study_document, trial_entry
from dlx.report.summary import Summary
from dlx.report.terminal.grid import Column, Grid, Row, Styled, Trimmed
from dlx.report.terminal.study_table import study_table
from dlx.report.terminal.trial_tables import trial_table
from dlx.settings.text import counted

if TYPE_CHECKING:
    from dlx.cli.display import Outcome
    from dlx.run.plan import Plan

BLOCKS = "▁▂▃▄▅▆▇█"


def print_grid(plan: "Plan", console: PlainConsole) -> None:
    """Prints the variants, the seeds and the number of trials, before they run."""
    study = plan.study
    labels = [f"{v.label} (control)" if v.label == study.control else v.label for v in study.variants]
    seeds = ", ".join(map(str, study.seeds))
    missing = len(plan.missing())
    print_indented(f"variants {'; '.join(labels)}", console)
    print_indented(
        f"trials   {len(plan.trials)} ({len(labels)} variants x {len(study.seeds)} seeds: {seeds}), {missing} to run, "
        f"{plan.max_parallel} at once",
        console,
    )
    if len(labels) == 1:
        print_indented("note     there is only one variant, so nothing is compared", console)


def print_study_plan(plan: "Plan", *, as_json: bool) -> None:
    """Prints a dry run: variants, settings, each schedule's rates if schedules differ, and the estimated cost."""
    from dlx.cli.results import cost_line, plan_document, print_data, print_head
    from dlx.run.cost import cost_of

    cost = cost_of(plan)
    if as_json:
        variants = [{"label": v.label, "values": v.values} for v in plan.study.variants]
        print_json({"control": plan.study.control, "variants": variants, **plan_document(plan, cost)})
        return
    console = output()
    print_head(plan, console)
    print_data(plan, console)
    print_grid(plan, console)
    if len({str(variant.spec.scheduler) for variant in plan.study.variants}) > 1:
        console.show(schedules_table(plan))
    print_settings(plan, console)
    console.print(cost_line(plan, cost), soft_wrap=not console.is_terminal)


def schedules_table(plan: "Plan") -> Trimmed:
    """Each schedule's formula, and its rate over the epochs as a sparkline."""
    from dlx.training.schedules import FORMULAS, rates

    rows = []
    for variant in plan.study.variants:
        spec, scheduler = variant.spec, str(variant.spec.scheduler)
        drawn = rates(spec.scheduler.name, spec.scheduler.args, spec.optimizer.lr, spec.train.epochs)
        named = [Styled(variant.label)]
        named += [] if scheduler in variant.label else [Styled(scheduler, "dim")]
        rows.append(Row((named, FORMULAS[spec.scheduler.name], sparkline(drawn))))
    columns = (Column("variant"), Column("formula"), Column("rate", is_number=True))
    return Trimmed((Grid(columns, tuple(rows), title="learning rate by epoch e (0 first) of N"),))


def sparkline(values: list[float], width: int = 20) -> str:
    """A row of at most `width` blocks, whose heights are the values on a scale from 0 to the largest."""
    top = max(values) or 1.0
    picked = [values[index * len(values) // min(width, len(values))] for index in range(min(width, len(values)))]
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int(value / top * len(BLOCKS)))] for value in picked)


@contextmanager
def print_summary_after(
    summary: Summary, records: StudyRecords, *, as_json: bool, per_class: bool = False
) -> Iterator[None]:
    """Prints the study's table after the body, which writes the report; also if the body raises.

    So a closed output does not prevent the report, and a full disk does not prevent the table.
    """
    try:
        yield
    finally:
        print_summary(summary, records, as_json=as_json, per_class=per_class)


def print_summary(summary: Summary, records: StudyRecords, *, as_json: bool, per_class: bool = False) -> None:
    """Prints the study's table or its JSON document on stdout."""
    if as_json:
        entries = [
            trial_entry(trial.record, trial.folder) | {"label": trial.entry.label}
            for trial in records.trials
            if trial.record is not None
        ]
        print_json(study_document(summary, entries))
        return
    done = finished(records.trials)
    is_one = len(records.trials) == 1 and bool(done) and done[0].result is not None
    output().show(trial_table(done[0]) if is_one else study_table(summary, per_class=per_class))


def write_report(stem: Path, summary: Summary, records: StudyRecords, *, with_png: bool) -> list[Path]:
    """Writes STEM.md, STEM.svg, and STEM-levels.svg if levels were probed; PNGs too `with_png`. Returns the paths."""
    import logging

    from dlx.system.files import write_atomically

    # matplotlib warns on import if it cannot write its font cache (no home folder), but draws correctly
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from dlx.report.figures.levels import draw_levels
    from dlx.report.figures.study import draw_study
    from dlx.report.levels import is_probed
    from dlx.report.page.page import make_page

    page = stem.with_name(f"{stem.name}.md")
    figures = {draw_study: stem.name}
    if is_probed(summary):
        figures[draw_levels] = f"{stem.name}-levels"
    endings = ("svg", "png") if with_png else ("svg",)
    written, names = [page], []
    for draw, name in figures.items():
        paths = [stem.with_name(f"{name}.{ending}") for ending in endings]
        draw(summary, *paths)
        written += paths
        names.append(paths[0].name)
    write_atomically(page, make_page(summary, records, *names).encode(errors="backslashreplace"))
    return written


def write_beside(stem: Path, summary: Summary, records: StudyRecords) -> list[Path]:
    """Writes STEM.jsonl, the records without paths of this machine, and the page and figure made from them."""
    records = portable(records)
    archive = archive_of(stem)
    write_archive(archive, records)
    return [archive, *write_report(stem, summary, records, with_png=False)]


def print_locations(plan: "Plan", outcome: "Outcome", written: list[Path]) -> None:
    """Prints on stderr which files were written, and the command that runs the missing trials."""
    missing = len(plan.missing())
    if outcome.was_interrupted:
        note(f"\n{stopped_line(plan, outcome)}")
    note(f"\nrecords:      {plan.folder}")
    note(f"report:       {', '.join(str(path) for path in written)}")
    if missing:
        note(f"resume with:  {resume_command(plan.command)}   ({counted(missing, 'trial')} missing)")
