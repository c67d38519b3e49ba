"""Layers of settings, nested tables from recipes, files and options: read, merged and made into a Spec. No torch."""

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dlx.settings import registry
from dlx.settings.binding import first_cause, spelled_key
from dlx.settings.own.names import own_name
from dlx.settings.part import Part, is_dumped
from dlx.settings.spec import PART_KINDS, SPLIT_WAYS, Spec, setting_fields, source_from_text
from dlx.settings.text import parse_value, shorten
from dlx.system.characters import encodable
from dlx.system.errors import SettingError, nearest
from dlx.system.files import expand_home

Settings = dict[str, Any]


def recipe_names() -> list[str]:
    """The recipes that dlx ships, sorted."""
    files = (resources.files("dlx.settings") / "recipes").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def read_recipe(name: str) -> Settings:
    """The settings of a shipped recipe; SettingError, with the nearest name, if it is unknown."""
    if name not in recipe_names():
        raise SettingError(f"unknown recipe '{name}': {nearest(name, recipe_names())}")
    return tomllib.loads((resources.files("dlx.settings") / "recipes" / f"{name}.toml").read_text(encoding="utf-8"))


def read_toml(path: Path) -> Settings:
    """The content of a TOML file; SettingError names the file, and the line if it is not TOML."""
    text = _read_text(path)
    try:
        document = tomllib.loads(text)
        check_numbers(document)
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{path}: not TOML: {error}{_toml_hint(text, str(error))}") from None
    except ValueError:  # from int(), which refuses more than 4,300 digits
        raise SettingError(f"{path}: not TOML: a whole number of thousands of digits") from None
    except RecursionError:
        raise SettingError(f"{path}: not TOML: nested too deeply") from None
    return document


def _read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without the byte order mark that Windows editors write."""
    try:
        if path.is_dir():
            raise SettingError(f"{path}: cannot be read: a folder (expected a TOML file)")
        content = path.read_bytes()
    except OSError as error:
        raise SettingError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        encoding = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else f"not UTF-8 (line {line})"
        raise SettingError(f"{path}: cannot be read: the text is {encoding}: save it as UTF-8") from None


def _toml_hint(text: str, cause: str) -> str:
    """What to write instead, for frequent mistakes; empty for others."""
    found = re.search(r"at line (\d+)", cause)
    lines = text.splitlines()
    if found is None or int(found[1]) > len(lines):
        return ""
    line = lines[int(found[1]) - 1]
    if re.search(r'"[^"]*\\', line):
        return "; write / for \\ in a path, or put the path in single quotes: 'C:\\data'"
    if re.search(r"=\s*[-+]?\d+,\d", line):
        return "; write a decimal number with a point, as in 0.001"
    if re.search("[\u2018\u2019\u201c\u201d]", line):
        return '; write straight quotes, as in "dice"'
    if re.search(r"=\s*[A-Za-z_./~]", line) and not re.search(r"=\s*(true|false|inf|nan)\b", line):
        return '; write a text in quotes, as in loss = "dice"'
    return ""


def check_numbers(value: Any, where: str = "") -> None:
    """Refuses numbers that no setting accepts: infinities, NaN, and integers of more than 64 bits."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_numbers(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            check_numbers(item, where)
    elif isinstance(value, float) and not math.isfinite(value):
        raise SettingError(f"{where}: {value} is not finite")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise SettingError(f"{where}: {shorten(repr(value))} is too large")


def parse_assignment(text: str) -> tuple[str, Any]:
    """`train.epochs=3` as its key and value; SettingError for a text of another form."""
    key, equals, value = text.partition("=")
    if not equals or not all(step.isidentifier() for step in key.strip().split(".")):
        raise SettingError(f"--set {text}: expected key=value, as in --set model.width=32")
    return key.strip(), parse_value(value)


def merge(*layers: Mapping[str, Any]) -> Settings:
    """The settings of several layers; a later layer overrides an earlier one, setting by setting.

    A part that a later layer names starts from its own defaults: the arguments of the earlier part are dropped. Two
    bare names keep them: a `model` of the same module as the earlier one (its sizes, such as width and levels, are the
    recipe's choice), and `phantom` over a phantom. A way of splitting (val, fold, val_fraction, file) replaces the
    earlier one. SettingError where one layer has a table and the other a value.
    """
    merged: Settings = {}
    for layer in layers:
        merged = _merge_tables(merged, layer, "", is_one_layer=False)
    return merged


def with_one_thread(settings: Settings) -> Settings:
    """The settings with compute.threads = 1 as a default, so that several trials run at once on a CPU."""
    return merge({"compute": {"threads": 1}}, settings)


def nest(assignments: Iterable[tuple[str, Any]]) -> Settings:
    """`[("train.epochs", 3)]` as `{"train": {"epochs": 3}}`: one layer; the order of the keys does not matter.

    If a key is given twice, the later value is taken.
    """
    tree: Settings = {}
    for key, value in assignments:
        *path, last = key.split(".")
        layer: Settings = {last: value}
        for step in reversed(path):
            layer = {step: layer}
        tree = _merge_tables(tree, layer, "", is_one_layer=True)
    return tree


def _merge_tables(old: Settings, new: Mapping[str, Any], key: str, *, is_one_layer: bool) -> Settings:
    """The new table over the old one; `key` is their dotted key, empty for the whole tree."""
    if key == "split" and not is_one_layer:
        old = _without_replaced_ways(old, new)
    merged = dict(old)
    for name, value in new.items():
        inner = f"{key}.{name}" if key else name
        merged[name] = _merge_value(old.get(name), value, inner, is_one_layer=is_one_layer)
    return merged


def _merge_value(old: Any, new: Any, key: str, *, is_one_layer: bool) -> Any:
    if is_one_layer:
        if isinstance(new, str) and isinstance(old, Mapping) and key in PART_KINDS:
            return _as_table(old, key) | _as_table(new, key)
    elif key == "model" and _is_bare_name(new):
        before, after = _as_table(old, key), _as_table(new, key)
        return before | after if _share_a_module(before.get("name"), after["name"]) else after
    elif key == "data.source" and new == "phantom":
        before = _as_table(old, key)
        return before if before.get("name") == new else new
    elif isinstance(new, Mapping) and key in PART_KINDS and "name" in new:
        return _as_table(new, key)
    if not isinstance(new, Mapping):
        return new
    return _merge_tables(_as_table(old, key), new, key, is_one_layer=is_one_layer)


def _is_bare_name(value: Any) -> bool:
    return ":" not in value if isinstance(value, str) else isinstance(value, Mapping) and set(value) == {"name"}


def _share_a_module(model: Any, other: Any) -> bool:
    """Whether two networks are of one module, and so take the same sizes; unknown names, refused later, are ignored."""
    own = [name for name in (model, other) if isinstance(name, str) and own_name(name) is not None]
    if own:
        return bool(model == other)
    modules = {registry.PARTS["model"].get(name, "").partition(":")[0] for name in (model, other)}
    return len(modules - {""}) <= 1


def _as_table(value: Any, key: str) -> Settings:
    """A part, in whatever form it is given, as a flat table of its name and arguments; other tables unchanged."""
    if value is None:
        return {}
    is_part = is_dumped(value) and "args" in value and isinstance(value.get("name"), str)
    if key in PART_KINDS and (isinstance(value, str) or is_part):
        part = Part.model_validate(source_from_text(value) if key == "data.source" else value)
        return {"name": part.name, **part.args}
    if not isinstance(value, Mapping):
        raise SettingError(f"{key}: given as a table and as {shorten(repr(value))}")
    return dict(value)


def _without_replaced_ways(old: Settings, new: Mapping[str, Any]) -> Settings:
    """The split of an earlier layer, without the way of splitting that a later layer replaces.

    `fold` alone picks another fold of the earlier `folds` or `file`.
    """
    ways = {way for way in SPLIT_WAYS if new.get(way) is not None}
    if not ways:
        return old
    replaced = {*SPLIT_WAYS, "folds"}
    if ways == {"fold"} and new.get("folds") is None:
        replaced -= {"folds", "file"}
    return {key: value for key, value in old.items() if key not in replaced}


def with_absolute_paths(spec: Spec) -> Spec:
    """The spec with each path absolute and `~` expanded: no path of a setting is resolved anywhere else.

    So a run can be resumed from another folder.
    """
    source, path = spec.data.source, spec.data.path
    if path is not None:
        source = Part(name=source.name, args=source.args | {"path": _absolute("data.source", str(path))})
    files = {key: _absolute(f"split.{key}", getattr(spec.split, key)) for key in ("file", "groups")}
    init_from = _absolute("train.init_from", spec.train.init_from)
    return spec.model_copy(
        update={
            "data": spec.data.model_copy(update={"source": source}),
            "split": spec.split.model_copy(update=files),
            "train": spec.train.model_copy(update={"init_from": init_from}),
        }
    )


def _absolute(key: str, path: str | None) -> str | None:
    if path is None:
        return None
    absolute = str(Path(expand_home(path)).absolute())
    if encodable(absolute) != absolute:
        raise SettingError(
            f"{key}: the path {encodable(absolute)} is not UTF-8 and cannot be written into records: rename it, or "
            "make a link with another name (ln -s)"
        )
    return absolute


def settings_differences(theirs: dict[str, Any], ours: dict[str, Any], prefix: str = "") -> list[str]:
    """`key: theirs -> ours` for every setting that differs between two trials."""
    lines = []
    for key in sorted({*ours, *theirs}):
        a, b = theirs.get(key), ours.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += settings_differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a} -> {b}")
    return lines


def make_spec(settings: Settings) -> Spec:
    """The Spec of merged settings; SettingError names the key, and the nearest known one if it is unknown.

    A network of the user's own keeps the rates of its dropout modules if the settings give none.
    """
    check_numbers(settings)
    try:
        return _with_own_rates(Spec.model_validate(settings))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = spelled_key(first["loc"])
        if first["type"] == "extra_forbidden":
            raise SettingError(f"unknown setting '{key}': {_nearest_setting(key)}") from None
        inner = [setting.key for setting in setting_fields() if setting.key.startswith(f"{key}.")]
        if inner and first["type"] in ("model_type", "model_attributes_type"):
            got = shorten(repr(first["input"]))
            raise SettingError(f"{key}: a section, not a setting (got {got}); set one of {', '.join(inner)}") from None
        raise SettingError(first_cause(error)) from None


def _with_own_rates(spec: Spec) -> Spec:
    if spec.dropout.own_rates and not spec.model.is_own:
        raise SettingError(f"dropout.own_rates: for a network of your own, not for '{spec.model.name}': leave it out")
    if not spec.model.is_own or spec.dropout.model_fields_set & {"p", "own_rates"}:
        return spec
    return spec.model_copy(update={"dropout": spec.dropout.model_copy(update={"own_rates": True})})


def _nearest_setting(key: str) -> str:
    """The settings of this name in other sections; without one the nearest name in the same section."""
    known = [setting.key for setting in setting_fields()]
    section, dot, name = key.rpartition(".")
    elsewhere = [other for other in known if other.endswith(f".{name}")]
    if elsewhere:
        return f"did you mean {' or '.join(repr(other) for other in elsewhere)}?"
    prefix = section + dot
    siblings = {other.removeprefix(prefix).partition(".")[0] for other in known if other.startswith(prefix)}
    return nearest(name, siblings, prefix)
