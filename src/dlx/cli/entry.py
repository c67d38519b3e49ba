"""The process of the `dlx` command: it handles Ctrl-C and SIGTERM before it imports anything else, until it ends."""

import atexit
import gc
import os
import sys
from contextlib import suppress
from typing import NoReturn

from dlx.system.interrupts import end_on_signals, exit_code, stop_on_signals, was_stopped


def main() -> None:
    """Runs the command line and exits with its code."""
    stop_on_signals()
    try:
        from dlx.cli.main import app, run

        if sys.argv[1:2] == ["__complete"]:  # a shell asks
            from dlx.cli.completion.answer import print_answer

            print_answer(app, sys.argv[2:])
            return
        run()
    except KeyboardInterrupt as stop:  # in an import, or after the command's end
        _leave(exit_code(stop))
    except SystemExit as end:
        if was_stopped() and isinstance(end.code, int):
            _leave(end.code)
        raise
    finally:
        end_on_signals()
        gc.freeze()  # else Python ends with a search for cycles among all that torch has made: half a second


def _leave(code: int) -> NoReturn:
    """Ends the process after a stop: as Python does, but without waiting for threads that still read a volume."""
    end_on_signals()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, full, or None
            stream.flush()
    os._exit(code)
