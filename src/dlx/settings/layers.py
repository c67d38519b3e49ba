"""Settings as nested tables: recipes, files and options merge here and become a Spec; no torch."""

import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dlx.settings import registry
from dlx.settings.binding import first_cause, shortened
from dlx.settings.spec import SPLIT_WAYS, Part, Section, Spec, source_from_text
from dlx.settings.text import parse_value
from dlx.system.characters import encodable
from dlx.system.errors import SettingError, nearest
from dlx.system.files import expand_home

Settings = dict[str, Any]
Keys = tuple[str, ...]

PART_KEYS = ("model", "init", "scheduler", "loss", "source", "normalize", "name")  # `name`: the optimiser's


def recipe_names() -> list[str]:
    """The recipes that dlx ships, sorted."""
    files = (resources.files("dlx.settings") / "recipes").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def read_recipe(name: str) -> Settings:
    """The settings of a shipped recipe; SettingError with the nearest name if there is none of that name."""
    if name not in recipe_names():
        raise SettingError(f"unknown recipe '{name}': {nearest(name, recipe_names())}")
    return tomllib.loads((resources.files("dlx.settings") / "recipes" / f"{name}.toml").read_text(encoding="utf-8"))


def read_toml(path: Path) -> Settings:
    """A settings file; SettingError names the file and the line that is not TOML."""
    text = _read_text(path)
    try:
        document = tomllib.loads(text)
        check_numbers(document)
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{path}: not TOML: {error}{_toml_hint(text, str(error))}") from None
    except ValueError:  # Python's own
        raise SettingError(f"{path}: not TOML: a whole number of thousands of digits") from None
    except RecursionError:
        raise SettingError(f"{path}: not TOML: nested too deeply") from None
    return document


def _read_text(path: Path) -> str:
    """The text of a file in UTF-8, also with the byte order mark that Windows puts before it."""
    try:
        if path.is_dir():
            raise SettingError(f"{path}: cannot be read: a folder, and a TOML file was expected")
        content = path.read_bytes()
    except OSError as error:
        raise SettingError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        encoding = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else f"not UTF-8 (line {line})"
        raise SettingError(f"{path}: cannot be read: its text is {encoding}: save it as UTF-8") from None


def _toml_hint(text: str, cause: str) -> str:
    """What to write instead, for the slips that editors and habits make; empty for others."""
    found = re.search(r"at line (\d+)", cause)
    lines = text.splitlines()
    if found is None or int(found[1]) > len(lines):
        return ""
    line = lines[int(found[1]) - 1]
    if re.search(r'"[^"]*\\', line):
        return "; in a path write / for \\, or put it between single quotes: 'C:\\data'"
    if re.search(r"=\s*[-+]?\d+,\d", line):
        return "; a decimal number has a point, as in 0.001"
    if re.search("[\u2018\u2019\u201c\u201d]", line):
        return '; quotes are straight, as in "dice"'
    if re.search(r"=\s*[A-Za-z_./~]", line) and not re.search(r"=\s*(true|false|inf|nan)\b", line):
        return '; a text stands between quotes, as in loss = "dice"'
    return ""


def check_numbers(value: Any, where: str = "") -> None:
    """Refuses numbers that no setting can take: not finite, or whole and of more than 64 bits."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_numbers(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            check_numbers(item, where)
    elif isinstance(value, float) and not math.isfinite(value):
        raise SettingError(f"{where}: {value} is no finite number")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise SettingError(f"{where}: {shortened(value)} is too large a number")


def parse_assignment(text: str) -> tuple[str, Any]:
    """`train.epochs=3` as its key and value; SettingError if it is not of that form."""
    key, equals, value = text.partition("=")
    if not equals or not all(step.isidentifier() for step in key.strip().split(".")):
        raise SettingError(f"--set {text}: expected key=value, as in --set model.width=32")
    return key.strip(), parse_value(value)


def merge(*layers: Mapping[str, Any]) -> Settings:
    """Settings of several layers, later ones over earlier ones, table by table.

    A part that a later layer names starts from its own defaults: its old arguments do not carry over. For `model` alone
    a bare name keeps the arguments, which are the sizes (width, levels ...) that the recipe chose, where the network is
    of the same module; and `phantom` over a phantom keeps its subjects and size. A way of splitting (val, fold,
    val_fraction, file) replaces that of earlier layers. SettingError where a table meets something else.
    """
    merged: Settings = {}
    for layer in layers:
        merged = _merge_tables(merged, layer, (), is_one_layer=False)
    return merged


def nest(assignments: Iterable[tuple[str, Any]]) -> Settings:
    """`[("train.epochs", 3)]` as `{"train": {"epochs": 3}}`: one layer, in whatever order its keys are given.

    Of two values for one key the later one wins.
    """
    tree: Settings = {}
    for key, value in assignments:
        *path, last = key.split(".")
        layer: Settings = {last: value}
        for step in reversed(path):
            layer = {step: layer}
        tree = _merge_tables(tree, layer, (), is_one_layer=True)
    return tree


def _merge_tables(old: Settings, new: Mapping[str, Any], path: Keys, *, is_one_layer: bool) -> Settings:
    if path == ("split",) and not is_one_layer:
        old = _without_replaced_ways(old, new)
    merged = dict(old)
    for key, value in new.items():
        merged[key] = _merge_value(old.get(key), value, (*path, key), is_one_layer=is_one_layer)
    return merged


def _merge_value(old: Any, new: Any, path: Keys, *, is_one_layer: bool) -> Any:
    key = path[-1]
    if is_one_layer:
        if isinstance(new, str) and isinstance(old, Mapping) and key in PART_KEYS:
            return _as_table(old, path) | _as_table(new, path)
    elif path == ("model",) and _is_bare_name(new):
        before, after = _as_table(old, path), _as_table(new, path)
        return before | after if _are_kin(before.get("name"), after["name"]) else after
    elif path == ("data", "source") and new == "phantom":
        before = _as_table(old, path)
        return before if before.get("name") == new else new
    elif isinstance(new, Mapping) and key in PART_KEYS and "name" in new:
        return _as_table(new, path)
    if not isinstance(new, Mapping):
        return new
    return _merge_tables(_as_table(old, path), new, path, is_one_layer=is_one_layer)


def _is_bare_name(value: Any) -> bool:
    return ":" not in value if isinstance(value, str) else isinstance(value, Mapping) and set(value) == {"name"}


def _are_kin(model: Any, other: Any) -> bool:
    """True for networks of one module, which take the same sizes; and where a name is unknown, as is told later."""
    homes = {registry.PARTS["model"].get(name, "").partition(":")[0] for name in (model, other)}
    return len(homes - {""}) <= 1


def _as_table(value: Any, path: Keys) -> Settings:
    """A part, however it is written, as a flat table of its name and arguments; other tables as they are."""
    if value is None:
        return {}
    is_dumped = isinstance(value, Mapping) and set(value) == {"name", "args"} and isinstance(value["name"], str)
    if path[-1] in PART_KEYS and (isinstance(value, str) or is_dumped):
        part = Part.model_validate(source_from_text(value) if path[-1] == "source" else value)
        return {"name": part.name, **part.args}
    if not isinstance(value, Mapping):
        raise SettingError(f"{'.'.join(path)}: is {value!r} in one place and a table in another")
    return dict(value)


def _without_replaced_ways(old: Settings, new: Mapping[str, Any]) -> Settings:
    """An earlier layer's split without what a later layer's way of splitting stands in for.

    A fold alone is of the `folds`, or of the file, that an earlier layer named.
    """
    ways = {way for way in SPLIT_WAYS if new.get(way) is not None}
    if not ways:
        return old
    replaced = {*SPLIT_WAYS, "folds"}
    if ways == {"fold"} and new.get("folds") is None:
        replaced -= {"folds", "file"}
    return {key: value for key, value in old.items() if key not in replaced}


def with_absolute_paths(spec: Spec) -> Spec:
    """The spec with every path in it absolute, so that it can be resumed from another folder."""
    source, split, train = spec.data.source, spec.split, spec.train
    if isinstance(source.args.get("path"), str):
        path = _absolute("data.source", source.args["path"])
        source = Part(name=source.name, args=source.args | {"path": path})
    files = {key: _absolute(f"split.{key}", getattr(split, key)) for key in ("file", "groups")}
    return spec.model_copy(
        update={
            "data": spec.data.model_copy(update={"source": source}),
            "split": split.model_copy(update=files),
            "train": train.model_copy(update={"init_from": _absolute("train.init_from", train.init_from)}),
        }
    )


def _absolute(key: str, path: str | None) -> str | None:
    if path is None:
        return None
    absolute = str(Path(expand_home(path)).absolute())
    if encodable(absolute) != absolute:
        raise SettingError(
            f"{key}: the path {encodable(absolute)} is not UTF-8, so that records cannot name it: rename it, or make a "
            "link of another name to it (ln -s)"
        )
    return absolute


def settings_differences(theirs: dict[str, Any], ours: dict[str, Any], prefix: str = "") -> list[str]:
    """`key: theirs -> ours` for every setting in which two trials differ."""
    lines = []
    for key in sorted({*ours, *theirs}):
        a, b = theirs.get(key), ours.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += settings_differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a} -> {b}")
    return lines


def make_spec(settings: Settings) -> Spec:
    """The Spec of merged settings; SettingError names the key, and the nearest known one where it is unknown."""
    check_numbers(settings)
    try:
        return Spec.model_validate(settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        steps = [str(step) for step in first["loc"]]
        if first["type"] == "extra_forbidden":
            raise SettingError(f"unknown setting '{'.'.join(steps)}': {_nearest_setting(steps)}") from None
        if first["type"] in ("model_type", "model_attributes_type") and steps[-1] not in PART_KEYS:
            inner = ", ".join(f"{'.'.join(steps)}.{name}" for name in _section(steps).model_fields)
            got = shortened(first["input"])
            raise SettingError(f"{'.'.join(steps)}: got {got}, but it is a section; set one of {inner}") from None
        raise SettingError(first_cause(error)) from None


def _nearest_setting(steps: list[str]) -> str:
    """Where a setting of that name is, in whatever section; else the nearest of this section's."""
    *path, key = steps
    elsewhere = [name for name in _dotted(Spec) if name.endswith(f".{key}")]
    if elsewhere:
        return f"did you mean {' or '.join(repr(name) for name in elsewhere)}?"
    return nearest(key, _section(path).model_fields)


def _dotted(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Every setting with its section before it: `train.epochs`; the arguments of parts are not known here."""
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section) and not issubclass(inner, Part):
            yield from _dotted(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _section(path: Iterable[str]) -> type[Section]:
    section: type[Section] = Spec
    for step in path:
        annotation = section.model_fields[step].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, Section)
        section = annotation
    return section
