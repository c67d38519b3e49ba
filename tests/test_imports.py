"""Imports point downwards, and what needs no tensor imports no torch."""

import ast
import graphlib
import resource
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import dlx

ROOT = Path(dlx.__file__).parent
# from the top down: a package imports from itself and from those below it
PACKAGES = [
    "cli",
    "api",
    "report",
    "execution",
    "exporting",
    "prediction",
    "trial",
    "engine",
    "models",
    "training",
    "evaluation",
    "scoring",
    "data",
    "records",
    "statistics",
    "study",
    "settings",
    "system",
]
# the same of the packages of `report`
REPORT_PACKAGES = [
    *("terminal", "listing", "shown", "predictions", "files", "trackers", "page", "methods", "figures"),
    *("plotted", "wording", "findings"),
]


def name_of(path):
    """`dlx.data.cases` for `src/dlx/data/cases.py`, `dlx.data` for `src/dlx/data/__init__.py`."""
    return ".".join(("dlx", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


@cache
def imported_by(name):
    """The modules of dlx that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{name}: a relative import"
            found |= {
                module if (module := f"{node.module}.{alias.name}") in FILES else node.module for alias in node.names
            }
    return {module for module in found if module in FILES} - {name, "dlx"}


def package_of(name):
    return name.split(".")[1] if "." in name else None


def test_every_package_has_its_place_in_the_order_of_imports():
    assert sorted(PACKAGES) == sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
    assert [path.name for path in sorted(ROOT.glob("*.py"))] == ["__init__.py", "__main__.py"]


@pytest.mark.parametrize("name", [name for name in FILES if package_of(name) in PACKAGES])
def test_packages_import_from_packages_below(name):
    for imported in imported_by(name):
        assert PACKAGES.index(package_of(name)) <= PACKAGES.index(package_of(imported)), f"{name} imports {imported}"


def test_report_is_packages_that_import_from_packages_below():
    assert sorted(REPORT_PACKAGES) == sorted(path.parent.name for path in (ROOT / "report").glob("*/__init__.py"))
    assert [path.name for path in (ROOT / "report").glob("*.py")] == ["__init__.py"]
    for name in (name for name in FILES if name.count(".") > 2 and package_of(name) == "report"):
        for imported in (imported for imported in imported_by(name) if package_of(imported) == "report"):
            above, below = (REPORT_PACKAGES.index(one.split(".")[2]) for one in (name, imported))
            assert above <= below, f"{name} imports {imported}"


def names_of(name):
    """The capitalised names that a file defines at its top level: constants, types and classes."""
    found = set()
    for node in ast.parse(FILES[name].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            found.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found |= {target.id for target in targets if isinstance(target, ast.Name) and target.id[0].isupper()}
    return found


@pytest.mark.parametrize("package", ["engine", "execution", "trial"])
def test_a_name_means_one_thing_in_the_files_of_a_package(package):
    names = [name for file in FILES if package_of(file) == package for name in sorted(names_of(file))]
    assert len(names) > 10
    assert [name for name, times in Counter(names).items() if times > 1] == []


@pytest.mark.parametrize("package", ["execution", "trial"])
def test_a_type_of_trials_is_not_named_as_one_of_another_package(package):
    own = {name for file in FILES if package_of(file) == package for name in names_of(file) if not name.isupper()}
    others = {name for file in FILES if package_of(file) != package for name in names_of(file)}
    assert own
    assert own & others == set()


@pytest.mark.parametrize("package", ["models", "execution"])
def test_packages_within_a_package_import_each_other_in_one_direction(package):
    part_of = {name: ".".join(name.split(".")[2:3]) for name in FILES if package_of(name) == package}
    graph = {part: set() for part in part_of.values()}
    for name, part in part_of.items():
        graph[part] |= {part_of[imported] for imported in imported_by(name) if imported in part_of} - {part}
    assert any(graph.values())
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the packages of a cycle


def test_no_file_imports_itself_by_way_of_others():
    graph = {name: imported_by(name) for name in FILES}
    assert graph["dlx.cli.main"]
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the files of a cycle


@pytest.mark.parametrize("package", ["report", "evaluation", *PACKAGES[PACKAGES.index("records") :]])
def test_packages_that_handle_no_tensors_import_no_torch(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        imported = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        imported += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        assert "torch" not in {name.partition(".")[0] for name in imported}, path


def loaded_by(*args):
    """The modules that a command line imports."""
    code = f"import sys; sys.argv = ['dlx', *{list(args)!r}]\nfrom dlx.cli.main import app\n"
    code += "try: app()\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stderr.split())


@pytest.mark.parametrize(
    "args", [["--help"], ["train", "--help"], ["predict", "--help"], ["count-params", "--help"], ["--version"]]
)
def test_help_imports_nothing_heavy(args):
    heavy = {"torch", "numpy", "scipy", "SimpleITK", "matplotlib", "safetensors", "rich.progress", "dlx.settings.spec"}
    assert not loaded_by(*args) & heavy


@pytest.mark.slow
def test_a_report_is_made_without_torch(tmp_path):
    records = ROOT.parent.parent / "experiments/batch-norm.jsonl"
    assert "torch" not in loaded_by("report", str(records), "--out", str(tmp_path / "report"))
    assert (tmp_path / "report.md").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["show", "ls"])
def test_runs_are_shown_and_listed_without_torch_and_figures(command):
    loaded = loaded_by(command, str(ROOT.parent.parent / "experiments/batch-norm.jsonl"))
    assert not loaded & {"torch", "matplotlib", "tensorboard", "mlflow"}
    assert "dlx.records.archive" in loaded


EMPTY_APP = """
import typer
app = typer.Typer(no_args_is_help=True)
{commands}
app()
"""


def cpu_seconds(command):
    """User and system time of a command. Unlike the time on the clock it does not grow when other processes run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.slow
def test_help_takes_at_most_1_3_times_an_empty_typer_app_with_as_many_commands(tmp_path):
    from dlx.cli.main import app

    commands = "\n".join(f"@app.command()\ndef c{i}(): 'A command.'" for i in range(len(app.registered_commands)))
    empty = tmp_path / "empty.py"
    empty.write_text(EMPTY_APP.format(commands=commands))
    # in turns, and the fastest of 12: shared caches and clock rates still disturb some of the runs
    rounds = [(cpu_seconds(["-m", "dlx", "--help"]), cpu_seconds([str(empty), "--help"])) for _ in range(12)]
    ours, theirs = (min(times) for times in zip(*rounds, strict=True))
    assert ours <= 1.3 * theirs, rounds
