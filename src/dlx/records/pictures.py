"""Pictures of validation cases, recorded when a trial is scored: image, truth and prediction in one slice.

A page, or TensorBoard, shows them later and elsewhere, without the data. `pictures.json` in a trial's folder holds
`CasePictures`; in an archive they stand on the line of their trial. Trials that were scored before have none.
"""

import base64
import binascii
import struct
from io import BytesIO
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from dlx.records.palette import IGNORED_COLOUR, class_colours
from dlx.study.results import Record
from dlx.system.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]  # (h, w)

MAX_SIDE_PX = 160  # the three pictures of a trial then take at most 110 kB, of pure noise
GREY_LEVELS = 64  # as many as an eye tells apart in a small picture; 256 take a third more bytes
MAX_TEXT = 60_000  # of one PNG: noise of MAX_SIDE_PX squared takes 35,000 letters
IGNORED_INDEX = 255  # in masks: voxels under an ignore label

REMEDY = "--no-pictures makes the report without it"
GREY, INDEXED = 0, 3  # colour types of PNG
SIGNATURE = b"\x89PNG\r\n\x1a\n"

Rank = Literal["hardest", "median", "best"]


def _size_of(png: str) -> tuple[int, int]:
    """The size (h, w) that a PNG declares; ValueError if the text is no small PNG of 8-bit greys or of indices."""
    try:
        head = base64.b64decode(png[:44], validate=True)
    except binascii.Error:
        raise ValueError("a picture is not base64") from None
    if len(head) < 26 or head[:8] != SIGNATURE or head[12:16] != b"IHDR":
        raise ValueError("a picture is not a PNG")
    width, height, _, colour = struct.unpack(">IIBB", head[16:26])
    if not (1 <= width <= MAX_SIDE_PX and 1 <= height <= MAX_SIDE_PX):
        raise ValueError(f"a picture of {width} x {height} px: expected at most {MAX_SIDE_PX} px a side")
    if colour not in (GREY, INDEXED):
        raise ValueError("a picture is neither grey nor indexed")
    return height, width


def _known_png(png: str) -> str:
    _size_of(png)
    return png


Png = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_known_png)]
PixelSize = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class PictureArrays(NamedTuple):
    """A picture as arrays (h, w) of uint8: greys, and the index of each pixel's class in `CasePicture.classes`."""

    image: "Pixels"
    truth: "Pixels"
    prediction: "Pixels"


class CasePicture(Record):
    """One slice of a validation case: the one with the most wrongly labelled voxels.

    `rank` is the case's place among the validation cases of its trial, by `dice`: its mean over the classes that have a
    value. `axis` and `slice` (from 0) are those of the case's files. If the orientation is known, the slice is shown as
    radiologists see it: anterior or superior above, the patient's right at the left (sagittal: anterior at the left).
    A slice of more than MAX_SIDE_PX is cut to the part that has labels (`is_part`), and scaled down if that is larger.

    `image` is a grey PNG of the first channel, whose values between the percentiles 0.5 and 99.5 of the slice were
    spread over the greys. `truth` and `prediction` are indexed PNGs: 0 is the background, IGNORED_INDEX are ignored
    voxels. All three are in base64 and of one size.
    """

    case: str
    rank: Rank
    dice: float
    axis: Literal["x", "y", "z"]
    slice: Annotated[int, Field(ge=0)]
    num_slices: Annotated[int, Field(ge=1)]
    plane: Literal["axial", "coronal", "sagittal", ""]  # empty if the orientation is unknown, or for 2D images
    pixel_size: tuple[PixelSize, PixelSize]  # height and width of a pixel, in the unit of the trial's distances
    is_part: bool
    classes: tuple[str, ...]  # the name of each index, the background's first
    image: Png
    truth: Png
    prediction: Png

    @model_validator(mode="after")
    def _are_of_one_size(self) -> "CasePicture":
        if len({_size_of(png) for png in (self.image, self.truth, self.prediction)}) > 1:
            raise ValueError("image, truth and prediction of a picture have unlike sizes")
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return _size_of(self.image)

    def arrays(self) -> PictureArrays:
        """The pixels. DataError if a PNG is damaged, or if it holds an index without a class."""
        image, truth, prediction = (self._pixels(png) for png in (self.image, self.truth, self.prediction))
        for mask in (truth, prediction):
            unknown = mask[(mask >= len(self.classes)) & (mask != IGNORED_INDEX)]
            if unknown.size:
                raise DataError(
                    f"picture of case {self.case!r}: class {unknown[0]} is not one of {len(self.classes)} classes: "
                    f"{REMEDY}"
                )
        return PictureArrays(image, truth, prediction)

    def _pixels(self, png: str) -> "Pixels":
        import numpy as np
        from PIL import Image

        try:
            with Image.open(BytesIO(base64.b64decode(png)), formats=["PNG"]) as picture:
                pixels = np.asarray(picture)
        except (OSError, ValueError, SyntaxError, struct.error) as error:  # as Pillow reports damaged files
            raise DataError(f"picture of case {self.case!r}: the PNG is damaged ({error}): {REMEDY}") from None
        if pixels.dtype != np.uint8 or pixels.shape != self.size:
            raise DataError(f"picture of case {self.case!r}: expected pixels of 8 bits: {REMEDY}")
        return pixels


class CasePictures(Record):
    """pictures.json: the hardest, the median and the best validation case of a trial, in this order; fewer cases have
    fewer pictures.
    """

    pictures: Annotated[tuple[CasePicture, ...], Field(max_length=3)]


def errors_of(truth: "Pixels", prediction: "Pixels") -> "Pixels":
    """What is wrong at each pixel: 0 nothing, 1 a class was missed (background predicted), 2 a class was predicted on
    the background, 3 another class was predicted. Ignored pixels are not wrong.
    """
    import numpy as np

    wrong = (truth != prediction) & (truth != IGNORED_INDEX) & (prediction != IGNORED_INDEX)
    kinds = np.where(prediction == 0, 1, np.where(truth == 0, 2, 3))
    return np.where(wrong, kinds, 0).astype(np.uint8)


def grey_png(greys: "Pixels") -> str:
    """A PNG of greys, in base64."""
    from PIL import Image

    return _encoded(Image.fromarray(greys), {})


def indexed_png(indices: "Pixels") -> str:
    """A PNG of class indices in the colours of `palette.class_colours`, in base64; index 0 is transparent."""
    ignored = indices == IGNORED_INDEX
    colours = [(0, 0, 0), *class_colours(int(indices[~ignored].max(initial=1)))]
    if ignored.any():
        colours += [IGNORED_COLOUR] * (IGNORED_INDEX + 1 - len(colours))
    return coloured_png(indices, colours)


def coloured_png(indices: "Pixels", colours: "list[tuple[int, int, int]]") -> str:
    """A PNG of indices in these colours, in base64; index 0 is transparent."""
    from PIL import Image

    picture = Image.fromarray(indices, "P")
    picture.putpalette([level for colour in colours for level in colour])
    return _encoded(picture, {"transparency": 0})


def _encoded(picture: object, options: dict[str, int]) -> str:
    from PIL.Image import Image

    assert isinstance(picture, Image)
    buffer = BytesIO()
    picture.save(buffer, "PNG", optimize=True, **options)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
