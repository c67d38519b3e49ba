"""How worker processes are started: from a server, and without one if the system can have none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlx.execution.workers.server import MAX_TENSORS_SENT, quiet_children, start_context
from dlx.system.files import read_json
from small import SMALL_ARGS

SWEEP = ["sweep-dropout", "--p", "0.5", "--seeds", "1", *SMALL_ARGS, "--epochs", "1", "--quiet"]


def results(folder):
    return {path.parent.name: read_json(path)["result"] for path in Path(folder).glob("trials/*/result.json")}


def test_more_tensors_than_one_message_carries_are_sent_without_the_server():
    with quiet_children():
        assert start_context(MAX_TENSORS_SENT).get_start_method() == "forkserver"
        assert start_context(MAX_TENSORS_SENT + 1).get_start_method() == "spawn"


@pytest.mark.long
def test_a_temporary_folder_with_a_long_path_changes_no_number(dlx, tmp_path):
    dlx(*SWEEP, "--out", "short")
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    command = [sys.executable, "-m", "dlx", *SWEEP, "--out", "long"]
    result = subprocess.run(
        command, env=os.environ | {"TMPDIR": str(folder)}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert len(results("short")) == 2
    assert results("long") == results("short")


# CUDA fails in a process that was forked after its parent used CUDA. Stubs record each call of a CUDA build's queries.
COUNTING = """
import torch

asked = []


def stub(name, answer):
    def ask(*args, **kwargs):
        asked.append(name)
        return answer

    return ask


torch.version.cuda = "13.0"
torch.cuda._is_compiled = lambda: True
torch._C._cuda_getCurrentRawStream = stub("getCurrentRawStream", 0)
for name, answer in (("is_available", True), ("device_count", 1), ("_lazy_init", None), ("current_device", 0)):
    setattr(torch.cuda, name, stub(name, answer))

import importlib

from dlx.execution.workers.server import PRELOADED

for module in PRELOADED:
    importlib.import_module(module)
assert not asked, asked
torch.cuda.is_available()
assert asked == ["is_available"]
"""


@pytest.mark.slow
def test_what_the_server_imports_does_not_touch_cuda():
    result = subprocess.run([sys.executable, "-c", COUNTING], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
