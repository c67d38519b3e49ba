"""A study: the base settings, and the trials they stand for. Recipes, files and options merge here; no torch."""

import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dlx.arguments import first_cause
from dlx.errors import SettingError, nearest
from dlx.specs import Part, Section, Spec, parse_value, source_from_text

Settings = dict[str, Any]


class Trial(BaseModel):
    """One training run of a study: a variant's settings and a seed."""

    model_config = ConfigDict(frozen=True)

    label: str
    seed: int
    spec: Spec


class Study(BaseModel):
    """A question as data: what is trained, and with which seeds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    base: Spec
    seeds: tuple[int, ...]

    def trials(self) -> list[Trial]:
        """Every trial, seed by seed."""
        return [Trial(label=self.base.model.name, seed=seed, spec=self.base) for seed in self.seeds]


def recipe_names() -> list[str]:
    """The recipes that dlx ships, sorted."""
    files = (resources.files("dlx") / "recipes").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def read_recipe(name: str) -> Settings:
    """The settings of a shipped recipe; SettingError with the nearest name if there is none of that name."""
    if name not in recipe_names():
        raise SettingError(f"unknown recipe '{name}': {nearest(name, recipe_names())}")
    return tomllib.loads((resources.files("dlx") / "recipes" / f"{name}.toml").read_text(encoding="utf-8"))


def read_toml(path: Path) -> Settings:
    """A settings file; SettingError names the file and the line that is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{path}: not TOML: {error}") from None


def parse_assignment(text: str) -> tuple[str, Any]:
    """`train.epochs=3` as its key and value; SettingError if it is not of that form."""
    key, equals, value = text.partition("=")
    if not equals or not all(step.isidentifier() for step in key.strip().split(".")):
        raise SettingError(f"--set {text}: expected key=value, as in --set model.width=32")
    return key.strip(), parse_value(value)


def merge(*layers: Mapping[str, Any]) -> Settings:
    """Settings of several layers, later ones over earlier ones, table by table.

    A part that is named again starts from its own defaults: its old arguments do not carry over. For `model` alone a
    bare name keeps the arguments, which are the sizes (width, levels ...) that the recipe chose.
    """
    merged: Settings = {}
    for layer in layers:
        for key, value in layer.items():
            merged[key] = _merge_key(key, merged.get(key), value)
    return merged


def _merge_key(key: str, old: Any, new: Any) -> Any:
    if key == "model" and isinstance(new, str) and ":" not in new:
        return _as_table(old) | {"name": new}
    if key == "source" and isinstance(old, str):
        old = source_from_text(old)
    if not isinstance(new, Mapping):
        return new
    if "name" in new and not isinstance(new["name"], Mapping) and key != "optimizer":
        return dict(new)
    return merge(_as_table(old) if isinstance(old, str | Mapping) else {}, new)


def _as_table(value: Any) -> Settings:
    """A part as a flat table of its name and arguments; other tables as they are."""
    if value is None:
        return {}
    if isinstance(value, str):
        part = Part.model_validate(value)
        return {"name": part.name, **part.args}
    return dict(value)


def nest(assignments: Iterable[tuple[str, Any]]) -> Settings:
    """`[("train.epochs", 3)]` as `{"train": {"epochs": 3}}`; later assignments win."""
    tree: Settings = {}
    for key, value in assignments:
        *path, last = key.split(".")
        layer: Settings = {last: value}
        for step in reversed(path):
            layer = {step: layer}
        tree = merge(tree, layer)
    return tree


def make_spec(settings: Settings) -> Spec:
    """The Spec of merged settings; SettingError names the key, and the nearest known one where it is unknown."""
    try:
        return Spec.model_validate(settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "extra_forbidden":
            *path, key = [str(step) for step in first["loc"]]
            known = _section(path).model_fields
            raise SettingError(f"unknown setting '{'.'.join([*path, key])}': {nearest(key, known)}") from None
        raise SettingError(first_cause(error)) from None


def _section(path: Iterable[str]) -> type[Section]:
    section: type[Section] = Spec
    for step in path:
        annotation = section.model_fields[step].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, Section)
        section = annotation
    return section
