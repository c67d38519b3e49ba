"""Prints the counts of `dlx count-params` as tables and sentences."""

from dlx.cli.output.console import output
from dlx.models.inspection.count import ModelCount, ModuleRow, SharedUse
from dlx.report.terminal.grid import Column, Grid, Line, Row, Trimmed


def print_counts(counted: list[tuple[str, tuple[int, ...], ModelCount]], depth: int) -> None:
    """Prints each network, its name and input with its counts, and a table of them all if there are several."""
    for name, shape, counts in counted:
        print_count(name, shape, counts, depth)
    if len(counted) > 1:
        print_comparison([(name, counts) for name, _, counts in counted])


def print_count(name: str, shape: tuple[int, ...], counts: ModelCount, depth: int) -> None:
    """Prints one network: its totals, its modules down to `depth` levels, and what it uses more than once."""
    parts: list[Line | Grid] = [
        Line(f"{name}: {counts.parameters:,} parameters, {counts.trainable:,} trainable", "bold"),
        Line(f"{_cost(counts)} for an input of {_spell(shape)}"),
    ]
    if counts.layers:
        stages = ", ".join(f"{stage} {count}" for stage, count in counts.layers.items())
        num_layers = sum(counts.layers.values())
        parts.append(Line(f"{num_layers} weighted layers: {stages} (without the projections of shortcuts)"))
    rows = [row for row in counts.rows if row.name and row.name.count(".") < depth and (row.parameters or row.flops)]
    if rows:
        parts.append(_module_table(rows, counts))
    if counts.shared:
        parts.append(_shared_table(counts.shared))
        more = counts.parameters_if_unshared - counts.parameters
        parts.append(Line(f"If nothing were shared: {counts.parameters_if_unshared:,} parameters ({more:,} more)."))
    else:
        parts.append(Line("Nothing is shared: no module or parameter is used more than once in one forward pass."))
    parts += [Line(f"Note: {remark}.") for remark in counts.remarks]
    output().show(Trimmed((*parts, Line())))


def print_comparison(counted: list[tuple[str, ModelCount]]) -> None:
    """Prints a table of several networks, one per row."""
    unit, size = _unit(max(counts.flops for _, counts in counted))
    titles = ("Parameters", "If unshared", f"{unit} forward", "and backward")
    rows = []
    for name, counts in counted:
        both = counts.forward_backward_flops
        numbers = (f"{counts.parameters:,}", f"{counts.parameters_if_unshared:,}", f"{counts.flops / size:,.2f}")
        rows.append(Row((name, *numbers, "-" if both is None else f"{both / size:,.2f}")))
    columns = (Column("Network"), *(Column(title, is_number=True) for title in titles))
    output().show(Trimmed((Grid(columns, tuple(rows), title="Compared"),)))


def _module_table(rows: list[ModuleRow], counts: ModelCount) -> Grid:
    unit, size = _unit(counts.flops)
    columns = (
        *(Column(title) for title in ("Module", "Class", "Output")),
        *(Column(title, is_number=True) for title in ("Calls", "Parameters", unit)),
    )
    shown = []
    for row in rows:
        shapes = ", ".join(_spell(shape[1:]) for shape in row.shapes)  # without the batch
        numbers = (f"{row.parameters:,}", f"{row.flops / size:,.2f}")
        shown.append(Row((row.name, row.kind, shapes, str(row.calls) if row.calls else "", *numbers)))
    total = ("Total", "", "", "", f"{counts.parameters:,}", f"{counts.flops / size:,.2f}")
    return Grid(columns, (*shown, Row(total, style="bold", starts_section=True)))


def _shared_table(shared: tuple[SharedUse, ...]) -> Grid:
    rows = []
    for use in shared:
        also = f" (also {', '.join(use.also)})" if use.also else ""
        rows.append(Row((use.module + also, str(use.calls), f"{use.parameters:,}")))
    columns = (Column("Module or parameter"), Column("Calls", is_number=True), Column("Parameters", is_number=True))
    return Grid(columns, tuple(rows), title="Used more than once in one forward pass:")


def _cost(counts: ModelCount) -> str:
    unit, size = _unit(counts.flops)
    both = counts.forward_backward_flops
    forward_backward = "" if both is None else f", {both / size:,.2f} forward and backward,"
    return f"{counts.flops / size:,.2f} {unit} forward{forward_backward}"


def _unit(flops: int) -> tuple[str, float]:
    """The unit for this many FLOPs, and the number of FLOPs in it."""
    return ("GFLOP", 1e9) if flops >= 1e8 else ("MFLOP", 1e6) if flops >= 1e5 else ("kFLOP", 1e3)


def _spell(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
