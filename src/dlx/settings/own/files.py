"""The files that a network of the user's own consists of: its own file, and those beside it that it imports.

They are found by reading import statements, so nothing is executed. Names that an installed package or Python itself
has are theirs: a file beside the network never stands for them.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dlx.system.errors import SettingError
from dlx.system.files import expand_home

MAX_FILE_BYTES = 4 << 20  # a longer Python file is most likely something else


@dataclass(frozen=True)
class SourceFile:
    """A module and its content as it was read. `path` is the file, or the folder of a package without `__init__.py`."""

    module: str
    path: str
    content: bytes
    is_package: bool = False


def read_file(typed: str) -> Path:
    """The absolute path of a file that the user named; SettingError if there is none."""
    path = Path(expand_home(typed)).absolute()
    if not path.is_file():
        what = "a folder, not a file" if path.is_dir() else "no such file" if not path.exists() else "not a file"
        raise SettingError(f"{typed}: {what}" + (f" (in {Path.cwd()})" if not Path(typed).is_absolute() else ""))
    return path


def files_of(entry: Path, module: str, root: Path) -> tuple[SourceFile, ...]:
    """The files of a module, itself first, then those below `root` that it imports, directly or not.

    SettingError for a file that cannot be read, or that is not Python.
    """
    is_package = entry.name == "__init__.py"
    found = {module: SourceFile(module, str(entry), _content(entry), is_package)}
    packages = [module] if "." in module else []  # in which it lies
    waiting = [found[module]]
    while waiting:
        file = waiting.pop()
        for name in [*packages, *_imported(file)]:
            for one in _located(name, root):
                if one.module not in found:
                    found[one.module] = one
                    waiting.append(one)
        packages = []
    first, *others = found.values()
    return first, *sorted(others, key=lambda file: file.module)


def digest_of(files: tuple[SourceFile, ...]) -> str:
    """BLAKE2b (128 bits, hexadecimal) of the contents, and of the names of all but the first file."""
    digest = hashlib.blake2b(files[0].content, digest_size=16)
    for file in files[1:]:
        digest.update(b"\0" + file.module.encode() + b"\0" + file.content)
    return digest.hexdigest()


def place_of(name: str) -> str | None:
    """Where a top-level module of this name is found without the files of the user's own networks; None if nowhere."""
    if name in sys.builtin_module_names or name in sys.stdlib_module_names:
        return "Python itself"
    for finder in sys.meta_path:
        if getattr(finder, "serves_own_code", False):
            continue
        spec = finder.find_spec(name, None)
        if spec is not None:
            return spec.origin or next(iter(spec.submodule_search_locations or ()), "Python itself")
    return None


def _is_elsewhere(name: str, root: Path) -> bool:
    place = place_of(name)
    return place is not None and root not in Path(place).parents


def _imported(file: SourceFile) -> Iterator[str]:
    """The dotted names that a file's import statements may mean, also inside functions."""
    package = file.module.split(".") if file.is_package else file.module.split(".")[:-1]
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (name for name in (base, *(f"{base}.{alias.name}" for alias in node.names)) if name)


def _parsed(file: SourceFile) -> ast.Module:
    try:
        return ast.parse(file.content, file.path)
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise SettingError(f"{Path(file.path).name}{line}: not Python: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise SettingError(f"{Path(file.path).name}: not Python: {type(error).__name__}") from None


def _located(name: str, root: Path) -> list[SourceFile]:
    """The file of a dotted name and the packages that it lies in; nothing if it is not below `root`."""
    steps = name.split(".")
    if not all(step.isidentifier() for step in steps) or _is_elsewhere(steps[0], root):
        return []
    found: list[SourceFile] = []
    is_any_file = False
    for depth in range(1, len(steps) + 1):
        place, module = root.joinpath(*steps[:depth]), ".".join(steps[:depth])
        package, plain = place / "__init__.py", place.with_name(f"{place.name}.py")
        if package.is_file():
            found.append(SourceFile(module, str(package), _content(package), is_package=True))
        elif plain.is_file():
            found.append(SourceFile(module, str(plain), _content(plain)))
        elif place.is_dir():
            found.append(SourceFile(module, str(place), b"", is_package=True))
            continue
        else:
            break
        is_any_file = True
        if not found[-1].is_package:
            break
    return found if is_any_file else []


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SettingError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB (expected a Python file)")
        return path.read_bytes()
    except OSError as error:
        raise SettingError(f"{path}: cannot be read: {error.strerror or error}") from None
