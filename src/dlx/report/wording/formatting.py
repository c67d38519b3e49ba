"""Numbers as text."""

from math import floor, log10
from typing import TYPE_CHECKING

from dlx.settings.text import counted

if TYPE_CHECKING:
    from dlx.statistics.claims import Estimate  # which imports scipy


def spell(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals; a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def spell_seconds(seconds: float) -> str:
    """`48.1 s`, `12 min 05 s`, `3 h 20 min`."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"


def spell_age(seconds: float) -> str:
    """How long ago: `40 s`, `12 min`, `5 h`, `1 day`, `30 days`; `0 s` for a time in the future."""
    whole = max(0, int(seconds))
    for size, unit in ((86400, "day"), (3600, "h"), (60, "min")):
        if whole >= size:
            return counted(whole // size, unit) if unit == "day" else f"{whole // size} {unit}"
    return f"{whole} s"


def signed(value: float | None, digits: int = 3) -> str:
    """A number with its sign and so many decimals, `+0.000` if it rounds to zero; a dash for None."""
    return "-" if value is None else f"{value:+z.{digits}f}"


def spell_interval(interval: tuple[float, float] | None, digits: int = 3) -> str:
    """`-0.013 to +0.021`; a dash for None. A bound that rounds to zero keeps its sign (is 0 inside?)."""
    return "-" if interval is None else " to ".join(f"{end:+.{digits}f}" for end in interval)


def spell_effect(estimate: float | None, interval: tuple[float, float] | None) -> tuple[str, str]:
    """A claim's estimate and interval: three decimals, or more if all of them are below 0.005 (not every claim is about
    Dice).
    """
    values = [abs(value) for value in (estimate, *(interval or ())) if value is not None]
    largest = max(values, default=0.0)
    digits = 3 if largest == 0.0 or largest >= 0.005 else min(8, 1 - floor(log10(largest)))
    return signed(estimate, digits), spell_interval(interval, digits)


def spell_spread(estimate: "Estimate", *, is_mixed: bool = False, has_sign: bool = False) -> str:
    """`0.823 ± 0.004`, mean and standard deviation over seeds; the mean alone from one seed.

    If some runs collapsed (`is_mixed`) it is the range from lowest to highest: no mean describes both groups.
    """
    write = signed if has_sign else spell
    if estimate.sd is None:
        return write(estimate.mean)
    if is_mixed:
        return f"{write(min(estimate.values))} to {write(max(estimate.values))}"
    return f"{write(estimate.mean)} ± {estimate.sd:.3f}"
