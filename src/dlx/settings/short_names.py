"""The short names of settings, which are options of the command line and keyword arguments in Python, and the layers
from which they make the settings of a run.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from dlx.system.errors import SettingError, nearest

if TYPE_CHECKING:
    from dlx.settings.layers import Settings

DEFAULT_RECIPE = "quick"

# short name -> the setting that it gives
SHORT_NAMES = {
    "data": "data.source",
    "val": "split.val",
    "fold": "split.fold",
    "folds": "split.folds",
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


class NamedSettings(TypedDict, total=False):
    """Settings by their short names; those that are left out, or None, keep the recipe's value. `dlx train --help`
    has a line on each.
    """

    data: str | Path | None
    val: str | list[str] | None
    fold: int | str | None
    folds: int | None
    val_fraction: float | None
    splits_file: str | Path | None
    train_subjects: int | None
    model: str | None
    dropout: float | None
    dropout_kind: str | None
    dropout_where: str | None
    loss: str | None
    init_from: str | Path | None
    epochs: int | None
    steps_per_epoch: int | None
    batch_size: int | str | None
    lr: float | None
    weight_decay: float | None
    optimizer: str | None
    scheduler: str | None
    patience: int | None
    clip_grad_norm: float | None
    ema: float | None
    device: str | None
    precision: str | None
    threads: int | None


def settings_in_layers(
    recipe: str,
    named: Mapping[str, Any],
    *,
    base: "Settings | None" = None,
    config: Path | None = None,
    assigned: Iterable[str] | Mapping[str, Any] = (),
) -> "Settings":
    """The merged settings of recipe, `base`, the TOML file `config`, settings by short name (None: not given), and
    `assigned`: `KEY=VALUE` texts as `--set` takes them, or values by key. Later layers override earlier ones.

    Raises SettingError for an unknown recipe or short name, and for a file or text that cannot be read.
    """
    from dlx.settings.layers import merge, nest, parse_assignment, read_recipe, read_toml

    unknown = [name for name in named if name not in SHORT_NAMES]
    if unknown:
        raise SettingError(f"unknown setting '{unknown[0]}': {nearest(unknown[0], SHORT_NAMES)}")
    document = read_toml(config) if config else {}
    if "axes" in document:
        raise SettingError(f"--config {config}: this file describes a study; run it with dlx run {config}")
    given = [(SHORT_NAMES[name], _plain(value)) for name, value in named.items() if value is not None]
    pairs = assigned.items() if isinstance(assigned, Mapping) else map(parse_assignment, assigned)
    return merge(read_recipe(recipe), base or {}, document, nest(given), nest((k, _plain(v)) for k, v in pairs))


def _plain(value: Any) -> Any:
    """A path as its text; every other value as it is."""
    return str(value) if isinstance(value, Path) else value
