"""The files, functions and packages that the documentation names exist."""

import ast
import graphlib
import re
from functools import cache

import pytest

import dlx
from pages import PAGES, blocks_of, inline_code, text_of, without_blocks
from test_imports import FILES as MODULES
from test_imports import PACKAGES, imported_by, package_of
from test_imports import ROOT as SOURCE

ROOT = SOURCE.parent.parent
DESIGN = (ROOT / "docs/design.md").read_text(encoding="utf-8")
MADE_BY_SCRIPTS = ("docs/cli.md", "docs/replication.md")
CHINESE = "README.zh.md"  # a paragraph a line, as a line break would show as a blank between two characters
LOG = "docs/log.md"  # of the past: it names what is no longer there
# of docs/extending.md; files called my_NAME are so too
WRITTEN_BY_READERS = {"stack.py", "dlx.models.architectures.stack"}


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
    for code in inline_code(walk.partition("\n1. ")[2]):
        if code.endswith(".py"):
            steps.append((code, []))
        elif code.endswith("()"):
            steps[-1][1].append(code.removesuffix("()"))
    return steps


@pytest.mark.parametrize("page", [page for page in PAGES if page != LOG])
def test_the_files_and_modules_that_a_page_names_exist(page):
    text = text_of(page)
    saved = {block.marks["saved as"] for block in blocks_of(page, text) if "saved as" in block.marks}
    named = set(re.findall(r"[\w./-]+\.py\b", " ".join(inline_code(text)))) - WRITTEN_BY_READERS - saved
    files = {name for name in named if not name.rpartition("/")[2].startswith("my_")}
    modules = set(re.findall(r"\bdlx(?:\.[a-z_]+)+", text)) - WRITTEN_BY_READERS - {"dlx.json"}
    assert [name for name in sorted(files) if not is_file(name)] == []
    public = {f"dlx.{name}" for name in dlx.__all__}
    assert [name for name in sorted(modules - public) if name not in MODULES] == []


def links_of(text):
    """The targets of the links and pictures of a page."""
    return re.findall(r"\]\(\s*([^)\s]+)\s*\)", re.sub(r"`[^`]*`", "", without_blocks(text)))


def anchors_of(text):
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", without_blocks(text), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)) for title in titles)
    return {title.strip().lower().replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_lead_to_files_and_headings(page):
    broken = []
    for link in links_of(text_of(page)):
        path, _, anchor = link.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        target = (ROOT / page).parent / path if path else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors_of(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


def test_each_page_is_linked_from_the_readme():
    linked = {link.partition("#")[0] for link in links_of(text_of("README.md"))}
    assert [page for page in PAGES if page.startswith("docs/") and page not in linked] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page not in (*MADE_BY_SCRIPTS, CHINESE)])
def test_text_is_wrapped(page):
    lines = without_blocks(text_of(page)).splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


def test_each_function_of_the_walk_is_in_its_file():
    steps = steps_of_the_walk()
    missing = [(path, name) for path, names in steps for name in names if name not in defined_in(path)]
    assert missing == []
    assert sum(len(names) for _, names in steps) >= 50


def test_each_function_class_and_constant_of_the_design_exists():
    """Called (`decide()`), or with a capital (`Spec`, `METRICS`). `f(...)` is any factory, `Net` any network."""
    named = re.findall(r"\b([A-Z]\w+|\w+(?=\())", " ".join(inline_code(DESIGN)))
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
