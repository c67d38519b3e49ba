"""The folder of predictions: which cases are done, which files may be replaced, and writing a case as a whole."""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from dlx.data.layouts.listing import ScanFiles, name_some
from dlx.data.volumes.opening import show_path
from dlx.data.volumes.writing import label_endings
from dlx.prediction.manifest import CaseEntry, FileState, Manifest, are_unchanged, is_as_written, output_state
from dlx.settings.text import counted
from dlx.system.errors import DataError, SettingError
from dlx.system.files import naming, remove_leftovers

LOCK = ".predictions.lock"
LOCK_WAIT_S = 3.0
PROBABILITIES = ".npz"


def output_names(scan: ScanFiles, *, with_probabilities: bool) -> list[str]:
    """The names of the files of a case: of the label volume the one that makes it complete first."""
    labels = [scan.id + ending for ending in reversed(label_endings(scan.images[0]))]
    return [*labels, *([scan.id + PROBABILITIES] if with_probabilities else [])]


class OutputFolder:
    """A folder of predictions, locked for this process; `Manifest` says what it holds."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator["OutputFolder"]:
        """The folder, made if it is missing, while no other process writes predictions into it.

        DataError if another process does, or if its manifest is damaged; OSError if it cannot be written.
        """
        path.mkdir(parents=True, exist_ok=True)
        try:
            with naming(path / LOCK):
                lock = FileLock(path / LOCK).acquire(LOCK_WAIT_S, poll_interval=0.05)
        except Timeout:
            raise DataError(f"{show_path(path)}: another process is writing predictions into this folder") from None
        with lock:
            remove_leftovers(path)
            yield cls(path, Manifest.read(path))

    def is_done(self, scan: ScanFiles, method: str, *, with_probabilities: bool) -> bool:
        """Whether a case is complete: of these networks, of the same input, and its files are there as written."""
        names = output_names(scan, with_probabilities=with_probabilities)
        entry = self.manifest.cases.get(names[0])
        return (
            entry is not None
            and entry.method == method
            and {*names} <= {state.name for state in entry.outputs}
            and all(is_as_written(self.path, state) for state in entry.outputs)
            and are_unchanged(entry.inputs, scan.images)
        )

    def check_replaceable(self, scans: Sequence[ScanFiles], method: str, *, with_probabilities: bool) -> None:
        """SettingError if a file would be replaced that is not a prediction of these networks as they wrote it."""
        others, foreign = [], []
        for scan in scans:
            names = output_names(scan, with_probabilities=with_probabilities)
            entry = self.manifest.cases.get(names[0])
            written = {} if entry is None else {state.name: state for state in entry.outputs}
            for name in names:
                if not os.path.lexists(self.path / name):
                    continue
                if entry is None or name not in written or not is_as_written(self.path, written[name]):
                    foreign.append(name)
                elif entry.method != method:
                    others.append(name)
        causes = []
        if others:
            causes.append(f"{counted(len(others), 'file')} of other runs or of another --tta ({name_some(others, 3)})")
        if foreign:
            causes.append(
                f"{counted(len(foreign), 'file')} that dlx predict did not write, or that changed since "
                f"({name_some(foreign, 3)})"
            )
        if causes:
            found = f"{show_path(self.path)}: holds {' and '.join(causes)}"
            raise SettingError(f"{found}: --overwrite replaces them, another -o keeps them")

    def keep(self, staged: "StagedFiles", entry: Callable[[tuple[FileState, ...]], CaseEntry]) -> None:
        """Gives the staged files their names, and notes the case first: a kill in between leaves a case that is not
        complete, and no file that is not known. Files of an earlier prediction of the case that have no successor are
        removed.
        """
        states = staged.states()
        noted = entry(states)
        before = self.manifest.cases.get(states[0].name)
        self.manifest.add(noted)
        staged.rename()
        names = {state.name for state in states}
        for state in before.outputs if before is not None else ():
            if state.name not in names and is_as_written(self.path, state):
                (self.path / state.name).unlink(missing_ok=True)


class StagedFiles:
    """Files of one case under temporary names, which `remove_leftovers` finds after a kill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._temporary: dict[str, Path] = {}
        self._scratch: list[Path] = []

    def scratch(self, name: str) -> Path:
        """A temporary path that gets no name in the end."""
        path = self.folder / f".{name}.{secrets.token_hex(8)}.tmp"
        self._scratch.append(path)
        return path

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Opens a file for writing; it is on disk when the block is left."""
        path = self.scratch(name)
        with naming(path), path.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        self._scratch.remove(path)
        self._temporary[name] = path

    def states(self) -> tuple[FileState, ...]:
        """The states of the files, in the order in which they were written, the label volume first."""
        return tuple(output_state(path, name) for name, path in self._temporary.items())

    def rename(self) -> None:
        """Gives the files their names; the first file, which makes the case complete, last."""
        for name in reversed([*self._temporary]):
            self._temporary[name].replace(self.folder / name)

    def discard(self) -> None:
        """Removes what still has a temporary name."""
        for path in (*self._scratch, *self._temporary.values()):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


@contextmanager
def staging(folder: Path) -> Iterator[StagedFiles]:
    """Files that are removed unless they get their names within the block."""
    staged = StagedFiles(folder)
    try:
        yield staged
    finally:
        staged.discard()
