"""docs/extending.md followed to the letter in a copy of the project: what it adds passes the tests of its kind."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # starts processes

ROOT = Path(__file__).parent.parent


def blocks(language):
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def insert(path, lines):
    """Follows a diff of the page: the lines with a plus come after the one without."""
    (after,), new = [line[1:] for line in lines if line[0] == " "], [line[1:] for line in lines if line[0] == "+"]
    text = path.read_text(encoding="utf-8")
    assert text.count(after) == 1, f"{path.name}: {after!r}"
    path.write_text(text.replace(after, after + "".join(new)), encoding="utf-8")


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the project with everything that the page adds."""
    copy = tmp_path_factory.mktemp("extended")
    for name in ("src", "tests", "experiments"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "*.jsonl"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    scheduler, loss, network = blocks("python")
    (study,) = blocks("toml")
    source = copy / "src/dlx"
    for module, code in (("training/schedules.py", scheduler), ("training/losses.py", loss)):
        with (source / module).open("a", encoding="utf-8") as file:
            file.write(f"\n\n{code}")
    (source / "models/architectures/stack.py").write_text(network, encoding="utf-8")
    schedules, models = copy / "tests/test_schedules.py", copy / "tests/test_models.py"
    registry = source / "settings/registry.py"
    edited = (source / "training/schedules.py", registry, schedules, registry, registry, models)
    for path, diff in zip(edited, blocks("diff"), strict=True):
        insert(path, diff.splitlines(keepends=True))
    (copy / "experiments/tversky.toml").write_text(study, encoding="utf-8")
    return copy


def run(extended, *command):
    environment = os.environ | {"PYTHONPATH": str(extended / "src")}
    result = subprocess.run(
        [sys.executable, *command], cwd=extended, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.mark.long
def test_what_the_page_adds_passes_the_tests_of_its_kind(extended):
    files = [f"tests/test_{name}.py" for name in ("schedules", "losses", "models", "probes", "binding")]
    named = "inverse or tversky or stack or every_scheduler_has"
    output = run(extended, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", named, *files)
    passed = int(re.search(r"(\d+) passed", output)[1])
    assert passed > 60


def test_its_study_is_planned(extended):
    output = run(extended, "-m", "dlx", "run", "experiments/tversky.toml", "--dry-run", "--json")
    assert '"Tversky 0.3, 0.7"' in output


@pytest.mark.long
def test_what_it_adds_keeps_the_projects_style_and_types(extended):
    added = [
        "src/dlx/training/schedules.py",
        "src/dlx/training/losses.py",
        "src/dlx/models/architectures/stack.py",
        "src/dlx/settings/registry.py",
    ]
    run(extended, "-m", "ruff", "check", "--no-cache", *added)
    run(extended, "-m", "ruff", "format", "--no-cache", "--check", *added)
    if (ROOT / ".mypy_cache").is_dir():  # of `make types`: only what is new is checked
        shutil.copytree(ROOT / ".mypy_cache", extended / ".mypy_cache")
    run(extended, "-m", "mypy", *added)
