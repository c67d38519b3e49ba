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
    console.print(f"{_cost(figures)} for an input of {_spell(shape)} (multiply-add = 2)")
    rows = [row for row in figures.rows if row.name and row.name.count(".") < depth and (row.parameters or row.flops)]
    if rows:
        console.print(_module_table(rows, figures))
    if figures.shared:
        console.print(_shared_table(figures.shared))
        more = figures.parameters_if_unshared - figures.parameters
        console.print(f"If nothing were shared: {figures.parameters_if_unshared:,} parameters ({more:,} more).")
    else:
        console.print("Nothing is shared: no module or parameter is used more than once in a forward pass.")
    for remark in figures.remarks:
        console.print(f"Note: {escape(remark)}.")
    console.print()


def print_comparison(counted: list[tuple[str, ModelCount]]) -> None:
    """Several networks, a line each."""
    table = Table("Network", box=SIMPLE_HEAD, title="Compared", title_justify="left", pad_edge=False)
    for title in ("Parameters", "If unshared", "GFLOP", "GFLOP, both ways"):
        table.add_column(title, justify="right")
    for name, figures in counted:
        both = figures.forward_backward_flops
        numbers = (f"{figures.parameters:,}", f"{figures.parameters_if_unshared:,}", _giga(figures.flops))
        table.add_row(escape(name), *numbers, "-" if both is None else _giga(both))
    Console(highlight=False).print(table)


def _module_table(rows: list[ModuleRow], figures: ModelCount) -> Table:
    table = Table(box=SIMPLE_HEAD, show_footer=True, pad_edge=False)
    table.add_column("Module", "Total", overflow="fold")
    table.add_column("Class", overflow="fold")
    table.add_column("Output", overflow="fold")
    table.add_column("Calls", justify="right")
    table.add_column("Parameters", f"{figures.parameters:,}", justify="right", no_wrap=True)
    table.add_column("GFLOP", _giga(figures.flops), justify="right", no_wrap=True)
    for row in rows:
        shapes = ", ".join(_spell(shape[1:]) for shape in row.shapes)  # without the batch
        numbers = (f"{row.parameters:,}", _giga(row.flops))
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
    both = figures.forward_backward_flops
    return f"{_giga(figures.flops)} GFLOP forward" + ("" if both is None else f", {_giga(both)} forward and backward,")


def _giga(flops: int) -> str:
    """Billions with two decimals, and two digits at the least: 18.60, 0.0021."""
    billions = flops / 1e9
    return f"{billions:,.2f}" if billions >= 0.1 or not flops else f"{billions:.2g}"


def _spell(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
