"""Colours for masks and errors in pictures: distinguishable for up to 255 classes, safe for colour-blind readers for 7.

The first colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/). Each further one is that of a grid of sRGB
which is farthest, in OKLab (Ottosson 2020), from all before it and from the greys of an image.
"""

from functools import cache
from itertools import product

Rgb = tuple[int, int, int]

OKABE_ITO: tuple[Rgb, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermillion
    (204, 121, 167),  # reddish purple
)
IGNORED_COLOUR: Rgb = (128, 128, 128)
# what is wrong at a voxel, in the order of `pictures.errors_of` -> its colour
ERROR_COLOURS: dict[str, Rgb] = {
    "missed": (240, 80, 220),
    "too much": (255, 226, 70),
    "another class": (60, 240, 225),
}

MIN_LIGHTNESS = 0.4  # of 1, white; darker colours are lost on dark tissue
_STEPS = tuple(range(0, 256, 23))  # 12 levels of each of red, green and blue
_GREYS = tuple((level, level, level) for level in range(0, 256, 51))


@cache
def class_colours(num_classes: int) -> tuple[Rgb, ...]:
    """The colour of each class from 1 on, at most 255. Those of fewer classes are the first of those of more."""
    chosen = [*OKABE_ITO[:num_classes]]
    if num_classes <= len(chosen):
        return tuple(chosen)
    import numpy as np  # here, as most commands show no pictures

    candidates = [rgb for rgb in product(_STEPS, _STEPS, _STEPS) if _oklab(rgb)[0] >= MIN_LIGHTNESS]
    places = np.array([_oklab(rgb) for rgb in candidates])
    known = np.array([_oklab(rgb) for rgb in (*_GREYS, *chosen)])
    squared = ((places[:, None] - known) ** 2).sum(-1).min(1)  # to the nearest colour so far
    while len(chosen) < min(num_classes, 255):
        best = int(squared.round(9).argmax())  # rounded, so that equal distances are equal on every machine
        chosen.append(candidates[best])
        squared = np.minimum(squared, ((places - places[best]) ** 2).sum(-1))
    return tuple(chosen)


def _oklab(rgb: Rgb) -> tuple[float, float, float]:
    """Lightness and two opponent colours, in which equal distances look equally large."""
    r, g, b = (_linear(level / 255) for level in rgb)
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    medium = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


def _linear(level: float) -> float:
    """A level of sRGB as an intensity of light (IEC 61966-2-1)."""
    return level / 12.92 if level <= 0.04045 else float(((level + 0.055) / 1.055) ** 2.4)
