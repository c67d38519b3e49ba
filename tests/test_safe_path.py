"""Nothing that lies in the working folder is imported, in any process; the user's own network is, when it is named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlx.system.errors import SettingError
from dlx.system.safe_path import safe_children
from small import SMALL_ARGS

NAMES = ("types", "selectors", "torch", "numpy", "random", "typing", "statistics", "tempfile", "queue", "dlx")
# what Python itself imports to run a module by its name, before any code of ours: `python -P -m dlx` avoids it
BEFORE_A_MODULE = ("types", "dlx")
TWO_SEEDS = ["train", *SMALL_ARGS, "--epochs", "1", "--seeds", "2", "--max-parallel", "2", "--out", "out"]


@pytest.fixture
def shadows(tmp_path):
    """A folder of modules that leave a mark where they are run."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in NAMES:
        code = f"open({str(tmp_path / 'executed')!r}, 'a').write({name!r} + ' ')\nraise SystemExit({name!r})\n"
        (folder / f"{name}.py").write_text(code)
    return folder


def run_in(folder, parent, *command):
    """Runs a command in a folder; nothing in `data` may have been executed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"DLX_CACHE_DIR": str(parent / "cache")}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=250)
    executed = parent / "executed"
    assert not executed.exists(), executed.read_text()
    assert result.returncode == 0, result.stderr
    return result


@pytest.mark.slow
def test_workers_of_the_command_import_nothing_from_the_working_folder(shadows):
    dlx = Path(sys.executable).with_name("dlx")
    result = run_in(shadows, shadows.parent, str(dlx), *TWO_SEEDS)
    assert "spread" in result.stdout


@pytest.mark.long
def test_workers_started_from_an_interactive_session_import_nothing_from_the_working_folder(shadows):
    code = (
        "import os, sys, dlx.cli.output.display, dlx.execution.workers.local, dlx.execution.runner\n"
        "import dlx.cli.output.outcome\n"
        "from dlx.cli.main import run\n"
        f"sys.argv = ['dlx', *{TWO_SEEDS!r}]\n"
        f"assert sys.path[0] == ''\nos.chdir({str(shadows)!r})\nrun()"
    )
    assert "spread" in run_in(shadows.parent, shadows.parent, sys.executable, "-c", code).stdout


@pytest.mark.slow
def test_python_m_dlx_imports_nothing_from_the_working_folder(shadows):
    for name in BEFORE_A_MODULE:
        (shadows / f"{name}.py").unlink()
    result = run_in(shadows, shadows.parent, sys.executable, "-m", "dlx", "count-params", "unet2:width=2")
    assert "unet2" in result.stdout


def test_what_is_started_within_keeps_the_rest_of_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "mine"))
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    before = list(sys.path)
    with safe_children():
        assert sys.path == [entry for entry in before if entry]
        code = "import sys; print(*sys.path, sep='\\n')"
        shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert sys.path == before
    assert "PYTHONSAFEPATH" not in os.environ
    path = shown.stdout.splitlines()
    assert path[0] == str(tmp_path / "mine")
    assert "" not in path
    assert str(tmp_path) not in path


OWN = "import {sibling}\nfrom torch import nn\ndef make():\n    import {later}\n    return nn.Conv2d(2, 4, 1)\n"


def test_a_network_of_the_users_own_is_found_in_the_working_folder_with_what_it_imports(dlx, tmp_path):
    (tmp_path / "my_networks.py").write_text(OWN.format(sibling="my_blocks", later="my_layers"))
    (tmp_path / "my_blocks.py").touch()
    (tmp_path / "my_layers.py").touch()
    before = list(sys.path)
    assert '"parameters": 12' in dlx("count-params", "my_networks:make", "--json").stdout
    assert sys.path == before


def test_a_network_of_the_users_own_never_stands_for_an_installed_module(dlx, tmp_path):
    (tmp_path / "colorsys.py").write_text("def Net():\n    pass\n")
    with pytest.raises(SettingError, match=r"rename your own colorsys\.py"):
        dlx("count-params", "colorsys:Net")
