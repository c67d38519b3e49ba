"""What completes a word: candidates, or files and folders, which the shell lists itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Candidate:
    """A word that the unfinished one may become, with a line of help. A blank follows the word if it `ends` there; it
    goes on after `unet2:width=` or `runs/`.
    """

    value: str
    help: str = ""
    ends: bool = True


class Listed(Enum):
    """What the shell lists in place of candidates."""

    FILES = "files"
    FOLDERS = "folders"


Candidates = list[Candidate] | Listed
Completer = Callable[[str, Sequence[str]], Candidates]  # of the unfinished word and the words before it


def fitting(text: str, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those of the candidates that begin with the text."""
    return [candidate for candidate in candidates if candidate.value.startswith(text)]


def prefixed(prefix: str, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates for the end of a word whose beginning is finished."""
    return [Candidate(prefix + one.value, one.help, one.ends) for one in candidates]
