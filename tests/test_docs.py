"""The files, functions and packages that the documentation names exist."""

import ast
import graphlib
import re
from functools import cache

import pytest

import dlx
from test_imports import FILES as MODULES
from test_imports import PACKAGES, imported_by, package_of
from test_imports import ROOT as SOURCE

ROOT = SOURCE.parent.parent
DESIGN = (ROOT / "docs/design.md").read_text(encoding="utf-8")
NAMES = ("data", "design", "extending", "notes", "settings", "studies", "your-network")
PAGES = ["README.md", *(f"docs/{name}.md" for name in NAMES)]
# files that the readers of docs/extending.md and docs/your-network.md write
WRITTEN_BY_READERS = {"stack.py", "dlx.models.stack", "my_net.py", "nets/my_net.py"}


def code_of(text):
    """The inline code of a markdown text, without its fenced blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


@cache
def file_names():
    """The names of all Python files of the package and the tests, without their folders."""
    return {path.name for folder in (SOURCE, ROOT / "tests") for path in folder.rglob("*.py")}


def is_file(name):
    """Whether a file exists: by its path from the root of the repository or of the package, or by its name alone."""
    return (ROOT / name).is_file() or (SOURCE / name).is_file() if "/" in name else name in file_names()


@cache
def defined_names():
    """The names of all functions and classes of the package, and of the variables of its files."""
    names = set()
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        targets = (node.targets if isinstance(node, ast.Assign) else [node.target] for node in assignments(tree))
        names |= {target.id for found in targets for target in found if isinstance(target, ast.Name)}
    return names


def assignments(tree):
    return [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]


def defined_in(path):
    """The functions, classes and methods (`Class.method`) that a file defines at its top level."""
    found = set()
    for node in ast.parse((SOURCE / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def steps_of_the_walk():
    """The (file, functions) of each place in the walk: a function is in the file named last before it."""
    walk = DESIGN.partition("## One run, file by file")[2].partition("\n## ")[0]
    steps = []
    for code in code_of(walk.partition("\n1. ")[2]):
        if code.endswith(".py"):
            steps.append((code, []))
        elif code.endswith("()"):
            steps[-1][1].append(code.removesuffix("()"))
    return steps


@pytest.mark.parametrize("page", PAGES)
def test_the_files_and_modules_that_a_page_names_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    files = set(re.findall(r"[\w./-]+\.py\b", " ".join(code_of(text)))) - WRITTEN_BY_READERS
    modules = set(re.findall(r"\bdlx(?:\.[a-z_]+)+", text)) - WRITTEN_BY_READERS - {f"dlx.{n}" for n in dlx.__all__}
    assert [name for name in sorted(files) if not is_file(name)] == []
    assert [name for name in sorted(modules) if name not in MODULES] == []


def test_each_function_of_the_walk_is_in_its_file():
    steps = steps_of_the_walk()
    missing = [(path, name) for path, names in steps for name in names if name not in defined_in(path)]
    assert missing == []
    assert sum(len(names) for _, names in steps) >= 50


def test_each_function_class_and_constant_of_the_design_exists():
    """Called (`decide()`), or with a capital (`Spec`, `METRICS`). `f(...)` is any factory, `Net` any network."""
    named = re.findall(r"\b([A-Z]\w+|\w+(?=\())", " ".join(code_of(DESIGN)))
    assert "decide" in named
    assert "METRICS" in named
    assert set(named) - defined_names() - {"f", "FILE", "TOML", "Net"} == set()


def test_the_table_lists_the_packages_from_the_top_down():
    assert re.findall(r"^\| `([a-z]+)` \|", DESIGN, re.MULTILINE) == PACKAGES


def test_the_picture_shows_the_imports_between_packages():
    imports = {package: set() for package in PACKAGES}
    for name in MODULES:
        if package_of(name) in PACKAGES:
            imports[package_of(name)] |= {package_of(found) for found in imported_by(name)} - {package_of(name)}
    reached = {}  # all packages below each, directly or not
    for package in graphlib.TopologicalSorter(imports).static_order():
        reached[package] = imports[package].union(*(reached[below] for below in imports[package]))
    needed = {
        (package, below)
        for package in PACKAGES
        for below in imports[package]
        if not any(below in reached[other] for other in imports[package])
    }
    drawn = re.findall(r"^    (\w+) --> (\w+)$", DESIGN, re.MULTILINE)
    assert sorted(drawn) == sorted(needed)
