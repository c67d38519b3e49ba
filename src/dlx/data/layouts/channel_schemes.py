"""Channel names in dataset.json that select a normalisation in nnU-Net, with the most similar setting of dlx.

nnU-Net treats the names `CT`, `noNorm`, `rescale_to_0_1` and `rgb_to_0_1` (in any case) as normalisation schemes, and
z-scores all other channels (its documentation/explanation_normalization.md). dlx has one normaliser for all channels,
`data.normalize`: these names only give a warning.
"""

from collections.abc import Sequence

from dlx.data.layouts.listing import name_some
from dlx.settings.spec import Part
from dlx.settings.text import parse_part

# name -> what nnU-Net does, and the most similar setting
SCHEMES = {
    "ct": (
        "clips to the 0.5 and 99.5 percentiles of the labelled voxels of all cases, and scales all cases alike",
        "percentile:over=all,low=0.5,high=99.5",
    ),
    "nonorm": ("leaves the values as they are", "none"),
    "rescale_to_0_1": ("rescales each image to 0 to 1", "minmax"),
    "rgb_to_0_1": ("divides by 255", "minmax"),
}


def remarks_on_schemes(channels: Sequence[str], normalize: Part) -> tuple[str, ...]:
    """A line for each scheme among the channel names, unless its most similar setting is in use."""
    remarks = []
    for scheme, (meaning, nearest) in SCHEMES.items():
        named = [channel for channel in channels if channel.casefold() == scheme]
        wanted = Part.model_validate(parse_part(nearest))
        is_near = normalize.name == wanted.name and wanted.args.items() <= normalize.args.items()
        if named and not is_near:
            some = " (for all channels)" if len(channels) > len(named) else ""
            remarks.append(
                f"channel_names: nnU-Net {meaning} in a channel named {name_some(named)}; dlx uses "
                f"data.normalize={normalize}. The most similar setting is --set data.normalize={nearest}{some}"
            )
    return tuple(remarks)
