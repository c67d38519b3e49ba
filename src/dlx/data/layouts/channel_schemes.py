"""Channel names in dataset.json by which nnU-Net chooses a normalisation: what each one means, and the nearest setting.

nnU-Net takes the names `CT`, `noNorm`, `rescale_to_0_1` and `rgb_to_0_1`, in any case, for schemes, and z-scores every
other channel (its documentation/explanation_normalization.md). Here one normaliser, `data.normalize`, is for all
channels: these names give a warning, and change nothing.
"""

from collections.abc import Sequence

from dlx.data.layouts.listing import name_some
from dlx.settings.spec import Part
from dlx.settings.text import parse_part

# name -> what nnU-Net does, and the setting that comes nearest
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
    """A line for each scheme that the names of the channels ask for, unless the nearest setting is in use."""
    remarks = []
    for scheme, (meaning, nearest) in SCHEMES.items():
        named = [channel for channel in channels if channel.casefold() == scheme]
        wanted = Part.model_validate(parse_part(nearest))
        is_near = normalize.name == wanted.name and wanted.args.items() <= normalize.args.items()
        if named and not is_near:
            some = " (which is for all channels)" if len(channels) > len(named) else ""
            remarks.append(
                f"channel_names: nnU-Net {meaning} in a channel named {name_some(named)}; here data.normalize="
                f"{normalize} is done, and the nearest to that is --set data.normalize={nearest}{some}"
            )
    return tuple(remarks)
