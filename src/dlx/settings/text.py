"""Settings as a user types them: values (`1e-3`, `[1, 2]`), parts (`step:step_size=30,gamma=0.1`) and grids of numbers
(`0,0.1..0.8:0.05`); and how messages write counts and long values.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Any

from dlx.settings.own.names import parse_own
from dlx.settings.registry import PARTS
from dlx.system.errors import SettingError

PART_NAME = re.compile(r"[A-Za-z][\w.+-]*")
MAX_VALUES = 1000  # of a grid: a study of more variants is most likely a typing error
MAX_DIGITS = 18  # of a grid's number, before the point and after it: what a float and a 64-bit integer hold


def counted(number: int, what: str, plural: str | None = None) -> str:
    """`1 trial`, `2 trials`; `2 patches` with a plural of its own."""
    return f"{number} {what}" if number == 1 else f"{number} {plural or f'{what}s'}"


def shorten(text: str, max_length: int = 80) -> str:
    """The text, cut to what a message can hold."""
    return text if len(text) <= max_length else f"{text[: max_length - 3]}..."


def parse_value(text: str) -> Any:
    """The value of a text: a number (`30`, `1e-3`), true or false, none, a [list], a {JSON table}, or the text."""
    stripped = text.strip()
    lowered = stripped.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    if lowered in ("none", "null"):
        return None
    if stripped.startswith("{"):
        try:
            return json.loads(stripped)
        except ValueError as error:
            raise SettingError(f"'{text}': not a JSON table ({error})") from None
    if stripped.startswith("["):
        if not stripped.endswith("]"):
            raise SettingError(f"'{text}': the list is not closed with ]")
        with suppress(ValueError, RecursionError):  # names that hold a comma are written as JSON: ["a,b", "c"]
            return json.loads(stripped)
        inner = stripped[1:-1].strip()
        return [parse_value(item) for item in split_outside_brackets(inner, ",")] if inner else []
    if len(stripped) >= 2 and stripped[0] == stripped[-1] and stripped[0] in "'\"":
        return stripped[1:-1]
    for kind in (int, float):
        try:
            return kind(stripped)
        except ValueError:
            continue
    return stripped


def whole_numbers(text: str) -> tuple[int, ...] | None:
    """`2,64,64` as (2, 64, 64); None if the text is no list of whole numbers, each of at most seven digits."""
    pieces = [piece.strip() for piece in text.split(",")]
    if not all(piece.isascii() and piece.isdecimal() and len(piece) < 8 for piece in pieces):
        return None
    return tuple(int(piece) for piece in pieces)


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """`a=[1,2],b=3` split at the commas outside brackets: `a=[1,2]` and `b=3`."""
    pieces, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        depth += (letter in "[({") - (letter in "])}")
        if letter == separator and depth == 0:
            pieces.append(text[start:position])
            start = position + 1
    return [*pieces, text[start:]]


def parse_part(text: str) -> dict[str, Any]:
    """`name` or `name:key=value,key=value` as `{"name": ..., "args": {...}}`; SettingError for any other text.

    The name may also be that of a network of the user's own: `my_net.py:Net`, `my_net.py:Net:width=8`.
    """
    name, colon, rest = text.strip().partition(":")
    own = None if any(name in names for names in PARTS.values()) else parse_own(text)
    if own is not None:
        name, rest = str(own[0]), own[1]
    elif not PART_NAME.fullmatch(name):
        own_hint = f" or {name}:Name, the class or function in it" if name.endswith(".py") else ""
        raise SettingError(f"'{text}': expected a name, as in unet2 or step:step_size=30,gamma=0.1{own_hint}")
    args: dict[str, Any] = {}
    for piece in split_outside_brackets(rest, ",") if colon and rest.strip() else []:
        key, equals, value = piece.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key.isidentifier():
            raise SettingError(f"'{text}': expected key=value (got '{piece}')")
        if key in args:
            raise SettingError(f"'{text}': '{key}' is given twice")
        args[key] = parse_value(value)
    return {"name": name, "args": args}


def parse_grid(text: str) -> tuple[int | float, ...]:
    """The numbers of a list of values and ranges (`0,0.1..0.8:0.05`), exact decimals in the order given, none twice.

    `0.1..0.8` rises or falls in steps of the last digit that was written, 0.1; `0.1..0.8:0.05` in steps of 0.05, up to
    the last value within the range. Whole numbers stay int. SettingError for any other text, with a correct grid where
    a common notation of another program is recognised.
    """
    try:
        return _parse_grid(text)
    except SettingError as error:
        meant = next((other for other in _other_notations(text) if _is_grid(other)), None)
        raise SettingError(f"{error}; did you mean {meant}?" if meant else str(error)) from None


def _parse_grid(text: str) -> tuple[int | float, ...]:
    values: list[Decimal] = []
    for piece in text.split(","):
        values += _expand(piece.strip(), text)
        if len(values) > MAX_VALUES:
            raise SettingError(f"'{text}': more than {MAX_VALUES} values")
    return tuple(_int_or_float(value) for value in dict.fromkeys(values))


def _is_grid(text: str) -> bool:
    try:
        _parse_grid(text)
    except SettingError:
        return False
    return True


def _other_notations(text: str) -> Iterator[str]:
    """Candidates for what was meant, from the notations of other programs; the caller drops those that are no grid."""
    plain = re.sub(r"\.{3,}|…|[\u2013\u2014]", "..", text.strip()).strip("[](){}'\" ,;")
    plain = re.sub(r"(?<![\d.,])\.(?=\d)", "0.", plain)  # .5
    if called := re.fullmatch(r"(?:np\.|numpy\.)?a?range\(([^()]*)\)?", plain):
        plain = ":".join(piece.strip() for piece in called[1].split(","))
    digits = r"\d+(?:\.\d+)?"
    number = rf"\s*([-+]?{digits}(?:e[-+]?\d+)?)\s*"
    if found := re.fullmatch(f"{number}:{number}:{number}", plain):  # first:last:step, or first:step:last
        first, second, third = found.groups()
        yield f"{first}..{second}:{third}" if float(third) <= abs(float(second)) else f"{first}..{third}:{second}"
    if found := re.fullmatch(f"{number}(?::|to|-){number}", plain):
        yield f"{found[1]}..{found[2]}"
    if found := re.fullmatch(rf"(.*\d)\s*(?:by|step)\s*{number}", plain):
        yield f"{found[1]}:{found[2]}"
    if "%" in plain:
        whole_range = r"(?=(?:\.\.|:)[\d.:]*\d\s*%)"  # in 10..50% all numbers are percentages
        yield re.sub(rf"({digits})(?:\s*%|{whole_range})", lambda found: str(Decimal(found[1]) / 100), plain)
    if re.fullmatch(r"\d+,\d+(\.\.\d+,\d+)?", plain):  # a decimal comma
        yield plain.replace(",", ".")
    yield ",".join(re.split(r"[\s,;]+", plain))


def _expand(piece: str, text: str) -> list[Decimal]:
    ends, colon, spacing = piece.partition(":")
    first, dots, last = ends.partition("..")
    if not dots:
        if colon:
            raise SettingError(f"'{text}': a step follows a range, as in 0.1..0.8:0.1")
        return [_number(first, text)]
    start, end = _number(first, text), _number(last, text)
    step = _number(spacing, text) if colon else _last_digit(start, end)
    if step <= 0:
        raise SettingError(f"'{text}': the step of a range must be above 0")
    count = int(abs(end - start) / step) + 1
    if count > MAX_VALUES:
        raise SettingError(f"'{text}': more than {MAX_VALUES} values")
    return [start + (step if end >= start else -step) * index for index in range(count)]


def _number(word: str, text: str) -> Decimal:
    try:
        number = Decimal(word.strip())
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise SettingError(f"'{text}': '{word}' is no number; expected values and ranges, as in 0,0.1..0.8:0.05")
    if not -MAX_DIGITS <= number.adjusted() <= MAX_DIGITS or len(number.as_tuple().digits) > 2 * MAX_DIGITS:
        raise SettingError(f"'{text}': more than {MAX_DIGITS} digits on one side of the decimal point")
    return number


def _last_digit(*numbers: Decimal) -> Decimal:
    """One unit in the last decimal place of the numbers as they were typed; 1 for whole numbers."""
    return Decimal(1).scaleb(min(0, *(int(number.as_tuple().exponent) for number in numbers)))


def _int_or_float(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)
