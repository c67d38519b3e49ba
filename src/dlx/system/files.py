"""Files read and written whole: JSON that is checked, and writes that leave the old file or the new one, never half."""

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dlx.system.errors import DataError

MAX_JSON_BYTES = 64 << 20  # a listing of 100,000 cases takes 10 MiB; more is not a description of a data set
LEFTOVER = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")


def expand_home(path: str) -> str:
    """`~/x` as a path in the user's home folder, `~name/x` in that user's; any other path as it is.

    DataError where the home folder is not known: no HOME, and no entry of the user in the password database.
    """
    if not path.startswith("~"):
        return path
    expanded = "" if os.environ.get("HOME") == "" else os.path.expanduser(path)
    if not expanded or expanded == path:
        if os.path.lexists(path):
            return path
        raise DataError(f"{path}: the home folder {path.split('/')[0]} is not known: write the path in full")
    return expanded


def home_folder() -> Path | None:
    """The user's home folder; None where neither HOME nor the password database names one."""
    home = "~" if os.environ.get("HOME") == "" else os.path.expanduser("~")
    return None if home == "~" else Path(home)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives an OSError that names no file, such as that of a full disk, this path."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def replacing(path: Path, temporary: Path | None = None, also: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write to: a temporary one beside `path`, flushed to the disk at the end and then renamed over it.

    `also` is a second name for the same content, replaced just before `path`.

    Whatever is raised meanwhile leaves `path` as it was. A kill leaves the temporary file behind: by default one of
    each writer's own, which `remove_leftovers` knows.
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
        with contextlib.suppress(OSError):  # the first error is the one to tell
            temporary.unlink()
        raise


def link_over(source: Path, path: Path) -> None:
    """Makes `path` a hard link to `source`, whatever it was before; a copy where the file system has no hard links."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        os.link(source, temporary)
    except OSError:
        write_atomically(path, source.read_bytes())
        return
    temporary.replace(path)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, making its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(data)


def write_json(path: Path, document: Any) -> None:
    """An indented JSON document, written atomically; NaN and infinity are refused."""
    write_atomically(path, (json.dumps(document, indent=1, allow_nan=False, sort_keys=False) + "\n").encode())


def remove_leftovers(folder: Path) -> None:
    """Removes what writers that were killed left in a folder; none may be writing there."""
    for path in folder.iterdir():
        if LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """A JSON file's value. Raises DataError, one line with the place; also for a key that is there twice."""
    try:
        if not path.is_file():  # a pipe would hang
            raise DataError(f"{path}: no such file")
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DataError(f"{path}: more than {MAX_JSON_BYTES >> 20} MiB, too large for a description")
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
    except ValueError as error:  # ours, on repeated keys, or Python's, on integers of thousands of digits
        raise DataError(f"{path}: {str(error).splitlines()[0]}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key {key!r} is there twice")
        table[key] = value
    return table
