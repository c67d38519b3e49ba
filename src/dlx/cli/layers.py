"""From options to settings: recipe, then `--config`, then the options that were given, then `--set`."""

from dataclasses import fields
from typing import TYPE_CHECKING

from dlx.cli.options import TrainOptions
from dlx.system.errors import SettingError

if TYPE_CHECKING:
    from dlx.settings.layers import Settings

DEFAULT_RECIPE = "quick"
MAX_LETTERS = 40  # of a word of the command line in a message

# option -> the setting it stands for
SETTING_OF = {
    "data": "data.source",
    "fold": "split.fold",
    "folds": "split.folds",
    "val": "split.val",
    "val_fraction": "split.val_fraction",
    "splits_file": "split.file",
    "train_subjects": "split.train_subjects",
    "model": "model",
    "dropout": "dropout.p",
    "dropout_kind": "dropout.kind",
    "dropout_where": "dropout.where",
    "loss": "loss",
    "init_from": "train.init_from",
    "epochs": "train.epochs",
    "steps_per_epoch": "train.steps_per_epoch",
    "batch_size": "batch.size",
    "lr": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "optimizer": "optimizer.name",
    "scheduler": "scheduler",
    "patience": "train.patience",
    "clip_grad_norm": "optimizer.clip_grad_norm",
    "ema": "train.ema_decay",
    "device": "compute.device",
    "precision": "compute.precision",
    "threads": "compute.threads",
}


def asks_for_nothing(options: TrainOptions) -> bool:
    """True where no option that could change a trial was given."""
    changing = {*SETTING_OF, "config", "set_", "seed", "seeds", "recipe"}
    return all(getattr(options, f.name) == f.default for f in fields(options) if f.name in changing)


def settings_from(options: TrainOptions) -> "Settings":
    """The merged settings of all four layers."""
    from dlx.settings.layers import merge, read_recipe

    return merge(*with_given(options, read_recipe(options.recipe or DEFAULT_RECIPE)))


def with_given(options: TrainOptions, *below: "Settings") -> "list[Settings]":
    """Layers of settings with those of the command line over them: `--config`, options, `--set`."""
    from dlx.settings import layers as settings

    given = [(SETTING_OF[name], value) for name in SETTING_OF if (value := getattr(options, name)) is not None]
    config = settings.read_toml(options.config) if options.config else {}
    if "axes" in config:
        raise SettingError(f"--config {options.config}: is a study, and not settings alone: dlx run {options.config}")
    assigned = settings.nest(settings.parse_assignment(text) for text in options.set_ or [])
    return [*below, config, settings.nest(given), assigned]


def seeds_from(options: TrainOptions, default: int = 1) -> tuple[int, ...]:
    """The seeds: `--seeds 5` is 0 to 4, `--seeds 0,3,7` those, `--seed 3` that one."""
    from dlx.study.study import MAX_SEEDS

    if options.seed is not None and options.seeds is not None:
        raise SettingError("--seed and --seeds: give one of the two")
    if options.seed is not None:
        if options.seed < 0:
            raise SettingError(f"--seed {options.seed}: expected 0 or more")
        return (options.seed,)
    if options.seeds is None:
        return tuple(range(default))
    how = "expected a number of seeds (--seeds 5: 0 to 4) or a list (--seeds 0,3,7); a single one is --seed 3"
    try:
        numbers = [int(piece) for piece in options.seeds.split(",")]
    except ValueError:
        raise SettingError(f"--seeds {shortened(options.seeds)}: {how}") from None
    is_count = len(numbers) == 1
    if is_count and numbers[0] > MAX_SEEDS:
        raise SettingError(f"--seeds {shortened(options.seeds)}: at most {MAX_SEEDS}")
    if is_count and numbers[0] < 1:
        raise SettingError(f"--seeds {numbers[0]}: is a number of seeds, at least 1; the seed 0 alone is --seed 0")
    seeds = range(numbers[0]) if is_count else numbers
    if min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise SettingError(f"--seeds {shortened(options.seeds)}: no seed may be there twice or be below 0; {how}")
    return tuple(seeds)


def shortened(text: str) -> str:
    """A word of the command line, cut to what a line can hold."""
    return text if len(text) <= MAX_LETTERS else f"{text[:MAX_LETTERS]}..."
