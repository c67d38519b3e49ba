"""The data source `ct-phantom`: heads like those of `phantom` in Hounsfield units, with air, bone and metal.

The tissues differ by 12 to 32 HU, and air, bone and metal by thousands. A normaliser that takes its scale from the
whole image leaves little of the difference between tissues.
"""

from functools import partial
from typing import Annotated

import numpy as np
from pydantic import Field

from dlx.data.layouts.listing import DrawnListing
from dlx.data.phantom.anatomy import BACKGROUND, CSF, GM, WM, draw_labels
from dlx.data.phantom.case import (
    CLASS_NAMES,
    MAX_SUBJECTS,
    SPACING_MM,
    Image,
    Mask,
    Seed,
    Size,
    Subjects,
    subject_ids,
    whole_size,
)
from dlx.data.phantom.noise import Draw, Field3, Stream
from dlx.data.phantom.shapes import Frame, frame_for
from dlx.system.errors import SettingError

CT_PHANTOM_VERSION = 1  # part of the data's fingerprint: increase it with every change to the drawn volumes
AIR, METAL = -1024.0, 30_000.0
TISSUES = {BACKGROUND: AIR, CSF: 8.0, GM: 40.0, WM: 28.0}  # of an adult's brain
BONE = 900.0
SKULL_PX = 3  # its thickness in a head of 64 voxels
NOISE_HU = (4.0, 6.0)  # of a routine head scan, in all but air


def ct_phantom(
    *,
    subjects: Subjects = 10,
    size: Size = 64,
    seed: Seed = 0,
    metal: Annotated[
        int, Field(ge=0, le=MAX_SUBJECTS, description="The subject with metal of 30,000 HU in the skull; 0: none.")
    ] = 1,
) -> DrawnListing:
    """`subject-1` ... `subject-N` of `size` voxels, one number or (x, y, z), 1 mm apart; the anatomy is `phantom`'s."""
    if metal > subjects:
        raise SettingError(f"data.source.metal: there is no subject {metal} among {subjects}")
    draw = partial(ct_phantom_case, seed=seed, size_px=whole_size(size), metal=metal)
    return DrawnListing(CT_PHANTOM_VERSION, ("CT",), CLASS_NAMES, subject_ids(subjects), SPACING_MM, draw)


def ct_phantom_case(index: int, *, seed: int, size_px: tuple[int, int, int], metal: int = 0) -> tuple[Image, Mask]:
    """One subject: image (1, D, H, W) float32 in whole HU, and mask (D, H, W) uint8 with classes 0..3.

    `metal` is the number, from 1, of the subject that has it.
    """
    draw = Draw(seed, index)
    shape = (size_px[2], size_px[1], size_px[0])
    frame = frame_for(draw, shape)
    mask = np.zeros(shape, np.uint8)
    box = tuple(slice(start, start + size) for start, size in zip(frame.corner, frame.shape, strict=True))
    mask[box] = draw_labels(draw, frame)
    image = np.array([TISSUES[k] for k in range(len(TISSUES))], np.float32)[mask]
    skull = _skull(mask != BACKGROUND, max(1, round(SKULL_PX * frame.detail)))
    image[skull] = BONE
    noise = np.float32(draw.uniform(Stream.CONTRAST, NOISE_HU)[0])
    (field,) = draw.gaussian(Stream.NOISE_T1, shape, 1)
    image += np.where(image == AIR, np.float32(0.0), noise * field)
    if metal == index + 1:
        image[_implant(skull, frame)] = METAL
    return np.rint(image)[None].astype(np.float32), mask


def _skull(head: Field3, thickness_px: int) -> Field3:
    """The voxels up to `thickness_px` steps along the axes away from the head."""
    grown = head
    for _ in range(thickness_px):
        padded = np.pad(grown, 1)
        grown = padded[1:-1, 1:-1, 1:-1].copy()
        for axis in range(3):
            for step in (-1, 1):
                grown |= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
    skull: Field3 = grown & ~head
    return skull


def _implant(skull: Field3, frame: Frame) -> Field3:
    """The voxels of the skull within a ball around its first voxel in front, in the middle plane."""
    middle = skull.shape[0] // 2
    y, x = (int(found[0]) for found in np.nonzero(skull[middle]))
    grid = np.ogrid[tuple(slice(0, size) for size in skull.shape)]
    squared = sum((axis - at) ** 2 for axis, at in zip(grid, (middle, y, x), strict=True))
    implant: Field3 = skull & (squared <= (4.0 * frame.detail) ** 2)
    return implant
