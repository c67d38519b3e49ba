"""The `dlx` command: its subcommands, and how errors end. Nothing heavy is imported before a command runs."""

import os
import sys
from typing import Annotated

import typer

from dlx.cli.compare_schedulers import compare_schedulers
from dlx.cli.count_params import count_params
from dlx.cli.make_phantom import make_phantom
from dlx.cli.report import report
from dlx.cli.run import run as run_file
from dlx.cli.sweep_dropout import sweep_dropout
from dlx.cli.train import train

# How long an OpenMP thread spins before it sleeps; torch's libgomp reads this when it is loaded. With its own default
# (300,000) two threads beside one other busy process are some ten times slower; this costs nothing on a quiet machine
# (docs/log.md).
SPIN_COUNT = "10000"

app = typer.Typer(
    name="dlx",
    help="Which remedy helps my segmentation network, and by how much, beyond the noise of the seed?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train)
app.command("sweep-dropout")(sweep_dropout)
app.command("compare-schedulers")(compare_schedulers)
app.command("run")(run_file)
app.command("report")(report)
app.command("count-params")(count_params)
app.command("make-phantom")(make_phantom)


def _print_version(wanted: bool) -> None:
    if wanted:
        from dlx import __version__

        typer.echo(f"dlx {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of dlx itself."""


def run() -> None:
    """Runs the command line. A DlxError is one line on stderr and exit code 2; a closed pipe ends quietly."""
    from dlx.characters import fall_back_to_ascii, visible
    from dlx.errors import DlxError

    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    columns = os.environ.get("COLUMNS", "1")
    if not columns.isdecimal() or int(columns) == 0:
        del os.environ["COLUMNS"]  # no width: the help would be printed into 0 columns
    fall_back_to_ascii(sys.stdout)
    fall_back_to_ascii(sys.stderr)
    try:
        app()
    except DlxError as error:
        print(f"dlx: {visible(str(error))}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        from dlx.cli.console import discard

        discard(sys.stdout)
        sys.exit(141)
    except OSError as error:  # a folder that cannot be written, a full disk
        if error.filename is None and error.strerror is None:
            raise
        print(f"dlx: {visible(str(error.filename or 'cannot write'))}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
