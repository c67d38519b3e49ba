"""Loads the code of networks of the user's own, and only code that was vouched for in this process.

A process vouches for what the user named on its command line; a worker process for what its parent sent. Settings and
records hold names and digests, by which vouched code is looked up, so none of them can import anything by itself.

A file, or a module in the working folder, is executed from the content that its digest is of, whatever happens to the
file on disk meanwhile; an installed package is imported as usual.
"""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from dlx.settings.own.files import SourceFile, digest_of, files_of, place_of, read_file
from dlx.settings.own.names import OwnName
from dlx.settings.part import CodeSpec, Part
from dlx.system.errors import SettingError, nearest


@dataclass(frozen=True)
class OwnCode:
    """What the user named, as it was read: enough to load it in another process."""

    name: str  # canonical, as in settings
    attribute: str
    module: str  # as which it is imported
    digest: str
    version: str | None = None  # of an installed package
    files: tuple[SourceFile, ...] = ()  # to execute; none of an installed package
    place: str = ""  # the path of its file; empty for built-in modules

    @property
    def typed(self) -> str:
        """The name that finds it from any folder; a module in the working folder, only from there."""
        return f"{self.place}:{self.attribute}" if self.name.partition(":")[0].endswith(".py") else self.name


_vouched: dict[tuple[str, str], OwnCode] = {}  # by name and digest
_loaded: dict[tuple[str, str], Any] = {}
_served: dict[str, SourceFile] = {}  # by module


def vouch(code: OwnCode) -> None:
    """Allows this process to load the code."""
    _vouched[code.name, code.digest] = code


def vouch_for(own: OwnName, part: Part) -> tuple[Part, OwnCode]:
    """Reads and vouches for the code of a name that the user typed; the part with its digest."""
    code = read_code(own)
    vouch(code)
    recorded = part.code or CodeSpec(digest=code.digest, version=code.version)
    return Part(name=code.name, args=part.args, code=recorded), code


def vouched_code(part: Part) -> OwnCode:
    """The code of a part that names a network of the user's own; SettingError unless it was vouched for."""
    code = None if part.code is None else _vouched.get((part.name, part.code.digest))
    if code is None:
        raise SettingError(
            f"model '{part.name}' is code of your own, which is loaded only if you name it: --model {part.name}"
        )
    return code


def target_of(part: Part) -> Any:
    """What the part names: a class, a function or an object. Executes the code, once in a process."""
    code = vouched_code(part)
    key = (code.name, code.digest)
    if key not in _loaded:
        _loaded[key] = _load(code)
    return _loaded[key]


def read_code(own: OwnName) -> OwnCode:
    """The code of a name that the user typed, with its digest; imports it if it is of an installed package."""
    if own.is_file:
        path = read_file(own.source)
        return _of_files(own, path, f"own-{path.stem.replace('.', '_')}", path.parent)
    top = own.source.partition(".")[0]
    place = place_of(top)
    if place is None:
        return _of_working_folder(own)
    module = _import(own.canonical, own.source)
    code = OwnCode(own.canonical, own.attribute, own.source, digest="", place=getattr(module, "__file__", None) or "")
    version = _version(top)
    if version is not None:
        return replace(code, digest=_digest_of_definition(code, module), version=version)
    if not code.place or place == "Python itself":
        return replace(code, digest=digest_of((SourceFile(own.source, "", b""),)))
    root = Path(place).parents[1] if Path(place).name == "__init__.py" else Path(place).parent
    return replace(code, digest=digest_of(files_of(Path(code.place), own.source, root)))


def spell_cause(error: BaseException, code: OwnCode | None = None) -> str:
    """`Type: message (my_net.py, line 12)`, on one line."""
    text = " ".join(str(error).split())
    cause = f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
    line = None if code is None else line_of(error, code)
    return f"{cause} ({line})" if line else cause


def line_of(error: BaseException, code: OwnCode) -> str | None:
    """`my_net.py, line 12`: where in the user's own files the error arose, or passed last; None if nowhere."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{Path(error.filename).name}, line {error.lineno}"
    own = {file.path for file in code.files} or {code.place}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in own]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else None


@contextlib.contextmanager
def printing_to_stderr() -> Iterator[None]:
    """Within, what the user's code prints goes to stderr: stdout is for results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _of_files(own: OwnName, entry: Path, module: str, root: Path) -> OwnCode:
    files = files_of(entry, module, root)
    return OwnCode(own.canonical, own.attribute, module, digest_of(files), files=files, place=str(entry))


def _of_working_folder(own: OwnName) -> OwnCode:
    root = Path.cwd()
    place = root.joinpath(*own.source.split("."))
    entry = next(
        (path for path in (place / "__init__.py", place.with_name(f"{place.name}.py")) if path.is_file()), None
    )
    if entry is None:
        raise SettingError(f"'{own}': no module '{own.source}' is installed or in {root}")
    return _of_files(own, entry, own.source, root)


def _version(top: str) -> str | None:
    """The name and version of the installed package; None if there is none, or if its files are those of a checkout
    (an editable installation), which change while the version stays.
    """
    for name in metadata.packages_distributions().get(top, ()):
        distribution = metadata.distribution(name)
        url = json.loads(distribution.read_text("direct_url.json") or "{}")
        if not url.get("dir_info", {}).get("editable"):
            return f"{distribution.name} {distribution.version}"
    return None


def _digest_of_definition(code: OwnCode, module: ModuleType) -> str:
    """The digest of the file that defines what the name stands for."""
    defining = sys.modules.get(getattr(_attribute(code, module), "__module__", None) or "", module)
    if defining.__name__.partition(".")[0] != code.module.partition(".")[0]:
        defining = module
    path = getattr(defining, "__file__", None)
    return digest_of((SourceFile(defining.__name__, path or "", Path(path).read_bytes() if path else b""),))


def _load(code: OwnCode) -> Any:
    if not code.files:
        found = read_code(OwnName(code.module, code.attribute))
        if (found.digest, found.version) != (code.digest, code.version):
            raise SettingError(f"model '{code.name}': the installed package has changed since the study was planned")
        return _attribute(code, sys.modules[code.module])
    for file in code.files:
        if _served.get(file.module) != file:
            sys.modules.pop(file.module, None)
        _served[file.module] = file
    if not any(isinstance(finder, _OwnFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OwnFinder())
    return _attribute(code, _import(code.name, code.module, code))


def _import(name: str, module: str, code: OwnCode | None = None) -> ModuleType:
    try:
        with printing_to_stderr():
            return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        cause = spell_cause(error, code)
        raise SettingError(f"'{name}': importing it failed: {cause}{_hint(error, code)}") from error


def _hint(error: BaseException, code: OwnCode | None) -> str:
    if isinstance(error, ModuleNotFoundError) and code is not None and error.name:
        beside = Path(code.place).parent / f"{error.name.partition('.')[0]}.py"
        if beside.is_file():
            return f"; {beside.name} beside it is found only by an import statement"
    if isinstance(error, ImportError) and "relative import" in str(error):
        return "; a file of a package is named package.module:Name, from the folder above the package"
    return ""


def _attribute(code: OwnCode, module: ModuleType) -> Any:
    found: Any = module
    for step in code.attribute.split("."):
        if not hasattr(found, step):
            names = [name for name in dir(found) if callable(getattr(found, name, None)) and not name.startswith("_")]
            known = _shadowed(code) or (nearest(step, names) if names else "(there are none)")
            raise SettingError(f"'{code.name}': there is no '{step}' in '{code.name.partition(':')[0]}': {known}")
        found = getattr(found, step)
    return found


def _shadowed(code: OwnCode) -> str | None:
    """A hint if an installed module was found instead of a file in the working folder that has the same name."""
    top = code.module.partition(".")[0]
    own = next((path for path in (Path(f"{top}.py"), Path(top)) if path.exists()), None)
    if code.files or own is None or Path.cwd() in Path(code.place).parents:
        return None
    place = code.place or "Python itself"
    return f"the module of this name in {place} was imported: rename your own {own}, or name the file {top}.py"


class _OwnFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of vouched code, and no others, whatever the path."""

    serves_own_code = True

    def find_spec(
        self,
        fullname: str,
        path: Any,  # noqa: ARG002
        target: Any = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        file = _served.get(fullname)
        if file is None:
            return None
        return importlib.util.spec_from_file_location(
            fullname,
            file.path,
            loader=_OwnLoader(file),
            submodule_search_locations=[] if file.is_package else None,
        )


class _OwnLoader(importlib.abc.InspectLoader):
    """Executes a file's content as it was read."""

    def __init__(self, file: SourceFile) -> None:
        self.file = file

    def is_package(self, fullname: str) -> bool:  # noqa: ARG002
        return self.file.is_package

    def get_source(self, fullname: str) -> str:  # noqa: ARG002
        return importlib.util.decode_source(self.file.content)

    def get_code(self, fullname: str) -> Any:  # noqa: ARG002
        return self.source_to_code(self.file.content, self.file.path)
