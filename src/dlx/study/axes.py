"""The axes of a study, and the variants that they multiply to. No torch."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from dlx.settings.layers import Settings, make_spec, merge, nest
from dlx.settings.ranges import parse_grid
from dlx.settings.spec import Part, Section, Spec
from dlx.system.errors import SettingError

Overrides = Mapping[str, Any]  # nested settings


class Variant(BaseModel):
    """One point of the axes: its label, its value on each axis, and its settings."""

    model_config = ConfigDict(frozen=True)

    label: str
    values: dict[str, Any] = {}
    spec: Spec


class Axis(Section):
    """What a study varies.

    `key` with `values` (a list, or a grid such as `0.1..0.8`); `keys` with rows of `values`, one for each key (paired
    axes); or `name` with `tables`, each a `label` and any settings.
    """

    name: str = ""
    key: str | None = None
    keys: tuple[str, ...] | None = None
    values: Annotated[tuple[Any, ...], BeforeValidator(lambda v: parse_grid(v) if isinstance(v, str) else v)] = ()
    tables: tuple[dict[str, Any], ...] = ()

    @model_validator(mode="after")
    def _is_one_of_three(self) -> Self:
        if sum((self.key is not None, self.keys is not None, bool(self.tables))) != 1:
            raise ValueError("an axis has one of: key with values, keys with rows of values, name with tables")
        if not self.tables and not self.values:
            raise ValueError("an axis needs at least one value")
        if self.keys is not None and any(
            not isinstance(r, list | tuple) or len(r) != len(self.keys) for r in self.values
        ):
            raise ValueError(f"paired axes: each row of values has {len(self.keys)} of them, one for each key")
        for table in self.tables:
            if not isinstance(table.get("label"), str):
                raise ValueError("each table of an axis needs a label")
        return self

    @property
    def title(self) -> str:
        """What figures and tables call the axis: its name, else the keys it sets."""
        return self.name or self.key or "+".join(self.keys or ()) or "variant"

    def points(self) -> Iterator[tuple[str, Any, Overrides]]:
        """The label, the value and the settings of each point."""
        for table in self.tables:
            yield table["label"], table["label"], {key: value for key, value in table.items() if key != "label"}
        for value in self.values:
            if self.key is not None:
                yield f"{_short(self.key)}{_spell(value)}", value, nest([(self.key, value)])
            elif self.keys is not None:
                pieces = [f"{_short(key)}{_spell(v)}" for key, v in zip(self.keys, value, strict=True)]
                yield ", ".join(pieces), " ".join(map(str, value)), nest(zip(self.keys, value, strict=True))


def _short(key: str) -> str:
    """What stands before a value in a label: `p=` for dropout.p, nothing for a part, which says its own name."""
    last = key.split(".")[-1]
    return "" if last in ("model", "scheduler", "loss", "source", "normalize", "name") else f"{last}="


def _spell(value: Any) -> str:
    if isinstance(value, Mapping) and "name" in value:
        return str(Part.model_validate(dict(value)))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def make_variants(settings: Settings, axes: Sequence[Axis]) -> tuple[Variant, ...]:
    """The product of the axes over base settings, each combination checked; one unnamed variant without axes.

    A setting that all must share because one of them needs it is set for all: validating in every epoch. Raises
    SettingError for a combination that cannot be, naming it, and for two of one label.
    """
    found: list[tuple[str, dict[str, Any], Settings]] = []
    for points in itertools.product(*(list(axis.points()) for axis in axes)):
        label = ", ".join(point[0] for point in points)
        values = {axis.title: point[1] for axis, point in zip(axes, points, strict=True)}
        found.append((label, values, merge(settings, *(point[2] for point in points))))
    labels = [label for label, _, _ in found]
    for label in labels:
        if labels.count(label) > 1:
            raise SettingError(f"the axes give two variants of the name '{label}'")
    variants = []
    for label, values, merged in found:
        try:
            spec = make_spec(merged)
        except SettingError as error:
            raise SettingError(f"variant '{label}': {error}" if label else str(error)) from None
        variants.append(Variant(label=label or spec.model.name, values=values, spec=spec))
    return _validating_alike(variants)


def _validating_alike(variants: Sequence[Variant]) -> tuple[Variant, ...]:
    watched = any(v.spec.scheduler.name == "plateau" or v.spec.train.patience is not None for v in variants)
    if len(variants) == 1 or not watched:
        return tuple(variants)
    alike = []
    for variant in variants:
        spec = variant.spec
        if spec.evaluate.every is None:
            spec = spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update={"every": 1})})
        alike.append(variant.model_copy(update={"spec": spec}))
    return tuple(alike)
