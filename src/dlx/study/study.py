"""A study: its variants, control, seeds and metric, and the claims that are declared before it runs.

A study comes from a command, such as `sweep-dropout`, or from a TOML file; both give the same object. Its trials are
the product of its variants and its seeds. No torch.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from dlx.settings.binding import first_cause
from dlx.settings.layers import Settings
from dlx.settings.part import Section
from dlx.settings.spec import ALL_FOLDS, Spec
from dlx.study.axes import Axis, Variant, make_variants
from dlx.study.claims import Claim
from dlx.study.continued import Continued
from dlx.study.metrics import Direction, StudyMetric, check_class, direction_of, why_unmeasured
from dlx.study.run_id import RunId, spell_run
from dlx.study.scope import Scope
from dlx.system.errors import SettingError, nearest

SMALLEST_EFFECT = 0.01  # Dice: repeats of one network often differ by as much, and few users would care
DEFAULT_SEEDS = 5
MAX_SEEDS = 10_000  # a larger number is most likely a typing error


class Trial(BaseModel):
    """One training run of a study: a variant and a seed, in cross-validation also a fold."""

    model_config = ConfigDict(frozen=True)

    label: str
    seed: int
    spec: Spec
    fold: int | None = None

    @property
    def run(self) -> RunId:
        """The name of the trial among those of its variant."""
        return self.seed if self.fold is None else (self.fold, self.seed)

    @property
    def name(self) -> str:
        """`p=0.1, seed 3`, in cross-validation `p=0.1, fold 1 seed 3`."""
        return f"{self.label}, {spell_run(self.run)}"


class Declaration(Section):
    """What is declared of a study before it runs, by a command or in a file."""

    question: str = ""
    control: str | None = None
    metric: StudyMetric = "val_dice"
    direction: Direction | None = None  # None: the metric's own
    smallest_effect: Annotated[float, Field(gt=0.0)] = SMALLEST_EFFECT
    scope: Scope | None = None  # for whom verdicts are to hold; None: the widest that the design carries
    claims: tuple[Claim, ...] = ()


class Study(Declaration):
    """What is compared with what, on which seeds, and by which metric.

    `folds` are those of cross-validation (`split.fold` "all"); their number may depend on a file, so a plan sets them.
    `continued`: the trials of an earlier run that these continue; None if they start from the first epoch.
    """

    name: str
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    axes: tuple[str, ...] = ()
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    folds: tuple[int, ...] = ()
    continued: Continued | None = None

    @property
    def base(self) -> Spec:
        """The control's settings, or those of the first variant."""
        chosen = [variant for variant in self.variants if variant.label == self.control]
        return (chosen or self.variants)[0].spec

    def trials(self) -> list[Trial]:
        """Every trial, seed by seed, then fold by fold: when one is finished, its variants can be compared."""
        return [
            Trial(label=v.label, seed=seed, fold=fold, spec=in_fold(v.spec, fold))
            for seed in self.seeds
            for fold in self.splits
            for v in self.variants
        ]

    @property
    def splits(self) -> tuple[int | None, ...]:
        """The folds, or None alone, as the one split of a study without cross-validation."""
        return self.folds or (None,)


def in_fold(spec: Spec, fold: int | None) -> Spec:
    """The settings of one fold of cross-validation: those of a run with this fold alone."""
    return spec if fold is None else spec.model_copy(update={"split": spec.split.model_copy(update={"fold": fold})})


def _seeds(value: Any) -> Any:
    """Refuses a value that is neither a number of seeds nor a list of seeds, with one message for both."""
    numbers = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        raise ValueError(f"expected a number of seeds (5) or a list of seeds ([0, 3, 7]) (got {value!r})")
    return value


class StudyFile(Declaration):
    """The content of a study's TOML file; the settings in `base` override those of `recipe`."""

    recipe: str = "quick"
    base: Annotated[dict[str, Any], Field(default_factory=dict)]
    axes: tuple[Axis, ...]
    seeds: Annotated[int | tuple[int, ...], BeforeValidator(_seeds)] = DEFAULT_SEEDS

    @model_validator(mode="before")
    @classmethod
    def _axes_of_one_key_each(cls, value: Any) -> Any:
        """Reads `[axes]` with `"dropout.p" = [0, 0.1]` as `[[axes]]` with key and values."""
        if isinstance(value, dict) and isinstance(value.get("axes"), dict):
            for key, values in value["axes"].items():
                if isinstance(values, dict):  # dropout.p = [...], which TOML reads as a table `dropout`
                    raise ValueError(f"[axes]: write a key with a dot in quotes: {_quoted(key, values)} = [...]")
            return value | {"axes": [{"key": key, "values": values} for key, values in value["axes"].items()]}
        return value

    @model_validator(mode="before")
    @classmethod
    def _claims_of_its_metric(cls, value: Any) -> Any:
        """Gives a claim without a metric that of the study."""
        if isinstance(value, dict) and isinstance(value.get("claims"), list):
            metric = value.get("metric", cls.model_fields["metric"].default)
            claims = [{"metric": metric} | claim if isinstance(claim, dict) else claim for claim in value["claims"]]
            return value | {"claims": claims}
        return value


def _quoted(key: str, values: Any) -> str:
    """The dotted key that nested tables spell, in the quotes that TOML needs."""
    while isinstance(values, dict) and values:
        step, values = next(iter(values.items()))
        key = f"{key}.{step}"
    return f'"{key}"'


def read_study_file(document: Settings, path: Path) -> StudyFile:
    """The study in a TOML document; SettingError names the file, and the key that is unknown or has a wrong value."""
    try:
        return StudyFile.model_validate(document)
    except ValidationError as error:
        unknown = [e["loc"][0] for e in error.errors() if e["type"] == "extra_forbidden" and len(e["loc"]) == 1]
        if unknown:  # before missing keys: a misspelt key is unknown and its right name missing
            raise SettingError(f"{path}: unknown key {nearest_key(str(unknown[0]))}") from None
        raise SettingError(f"{path}: {first_cause(error)}") from None


def nearest_key(key: str) -> str:
    return f"'{key}': {nearest(key, StudyFile.model_fields)}"


def study_from_file(file: StudyFile, name: str, settings: Settings, **changes: Any) -> Study:
    """The study of a file over merged settings; `changes` (seeds, smallest_effect) override those of the file."""
    if isinstance(file.seeds, int) and not 1 <= file.seeds <= MAX_SEEDS:
        raise SettingError(f"seeds: {file.seeds} is out of range (expected 1 to {MAX_SEEDS:,})")
    fields = {key: getattr(file, key) for key in Declaration.model_fields}
    fields["seeds"] = tuple(range(file.seeds)) if isinstance(file.seeds, int) else file.seeds
    axes = tuple(axis.title for axis in file.axes)
    return make_study(name=name, variants=make_variants(settings, file.axes), axes=axes, **fields | changes)


def make_study(**fields: Any) -> Study:
    """A Study; SettingError if its control or a claim names a variant that it does not have.

    By default the control is the first of several variants, and the direction is that of the metric.
    """
    try:
        study = Study(**fields)
    except ValidationError as error:
        raise SettingError(first_cause(error)) from None
    if len(set(study.seeds)) != len(study.seeds) or min(study.seeds) < 0:
        raise SettingError("seeds: no seed may be given twice or be below 0")
    _check_folds(study)
    study = study.model_copy(update={"direction": direction_of(study.metric, study.direction)})
    labels = [variant.label for variant in study.variants]
    if study.control is None and len(labels) > 1:
        study = study.model_copy(update={"control": labels[0]})
    if study.control is not None and study.control not in labels:
        raise SettingError(f"control: no variant '{study.control}': {nearest(study.control, labels)}")
    check_claims(study.claims, {v.label: v.values for v in study.variants}, study.axes, study.base.train.epochs)
    return study


def _check_folds(study: Study) -> None:
    """Refuses variants that cross different folds."""
    ways = {(v.spec.split.fold, v.spec.split.folds, v.spec.split.file) for v in study.variants}
    if len(ways) > 1 and any(fold == ALL_FOLDS for fold, *_ in ways):
        raise SettingError(
            f"split.fold: with {ALL_FOLDS} every variant is trained in the same folds, so no axis may set split.fold, "
            "split.folds or split.file"
        )


def check_classes(study: Study, classes: Collection[str]) -> None:
    """Refuses a study whose metric, or that of a claim, names a class that the data do not have."""
    check_class(study.metric, classes)
    for claim in study.claims:
        try:
            check_class(claim.metric, classes)
        except SettingError as error:
            raise SettingError(f"claim '{claim.text}': {error}") from None


def check_measured(study: Study, specs: Mapping[str, Spec]) -> None:
    """Refuses a study whose trials (variant -> resolved spec) would not measure its metric or that of a claim."""
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
    """Refuses claims about variants, axes or epochs that the study does not have.

    `variants`: each label with its value on each axis.
    """
    for claim in claims:
        for label in (claim.variant, claim.than, *(claim.among or ())):
            if label is not None and label not in variants:
                raise SettingError(f"claim '{claim.text}': no variant '{label}': {nearest(label, variants)}")
        if claim.kind in ("rises", "falls"):
            _check_trend(claim, variants, axes)
        if claim.kind == "best" and len(variants) < 2:
            raise SettingError(f"claim '{claim.text}': 'best' needs two or more variants")
        for window in claim.windows:
            if window[1] > epochs:
                raise SettingError(f"claim '{claim.text}': the window ends in epoch {window[1]} of {epochs}")


def _check_trend(claim: Claim, variants: Mapping[str, Mapping[str, Any]], axes: Sequence[str]) -> None:
    axis = claim.axis or (axes[0] if len(axes) == 1 else None)
    if axis is None or axis not in axes:
        raise SettingError(f"claim '{claim.text}': axis must be one of {', '.join(axes) or 'none'}")
    chosen = [values.get(axis) for label, values in variants.items() if claim.among is None or label in claim.among]
    if not all(isinstance(value, int | float) for value in chosen) or len(set(chosen)) < 2:
        raise SettingError(f"claim '{claim.text}': a trend needs two or more different numbers on the axis '{axis}'")
