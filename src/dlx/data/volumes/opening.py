"""Opens untrusted files: only a regular file whose name SimpleITK can handle is opened."""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dlx.data.volumes.header import BadFile

# O_NONBLOCK: if the file was replaced by a pipe after the check, opening does not block. O_BINARY is for Windows.
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
CAUSES = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "no such file: a part of its path is not a folder",
    errno.ELOOP: "its symbolic links form a cycle",
    errno.EACCES: "cannot be read (permission denied)",
    errno.EPERM: "cannot be read (permission denied)",
    errno.ENAMETOOLONG: "the name is too long",
}
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True)
class OpenedFile:
    """A regular, non-empty file; `num_bytes` is its length when it was opened. Whoever opens it closes `stream`."""

    path: Path
    stream: BinaryIO
    num_bytes: int

    def pieces_at(self, offset: int, num_bytes: int) -> Iterator[bytes]:
        """These bytes in pieces of at most 64 KiB; fewer bytes if the file ends before them."""
        self.stream.seek(offset)
        while num_bytes and (piece := self.stream.read(min(num_bytes, 1 << 16))):
            num_bytes -= len(piece)
            yield piece

    def read_at(self, offset: int, num_bytes: int, what: str) -> bytes:
        """Exactly these bytes; BadFile, naming `what` they are, if the file ends before them."""
        if offset + num_bytes <= self.num_bytes:
            self.stream.seek(offset)
            data = self.stream.read(num_bytes)
            if len(data) == num_bytes:
                return data
        raise BadFile(f"truncated: its {what} lies beyond the end of the file")


def show_path(path: Path) -> str:
    """The path as one printable line, with all other bytes and characters escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def open_regular(path: Path) -> OpenedFile:
    """Opens a file for reading; BadFile if it is missing, unreadable, empty, not regular or not named in UTF-8.

    The kind is checked before opening, because opening a pipe or a device can block or have effects, and again after.
    """
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        raise BadFile("the name is not valid UTF-8 (SimpleITK crashes on it): rename it") from None
    try:
        _check_kind(path.stat().st_mode)
        handle = os.open(path, FLAGS)
    except ValueError:
        raise BadFile("the name contains a zero byte") from None
    except OSError as error:
        if error.errno == errno.ENOENT and path.is_symlink():
            raise BadFile("is a symbolic link to a file that does not exist") from None
        raise BadFile(CAUSES.get(error.errno or 0, f"cannot be opened ({error.strerror})")) from None
    stream = os.fdopen(handle, "rb")
    try:
        found = os.fstat(handle)
        _check_kind(found.st_mode)
        if found.st_size == 0:
            raise BadFile("the file is empty")
    except BadFile:
        stream.close()
        raise
    return OpenedFile(path, stream, found.st_size)


def _check_kind(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in KINDS if is_kind(mode)), "something else")
        raise BadFile(f"is {kind}, not a regular file")
