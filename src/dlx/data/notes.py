"""Warnings about files with ambiguous headers: the text for each kind of note, with counts over all files.

The notes come from the checks of headers (`dlx.data.volumes`) and from the comparison of geometries (`geometry`).
"""

from collections.abc import Iterable
from typing import NamedTuple

from dlx.data.layouts.listing import name_some
from dlx.settings.text import counted

# Kinds that do not concern where the voxels of a case lie; `data.geometry=strict` refuses all others.
HARMLESS = ("scaling", "screen", "bits")
STRICT = "--set data.geometry=strict refuses this"
MAX_NAMES = 3  # of files, per kind

# kind -> what the files have, and what dlx used; the reference is the image, or the true mask of a prediction
KINDS: dict[str, tuple[str, str]] = {
    "spacing of pixdim": (
        "an sform of another spacing than pixdim",
        "pixdim's spacing was used, and the qform if there is one",
    ),
    "spacing of the sform": ("no spacing above 0 in pixdim", "the spacing of the sform was used"),
    "negative spacing": ("a negative spacing", "its absolute value was used"),
    "thickness": ("a single slice without a thickness", "1 mm was used"),
    "unit": ("a spacing in another unit than mm", "it was converted to mm"),
    "unknown code": ("an unknown orientation code", "it was treated as 0 (not in use)"),
    "unsound form": ("an invalid qform or sform", "the other of the two was used"),
    "forms apart, qform": ("a qform and an sform that differ", "the qform was used"),
    "forms apart, sform": ("a qform and an sform that differ", "the sform was used"),
    "scaling": ("a scaling with an invalid slope", "the stored values were used unscaled"),
    "origin": ("another origin than the {reference} of the case", "the {reference}'s was used"),
    "no origin": ("an origin of zero, unlike another file of the case", "the {reference}'s was used"),
    "spacing": ("another spacing than the {reference} of the case", "the {reference}'s was used"),
    "direction": ("another direction than the {reference} of the case", "the {reference}'s was used"),
    "bits": ("a bitpix that contradicts the datatype", "the datatype was used, for which the file has enough bytes"),
    "screen": (
        "a resolution in dots an inch or cm",
        "distances in mm follow from it, though it often describes a screen",
    ),
    "resolution": ("another resolution than the {reference} of the case", "both were ignored: the pixel size is 1"),
}
AMOUNTS = {  # format of the largest amount, for kinds that report it
    "origin": "{:.3g} mm",
    "no origin": "{:.3g} mm",
    "spacing": "{:.2%}",
    "direction": "{:.3g} degrees",
    "forms apart, qform": "{:.3g} mm",
    "forms apart, sform": "{:.3g} mm",
}


class FileNote(NamedTuple):
    """A note on a file of a case; `kind`, `detail` and `amount` as in `volumes.header.Note`."""

    kind: str
    file: str
    detail: str
    amount: float = 0.0


def describe_notes(notes: Iterable[FileNote], *, reference: str = "image", strict: str = STRICT) -> tuple[str, ...]:
    """A line per kind: the number of files, a few of their names, an example, and what dlx used.

    `reference` is whose geometry counts, and `strict` says what refuses such files.
    """
    of_kind: dict[str, list[FileNote]] = {}
    for note in notes:
        of_kind.setdefault(note.kind, []).append(note)
    unknown = sorted(of_kind.keys() - KINDS.keys())  # in prepared data written by a newer dlx
    return tuple(_line(kind, of_kind[kind], reference, strict) for kind in (*KINDS, *unknown) if kind in of_kind)


def _line(kind: str, notes: list[FileNote], reference: str, strict: str) -> str:
    has, used = (words.replace("{reference}", reference) for words in KINDS.get(kind, (kind, "read nevertheless")))
    largest = max(notes, key=lambda note: note.amount)
    verb = "has" if len(notes) == 1 else "have"
    most = f", by at most {AMOUNTS[kind].format(largest.amount)}" if kind in AMOUNTS else ""
    example = f"in {largest.file} {largest.detail}" if len(notes) > 1 else largest.detail
    names = name_some([note.file for note in notes], MAX_NAMES)
    refused = "" if kind in HARMLESS else f"; {strict}"
    return f"{counted(len(notes), 'file')} {verb} {has}{most}: {used} ({names}; {example}){refused}"
