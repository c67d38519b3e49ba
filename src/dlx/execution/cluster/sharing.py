"""What the client and the workers of a study share: its folder, and voxels in a file or sent once."""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import Client, Future
from filelock import FileLock, Timeout

from dlx.execution.cluster.remote import SharedData, is_readable, sees
from dlx.execution.trials.stores import Stores
from dlx.execution.trials.trial import Task
from dlx.system.errors import LockedError
from dlx.system.files import naming, write_atomically

LOCK_WAIT_S = 3.0
ID, TOKEN = ".cluster-id", ".cluster-token"


@contextmanager
def locked_for_cluster(folder: Path) -> Iterator[None]:
    """Locks a study's folder for this command; LockedError if another one runs its trials on a cluster."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with naming(folder / ".cluster.lock"):
            lock = FileLock(folder / ".cluster.lock").acquire(LOCK_WAIT_S, poll_interval=0.05)
    except Timeout:
        raise LockedError(
            f"{folder}: another command runs a study of this folder on a cluster: wait for its end, or give another "
            "folder (--out)"
        ) from None
    with lock:
        yield


def id_of(folder: Path) -> str:
    """A random text that is kept in a file of the folder: the same wherever the folder is seen, and whenever."""
    path = folder / ID
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        write_atomically(path, uuid.uuid4().hex.encode())
        return path.read_text(encoding="ascii", errors="replace")


@contextmanager
def token_in(folder: Path) -> Iterator[str]:
    """A random text in a file of the folder while the block runs, by which workers know the folder from a copy of it.

    One that a killed command has left is kept, since its trials may still be waiting for a worker.
    """
    path = folder / TOKEN
    try:
        token = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        token = uuid.uuid4().hex
        write_atomically(path, token.encode())
    try:
        yield token
    finally:
        path.unlink(missing_ok=True)


def is_shared(folder: Path, token: str, client: Client) -> bool:
    """Whether all workers that are there now see the folder."""
    seen = client.run(sees, str(folder / TOKEN), token)
    return bool(seen) and all(seen.values())


def data_of(tasks: Iterable[Task], stores: Stores, client: Client) -> dict[str, SharedData | None]:
    """For each data set, by its fingerprint, the file from which workers read it; None if not all of them can."""
    found: dict[str, SharedData | None] = {}
    for task in tasks:
        dataset = task.resolved.dataset
        if dataset.fingerprint in found:
            continue
        path = dataset.cache_file
        is_there = path is not None and all(client.run(is_readable, str(path.absolute())).values())
        ids = stores[dataset.fingerprint].ids
        found[dataset.fingerprint] = (
            SharedData(path.absolute(), dataset.fingerprint, ids) if path is not None and is_there else None
        )
    return found


@dataclass
class Sent:
    """What was sent to the workers, by a name: it stays on the cluster as long as this is kept."""

    client: Client
    futures: dict[str, Future[Any]] = field(default_factory=dict)

    def once(self, name: str, value: Any, *, everywhere: bool) -> Future[Any]:
        """Sends a value unless the cluster still has it; `everywhere`: to all workers, else to the one that asks."""
        if name not in self.futures or self.futures[name].status != "finished":
            # in a list: of a table dask would name each entry by its key alone, as in any other study
            (self.futures[name],) = self.client.scatter([value], broadcast=everywhere, hash=False)
        return self.futures[name]
