"""What is packaged and what it depends on; `make wheel` installs the wheel and trains from it."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import dlx

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/dlx"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# extras that are of use, not of the program: they install others, or tools
NOT_IMPORTED = {"all", "dev"}
INDIRECT = {"onnxscript": "torch.onnx exports with it", "cryptography": "distributed makes certificates with it"}


def name_of(requirement):
    """The normalised name of a requirement: `onnx` of `onnx>=1.19`."""
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


@cache
def imported():
    """The distributions that dlx imports, anywhere, by the names of the packages that they install."""
    names = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func) and node.args:
                literal = node.args[0]
                names |= {literal.value.partition(".")[0]} if isinstance(literal, ast.Constant) else set()
    own = names - sys.stdlib_module_names - {"dlx"}
    known = packages_distributions()
    assert [name for name in own if name not in known] == []
    return {name_of(one) for name in own for one in known[name]}


def extras():
    return {
        name: {name_of(one) for one in requirements}
        for name, requirements in PROJECT["optional-dependencies"].items()
        if name not in NOT_IMPORTED
    }


def test_the_package_depends_on_what_it_imports_and_on_nothing_else():
    required = {name_of(one) for one in PROJECT["dependencies"]}
    optional = set().union(*extras().values())
    assert required & optional == set()
    assert imported() - required - optional == set()
    assert required - imported() == set()
    assert optional - imported() == set(INDIRECT)


def test_all_is_every_extra():
    assert PROJECT["optional-dependencies"]["all"] == [f"dlx[{','.join(extras())}]"]


def test_what_is_pinned_is_what_is_asked_for():
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    everything = {name_of(one) for one in PROJECT["dependencies"]}.union(
        *({name_of(one) for one in requirements} for requirements in PROJECT["optional-dependencies"].values())
    )
    assert sorted(everything - pinned - {"dlx"}) == []


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    pytest.importorskip("setuptools", "77")
    source = tmp_path / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    (source / "tests").mkdir()
    (source / "tests/test_it.py").touch()
    code = f"import setuptools.build_meta as b; b.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"dlx-{dlx.__version__}.dist-info/METADATA").decode()
        points = archive.read(f"dlx-{dlx.__version__}.dist-info/entry_points.txt").decode()
    package = {f"dlx/{path.relative_to(SOURCE)}" for path in SOURCE.rglob("*") if path.is_file()}
    assert {name for name in names if ".dist-info/" not in name} == {p for p in package if "__pycache__" not in p}
    assert {"dlx/py.typed", "dlx/settings/recipes/quick.toml", "dlx/cli/completion/dlx.zsh"} <= names
    assert "dlx = dlx.cli.entry:main" in points
    assert f"\nVersion: {dlx.__version__}\n" in metadata
    assert "License-Expression: Apache-2.0" in metadata


def test_one_version_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert PROJECT["version"] == dlx.__version__
    assert f"\nversion: {dlx.__version__}\n" in citation
    assert f"\nlicense: {PROJECT['license']}\n" in citation
    assert f"## {dlx.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_python_m_dlx_is_dlx():
    done = subprocess.run([sys.executable, "-m", "dlx", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"dlx {dlx.__version__}\n"


def instructions():
    """The Dockerfile's instructions, each with its arguments on one line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def test_the_image_is_made_of_files_that_exist_and_runs_as_a_user():
    steps = instructions()
    assert [
        name for name, _ in steps if name not in {"FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
    ] == []
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-bookworm", dict(steps)["FROM"])
    copied = [word for name, rest in steps if name == "COPY" for word in rest.split()[:-1]]
    assert [word for word in copied if not (ROOT / word).exists()] == []
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == allowed
    names = [name for name, _ in steps]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert dict(steps)["USER"] not in ("root", "0")
    assert dict(steps)["ENTRYPOINT"] == '["dlx"]'  # without a shell, which would not pass SIGTERM on


def test_the_image_installs_the_files_that_the_build_reads():
    copied = {word for name, rest in instructions() if name == "COPY" for word in rest.split()[:-1]}
    assert {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "src"} <= copied
