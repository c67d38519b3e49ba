"""Pictures of validation cases as TensorBoard shows them: image, truth, prediction and errors beside each other."""

from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from dlx.records.palette import ERROR_COLOURS, IGNORED_COLOUR, Rgb, class_colours
from dlx.records.pictures import IGNORED_INDEX, CasePicture, errors_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Colours = NDArray[np.uint8]  # (h, w, 3), or (n, 3) as a palette

MIN_SIDE_PX = 192  # smaller slices are enlarged by a whole number, so that each voxel stays a square or a rectangle
GAP_PX = 4
OPACITY = 0.6  # of the colours over the image


class Slice(NamedTuple):
    """A PNG with its height and width in pixels."""

    height: int
    width: int
    png: bytes


def draw_slice(picture: CasePicture) -> Slice:
    """The slice of a case, four times: as it is, with its truth, its prediction, and what is wrong in colours.

    Pixels have the shape of the voxels, to a whole number. DataError if the picture is damaged.
    """
    image, truth, prediction = picture.arrays()
    classes = _palette(class_colours(max(1, len(picture.classes) - 1)))
    kinds = _palette(tuple(ERROR_COLOURS.values()))
    panels = [
        _over(image, np.zeros_like(truth), classes),
        _over(image, truth, classes),
        _over(image, prediction, classes),
        _over(image, errors_of(truth, prediction), kinds),
    ]
    rows, columns = _enlarged(picture)
    large = [np.repeat(np.repeat(panel, rows, axis=0), columns, axis=1) for panel in panels]
    gap = np.full((large[0].shape[0], GAP_PX, 3), 255, np.uint8)
    joined = np.concatenate([piece for panel in large for piece in (gap, panel)][1:], axis=1)
    buffer = BytesIO()
    Image.fromarray(joined).save(buffer, "PNG")
    return Slice(joined.shape[0], joined.shape[1], buffer.getvalue())


def name_of(picture: CasePicture) -> str:
    """The tag under which TensorBoard shows a picture."""
    return f"validation/{picture.rank}: {picture.case}"


def described(picture: CasePicture) -> str:
    """What the picture shows, as markdown."""
    plane = f"{picture.plane}, " if picture.plane else ""
    return (
        f"Mean Dice {picture.dice:.3f}; {plane}slice {picture.slice + 1} of {picture.num_slices} along {picture.axis}, "
        "the one with the most errors. From the left: image, truth, prediction, errors "
        f"({', '.join(f'{name} {_hex(rgb)}' for name, rgb in ERROR_COLOURS.items())})."
    )


def _hex(rgb: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def _palette(colours: tuple[Rgb, ...]) -> "Colours":
    """The colour of each of 256 indices; index 0, which shows the image alone, has none."""
    palette = np.zeros((256, 3), np.uint8)
    palette[1 : len(colours) + 1] = colours
    palette[IGNORED_INDEX] = IGNORED_COLOUR
    return palette


def _over(image: "NDArray[np.uint8]", indices: "NDArray[np.uint8]", palette: "Colours") -> "Colours":
    """A grey image (h, w) with colours over all pixels whose index is not 0."""
    grey = np.repeat(image[..., None], 3, axis=2)
    mixed = np.rint((1.0 - OPACITY) * grey + OPACITY * palette[indices]).astype(np.uint8)
    return np.where(indices[..., None] == 0, grey, mixed)


def _enlarged(picture: CasePicture) -> tuple[int, int]:
    """How often each row and each column is repeated: the slice is large enough to see, and keeps its proportions."""
    height, width = picture.pixel_size
    tall, wide = (max(1, round(side / min(height, width))) for side in (height, width))
    largest = max(tall * picture.size[0], wide * picture.size[1])
    times = max(1, -(-MIN_SIDE_PX // largest))
    return min(tall, 16) * times, min(wide, 16) * times
