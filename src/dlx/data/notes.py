"""Warnings of what was read in one of several ways: each kind of note in words, counted over all files.

The notes come from the headers' checks (`dlx.data.volumes`) and from the comparison of geometries (`same_voxels`).
"""

from collections.abc import Iterable
from typing import NamedTuple

from dlx.data.layouts.listing import name_some
from dlx.settings.text import counted

# Kinds that say nothing of where the voxels of a case lie: `data.geometry=strict` refuses all others.
HARMLESS = ("scaling", "screen", "bits")
STRICT = "--set data.geometry=strict refuses this"
MAX_NAMES = 3  # of the files of one kind

# kind -> what the files have, and what was taken; then how `amount` reads, where the largest is worth saying
KINDS: dict[str, tuple[str, str]] = {
    "spacing of pixdim": (
        "an sform of another spacing than pixdim",
        "pixdim's spacing was taken, and the qform where there is one",
    ),
    "spacing of the sform": ("no spacing above 0 in pixdim", "the sform's was taken"),
    "negative spacing": ("a negative spacing", "its absolute value was taken"),
    "thickness": ("a single slice without a thickness", "1 mm was taken"),
    "unit": ("a spacing in another unit than mm", "it was converted to mm"),
    "unknown code": ("an unknown orientation code", "it was taken as 0 (not in use)"),
    "unsound form": ("a qform or an sform that is not sound", "the other of the two was taken"),
    "forms apart, qform": ("a qform and an sform that differ", "the qform was taken"),
    "forms apart, sform": ("a qform and an sform that differ", "the sform was taken"),
    "scaling": ("a scaling without a sound slope", "the values were taken as they are stored"),
    "origin": ("another origin than the image of the case", "the image's was taken"),
    "no origin": ("an origin of zero beside another one in the case", "the image's was taken"),
    "spacing": ("another spacing than the image of the case", "the image's was taken"),
    "direction": ("another direction than the image of the case", "the image's was taken"),
    "bits": ("a bitpix that contradicts the datatype", "the datatype was taken, of which the file has enough bytes"),
    "screen": ("a resolution in dots an inch or cm", "distances are in mm by it, though it is often a screen's"),
    "resolution": ("another resolution than the image of the case", "both were left aside: a pixel counts as 1"),
}
AMOUNTS = {
    "origin": "{:.3g} mm",
    "no origin": "{:.3g} mm",
    "spacing": "{:.2%}",
    "direction": "{:.3g} degrees",
    "forms apart, qform": "{:.3g} mm",
    "forms apart, sform": "{:.3g} mm",
}


class FileNote(NamedTuple):
    """A note on a file of a case: the kind and the amount as in `headers.claim.Note`, the file's name, the detail."""

    kind: str
    file: str
    detail: str
    amount: float = 0.0


def describe_notes(notes: Iterable[FileNote]) -> tuple[str, ...]:
    """A line for each kind: how many files have it, a few of their names, an example, and what was taken."""
    of_kind: dict[str, list[FileNote]] = {}
    for note in notes:
        of_kind.setdefault(note.kind, []).append(note)
    return tuple(_line(kind, of_kind[kind]) for kind in sorted(of_kind, key=_rank))


def _rank(kind: str) -> int:
    return list(KINDS).index(kind) if kind in KINDS else len(KINDS)


def _line(kind: str, notes: list[FileNote]) -> str:
    has, taken = KINDS.get(kind, (kind, "read all the same"))
    largest = max(notes, key=lambda note: note.amount)
    verb = "has" if len(notes) == 1 else "have"
    most = f", by at most {AMOUNTS[kind].format(largest.amount)}" if kind in AMOUNTS else ""
    example = f"in {largest.file} {largest.detail}" if len(notes) > 1 else largest.detail
    names = name_some([note.file for note in notes], MAX_NAMES)
    refused = "" if kind in HARMLESS else f"; {STRICT}"
    return f"{counted(len(notes), 'file')} {verb} {has}{most}: {taken} ({names}; {example}){refused}"
