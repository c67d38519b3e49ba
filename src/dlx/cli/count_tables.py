"""The figures of `dlx count-params` as tables and sentences; no counting."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dlx.counting import ModelCount, ModuleRow, SharedUse


def print_count(name: str, shape: tuple[int, ...], figures: ModelCount, depth: int) -> None:
    """One network: its totals, its modules down to `depth` levels, and what it uses more than once."""
    console = Console(highlight=False)
    console.print(f"[bold]{escape(name)}[/bold]: {figures.parameters:,} parameters, {figures.trainable:,} trainable")
    console.print(f"{_cost(figures)} for an input of {_spell(shape)}")
    if figures.layers:
        stages = ", ".join(f"{stage} {count}" for stage, count in figures.layers.items())
        console.print(f"{sum(figures.layers.values())} weighted layers: {stages} (projections of shortcuts left out)")
    rows = [row for row in figures.rows if row.name and row.name.count(".") < depth and (row.parameters or row.flops)]
    if rows:
        console.print(_module_table(rows, figures))
    if figures.shared:
        console.print(_shared_table(figures.shared))
        more = figures.parameters_if_unshared - figures.parameters
        console.print(f"If nothing were shared: {figures.parameters_if_unshared:,} parameters ({more:,} more).")
    else:
        console.print("Nothing is shared: nothing is used more than once in one forward pass.")
    for remark in figures.remarks:
        console.print(f"Note: {escape(remark)}.")
    console.print()


def print_comparison(counted: list[tuple[str, ModelCount]]) -> None:
    """Several networks, a line each."""
    table = Table("Network", box=SIMPLE_HEAD, title="Compared", title_justify="left", pad_edge=False)
    unit, size = _unit(max(figures.flops for _, figures in counted))
    for title in ("Parameters", "If unshared", f"{unit} forward", "and backward"):
        table.add_column(title, justify="right")
    for name, figures in counted:
        both = figures.forward_backward_flops
        numbers = (f"{figures.parameters:,}", f"{figures.parameters_if_unshared:,}", f"{figures.flops / size:,.2f}")
        table.add_row(escape(name), *numbers, "-" if both is None else f"{both / size:,.2f}")
    Console(highlight=False).print(table)


def _module_table(rows: list[ModuleRow], figures: ModelCount) -> Table:
    unit, size = _unit(figures.flops)
    table = Table(box=SIMPLE_HEAD, show_footer=True, pad_edge=False)
    table.add_column("Module", "Total", overflow="fold")
    table.add_column("Class", overflow="fold")
    table.add_column("Output", overflow="fold")
    table.add_column("Calls", justify="right")
    table.add_column("Parameters", f"{figures.parameters:,}", justify="right", no_wrap=True)
    table.add_column(unit, f"{figures.flops / size:,.2f}", justify="right", no_wrap=True)
    for row in rows:
        shapes = ", ".join(_spell(shape[1:]) for shape in row.shapes)  # without the batch
        numbers = (f"{row.parameters:,}", f"{row.flops / size:,.2f}")
        table.add_row(escape(row.name), row.kind, shapes, str(row.calls) if row.calls else "", *numbers)
    return table


def _shared_table(shared: tuple[SharedUse, ...]) -> Table:
    title = "Used more than once in one forward pass:"
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="", pad_edge=False)
    table.add_column("Module or parameter", overflow="fold")
    table.add_column("Calls", justify="right")
    table.add_column("Parameters", justify="right", no_wrap=True)
    for use in shared:
        also = f" (also {', '.join(use.also)})" if use.also else ""
        table.add_row(escape(use.module + also), str(use.calls), f"{use.parameters:,}")
    return table


def _cost(figures: ModelCount) -> str:
    unit, size = _unit(figures.flops)
    both = figures.forward_backward_flops
    forward_backward = "" if both is None else f", {both / size:,.2f} forward and backward,"
    return f"{figures.flops / size:,.2f} {unit} forward{forward_backward}"


def _unit(flops: int) -> tuple[str, float]:
    """The unit in which this many FLOPs are told, and how many one of it is."""
    return ("GFLOP", 1e9) if flops >= 1e8 else ("MFLOP", 1e6) if flops >= 1e5 else ("kFLOP", 1e3)


def _spell(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
