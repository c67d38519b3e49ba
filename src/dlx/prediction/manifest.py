"""What an output folder holds: `predictions.jsonl` says of each file which networks made it, and from which input.

A line is appended for each set of networks and for each case, before the files of the case get their names; a later
line about the same file replaces an earlier one. A file that stands there without a line, or that differs from its
line, is not known to be a prediction, and is only replaced if the user asks for it.
"""

import errno
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlx.data.volumes.nifti import header_path, image_path
from dlx.records.folder import append_line, read_lines
from dlx.study.results import Record
from dlx.system.files import naming, write_atomically

NAME = "predictions.jsonl"
HASHED_BYTES = 1 << 20


class FileState(Record):
    """A file as it was: its name (of an input: its path), its size, and by what a change is noticed."""

    name: str
    num_bytes: int
    mtime_ns: int
    digest: str


class NetworkEntry(Record):
    """A network that predicted: `digest` is that of `TrainedNetwork`."""

    name: str
    trial: str
    epoch: int | None
    digest: str
    mirrored_axes: tuple[int, ...]


class MethodEntry(Record):
    """A set of networks whose mean was predicted, and what their labels mean; `id` is a hash of the networks."""

    id: str
    networks: tuple[NetworkEntry, ...]
    channels: tuple[str, ...]
    labels: dict[str, int | tuple[int, ...]]  # of a region all its values
    dlx: str


class CaseEntry(Record):
    """The files of one case, the label volume first; `method` is the id of a MethodEntry."""

    case: str
    method: str
    inputs: tuple[FileState, ...]
    outputs: tuple[FileState, ...]
    device: str
    seconds: float
    predicted_utc: str


class ManifestLine(Record):
    """One line of the file: either of the two."""

    method: MethodEntry | None = None
    case: CaseEntry | None = None


@dataclass
class Manifest:
    """The lines of a folder's manifest: methods by id, cases by the name of their label file."""

    path: Path
    methods: dict[str, MethodEntry] = field(default_factory=dict)
    cases: dict[str, CaseEntry] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """That of a folder, empty without one; DataError if a line is damaged. A last line that a kill cut short is
        removed.
        """
        manifest = cls(folder / NAME)
        lines = read_lines(ManifestLine, manifest.path, "a line about a prediction")
        if manifest.path.exists() and not (content := manifest.path.read_bytes()).endswith(b"\n"):
            write_atomically(manifest.path, content[: content.rfind(b"\n") + 1])
        for line in lines:
            manifest._keep(line)
        return manifest

    def add(self, entry: MethodEntry | CaseEntry) -> None:
        """Appends an entry; returns once it is on disk."""
        line = ManifestLine(method=entry) if isinstance(entry, MethodEntry) else ManifestLine(case=entry)
        append_line(self.path, line.model_dump_json(exclude_none=True))
        self._keep(line)

    def _keep(self, line: ManifestLine) -> None:
        if line.method is not None:
            self.methods[line.method.id] = line.method
        if line.case is not None and line.case.outputs:
            self.cases[line.case.outputs[0].name] = line.case


def make_method(
    networks: Sequence[NetworkEntry], channels: Sequence[str], labels: dict[str, Any], version: str
) -> MethodEntry:
    """The entry of a set of networks; their order does not matter."""
    identity = sorted(f"{network.digest} {network.mirrored_axes}" for network in networks)
    digest = hashlib.blake2b("\n".join(identity).encode(), digest_size=16).hexdigest()
    return MethodEntry(id=digest, networks=tuple(networks), channels=tuple(channels), labels=labels, dlx=version)


def input_states(images: Sequence[Path]) -> tuple[FileState, ...]:
    """The states of the files of a scan, both files of a pair among them. OSError if one cannot be read."""
    return tuple(_state(path, str(path.absolute())) for path in _all_files(images))


def output_state(path: Path, name: str) -> FileState:
    """The state of a file that will be named so."""
    return _state(path, name)


def are_unchanged(states: Sequence[FileState], images: Sequence[Path]) -> bool:
    """Whether the files of a scan are those of these states: by path, size and time, else by size and content."""
    paths = _all_files(images)
    return len(paths) == len(states) and all(
        _is_unchanged(path, state, state.name == str(path.absolute()))
        for path, state in zip(paths, states, strict=True)
    )


def is_as_written(folder: Path, state: FileState) -> bool:
    """Whether an output is there as it was written."""
    return _is_unchanged(folder / state.name, state, True)


def _is_unchanged(path: Path, state: FileState, has_same_place: bool) -> bool:
    if not path.is_file():
        return False
    found = path.stat()
    if found.st_size != state.num_bytes:
        return False
    return (has_same_place and found.st_mtime_ns == state.mtime_ns) or _hash(path) == state.digest


def _all_files(images: Sequence[Path]) -> list[Path]:
    files = []
    for path in images:
        if path.suffix.lower() in (".hdr", ".img"):
            header = header_path(path)
            files += [header, image_path(header)]
        else:
            files.append(path)
    return files


def _state(path: Path, name: str) -> FileState:
    if not path.is_file():  # opening a pipe would block
        raise FileNotFoundError(errno.ENOENT, "not a regular file", str(path))
    with naming(path):
        found = path.stat()
        return FileState(name=name, num_bytes=found.st_size, mtime_ns=found.st_mtime_ns, digest=_hash(path))


def _hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with naming(path), path.open("rb") as file:
        while piece := file.read(HASHED_BYTES):
            digest.update(piece)
    return digest.hexdigest()
