"""Grids of numbers as a user types them, `0,0.1..0.8:0.05`, in exact decimals."""

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation

from dlx.system.errors import SettingError

MAX_VALUES = 1000
MAX_DIGITS = 18  # before the point or after it: what a float and a 64-bit number hold


def parse_grid(text: str) -> tuple[int | float, ...]:
    """The numbers of a list of values and ranges, in the order given, none twice.

    `0.1..0.8` goes up (or down) in steps of the last digit written, 0.1; `0.1..0.8:0.05` in steps of 0.05, and ends
    at the last value that does not pass the end. Whole numbers stay int. SettingError for anything else, with what may
    have been meant where that can be read.
    """
    try:
        return _parse(text)
    except SettingError as error:
        meant = next((other for other in _other_spellings(text) if _is_grid(other)), None)
        raise SettingError(f"{error}; did you mean {meant}?" if meant else str(error)) from None


def _parse(text: str) -> tuple[int | float, ...]:
    values: list[Decimal] = []
    for piece in text.split(","):
        values += _expand(piece.strip(), text)
        if len(values) > MAX_VALUES:
            raise SettingError(f"'{text}': more than {MAX_VALUES} values")
    return tuple(_plain(value) for value in dict.fromkeys(values))


def _is_grid(text: str) -> bool:
    try:
        _parse(text)
    except SettingError:
        return False
    return True


def _other_spellings(text: str) -> Iterator[str]:
    """Grids that the text may stand for if it is written in another notation; some of them may not be grids either."""
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
            raise SettingError(f"'{text}': a step goes with a range, first..last:step, as in 0.1..0.8:0.1")
        return [_number(first, text)]
    start, end = _number(first, text), _number(last, text)
    step = _number(spacing, text) if colon else _last_digit(start, end)
    if step <= 0:
        raise SettingError(f"'{text}': the step must be above 0")
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
        raise SettingError(f"'{text}': of more than {MAX_DIGITS} digits on one side of the point")
    return number


def _last_digit(*numbers: Decimal) -> Decimal:
    """One unit of the last digit that any of the numbers was written with; 1 for whole numbers."""
    return Decimal(1).scaleb(min(0, *(int(number.as_tuple().exponent) for number in numbers)))


def _plain(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)
