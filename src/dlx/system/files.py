"""Reads JSON with checks, writes files atomically, and expands home folders in paths."""

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dlx.system.errors import DataError

MAX_JSON_BYTES = 64 << 20  # a listing of 100,000 cases takes 10 MiB
LEFTOVER = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")


def expand_home(path: str) -> str:
    """`~/x` as a path in the user's home folder, `~name/x` in that user's; any other path as it is.

    DataError if the home folder is unknown: HOME is not set, and the password database has no entry for the user.
    """
    if not path.startswith("~"):
        return path
    expanded = "" if os.environ.get("HOME") == "" else os.path.expanduser(path)
    if not expanded or expanded == path:
        if os.path.lexists(path):
            return path
        raise DataError(f"{path}: the home folder {path.split('/')[0]} is unknown: write the path in full")
    return expanded


def home_folder() -> Path | None:
    """The user's home folder; None if neither HOME nor the password database names one."""
    home = "~" if os.environ.get("HOME") == "" else os.path.expanduser("~")
    return None if home == "~" else Path(home)


def text_of(path: Path) -> str:
    """The text of a file of the operating system, such as in /proc; empty if it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds this path to an OSError without a file name, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def replacing(path: Path, temporary: Path | None = None, also: Path | None = None) -> Iterator[BinaryIO]:
    """Opens a temporary file beside `path` for writing; at the end it is flushed to disk and renamed to `path`.

    `also` is a second name for the same content, replaced just before `path`.

    An exception leaves `path` unchanged. A killed process leaves the temporary file; unless `temporary` is given, its
    name is unique and `remove_leftovers` finds it.
    """
    temporary = temporary or path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with naming(path), temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if also is not None:
            link_over(temporary, also)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # keep the first error
            temporary.unlink()
        raise


def link_over(source: Path, path: Path) -> None:
    """Replaces `path` by a hard link to `source`, or by a copy if the file system has no hard links."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        os.link(source, temporary)
    except OSError:
        write_atomically(path, source.read_bytes())
        return
    temporary.replace(path)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file atomically; creates its folder if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(data)


def write_json(path: Path, document: Any) -> None:
    """An indented JSON document, written atomically; NaN and infinity are refused."""
    write_atomically(path, (json.dumps(document, indent=1, allow_nan=False, sort_keys=False) + "\n").encode())


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of killed writers from a folder, to which nobody may be writing."""
    for path in folder.iterdir():
        if LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises DataError with the position of an error, also for a repeated key."""
    try:
        if not path.is_file():  # reading a pipe would block
            raise DataError(f"{path}: no such file")
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DataError(f"{path}: larger than {MAX_JSON_BYTES >> 20} MiB, the limit for a JSON file")
        text = path.read_bytes().decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_without_repeats)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path}: not valid JSON ({error.msg}, {where})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not valid JSON (byte {error.start} is not UTF-8)") from error
    except RecursionError as error:
        raise DataError(f"{path}: not valid JSON (nested too deeply)") from error
    except ValueError as error:  # from _without_repeats, or from Python for integers of thousands of digits
        raise DataError(f"{path}: {str(error).splitlines()[0]}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key {key!r} occurs twice")
        table[key] = value
    return table
