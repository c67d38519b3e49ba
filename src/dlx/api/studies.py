"""Studies made in Python: read from a TOML file, or from axes and settings. They are run by `dlx.api.runs`."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from dlx.api.arguments import Location, Seeds, as_axes, as_layers, as_name, as_path, as_seeds
from dlx.settings.layers import Settings, make_spec, read_toml, with_one_thread
from dlx.settings.own.named import names_in
from dlx.settings.own.names import canonical_name
from dlx.settings.short_names import DEFAULT_RECIPE, NamedSettings
from dlx.study.axes import Variant, make_variants
from dlx.study.own_code import with_code_of_study
from dlx.study.study import DEFAULT_SEEDS, SMALLEST_EFFECT, Study, read_study_file, study_from_file
from dlx.study.study import make_study as check_study


def load_study(
    path: Location,
    *,
    seeds: Seeds | None = None,
    smallest_effect: float | None = None,
    scope: str | None = None,
    settings: Mapping[str, Any] | None = None,
    trust_code: bool = False,
    **named: Unpack[NamedSettings],
) -> Study:
    """The study that a TOML file describes, as `dlx run` reads it.

    `seeds`, `smallest_effect` and `scope` override those of the file; settings by short name (`epochs=5`) and
    `settings`, by full name (`{"model.width": 8}`), override its base settings, not its axes. Trials get one CPU thread
    each, so that several run at once, unless the settings say otherwise. With `trust_code`, the code of networks of
    your own that the file names is loaded. Raises SettingError.
    """
    file = as_path("path", path)
    described = read_study_file(read_toml(file), file)
    layers = as_layers(described.recipe, named, settings, described.base)
    changes: dict[str, Any] = {"smallest_effect": smallest_effect, "scope": scope}
    if seeds is not None:
        changes["seeds"] = as_seeds(seeds)
    given = {key: value for key, value in changes.items() if value is not None}
    study = study_from_file(described, file.stem, with_one_thread(layers), **given)
    own_words = names_in([("model", named.get("model")), *(settings or {}).items()])
    return with_code_of_study(study, own_words, trusts=trust_code)


def make_study(
    axes: Mapping[str, Sequence[Any] | str],
    *,
    name: str = "study",
    question: str = "",
    control: str | None = None,
    metric: str = "val_dice",
    seeds: Seeds = DEFAULT_SEEDS,
    smallest_effect: float = SMALLEST_EFFECT,
    scope: str | None = None,
    recipe: str = DEFAULT_RECIPE,
    settings: Mapping[str, Any] | None = None,
    **named: Unpack[NamedSettings],
) -> Study:
    """A study of all combinations of the values on `axes`: setting -> values, or a grid such as "0.1..0.8".

    `make_study({"dropout.p": [0, 0.1, 0.3]}, data="folder")` compares three rates. The control is the first combination
    unless `control` names another's label. Settings are as in `train`. Raises SettingError.

    Networks of your own (`model="my_net.py:Net"`) are loaded, as you name them.
    """
    layers = with_one_thread(as_layers(recipe, named, settings))
    declared = as_axes(axes)
    study = check_study(
        name=as_name(name),
        question=question,
        variants=make_variants(layers, declared),
        axes=tuple(axis.title for axis in declared),
        control=control,
        metric=metric,
        seeds=as_seeds(seeds),
        smallest_effect=smallest_effect,
        scope=scope,
    )
    return with_code_of_study(study, (), trusts=True)


def one_network(settings: Settings, seeds: Seeds) -> Study:
    """The study of one network, with one trial for each seed. Code of the user's own is not loaded yet."""
    spec = make_spec(settings)
    name = canonical_name(spec.model.name)
    variant = Variant(label=name, spec=spec)
    return check_study(name=f"train {name}", variants=(variant,), seeds=as_seeds(seeds))
