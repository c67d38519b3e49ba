"""How a network of the user's own is named: `my_net.py:Net` or `package.module:callable`. Imports nothing."""

import re
from dataclasses import dataclass
from pathlib import PurePath

_IDENTIFIER = r"[^\W\d]\w*"
_DOTTED = rf"{_IDENTIFIER}(?:\.{_IDENTIFIER})*"
# The source, the callable in it, and perhaps arguments. The source is a file if it ends in .py, else a module.
_OWN = re.compile(rf"(?P<source>.+?\.py|{_DOTTED}):(?P<attribute>{_DOTTED})(?::(?P<rest>.*))?")


@dataclass(frozen=True)
class OwnName:
    """A callable in a file or a module."""

    source: str  # the path of a file as it was typed, or a dotted module
    attribute: str  # may be dotted

    @property
    def is_file(self) -> bool:
        return self.source.endswith(".py")

    @property
    def canonical(self) -> str:
        """The name without folders, as settings record it: where a file lies changes no number."""
        return f"{PurePath(self.source).name if self.is_file else self.source}:{self.attribute}"

    def __str__(self) -> str:
        return f"{self.source}:{self.attribute}"


def parse_own(text: str) -> tuple[OwnName, str] | None:
    """The name and the arguments after it (empty if there are none); None if the text names no code of the user."""
    found = _OWN.fullmatch(text.strip())
    if found is None or not found["source"].isprintable():
        return None
    return OwnName(found["source"], found["attribute"]), found["rest"] or ""


def own_name(name: str) -> OwnName | None:
    """The name without arguments; None if it is that of a registered part, or of nothing."""
    found = parse_own(name)
    return found[0] if found is not None and not found[1] and name == str(found[0]) else None


def plain_name(name: str) -> str:
    """The name of a network for a folder: `my_net-Net` for `nets/my_net.py:Net`; registered names are unchanged."""
    own = own_name(name)
    return name if own is None else own.canonical.replace(".py:", "-").replace(":", "-")


def canonical_name(name: str) -> str:
    """The name of a network as settings record it."""
    own = own_name(name)
    return name if own is None else own.canonical
