"""JSON whose numbers are finite: NaN, Infinity and numbers such as 1e999 are refused, as no record has them."""

import json
from math import isfinite
from typing import Any, NoReturn


def load_finite(text: str | bytes) -> Any:
    """The value of a JSON text. ValueError if it is none, or if a number in it is not finite."""
    return json.loads(text, parse_constant=_refuse, parse_float=_finite)


def _finite(number: str) -> float:
    value = float(number)
    return value if isfinite(value) else _refuse(number)


def _refuse(number: str) -> NoReturn:
    raise ValueError(f"{number[:20]} is no finite number")
