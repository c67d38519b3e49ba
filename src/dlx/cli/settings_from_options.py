"""Settings and seeds from the options of a command. Later layers override earlier ones: recipe, `--config`, single
options such as `--lr`, `--set`.
"""

from dataclasses import fields
from typing import TYPE_CHECKING

from dlx.cli.options import TrainOptions
from dlx.settings.short_names import DEFAULT_RECIPE, SHORT_NAMES, settings_in_layers
from dlx.settings.text import shorten
from dlx.system.errors import SettingError

if TYPE_CHECKING:
    from dlx.settings.layers import Settings

MAX_LENGTH = 40  # characters of an option's text shown in a message: half a line of a terminal


def changes_no_setting(options: TrainOptions, without: tuple[str, ...] = ()) -> bool:
    """True if no option was given that could change a trial, not counting those in `without`."""
    return not given_settings(options, without)


def given_settings(options: TrainOptions, without: tuple[str, ...] = ()) -> list[str]:
    """The names of the options that were given and could change a trial, except those in `without`."""
    changing = {*SHORT_NAMES, "config", "set_", "seed", "seeds", "recipe"} - {*without}
    return [f.name for f in fields(options) if f.name in changing and getattr(options, f.name) != f.default]


def settings_from(options: TrainOptions, recipe: str = DEFAULT_RECIPE, base: "Settings | None" = None) -> "Settings":
    """The merged settings of all layers. `recipe` is the one to start from if the options name none; the settings in
    `base` override it.
    """
    named = {name: getattr(options, name) for name in SHORT_NAMES}
    return settings_in_layers(
        options.recipe or recipe, named, base=base, config=options.config, assigned=options.set_ or []
    )


def named_models(options: TrainOptions) -> tuple[str, ...]:
    """The networks that the command line names, by `--model` or `--set model`, without their arguments: only their code
    is loaded.
    """
    from dlx.settings.layers import parse_assignment
    from dlx.settings.own.named import names_in

    return names_in([("model", options.model), *map(parse_assignment, options.set_ or [])])


def seeds_from(options: TrainOptions, default: int = 1) -> tuple[int, ...]:
    """The seeds: `--seeds 5` means 0 to 4, `--seeds 0,3,7` these three, `--seed 3` this one."""
    from dlx.study.study import MAX_SEEDS

    if options.seed is not None and options.seeds is not None:
        raise SettingError("--seed and --seeds cannot be combined: use one of them")
    if options.seed is not None:
        if options.seed < 0:
            raise SettingError(f"--seed {options.seed}: expected 0 or more")
        return (options.seed,)
    if options.seeds is None:
        return tuple(range(default))
    given = shorten(options.seeds, MAX_LENGTH)
    how = "expected a number of seeds (--seeds 5: 0 to 4) or a list (--seeds 0,3,7); for one seed, --seed 3"
    try:
        numbers = [int(piece) for piece in options.seeds.split(",")]
    except ValueError:
        raise SettingError(f"--seeds {given}: {how}") from None
    is_count = len(numbers) == 1
    if is_count and not 1 <= numbers[0] <= MAX_SEEDS:
        one = "; for the seed 0 alone, --seed 0" if numbers[0] == 0 else ""
        raise SettingError(f"--seeds {given}: expected 1 to {MAX_SEEDS:,} seeds{one}")
    seeds = range(numbers[0]) if is_count else numbers
    if min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise SettingError(f"--seeds {given}: seeds must be distinct and at least 0; {how}")
    return tuple(seeds)
