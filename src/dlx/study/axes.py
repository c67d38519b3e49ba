"""The axes of a study and their product, the variants. No torch."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from dlx.settings.layers import Settings, make_spec, merge, nest
from dlx.settings.part import Part, Section
from dlx.settings.spec import PART_KINDS, Spec
from dlx.settings.text import parse_grid
from dlx.system.errors import SettingError

Overrides = Mapping[str, Any]  # nested settings


class Variant(BaseModel):
    """One combination of the axes' points: its label, its value on each axis, and its settings."""

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
            raise ValueError("an axis takes one of: key with values, keys with rows of values, name with tables")
        if not self.tables and not self.values:
            raise ValueError("an axis needs at least one value")
        if self.keys is not None and any(
            not isinstance(r, list | tuple) or len(r) != len(self.keys) for r in self.values
        ):
            raise ValueError(f"paired axes: expected rows of {len(self.keys)} values, one for each key")
        for table in self.tables:
            if not isinstance(table.get("label"), str):
                raise ValueError("each table of an axis needs a label")
        return self

    @property
    def title(self) -> str:
        """The name of the axis in figures and tables; without a name, the keys that it sets."""
        return self.name or self.key or "+".join(self.keys or ()) or "variant"

    def points(self) -> Iterator[tuple[str, Any, Overrides]]:
        """The label, the value and the settings of each point."""
        for table in self.tables:
            yield table["label"], table["label"], {key: value for key, value in table.items() if key != "label"}
        for value in self.values:
            if self.key is not None:
                yield f"{_label_prefix(self.key)}{spell_value(value)}", value, nest([(self.key, value)])
            elif self.keys is not None:
                pieces = [f"{_label_prefix(key)}{spell_value(v)}" for key, v in zip(self.keys, value, strict=True)]
                yield ", ".join(pieces), " ".join(map(str, value)), nest(zip(self.keys, value, strict=True))


def _label_prefix(key: str) -> str:
    """What precedes a value in a label: `p=` for dropout.p, nothing for a part, whose name is enough.

    `init` is the exception: the label `torch` alone would be unclear.
    """
    names_part = key in PART_KINDS or key.removesuffix(".name") in PART_KINDS
    return "" if names_part and key != "init" else f"{key.rpartition('.')[2]}="


def spell_value(value: Any) -> str:
    """A value on an axis as labels show it: `dice:smooth=1` for a part, `none`, `true`."""
    if isinstance(value, Mapping) and "name" in value:
        return str(Part.model_validate(dict(value)))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def make_variants(settings: Settings, axes: Sequence[Axis]) -> tuple[Variant, ...]:
    """The product of the axes over base settings, each combination checked; without axes one variant.

    If one variant has to be validated in every epoch, all of them are. SettingError for a combination of settings that
    is not valid, and for two variants of one label.
    """
    variants: list[Variant] = []
    for points in itertools.product(*(list(axis.points()) for axis in axes)):
        label = ", ".join(point[0] for point in points)
        values = {axis.title: point[1] for axis, point in zip(axes, points, strict=True)}
        try:
            spec = make_spec(merge(settings, *(point[2] for point in points)))
        except SettingError as error:
            raise SettingError(f"variant '{label}': {error}" if label else str(error)) from None
        if any(label == variant.label for variant in variants):
            raise SettingError(f"axes: two variants are named '{label}'")
        variants.append(Variant(label=label or spec.model.name, values=values, spec=spec))
    return _validating_alike(variants)


def _validating_alike(variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """The variants, all validated in every epoch if one of them depends on it (plateau, patience)."""
    need_every_epoch = any(v.spec.scheduler.name == "plateau" or v.spec.train.patience is not None for v in variants)
    if len(variants) == 1 or not need_every_epoch:
        return tuple(variants)
    alike = []
    for variant in variants:
        spec = variant.spec
        if spec.evaluate.every is None:
            spec = spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update={"every": 1})})
        alike.append(variant.model_copy(update={"spec": spec}))
    return tuple(alike)
