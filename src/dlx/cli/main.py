"""The `dlx` command: its subcommands, and how errors end. Nothing heavy is imported before a command runs."""

import os
import sys
from typing import Annotated

import typer

from dlx.cli.compare_schedulers import compare_schedulers
from dlx.cli.count_params import count_params
from dlx.cli.make_phantom import make_phantom
from dlx.cli.parsing import Command, Group, expanding_home
from dlx.cli.report import report
from dlx.cli.run import run as run_file
from dlx.cli.settings import settings
from dlx.cli.sweep_dropout import sweep_dropout
from dlx.cli.train import train

# How long an OpenMP thread spins before it sleeps; torch's libgomp reads this when it is loaded. With its own default
# (300,000) two threads beside one other busy process are some ten times slower; this costs nothing on a quiet machine
# (docs/log.md).
SPIN_COUNT = "10000"

app = typer.Typer(
    name="dlx",
    cls=Group,
    help="Which remedy helps my segmentation network, and by how much, beyond the noise of the seed?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train", cls=Command)(expanding_home(train))
app.command("sweep-dropout", cls=Command)(expanding_home(sweep_dropout))
app.command("compare-schedulers", cls=Command)(expanding_home(compare_schedulers))
app.command("run", cls=Command)(expanding_home(run_file))
app.command("report", cls=Command)(expanding_home(report))
app.command("count-params", cls=Command)(expanding_home(count_params))
app.command("settings", cls=Command)(expanding_home(settings))
app.command("make-phantom", cls=Command)(expanding_home(make_phantom))


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
    from dlx.system.characters import fall_back_to_ascii, visible
    from dlx.system.errors import DlxError, FilesError, spell_os_error

    fall_back_to_ascii(sys.stdout)
    fall_back_to_ascii(sys.stderr)
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    columns = os.environ.get("COLUMNS", "1")
    if not columns.isdecimal() or int(columns) == 0:
        del os.environ["COLUMNS"]  # no width: the help would be printed into 0 columns
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a full disk or a closed pipe is reported as everything else is
    except FilesError as error:
        exit_with_error("\ndlx: ".join(map(visible, str(error).splitlines())))
    except DlxError as error:
        exit_with_error(visible(str(error)))
    except BrokenPipeError:
        discard_output()
        sys.exit(141)
    except OSError as error:  # a folder that cannot be written, a full disk
        discard_output()
        exit_with_error(visible(spell_os_error(error)))


def discard_output() -> None:
    """What is still buffered for an output that takes nothing more is lost, without another error at the exit."""
    from dlx.cli.console import discard

    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            discard(stream)


def exit_with_error(message: str) -> None:
    """The message on stderr, if there is one, and exit code 2."""
    if sys.stderr is not None:
        print(f"dlx: {message}", file=sys.stderr)
    sys.exit(2)
