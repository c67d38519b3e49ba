"""Channel names in dataset.json that select a normaliser, as in nnU-Net.

nnU-Net treats the names `CT`, `noNorm`, `rescale_to_0_1` and `rgb_to_0_1` (in any case) as normalisation schemes, and
z-scores all other channels (its documentation/explanation_normalization.md). `data.normalize=auto` does the same.
"""

from collections.abc import Sequence

from dlx.data.intensities.ct import Scheme
from dlx.data.layouts.listing import name_some
from dlx.settings.binding import bind_part
from dlx.settings.part import Part

LAYOUTS = ("nnunet", "msd")  # whose channel names are nnU-Net's: its converter copies the Decathlon's `modality`
OVER_ALL: tuple[Scheme, ...] = ("zscore", "minmax")  # these take statistics over all voxels if names choose them

# name -> the scheme, and what nnU-Net does
NAMED: dict[str, tuple[Scheme, str]] = {
    "ct": (
        "ct",
        "clips to the 0.5 and 99.5 percentiles of the training cases' labelled voxels and standardises by them",
    ),
    "nonorm": ("none", "leaves the values as they are"),
    "rescale_to_0_1": ("minmax", "rescales each image to 0 to 1"),
    "rgb_to_0_1": ("rgb", "divides by 255"),
}


def choose_normalizer(asked: Part, layout: str, channels: Sequence[str]) -> tuple[Part, tuple[str, ...]]:
    """The normaliser of these channels, with its arguments, and a line on the channels whose names choose one.

    `asked` is bound. Unless it is `auto` it is taken; `auto` is `zscore` with the same arguments if no name chooses.
    """
    names = [channel.casefold() for channel in channels] if layout in LAYOUTS else []
    named = [channel for channel, name in zip(channels, names, strict=False) if name in NAMED]
    zscore = Part(name="zscore", args=asked.args)
    if not named:
        return (zscore if asked.name == "auto" else asked), ()
    schemes: list[Scheme] = [NAMED[name][0] if name in NAMED else "zscore" for name in names]
    chosen = bind_part("normalizer", _normalizer_of(schemes))
    if asked.name == "auto":
        line = f"channel_names: as in nnU-Net, {_each(channels, schemes)} (data.normalize={chosen})"
        return chosen, (line + _lost_argument(asked, schemes),)
    if asked == chosen:
        return asked, ()
    meanings = [f"{meaning} in a channel named {name_some(some)}" for meaning, some in _meanings(named).items()]
    return asked, (
        f"channel_names: nnU-Net {'; '.join(meanings)}; dlx uses data.normalize={asked}, as set. "
        f"Its way is --set data.normalize={chosen}",
    )


def _normalizer_of(schemes: Sequence[Scheme]) -> Part:
    """One normaliser for all channels if their schemes are equal."""
    if len(set(schemes)) > 1:
        return Part(name="mixed", args={"schemes": list(schemes)})
    return Part(name=schemes[0], args={"over": "all"} if schemes[0] == "minmax" else {})


def _each(channels: Sequence[str], schemes: Sequence[Scheme]) -> str:
    """`'CT' by ct, 'PET' by zscore over all voxels`."""
    spelled = {scheme: f"{scheme} over all voxels" for scheme in OVER_ALL}
    pairs = zip(channels, schemes, strict=True)
    return ", ".join(f"{channel!r} by {spelled.get(scheme, scheme)}" for channel, scheme in pairs)


def _lost_argument(auto: Part, schemes: Sequence[Scheme]) -> str:
    """The end of the line, if `over` of the bound `auto` differs from what the schemes do.

    Where none of them has an `over`, it was lost only if it was set to another value than the default.
    """
    over = auto.args["over"]
    has_one = any(scheme in OVER_ALL for scheme in schemes)
    is_lost = over == "foreground" if has_one else auto != bind_part("normalizer", Part(name="auto"))
    return f"; data.normalize.over={over} has no effect on them" if is_lost else ""


def _meanings(named: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for channel in named:
        found.setdefault(NAMED[channel.casefold()][1], []).append(channel)
    return found
