"""Imports point downwards, and what needs no tensor imports no torch."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dlx

ROOT = Path(dlx.__file__).parent
# from the top down: a module imports from its own rank or from ranks below
RANKS = [
    ["cli", "__main__"],
    ["run"],
    ["report"],
    ["resolve", "build", "parts", "oddities", "evaluation_memory"],
    ["merging"],
    ["engine", "store", "archive"],
    ["models", "counting"],
    ["reuse"],
    ["losses"],
    ["lovasz", "metrics", "surface", "dropout", "schedules", "optimizers", "initializers", "data", "statistics"],
    ["studies"],
    ["study_axes"],
    ["reference"],
    ["settings", "arguments"],
    ["study_claims"],
    ["study_metrics"],
    ["registry", "records"],
    ["specs", "ranges"],
    ["spelling"],
    ["errors", "files", "cores", "memory", "characters", "safe_path", "__init__"],
]
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}


def part_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "dlx")


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path):
    assert part_of(path) in RANK, f"{path} has no place in the order of imports"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "dlx" and len(parts) > 1 and parts[1] in RANK:
            assert RANK[part_of(path)] <= RANK[parts[1]], f"{path} imports {name}"


def loaded_by(*args):
    """The modules that a command line imports."""
    code = f"import sys; sys.argv = ['dlx', *{list(args)!r}]\nfrom dlx.cli.main import app\n"
    code += "try: app()\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stderr.split())


@pytest.mark.parametrize("args", [["--help"], ["train", "--help"], ["count-params", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(args):
    heavy = {"torch", "numpy", "scipy", "SimpleITK", "matplotlib", "safetensors", "rich.progress", "dlx.specs"}
    assert not loaded_by(*args) & heavy


EMPTY_APP = """
import typer
app = typer.Typer(no_args_is_help=True)
{commands}
app()
"""


@pytest.mark.slow
def test_help_takes_at_most_1_3_times_an_empty_typer_app_with_as_many_commands(tmp_path):
    from dlx.cli.main import app

    commands = "\n".join(f"@app.command()\ndef c{i}(): 'A command.'" for i in range(len(app.registered_commands)))
    empty = tmp_path / "empty.py"
    empty.write_text(EMPTY_APP.format(commands=commands))
    times = {"dlx": [], "empty": []}
    for _ in range(12):  # interleaved, and the fastest of each: the least disturbed by whatever else runs
        for name, command in (("dlx", ["-m", "dlx", "--help"]), ("empty", [str(empty), "--help"])):
            started = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
            times[name].append(time.perf_counter() - started)
    assert min(times["dlx"]) <= 1.3 * min(times["empty"]), {name: min(values) for name, values in times.items()}
