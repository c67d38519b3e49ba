"""Which code may be loaded: what the user named on the command line, or a file of settings that they trust names."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from dlx.settings.own.code import OwnCode, vouch_for, vouched_code
from dlx.settings.own.names import OwnName, own_name
from dlx.settings.part import CodeSpec, Part, spell_value
from dlx.settings.spec import Spec
from dlx.system.errors import SettingError

Key = TypeVar("Key")


def names_in(settings: Iterable[tuple[str, Any]]) -> tuple[str, ...]:
    """The networks, without arguments, that the user gives by these settings, key and value, in their own words."""
    pairs = [*settings]
    parts = [Part.model_validate(value) for key, value in pairs if key == "model" and isinstance(value, str | dict)]
    return (*(part.name for part in parts), *(value for key, value in pairs if key == "model.name" and value))


def with_named_code(specs: Mapping[Key, Spec], named: Iterable[str], *, trusts: bool = False) -> dict[Key, Spec]:
    """The specs with the code of the user's own networks vouched for, so that they can be bound and built.

    `named` are the names that the user gave on the command line (`nets/my_net.py:Net`). A spec from a record or a
    checkpoint has the digest of its code: it gets what is named only if that is the same content, and arguments after
    the name (`nets/my_net.py:Net:width=16`) must be the recorded ones. With
    `trusts`, what the specs themselves name is loaded: only for specs of a TOML file that the user trusts, never for
    those of records. SettingError, which says what to type, for all others. Specs of registered networks are unchanged.
    """
    found = {key: with_own_code(spec, named, trusts=trusts) for key, spec in specs.items()}
    _check_together([vouched_code(spec.model) for spec in found.values() if spec.model.is_own])
    return found


def with_own_code(spec: Spec, named: Iterable[str], *, trusts: bool = False) -> Spec:
    """As `with_named_code`, for one spec."""
    return spec.model_copy(update={"model": part_with_code(spec.model, named, trusts=trusts)})


def part_with_code(part: Part, named: Iterable[str], *, trusts: bool = False) -> Part:
    """As `with_named_code`, for the part that names a network, such as that of a checkpoint's settings."""
    own = own_name(part.name)
    if own is None:
        return part
    parts = [(one, found) for name in named if (found := own_name((one := Part.model_validate(name)).name)) is not None]
    typed = [(one, found) for one, found in parts if found.canonical == own.canonical]
    names = [found for _, found in typed]
    if part.code is None:
        return _of_settings(own, part, names, trusts=trusts)
    for one, _ in typed:
        _check_arguments(one, part)
    return _of_record(part, part.code, names or ([own] if trusts else []))


def _check_arguments(typed: Part, recorded: Part) -> None:
    """Refuses arguments after a name that are not those of the record, which alone says what was trained."""
    for key, value in typed.args.items():
        if recorded.args.get(key) != value:
            had = f"{key}={spell_value(recorded.args[key])}" if key in recorded.args else f"no argument {key}"
            raise SettingError(
                f"model '{typed}': the run was trained with {had}; the name alone is enough: --model {typed.name}"
            )


def _of_settings(own: OwnName, part: Part, typed: list[OwnName], *, trusts: bool) -> Part:
    """The part with the code that settings name: they are the user's own words, or those of a trusted file."""
    if not trusts and own not in typed:
        raise SettingError(
            f"model '{own}' is code of your own, which settings in a file may not load by themselves: add --trust-code "
            "if you trust the file (in Python: trust_code=True)"
        )
    return vouch_for(own, part)[0]


def _of_record(part: Part, recorded: CodeSpec, typed: list[OwnName]) -> Part:
    """The part of a record, if what the user named is the recorded code."""
    if not typed:
        where = f"PATH/{part.name}" if _is_file(part.name) else part.name
        raise SettingError(
            f"model '{part.name}' is code of your own, which is never loaded from records: name it: --model {where}"
        )
    found, code = vouch_for(typed[0], part)
    if (code.digest, code.version) != (recorded.digest, recorded.version):
        theirs, ours = (spell_code(one.digest, one.version) for one in (recorded, code))
        raise SettingError(
            f"model '{typed[0]}' is not the recorded code: it has changed since ({theirs} -> {ours}): restore it, or "
            "train the changed network as trials of its own"
        )
    return found


def spell_code(digest: str, version: str | None) -> str:
    """`monai 1.5.0, code 0f3a5b7c`, or the digest alone."""
    return ", ".join(filter(None, (version, f"code {digest[:8]}")))


def _is_file(name: str) -> bool:
    """Whether a name is that of a network in a file."""
    own = own_name(name)
    return own is not None and own.is_file


def _check_together(codes: Iterable[OwnCode]) -> None:
    """Refuses networks of one study that import different files by one name."""
    contents: dict[str, tuple[bytes, OwnCode]] = {}
    for code in codes:
        for file in code.files[1:]:
            content, first = contents.setdefault(file.module, (file.content, code))
            if content != file.content:
                raise SettingError(
                    f"models '{first.typed}' and '{code.typed}' import different files by the name '{file.module}': "
                    "rename one of them"
                )
