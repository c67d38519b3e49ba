"""Completes settings and their values: parts with arguments (`step:gamma=0.1`), sums of losses, `--set KEY=VALUE`.

The arguments of parts are in `settings.json`, because reading them from the signatures of factories takes torch. It is
made by `make docs UPDATE=1`, which a test checks. Names of parts are those of the registry.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dlx.cli.completion.candidate import Candidate, Candidates, Listed, fitting, prefixed
from dlx.settings.registry import PARTS
from dlx.settings.text import split_outside_brackets

TABLE = Path(__file__).with_name("settings.json")
# settings that name a file or folder
PATHS = ("split.file", "split.groups", "train.init_from", "data.source.path")
DEVICES = [Candidate("auto"), Candidate("cpu"), Candidate("cuda"), Candidate("cuda:", ends=False), Candidate("mps")]


@dataclass(frozen=True)
class SettingEntry:
    """A setting as `settings.json` has it: the words that it can be, and of an argument the parts that take it."""

    key: str
    help: str
    words: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class SettingTable:
    """All settings; the settings that name a part, with their kinds; a line of help for each part, by kind."""

    settings: tuple[SettingEntry, ...]
    kinds: dict[str, str]
    parts: dict[str, dict[str, str]]


@cache
def setting_table() -> SettingTable:
    """The content of `settings.json`."""
    document: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    entries = (SettingEntry(s["key"], s["help"], tuple(s["words"]), tuple(s["parts"])) for s in document["settings"])
    return SettingTable(tuple(entries), document["kinds"], document["parts"])


def complete_value(key: str, text: str) -> Candidates:
    """Completes the value of a setting."""
    if key == "compute.device":
        return fitting(text, DEVICES)
    if key == "data.source":
        return complete_data(text)
    if key == "loss":
        return complete_sum(key, text)
    if key in setting_table().kinds:
        return complete_part(key, text)
    if key in PATHS:
        return Listed.FILES
    known = next((entry for entry in setting_table().settings if entry.key == key), None)
    return fitting(text, [Candidate(word) for word in known.words]) if known is not None else []


def complete_data(text: str) -> Candidates:
    """Completes data: a phantom and its arguments, else a folder."""
    name = text.partition(":")[0]
    if ":" in text and name in PARTS["data"]:
        return complete_part("data.source", text)
    phantoms = [Candidate(one, _help_of("data", one)) for one in PARTS["data"] if one != "folder"]
    return fitting(text, phantoms) if text and fitting(text, phantoms) else Listed.FOLDERS


def complete_sum(key: str, text: str) -> Candidates:
    """Completes the last term of a sum of parts: `dice+foc`."""
    *before, last = split_outside_brackets(text, "+")
    found = complete_part(key, last)
    return found if isinstance(found, Listed) else prefixed("".join(f"{term}+" for term in before), found)


def complete_part(key: str, text: str, also: Sequence[str] = ()) -> Candidates:
    """Completes a part: its name, then after a colon its arguments. `also`: kinds whose names are taken too."""
    kinds = (setting_table().kinds[key], *also)
    name, colon, rest = text.partition(":")
    if not colon:
        names = [Candidate(one, _help_of(kind, one)) for kind in kinds for one in PARTS[kind]]
        return fitting(text, names)
    *before, last = split_outside_brackets(rest, ",")
    prefix = f"{name}:" + "".join(f"{piece}," for piece in before)
    argument, equals, value = last.partition("=")
    if equals:
        found = complete_value(f"{key}.{argument}", value)
        return found if isinstance(found, Listed) else prefixed(f"{prefix}{argument}=", found)
    given = {piece.partition("=")[0] for piece in before}
    return prefixed(prefix, fitting(last, [one for one in arguments(key, name) if one.value[:-1] not in given]))


def arguments(key: str, part: str) -> list[Candidate]:
    """`width=` and so on: the arguments of a part that the setting `key` can name."""
    return [
        Candidate(f"{entry.key.removeprefix(f'{key}.')}=", entry.help, ends=False)
        for entry in setting_table().settings
        if entry.key.startswith(f"{key}.") and part in entry.parts
    ]


def complete_assignment(text: str, _words: Sequence[str] = ()) -> Candidates:
    """Completes `KEY=VALUE`. Keys are offered a section at a time: `model.`, then `model.width=`."""
    key, equals, value = text.partition("=")
    if equals:
        found = complete_value(key, value)
        return found if isinstance(found, Listed) else prefixed(f"{key}=", found)
    steps: dict[str, Candidate] = {}
    for entry in setting_table().settings:
        if entry.key.startswith(text):
            end = entry.key.find(".", len(text))
            step = f"{entry.key}=" if end < 0 else entry.key[: end + 1]
            steps.setdefault(step, Candidate(step, entry.help if end < 0 else "", ends=False))
    return list(steps.values())


def complete_setting_name(text: str, _words: Sequence[str] = ()) -> Candidates:
    """Completes what `dlx settings` takes: sections and settings, with or without their section, and parts."""
    names: dict[str, Candidate] = {}
    for entry in setting_table().settings:
        for name in (entry.key.partition(".")[0], entry.key.rpartition(".")[2], entry.key):
            names.setdefault(name, Candidate(name, entry.help if name != entry.key.partition(".")[0] else ""))
    for kind in setting_table().kinds.values():
        names |= {one: Candidate(one, _help_of(kind, one)) for one in PARTS[kind]}
    return fitting(text, [candidate for name, candidate in names.items() if "." in text or "." not in name])


def _help_of(kind: str, part: str) -> str:
    return setting_table().parts.get(kind, {}).get(part, "")
