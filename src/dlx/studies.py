"""A study: a question as data. Base settings, axes that multiply, a control, seeds, and the claims declared beforehand.

A study comes from a command (`sweep-dropout` replaces one axis) or from a TOML file; either way it is the same object,
and its trials are the product of its variants and its seeds. No torch.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from dlx.arguments import first_cause
from dlx.errors import SettingError, nearest
from dlx.ranges import parse_grid
from dlx.settings import Settings, make_spec, merge, nest
from dlx.specs import Part, Section, Spec
from dlx.study_claims import Claim
from dlx.study_metrics import Direction, Metric, direction_of, why_unmeasured

SMALLEST_EFFECT = 0.01  # Dice: what a user would hardly call a difference, and repeats of a network often differ by
DEFAULT_SEEDS = 5
MOST_SEEDS = 10_000


class Variant(BaseModel):
    """One point of the axes: its label, its value on each axis, and its settings."""

    model_config = ConfigDict(frozen=True)

    label: str
    values: dict[str, Any] = {}
    spec: Spec


class Trial(BaseModel):
    """One training run of a study: a variant and a seed."""

    model_config = ConfigDict(frozen=True)

    label: str
    seed: int
    spec: Spec


class Study(BaseModel):
    """A question as data: what is compared with what, on how many seeds, and by which figure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    question: str = ""
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    axes: tuple[str, ...] = ()
    control: str | None = None
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    metric: Metric = "val_dice"
    direction: Direction | None = None  # which is better; None: what the metric says
    smallest_effect: Annotated[float, Field(gt=0.0)] = SMALLEST_EFFECT
    claims: tuple[Claim, ...] = ()

    @property
    def base(self) -> Spec:
        """The control's settings, or those of the first variant."""
        chosen = [variant for variant in self.variants if variant.label == self.control]
        return (chosen or self.variants)[0].spec

    def trials(self) -> list[Trial]:
        """Every trial, seed by seed: after each whole seed there is a comparison to look at."""
        return [Trial(label=v.label, seed=seed, spec=v.spec) for seed in self.seeds for v in self.variants]


Overrides = Mapping[str, Any]  # nested settings


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


class StudyFile(Section):
    """A study as a TOML file has it; `base` holds settings over those of `recipe`."""

    question: str = ""
    recipe: str = "quick"
    base: Annotated[dict[str, Any], Field(default_factory=dict)]
    axes: tuple[Axis, ...]
    control: str | None = None
    seeds: int | tuple[int, ...] = DEFAULT_SEEDS
    metric: Metric = "val_dice"
    direction: Direction | None = None  # which is better; None: what the metric says
    smallest_effect: Annotated[float, Field(gt=0.0)] = SMALLEST_EFFECT
    claims: tuple[Claim, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _axes_of_one_key_each(cls, value: Any) -> Any:
        """`[axes]` with `"dropout.p" = [0, 0.1]` is short for `[[axes]]` with key and values."""
        if isinstance(value, dict) and isinstance(value.get("axes"), dict):
            for key, values in value["axes"].items():
                if isinstance(values, dict):  # dropout.p = [...], which TOML takes for a table `dropout`
                    raise ValueError(f"[axes]: a key with a dot is written in quotes: {_quoted(key, values)} = [...]")
            return value | {"axes": [{"key": key, "values": values} for key, values in value["axes"].items()]}
        return value


def _quoted(key: str, values: Any) -> str:
    """The dotted key that a table of tables stands for, as TOML must have it."""
    while isinstance(values, dict) and values:
        step, values = next(iter(values.items()))
        key = f"{key}.{step}"
    return f'"{key}"'


def read_study_file(document: Settings, path: Path) -> StudyFile:
    """The study in a TOML document; SettingError names the file, and what in it is unknown or does not fit."""
    try:
        return StudyFile.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            raise SettingError(f"{path}: unknown key {nearest_key(str(first['loc'][0]))}") from None
        raise SettingError(f"{path}: {first_cause(error)}") from None


def nearest_key(key: str) -> str:
    return f"'{key}': {nearest(key, StudyFile.model_fields)}"


def study_from_file(file: StudyFile, name: str, settings: Settings, **changes: Any) -> Study:
    """The study of a file over merged settings; `changes` (seeds, smallest_effect) replace what the file says."""
    if isinstance(file.seeds, int) and not 1 <= file.seeds <= MOST_SEEDS:
        raise SettingError(f"seeds: {file.seeds}, and expected are 1 to {MOST_SEEDS}")
    fields: dict[str, Any] = {
        "question": file.question,
        "control": file.control,
        "seeds": tuple(range(file.seeds)) if isinstance(file.seeds, int) else file.seeds,
        "metric": file.metric,
        "direction": file.direction,
        "smallest_effect": file.smallest_effect,
        "claims": file.claims,
    }
    axes = tuple(axis.title for axis in file.axes)
    return make_study(name=name, variants=make_variants(settings, file.axes), axes=axes, **fields | changes)


def make_study(**fields: Any) -> Study:
    """A Study whose control and claims name variants that it has; SettingError where they do not.

    Without a control the first of several variants is it; without a direction the metric's own is.
    """
    try:
        study = Study(**fields)
    except ValidationError as error:
        raise SettingError(first_cause(error)) from None
    if len(set(study.seeds)) != len(study.seeds) or min(study.seeds) < 0:
        raise SettingError("seeds: none may be there twice, and none below 0")
    study = study.model_copy(update={"direction": direction_of(study.metric, study.direction)})
    labels = [variant.label for variant in study.variants]
    if study.control is None and len(labels) > 1:
        study = study.model_copy(update={"control": labels[0]})
    if study.control is not None and study.control not in labels:
        raise SettingError(f"no variant '{study.control}' to be the control: {nearest(study.control, labels)}")
    check_claims(study.claims, {v.label: v.values for v in study.variants}, study.axes, study.base.train.epochs)
    return study


def check_measured(study: Study, specs: Mapping[str, Spec]) -> None:
    """Refuses a study whose trials, as resolved (variant -> spec), would not measure what it or a claim compares by."""
    for label, spec in specs.items():
        asked: list[tuple[str, str, tuple[int, int] | None]] = []
        if len(study.variants) > 1:
            asked.append((f"metric '{study.metric}'", study.metric, None))
        for claim in study.claims:
            if label in claim.concerns(list(specs), study.control):
                name = f"claim '{claim.text}'"
                asked += [(name, claim.metric, window) for window in claim.windows or (None,)]
        for name, metric, window in asked:
            lack = why_unmeasured(metric, spec.evaluate, spec.train.epochs, window)
            if lack is not None:
                raise SettingError(f"{name}: {lack[0]}: set {lack[1]}")


def check_claims(
    claims: Sequence[Claim], variants: Mapping[str, Mapping[str, Any]], axes: Sequence[str], epochs: int
) -> None:
    """Raises SettingError for a claim about what the study does not have.

    `variants`: each label with its value on each axis.
    """
    for claim in claims:
        for label in (claim.variant, claim.than, *(claim.among or ())):
            if label is not None and label not in variants:
                raise SettingError(f"claim '{claim.text}': no variant '{label}': {nearest(label, variants)}")
        if claim.kind in ("rises", "falls"):
            _check_trend(claim, variants, axes)
        if claim.kind == "best" and len(variants) < 2:
            raise SettingError(f"claim '{claim.text}': there is no other variant")
        for window in claim.windows:
            if window[1] > epochs:
                raise SettingError(f"claim '{claim.text}': epoch {window[1]} of {epochs}")


def _check_trend(claim: Claim, variants: Mapping[str, Mapping[str, Any]], axes: Sequence[str]) -> None:
    axis = claim.axis or (axes[0] if len(axes) == 1 else None)
    if axis is None or axis not in axes:
        raise SettingError(f"claim '{claim.text}': axis must be one of {', '.join(axes) or 'none'}")
    chosen = [values for label, values in variants.items() if claim.among is None or label in claim.among]
    if len(chosen) < 2 or not all(isinstance(values.get(axis), int | float) for values in chosen):
        raise SettingError(f"claim '{claim.text}': a trend needs two or more numbers on the axis '{axis}'")
