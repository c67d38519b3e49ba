"""The lines about data, split, network, training and device that training commands print first, from plain values.

The commands know all of them; from records `dlx show` knows all but the layout of the data.
"""

from collections.abc import Sequence
from pathlib import Path

from dlx.settings.own.named import spell_code
from dlx.settings.part import Part, spell_value
from dlx.settings.text import counted


def data_line(source: str, channels: Sequence[str], classes: Sequence[str], *, layout: str = "") -> str:
    """Source, layout, channels and classes; `classes` are without background."""
    sides = " -> ".join(filter(None, (", ".join(channels), ", ".join(classes))))
    return f"data     {source}{f' ({layout})' * bool(layout)}{f': {sides}' * bool(sides)}"


def network_line(model: Part, parameters: int | None, losses: Sequence[str], others: Sequence[str]) -> str:
    """Network with its sizes, number of parameters and losses; `others` are optimizer and schedule."""
    size = "" if parameters is None else f", {parameters:,} parameters"
    return f"network  {model.name}{_sizes(model)}{size}; loss {'+'.join(losses)}; {', '.join(others)}"


def _sizes(model: Part) -> str:
    """` (3D, width 16, 3 levels)` if the network has these arguments; 2D is not named. A network of the user's own with
    its arguments as they were given, and the digest of its code.
    """
    if model.code is not None:
        given = [f"{key}={spell_value(value)}" for key, value in model.args.items()]
        return f" ({', '.join([f'{model.code.dims}D', *given, spell_code(model.code.digest, model.code.version)])})"
    args = model.args
    sizes = ["3D"] if args.get("dims") == 3 else []
    sizes += [f"width {args['width']}"] if "width" in args else []
    sizes += [counted(args["levels"], "level")] if "levels" in args else []
    return f" ({', '.join(sizes)})" if sizes else ""


def training_line(
    epochs: int, steps: int, batch_size: int, kind: str, patch_size_px: Sequence[int], every: int, subset: str
) -> str:
    """Length, batches and validation; `subset` is `2 of 5` if a validation measures only some training subjects."""
    length = f"{counted(epochs, 'epoch')} of {counted(steps, 'step')}"
    patches = f"{batch_size} {'slices' if kind == 'block' else 'patches'} of {' x '.join(map(str, patch_size_px))}"
    measured = f", with {subset} training subjects" if subset else ""
    return f"training {length}, {patches}; validated {every_epochs(every, epochs)}{measured}"


def every_epochs(every: int, epochs: int) -> str:
    """How often a run is validated: `every epoch`, `every 2 epochs`, `once, at the end`."""
    if every >= epochs:
        return "once, at the end"
    return "every epoch" if every == 1 else f"every {every} epochs"


def subset_words(measured: int, num_subjects: int) -> str:
    """`2 of 5` if a validation measures only some of the training subjects; empty if it measures all or none."""
    return f"{measured} of {num_subjects}" if 0 < measured < num_subjects else ""


def device_line(device: str, precision: str, threads: int | None, *, name: str = "") -> str:
    """Device, precision and, on a CPU, threads; `name` is the device's own."""
    of_cpu = f", {counted(threads, 'thread')}" if device == "cpu" and threads is not None else ""
    return f"device   {device}{f' ({name})' * bool(name)}, {precision}{of_cpu}"


def split_sizes(num_train: int, num_val: int, num_persons: tuple[int, int] | None) -> str:
    """`8 training and 2 validation subjects`; if persons are known, `28 training scans of 24 persons, ...`."""
    if num_persons is None:
        return f"{num_train} training and {counted(num_val, 'validation subject')}"
    persons = [counted(number, "person") for number in num_persons]
    return (
        f"{counted(num_train, 'training scan')} of {persons[0]}, {counted(num_val, 'validation scan')} of {persons[1]}"
    )


def split_line(sizes: Sequence[str], num_folds: int) -> str:
    """The sizes of both sides; in cross-validation of each fold, once if they are equal."""
    known = list(dict.fromkeys(sizes))
    return f"split    {counted(num_folds, 'fold')}: {'; '.join(known)}" if num_folds else f"split    {known[0]}"


def variant_lines(
    labels: Sequence[str], control: str | None, seeds: Sequence[int], num_folds: int, trials: str
) -> list[str]:
    """The variants, and the trials as a product of variants, folds and seeds; `trials` says how many are to run."""
    names = [f"{label} (control)" if label == control else label for label in labels]
    folds = f" x {num_folds} folds" if num_folds else ""
    num_trials = len(labels) * len(seeds) * max(1, num_folds)
    numbers = ", ".join(map(str, seeds))
    return [
        f"variants {'; '.join(names)}",
        f"trials   {num_trials} ({len(labels)} variants{folds} x {len(seeds)} seeds: {numbers}), {trials}",
    ]


def source_name(source: str) -> str:
    """The last part of a folder's path; a generated source as the user writes it."""
    return Path(source).name if Path(source).is_absolute() else source
