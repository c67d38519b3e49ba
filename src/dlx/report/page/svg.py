"""SVG as markup: elements with escaped text, charts of lines, and strips of points on one axis.

Colours come from the page's style sheet by class, so that a chart is legible on light and on dark ground and in print.
"""

from collections.abc import Mapping, Sequence
from math import floor, isclose, log10

from markupsafe import Markup, escape

Point = tuple[float, float]
Range = tuple[float, float]


def element(name: str, *children: object, **attributes: object) -> Markup:
    """An element; text and attributes are escaped. `class_` is `class`, `text_anchor` is `text-anchor`; an attribute
    that is None is left out.
    """
    shown = [
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _spelled(value))
        for key, value in attributes.items()
        if value is not None
    ]
    inner = Markup("").join(escape(child) for child in children)
    opening = Markup("<{}{}").format(name, Markup("").join(shown))
    return Markup("{}>{}</{}>").format(opening, inner, name) if children else Markup("{}/>").format(opening)


def _spelled(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def drawing(ident: str, title: str, description: str, *children: object, **attributes: object) -> Markup:
    """An `svg` that assistive technology reads as one image with a title and a description; `ident` must be unique on
    the page.
    """
    named = {"role": "img", "aria_labelledby": f"{ident}-t {ident}-d"}
    return element(
        "svg",
        element("title", title, id=f"{ident}-t"),
        element("desc", description, id=f"{ident}-d"),
        *children,
        **named,
        **attributes,
    )


def ticks_within(low: float, high: float, most: int) -> list[float]:
    """At most `most` round numbers between the ends: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    for exponent in range(floor(log10((high - low) / most)), 400):
        for digit in (1, 2, 5):
            step = float(f"{digit}e{exponent}")
            first, last = floor(low / step), floor(high / step * (1 + 1e-12))
            found = [k * step for k in range(first, last + 1) if k * step >= low or isclose(k * step, low)]
            if len(found) <= most:
                return [float(f"{value:.12g}") for value in found]
    return [low]


def path_of(points: Sequence[Point], *, closed: bool = False) -> str:
    """Points as the `d` of a path."""
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points) + "Z" * closed


def thinned(curve: Mapping[int, float], most: int) -> dict[int, float]:
    """At most about `most` points of a curve, evenly spaced, with its last one."""
    epochs = [*curve]
    step = -(-len(epochs) // most) if epochs else 1
    kept = {*epochs[::step], *epochs[-1:]}
    return {epoch: value for epoch, value in curve.items() if epoch in kept}
