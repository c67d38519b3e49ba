"""A dask scheduler and two workers as processes that talk over TCP, as on several machines."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path


def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Machines:
    """A scheduler and two workers, each started again when it ends, until the `with` block is left.

    `inside` are the commands that put a process ("scheduler", "worker1", "worker2") onto its host. `options` are those
    that scheduler and workers take alike.
    """

    def __init__(
        self,
        folder: Path,
        host: str = "127.0.0.1",
        protocol: str = "tcp",
        inside: Mapping[str, Sequence[str]] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        port = free_port()
        self.folder, self.address, self.inside = folder, f"{protocol}://{host}:{port}", inside or {}
        self.environment = dlx_environment(folder)
        listening = ["--host", f"{protocol}://{host}", "--port", str(port)]
        working = [self.address, "--nthreads", "1", "--death-timeout", "30"]
        self.commands = {
            "scheduler": ["scheduler", *listening, "--no-show", "--no-dashboard", *options],
            **{
                f"worker{n}": [
                    "worker", *working, "--local-directory", str(folder / f"scratch{n}"), "--no-dashboard", *options
                ]
                for n in (1, 2)
            },
        }  # fmt: skip
        self.processes: dict[str, subprocess.Popen] = {}
        self.is_over = threading.Event()

    def __enter__(self) -> "Machines":
        for name in self.commands:
            self._start(name)
        self.watch = threading.Thread(target=self._restart)
        self.watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        self.watch.join()
        for process in self.processes.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(self, name: str) -> None:
        command = [sys.executable, "-m", "distributed.cli.dask_" + self.commands[name][0], *self.commands[name][1:]]
        with (self.folder / f"{name}.log").open("a") as log:
            self.processes[name] = subprocess.Popen(
                [*self.inside.get(name, ()), *command],
                start_new_session=True,
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def _restart(self) -> None:
        while not self.is_over.wait(0.1):
            for name, process in list(self.processes.items()):
                if process.poll() is not None:
                    self._start(name)

    def kill_scheduler(self) -> None:
        """Kills the scheduler by SIGKILL."""
        self.processes["scheduler"].kill()

    def kill_worker(self, chosen: random.Random) -> bool:
        """Kills a worker process, not the nanny that watches it; False if there is none at the moment."""
        nannies = {process.pid for name, process in self.processes.items() if name != "scheduler"}
        found = [pid for pid, parent in parents().items() if parent in nannies and "resource_tracker" not in words(pid)]
        if found:
            os.kill(chosen.choice(sorted(found)), signal.SIGKILL)
        return bool(found)


def dlx_environment(folder: Path) -> dict[str, str]:
    """Environment of processes that train with one thread each and share a cache in this folder."""
    return os.environ | {"OMP_NUM_THREADS": "1", "DLX_CACHE_DIR": str(folder / "cache")}


def parents() -> dict[int, int]:
    """The parent of each process."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
    return found


def words(pid: int) -> str:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
