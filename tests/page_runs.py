"""Runs the commands of a page in one shell, and compares what they print with what the page shows."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pages import ROOT, SHELL, Block

WARM = ROOT / "tests/warm_dlx.py"
LIMIT_S = 280  # of one page; about ten times what it takes where nothing else runs
FAILED = 99  # the exit code of a script whose last command ended otherwise than expected


@dataclass(frozen=True)
class Step:
    """A command to run, with the exit code and the lines of output that the page shows."""

    place: str
    text: str
    code: int = 0
    shown: tuple[str, ...] = ()


def steps_of(blocks: Iterable[Block]) -> list[Step]:
    """The steps of all blocks that are run, in their order."""
    steps: list[Step] = []
    for block in blocks:
        marks = block.marks
        if "saved as" in marks:
            steps.append(Step(block.place, save(marks["saved as"], block.lines)))
        if "not run" in marks or block.language not in SHELL:
            continue
        if "run before" in marks:
            steps.append(Step(block.place, marks["run before"]))
        for command in block.commands:
            text = with_options(command.text, marks["run with"]) if "run with" in marks else command.text
            steps.append(Step(block.place, text, 0, () if "output" in marks else command.output))
        if "exits with" in marks:
            last = steps.pop()
            steps.append(Step(last.place, last.text, int(marks["exits with"]), last.shown))
    return steps


def save(path: str, lines: Iterable[str]) -> str:
    """The shell command that writes lines to a file."""
    return f"mkdir -p {shlex.quote(str(Path(path).parent))}; printf '%s\\n' {shlex.join(lines)} > {shlex.quote(path)}"


def with_options(text: str, options: str) -> str:
    """The commands with these options at the end of each that trains, before a comment."""
    training = r"dlx (?:train|sweep-dropout|compare-schedulers|run)\b"
    command = re.compile(rf"^({training}(?:\\\n|[^\n])*?)([ \t]*|[ \t]+#[^\n]*)$", re.MULTILINE)
    return command.sub(lambda found: f"{found[1]} {options}{found[2]}", text)


def script_of(steps: Iterable[Step]) -> str:
    """A shell script of all steps; the output of each goes to a file that is called by its number."""
    lines = []
    for number, step in enumerate(steps):
        lines += [f'status=0; {{\n{step.text}\n}} > "$STEPS/{number}" 2>&1 < /dev/null || status=$?']
        lines += [f"[ $status = {step.code} ] || exit {FAILED}"]
    return "\n".join(lines)


def run_steps(steps: list[Step], folder: Path, cache: Path, server: Path) -> tuple[int, list[str]]:
    """Runs the steps in an empty folder below `folder`; gives the exit code, and the output of each that was begun.

    `server` is the socket of `serving`.
    """
    place, programs, output = folder / "page", folder / "programs", folder / "output"
    for made in (place, programs, output):
        made.mkdir()
    program = programs / "dlx"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{WARM}" call "{server}" "$@"\n')
    program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {
        "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT / "src"),
        "HOME": str(folder),
        "DLX_CACHE_DIR": str(cache),
        "STEPS": str(output),
        "REPOSITORY": str(ROOT),
    }
    code, errors = run_script(script_of(steps), place, environment)
    assert errors == ""
    begun = len(list(output.iterdir()))
    return code, [(output / str(number)).read_text() for number in range(begun)]


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Path]:
    """The socket of a server that forks `dlx` processes (tests/warm_dlx.py)."""
    path = folder / "socket"
    command = [sys.executable, "-P", WARM, "serve", path]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}  # this checkout's dlx, whichever is installed
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"listening\n"
            yield path
        finally:
            os.killpg(server.pid, signal.SIGKILL)


def run_script(script: str, place: Path, environment: dict[str, str]) -> tuple[int, str]:
    """The exit code and stderr of a script; after LIMIT_S it and all that it started are killed."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        ["bash", "-c", script], cwd=place, env=environment, stderr=pipe, text=True, start_new_session=True
    ) as shell:
        try:
            _, errors = shell.communicate(timeout=LIMIT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    return shell.returncode, errors


def missing_lines(shown: Iterable[str], printed: str) -> list[str]:
    """The lines shown that are not printed in this order, or not at all.

    `...` stands for lines left out; more may be printed than is shown. Numbers, blanks, rules, the precision and the
    names of processors may differ.
    """
    rest = iter([masked(line) for line in printed.splitlines()])
    return [line for line in shown if masked(line) not in ("", "...") and masked(line) not in rest]


def masked(line: str) -> str:
    """A line with `#` for each number (and for a lone `-`, a missing one), its words a blank apart."""
    line = re.sub(r"[\u2500-\u257f]+", " ", line)
    line = re.sub(r"(\d s) on .*$", r"\1", line)
    line = re.sub(r"\b(bf16|float32)\b", "PRECISION", line)
    line = re.sub(r"\bthreads?\b", "thread", line)
    line = re.sub(r"\b[0-9a-f]{8}\b", "0", line)
    line = re.sub(r"[+±-]?\d+([.,]\d+)*(e[+-]?\d+)?|(?<!\S)[+-](?!\S)", "#", line)
    return " ".join(line.split())
