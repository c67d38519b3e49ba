"""The `dlx` command: registers the subcommands and turns errors into exit codes.

Heavy modules are imported only by the command that needs them, so that `dlx --help` stays fast.
"""

import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from dlx.cli.commands.compare_schedulers import compare_schedulers
from dlx.cli.commands.completion import completion
from dlx.cli.commands.count_params import count_params
from dlx.cli.commands.evaluate import evaluate
from dlx.cli.commands.export import export
from dlx.cli.commands.ls import ls
from dlx.cli.commands.make_phantom import make_phantom
from dlx.cli.commands.predict import predict
from dlx.cli.commands.report import report
from dlx.cli.commands.run import run as run_file
from dlx.cli.commands.settings import settings
from dlx.cli.commands.show import show
from dlx.cli.commands.sweep_dropout import sweep_dropout
from dlx.cli.commands.train import train
from dlx.cli.parsing import CLOSED_PIPE, Command, Group, expanding_home, spell_stop
from dlx.cli.ranks import refuse_ranks

INTERNAL = 70  # the exit code of an error in dlx itself, as EX_SOFTWARE of BSD's sysexits.h

EXIT_CODES = (
    "Exit codes: 0 done; 1 some trials failed or diverged; 2 wrong usage or input; 130 stopped by Ctrl-C, 143 by "
    "SIGTERM: finished epochs are kept, and the same command resumes; 141 the output was closed; 70 an error in dlx "
    "itself. A second Ctrl-C quits at once."
)

app = typer.Typer(
    name="dlx",
    cls=Group,
    help="Which remedy helps my segmentation network, and by how much, beyond the noise of the seed?",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,  # `dlx completion` does it: typer's own splits words such as unet2:width=32 at the colon
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    train,
    sweep_dropout,
    compare_schedulers,
    run_file,
    report,
    show,
    ls,
    predict,
    evaluate,
    export,
    count_params,
    settings,
    make_phantom,
    completion,
)
for command in COMMANDS:
    app.command(command.__name__.replace("_", "-"), cls=Command)(expanding_home(command))


def _print_version(wanted: bool) -> None:
    if wanted:
        from dlx import __version__

        typer.echo(f"dlx {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback answers
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of dlx itself."""
    if context.invoked_subcommand not in (None, "train"):
        refuse_ranks(context.invoked_subcommand)


def run() -> None:
    """Runs the command line and exits with its code, one of EXIT_CODES. A DlxError prints one line on stderr."""
    from dlx.system.characters import fall_back_to_ascii, visible
    from dlx.system.cpu_cores import limit_spinning
    from dlx.system.errors import DlxError, FilesError, spell_os_error
    from dlx.system.interrupts import exit_code, stops_kept

    fall_back_to_ascii(sys.stdout)
    fall_back_to_ascii(sys.stderr)
    limit_spinning()
    columns = os.environ.get("COLUMNS", "1")
    if not columns.isdecimal() or int(columns) == 0:
        del os.environ["COLUMNS"]  # not a width: rich would print the help into 0 columns
    try:
        try:
            with stops_kept():
                app(prog_name="dlx")
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # a full disk or a closed pipe raises here, within the handlers below
    except FilesError as error:
        exit_with_error("\ndlx: ".join(map(visible, str(error).splitlines())))
    except DlxError as error:
        exit_with_error(visible(str(error)))
    except BrokenPipeError:
        _discard_output()
        sys.exit(CLOSED_PIPE)
    except OSError as error:  # a folder that cannot be written, a full disk
        _discard_output()
        exit_with_error(visible(spell_os_error(error)))
    except KeyboardInterrupt as stop:
        exit_with_error(spell_stop(stop), exit_code(stop))
    except Exception:  # noqa: BLE001 - Python would exit with 1, which means that trials failed
        traceback.print_exc()
        exit_with_error("an error in dlx itself, not in what you typed; please report it with these lines", INTERNAL)


def _discard_output() -> None:
    from dlx.cli.output.console import discard_output

    discard_output()


def exit_with_error(message: str, code: int = 2) -> NoReturn:
    """Prints the message on stderr, if stderr is open, and exits."""
    if sys.stderr is not None:
        print(f"dlx: {message}", file=sys.stderr)
    sys.exit(code)
