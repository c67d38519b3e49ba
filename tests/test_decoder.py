"""SimpleITK is used by one thread at a time, else a process may never end (`dlx.data.volumes.decoder`)."""

import ast
import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

import dlx
import fuzz_volumes
import races
from dlx.data.volumes.decoder import DECODING, decode
from dlx.data.volumes.header import BadFile
from dlx.data.volumes.reading import read_volume


def test_every_call_into_simpleitk_is_made_with_the_lock_held(tmp_path: Path) -> None:
    samples = fuzz_volumes.write_samples(tmp_path)
    files = [paths[0] for paths in samples.values()]
    num_decoded = len(samples.keys() - set(fuzz_volumes.BY_NUMPY))
    package = str(Path(sitk.__file__).parent)
    calls: list[tuple[str, bool]] = []

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(package):
            calls.append((frame.f_code.co_name, DECODING._is_owned()))

    threading.setprofile(note)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda path: read_volume(path, allow_rgb=True, allow_4d=True), files))
    finally:
        threading.setprofile(None)
    assert [name for name, _ in calls].count("Execute") == num_decoded
    assert {name for name, is_held in calls if not is_held} == set()


def objects_of_simpleitk() -> list[object]:
    # by type and not by isinstance, which makes some modules' lazy attributes import
    return [found for found in gc.get_objects() if type(found) in (sitk.Image, sitk.ImageFileReader)]


def test_a_file_that_cannot_be_decoded_leaves_no_object_of_simpleitk_behind_the_lock(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"no volume")
    before = len(objects_of_simpleitk())
    with pytest.raises(BadFile, match="SimpleITK") as caught:
        decode(tmp_path / "a.nii", "NiftiImageIO")
    assert caught.value.__traceback__ is not None
    assert len(objects_of_simpleitk()) == before


def test_no_other_module_uses_simpleitk() -> None:
    users = set()
    for path in Path(dlx.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import) and any(alias.name.startswith("SimpleITK") for alias in node.names):
                users.add(path.name)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("SimpleITK"):
                users.add(path.name)
            if isinstance(node, ast.Call) and any(
                isinstance(a, ast.Constant) and a.value == "SimpleITK" for a in node.args
            ):
                users.add(path.name)
    assert users == {"decoder.py"}


FORKS = """
import os, signal, sys, threading, warnings
from pathlib import Path
from dlx.data.volumes.reading import read_volume

warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of every fork beside threads
path, is_over = Path(sys.argv[1]), threading.Event()
read_volume(path)

def read_on():
    while not is_over.is_set():
        read_volume(path)

reader = threading.Thread(target=read_on)
reader.start()
codes = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        read_volume(path)
        os._exit(0)
    codes.append(os.waitpid(child, 0)[1])
is_over.set()
reader.join()
print(codes)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no fork")
def test_a_process_forked_while_another_thread_decodes_can_decode(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.Image(40, 40, 40, sitk.sitkFloat32), str(tmp_path / "a.nii.gz"))
    done = subprocess.run(
        [sys.executable, "-c", FORKS, str(tmp_path / "a.nii.gz")], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == str([0] * 20), done.stderr


REPORT = """==7== ----------------------------------------------------------------
==7== Possible data race during read of size 8 at 0x5 by thread #4
==7== Locks held: none
==7==    at 0x1: {first} (in /lib/x86_64-linux-gnu/libstdc++.so.6.0.30)
==7==    by 0x2: {second}
==7==    by 0x3: PyObject_Vectorcall (call.c:299)
==7==
==7== This conflicts with a previous write of size 8 by thread #5
==7==    at 0x4: SET_GIL_DROP_REQUEST (ceval.c:242)
==7==    by 0x5: ??? (in /site-packages/SimpleITK/_SimpleITK.abi3.so)
==7== ----------------------------------------------------------------
"""


@pytest.mark.parametrize(
    ("second", "count"), [("??? (in /SimpleITK/_SimpleITK.abi3.so)", 1), ("PyEval_RestoreThread (ceval.c:521)", 0)]
)
def test_a_race_is_simpleitks_if_it_or_the_runtime_for_it_makes_the_access(second: str, count: int) -> None:
    assert len(races.races_in(REPORT.format(first="std::string::compare(char const*)", second=second))) == count
