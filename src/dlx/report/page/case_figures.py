"""Recorded slices of validation cases as figures of the HTML page: image, truth, prediction and error side by side.

The image is embedded once a case; the other panels draw it again and lay masks over it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from dlx.records.palette import ERROR_COLOURS, IGNORED_COLOUR, Rgb, class_colours
from dlx.records.pictures import (
    IGNORED_INDEX,
    CasePicture,
    PictureArrays,
    coloured_png,
    errors_of,
    grey_png,
    indexed_png,
)
from dlx.report.page.svg import drawing, element
from dlx.report.plotted.case_pictures import PicturedTrial
from dlx.report.wording.content import Given, Words
from dlx.report.wording.formatting import spell
from dlx.study.results import DistanceUnit
from dlx.system.characters import visible

LONGEST = 200.0  # the longer side of a panel, in its own units
SHARP = {"style": "image-rendering:pixelated"}  # on the element, as style sheets do not reach what `use` draws again
RANKS = {"hardest": "Hardest case", "median": "Median case", "best": "Best case"}


@dataclass(frozen=True)
class Panel:
    """One picture with its name."""

    name: str
    drawing: Markup


@dataclass(frozen=True)
class CaseFigure:
    """The four panels of a case, below a title."""

    title: Words
    place: Words
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class CaseGroup:
    """The cases of one trial, with what their colours mean."""

    title: Words
    cases: tuple[CaseFigure, ...]
    classes: tuple[tuple[Markup, Words], ...]
    errors: tuple[tuple[Markup, Words], ...]


def case_groups(ident: str, trials: Sequence[PicturedTrial], unit: DistanceUnit) -> tuple[CaseGroup, ...]:
    """The figures of these trials; DataError if a picture is damaged."""
    return tuple(_group(f"{ident}-{number}", trial, unit) for number, trial in enumerate(trials, 1))


def _group(ident: str, trial: PicturedTrial, unit: DistanceUnit) -> CaseGroup:
    pixels = [picture.arrays() for picture in trial.pictures]
    shown = zip(trial.pictures, pixels, strict=True)
    cases = tuple(_case(f"{ident}-{n}", picture, arrays, unit) for n, (picture, arrays) in enumerate(shown, 1))
    names = max((picture.classes for picture in trial.pictures), key=len)
    errors = tuple[tuple[Markup, Words], ...]((_swatch(rgb), (name,)) for name, rgb in ERROR_COLOURS.items())
    return CaseGroup((Given(trial.name),), cases, _legend(names, pixels), errors)


def _case(ident: str, picture: CasePicture, arrays: PictureArrays, unit: DistanceUnit) -> CaseFigure:
    title: Words = (f"{RANKS[picture.rank]}: ", Given(picture.case), f", Dice {spell(picture.dice)}")
    return CaseFigure(title, (describe_place(picture, unit),), _panels(ident, picture, arrays))


def describe_place(picture: CasePicture, unit: DistanceUnit) -> str:
    """`Axial slice z = 17 (of 0 to 39), pixels of 1 x 1 mm.`"""
    height, width = picture.pixel_size
    pixels = f"pixels of {width:.3g} x {height:.3g} {unit}"
    if picture.num_slices == 1:
        return f"The only slice, {pixels}{_part(picture)}."
    plane = f"{picture.plane} slice ".lstrip()
    last = picture.num_slices - 1
    return f"{plane[0].upper()}{plane[1:]}{picture.axis} = {picture.slice} (of 0 to {last}), {pixels}{_part(picture)}."


def _part(picture: CasePicture) -> str:
    return "; only the part with labels" if picture.is_part else ""


def _panels(ident: str, picture: CasePicture, arrays: PictureArrays) -> tuple[Panel, ...]:
    errors = errors_of(arrays.truth, arrays.prediction)
    colours = [(0, 0, 0), *ERROR_COLOURS.values()]
    what = f"case {visible(picture.case)}"
    overlays = {
        "truth": ("Reference", indexed_png(arrays.truth), _describe_mask(picture, arrays.truth)),
        "prediction": ("Prediction", indexed_png(arrays.prediction), _describe_mask(picture, arrays.prediction)),
        "error": ("Error", coloured_png(errors, colours), describe_errors(errors)),
    }
    base, size = f"{ident}-image", _size_of(picture)
    embedded = element("image", id=base, href=f"data:image/png;base64,{grey_png(arrays.image)}", **size, **SHARP)
    described = f"{picture.plane} slice {picture.axis} = {picture.slice}".strip()
    panels = [Panel("image", _panel(f"{ident}-1", f"Image of {what}", described, size, embedded))]
    for number, (name, (title, png, description)) in enumerate(overlays.items(), 2):
        mask = element("image", class_="overlay", href=f"data:image/png;base64,{png}", **size, **SHARP)
        again = element("use", href=f"#{base}")
        panels.append(Panel(name, _panel(f"{ident}-{number}", f"{title} for {what}", description, size, again, mask)))
    return tuple(panels)


def _size_of(picture: CasePicture) -> dict[str, object]:
    """Width and height of a panel; pixels need not be square."""
    rows, columns = picture.size
    height, width = rows * picture.pixel_size[0], columns * picture.pixel_size[1]
    scale = LONGEST / max(height, width)
    return {"width": scale * width, "height": scale * height, "preserveAspectRatio": "none"}


def _panel(ident: str, title: str, description: str, size: dict[str, object], *children: Markup) -> Markup:
    return drawing(ident, title, description, *children, viewBox=f"0 0 {size['width']:.2f} {size['height']:.2f}")


def _describe_mask(picture: CasePicture, mask: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    """`Anterior 12 %, Posterior 8 % of the slice.`"""
    found = [k for k in np.unique(mask).tolist() if k not in (0, IGNORED_INDEX)]
    shares = [f"{visible(picture.classes[k])} {100 * float((mask == k).mean()):.1f} %" for k in found[:10]]
    more = f" and {len(found) - 10} more classes" if len(found) > 10 else ""
    return f"{', '.join(shares)}{more} of the slice." if found else "No class beside the background."


def describe_errors(errors: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    """`Pixels missed 12, too much 5, another class 0.`"""
    counts = [f"{name} {int((errors == kind).sum())}" for kind, name in enumerate(ERROR_COLOURS, 1)]
    return f"Pixels {', '.join(counts)}."


def _legend(names: Sequence[str], pixels: Sequence[PictureArrays]) -> tuple[tuple[Markup, Words], ...]:
    """The classes that a mask shows, and voxels under an ignore label."""
    shown = np.unique([k for arrays in pixels for mask in arrays[1:] for k in np.unique(mask)]).tolist()
    colours = class_colours(max(1, len(names) - 1))
    classes: list[tuple[Markup, Words]] = [
        (_swatch(colours[k - 1]), (Given(names[k]),)) for k in shown if k not in (0, IGNORED_INDEX)
    ]
    ignored: list[tuple[Markup, Words]] = [(_swatch(IGNORED_COLOUR), ("ignored",))] if IGNORED_INDEX in shown else []
    return (*classes, *ignored)


def _swatch(colour: Rgb) -> Markup:
    square = element("rect", x=1, y=1, width=14, height=14, fill="#{:02x}{:02x}{:02x}".format(*colour))
    return element("svg", square, class_="swatch", width=16, height=16, viewBox="0 0 16 16", aria_hidden="true")
