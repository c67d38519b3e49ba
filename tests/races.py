"""Helgrind over dlx's own reading: four threads read every format at once, and no race may lie inside SimpleITK.

    python tests/races.py

first reads with the lock of `dlx.data.volumes.decoder` switched off, as a control: helgrind must report races there,
else this check could not fail. Then it reads as dlx does, where helgrind must report none. Exits with 1 if either is
not so.
valgrind is installed with apt-get if it is missing and this is root. A few minutes.
"""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import watchdog
from dlx.data.volumes import decoder
from dlx.data.volumes.reading import read_volume

NUM_THREADS = 4
# A stack is followed up through these: what they do, they do for whoever called them.
RUNTIME = ("vgpreload_", "libstdc++", "libc.so", "libm.so", "libz.so", "libgcc_s")


def read_all(folder: Path) -> None:
    """Every volume of a folder in each of four threads that start together, each thread beginning at another file."""
    files = sorted(path for path in folder.iterdir() if path.suffix != ".img")
    barrier = threading.Barrier(NUM_THREADS)

    def read(number: int) -> None:
        first = number * len(files) // NUM_THREADS
        barrier.wait()
        for path in files[first:] + files[:first]:
            read_volume(path, allow_rgb=True, allow_4d=True)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(NUM_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def write_samples(folder: Path) -> Path:
    """A folder of a small file of every kind; written here, as who reads them must not have used SimpleITK before."""
    import fuzz_volumes

    folder.mkdir()
    fuzz_volumes.write_samples(folder)
    return folder


def races_in(log: str) -> list[str]:
    """The reports of a helgrind log of which one of the two accesses was made by SimpleITK or for it."""
    plain = re.sub(r"^==\d+== ?", "", log, flags=re.MULTILINE)
    reports = [part for part in re.split(r"^-{40,}$", plain, flags=re.MULTILINE) if "Possible data race" in part]
    return [report for report in reports if any(_is_of_simpleitk(stack) for stack in _stacks(report))]


def _stacks(report: str) -> list[list[str]]:
    """The stacks of the two accesses, innermost frame first, without where a block was allocated."""
    stacks: list[list[str]] = []
    for line in report.splitlines():
        if re.match(r"\s+at 0x", line):
            stacks.append([])
        if stacks and re.match(r"\s+(at|by) 0x", line):
            stacks[-1].append(line)
    return stacks[:2]


def _is_of_simpleitk(stack: list[str]) -> bool:
    own = next((frame for frame in stack if not any(name in frame for name in RUNTIME)), "")
    return "_SimpleITK" in own


def run_helgrind(folder: Path, *, protected: bool) -> list[str]:
    """The races inside SimpleITK of one run; SystemExit if the reading itself failed."""
    log = folder / "helgrind.log"
    samples = write_samples(folder / "samples")
    command = ["valgrind", "--tool=helgrind", f"--log-file={log}", sys.executable, __file__, "--read", str(samples)]
    quiet = {"PYTHONMALLOC": "malloc", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command + ([] if protected else ["--unprotected"]), env=os.environ | quiet, timeout=1800)
    if done.returncode != 0 and protected:  # without the lock it may well crash
        raise SystemExit(f"reading under helgrind ended with exit code {done.returncode}")
    text = log.read_text(encoding="utf-8", errors="replace")
    if "ERROR SUMMARY" not in text:
        raise SystemExit(f"helgrind did not end as it should:\n{text[-2000:]}")
    return races_in(text)


def install_valgrind() -> None:
    """Installs valgrind if it is missing; SystemExit, saying what to do, where that cannot be done."""
    if shutil.which("valgrind"):
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise SystemExit("valgrind is missing, and only root can install it with apt-get: install valgrind")
    for words in (["update", "-qq"], ["install", "-y", "-qq", "valgrind"]):
        if subprocess.run(["apt-get", *words]).returncode != 0:
            raise SystemExit(f"apt-get {words[0]} failed: install valgrind by hand")


def main() -> int:
    parser = argparse.ArgumentParser(description="Looks for data races in SimpleITK while dlx reads volumes.")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)  # a folder: what runs under valgrind
    parser.add_argument("--unprotected", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        watchdog.register()
        if options.unprotected:
            decoder.DECODING = contextlib.nullcontext()
        read_all(options.read)
        watchdog.tell_end()
        return 0
    install_valgrind()
    found = {}
    for protected in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            found[protected] = run_helgrind(Path(folder), protected=protected)
        print(f"{'with' if protected else 'without'} the lock: {len(found[protected])} races inside SimpleITK")
    if found[True]:
        print("\n".join(found[True][:3]))
    if not found[False]:
        print("helgrind sees no race even without the lock: this check cannot fail, and shows nothing")
    return 1 if found[True] or not found[False] else 0


if __name__ == "__main__":
    raise SystemExit(main())
