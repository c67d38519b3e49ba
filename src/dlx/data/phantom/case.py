"""The phantom: T1 and T2 volumes of infant-brain-like heads, drawn from a seed, bit-identical on every machine.

This module has the intensities, the cases and the data source `phantom`. `anatomy` draws the labels from the shapes in
`shapes` and `folds`; `noise` has the random numbers and the rule that keeps everything bit-identical.

As at six months of age, GM and WM have nearly the same intensity in T1; T2 and the shape of the cortex separate them.
"""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dlx.data.cases import IGNORED
from dlx.data.layouts.listing import DrawnListing
from dlx.data.phantom.anatomy import BACKGROUND, CSF, GM, WM, draw_labels
from dlx.data.phantom.noise import Draw, Field3, Stream
from dlx.data.phantom.shapes import frame_for
from dlx.settings.spec import ADDED_LATER
from dlx.system.errors import SettingError

PHANTOM_VERSION = 1  # part of the data's fingerprint: increase it with every change to the drawn volumes
MIN_SIZE_PX, MAX_SIZE_PX = 16, 512
MAX_SEED = 2**64 - 1
MAX_SUBJECTS = 10_000
SPACING_MM = (1.0, 1.0, 1.0)

CHANNELS = ("T1", "T2")
CLASS_NAMES = ("background", "CSF", "GM", "WM")
REGIONS = {"head": (CSF, GM, WM), "brain": (GM, WM), "white matter": (WM,)}  # with `regions`

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]
Extent = Annotated[int, Field(ge=MIN_SIZE_PX, le=MAX_SIZE_PX)]

# settings of all drawn data
Subjects = Annotated[int, Field(ge=1, le=MAX_SUBJECTS, description="The number of subjects.")]
Size = Annotated[
    Extent | tuple[Extent, Extent, Extent], Field(description="Voxels along each axis: one number, or [x, y, z].")
]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED, description="The seed of the subjects' anatomy and noise.")]


def phantom(
    *,
    subjects: Subjects = 10,
    size: Size = 64,
    seed: Seed = 0,
    labelled_every: Annotated[
        int,
        Field(ge=1, le=MAX_SIZE_PX, description="Only every n-th slice along z has labels; the others are ignored."),
        ADDED_LATER,
    ] = 1,
    regions: Annotated[
        bool,
        Field(description="Nested regions instead of tissues: head, in it brain (GM and WM), in it white matter."),
        ADDED_LATER,
    ] = False,
) -> DrawnListing:
    """The data source `phantom`: `subject-1` ... `subject-N` of `size` voxels, one number or (x, y, z), 1 mm apart.

    With `labelled_every` above 1 all other slices of the masks have the ignore label, as in sparse annotation. With
    `regions` the classes are those of `REGIONS`, nested as the regions of a tumour in BraTS; the masks are the same.
    """

    def draw(index: int) -> tuple[Image, Mask]:
        image, mask = phantom_case(index, seed=seed, size_px=whole_size(size))
        mask[np.arange(len(mask)) % labelled_every != labelled_every // 2] = IGNORED
        return image, mask

    return DrawnListing(
        PHANTOM_VERSION,
        CHANNELS,
        ("background", *REGIONS) if regions else CLASS_NAMES,
        subject_ids(subjects),
        SPACING_MM,
        draw,
        has_ignored=labelled_every > 1,
        label_values=tuple(range(len(CLASS_NAMES))),
        regions=tuple(REGIONS.values()) if regions else (),
        region_order=(CSF, GM, WM) if regions else (),
    )


def subject_ids(subjects: int) -> tuple[str, ...]:
    """`subject-1` ... `subject-N`."""
    return tuple(f"subject-{number + 1}" for number in range(subjects))


def whole_size(size: int | tuple[int, int, int]) -> tuple[int, int, int]:
    """(x, y, z), also of one number."""
    return (size, size, size) if isinstance(size, int) else size


def phantom_case(index: int, *, seed: int, size_px: tuple[int, int, int]) -> tuple[Image, Mask]:
    """One subject: image (2, D, H, W) float32 with T1 and T2, and mask (D, H, W) uint8 with classes 0..3.

    `size_px` is (x, y, z), 16 to 512 each. Intensities are whole numbers below 2^15, as scanners store them: 0
    where the mask is background, at least 1 elsewhere. The head keeps its proportions: a volume much longer along one
    axis contains air there. Raises SettingError if an argument is out of range.
    """
    if not all(MIN_SIZE_PX <= size <= MAX_SIZE_PX for size in size_px):
        raise SettingError(f"phantom size {size_px}: expected three numbers from {MIN_SIZE_PX} to {MAX_SIZE_PX}")
    if not 0 <= seed <= MAX_SEED or not 0 <= index < 2**48:
        raise SettingError(
            f"phantom subject {index} of seed {seed}: out of range (expected 0 to 2^48 - 1 and 0 to 2^64 - 1)"
        )
    draw = Draw(seed, index)
    shape = (size_px[2], size_px[1], size_px[0])
    frame = frame_for(draw, shape)
    labels = draw_labels(draw, frame)
    mask = np.zeros(shape, dtype=np.uint8)
    image = np.zeros((2, *shape), dtype=np.float32)
    box = tuple(slice(start, start + size) for start, size in zip(frame.corner, frame.shape, strict=True))
    mask[box] = labels
    for channel, intensities in enumerate(_intensities(draw, labels)):
        image[channel][box] = intensities
    return image, mask


def _intensities(draw: Draw, labels: Mask) -> tuple[Field3, Field3]:
    """T1 and T2 in the head's box: tissue means, partial volume, bias field, Rician noise, the scanner's scale."""
    grey, gap_t1, gap_t2, noise, scale_t1, scale_t2 = draw.uniform(
        Stream.CONTRAST,
        (0.57, 0.67),
        (0.0, 0.06),
        (0.06, 0.16),
        (0.043, 0.06),
        (380.0, 620.0),
        (380.0, 620.0),
    )
    reach = max(labels.shape)
    myelin = 0.05 * draw.smooth(Stream.MYELIN, labels.shape, 0.18 * reach)
    t1 = {CSF: 0.25, GM: grey - gap_t1 / 2, WM: grey + gap_t1 / 2}
    t2 = {CSF: 1.0, GM: grey + gap_t2 / 2, WM: grey - gap_t2 / 2}
    return (
        _channel(draw, labels, t1, myelin, noise, scale_t1, (Stream.BIAS_T1, Stream.NOISE_T1)),
        _channel(draw, labels, t2, -myelin, noise, scale_t2, (Stream.BIAS_T2, Stream.NOISE_T2)),
    )


def _channel(
    draw: Draw,
    labels: Mask,
    means: dict[int, float],
    myelin: Field3,
    noise: float,
    scale: float,
    streams: tuple[Stream, Stream],
) -> Field3:
    lookup = np.array(
        [means[CSF], means[CSF], means[GM], means[WM]], dtype=np.float32
    )  # the background also gets the value of fluid
    clean = lookup[labels]
    clean += np.where(labels == WM, myelin, np.float32(0.0))
    for axis in range(3):
        clean = _blurred(clean, axis)
    clean *= 1.0 + 0.09 * draw.smooth(streams[0], labels.shape, 0.6 * max(labels.shape))
    real, imaginary = draw.gaussian(streams[1], labels.shape, 2)
    real = clean + noise * real
    imaginary = noise * imaginary
    intensities = np.rint(np.sqrt(real * real + imaginary * imaginary) * scale)
    intensities = np.minimum(np.maximum(intensities, np.float32(1.0)), np.float32(32767.0))
    intensities[labels == BACKGROUND] = 0.0
    return intensities


def _blurred(field: Field3, axis: int) -> Field3:
    """[1 2 1] / 4 along an axis: a voxel on a border mixes both tissues. The end values are repeated."""
    size = field.shape[axis]
    before = field.take(np.maximum(np.arange(size) - 1, 0), axis=axis)
    after = field.take(np.minimum(np.arange(size) + 1, size - 1), axis=axis)
    blurred: Field3 = (before + field + field + after) * np.float32(0.25)
    return blurred
