"""SVG from values: elements, scales and ticks. Colours are CSS classes; nothing here is a style or a script."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from gate.pages.inert import inert

Attribute = str | float


def element(tag: str, *children: str, **attributes: Attribute | None) -> Markup:
    """One element. Children that are not `Markup` are escaped; a trailing underscore of a name is dropped, others
    become hyphens; an attribute of ``None`` is left out.

    >>> element("text", "<b>", x=1.25, text_anchor="end", class_="tick", id=None)
    Markup('<text x="1.2" text-anchor="end" class="tick">&lt;b&gt;</text>')
    """
    given = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items() if value is not None}
    shown = Markup("").join(Markup(' {}="{}"').format(name, _value(value)) for name, value in given.items())
    return Markup("<{0}{1}>{2}</{0}>").format(tag, shown, Markup("").join(escape(child) for child in children))


def _value(value: Attribute) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def group(children: Iterable[Markup], class_: str | None = None) -> Markup:
    """Elements drawn in this order, the last on top."""
    return element("g", *children, class_=class_)


def picture(width: float, height: float, label: str, *children: Markup, class_: str = "chart") -> Markup:
    """A whole picture with the sentence that stands for it where it cannot be seen."""
    label = inert(label)
    return element(
        "svg",
        element("title", label),
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_label=label,
        class_=class_,
    )


def path(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """A line through the points."""
    return element("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), class_=class_)


def area(upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], class_: str) -> Markup:
    """The surface between two lines over the same places."""
    around = [*upper, *reversed(lower)]
    return element("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in around) + "Z", class_=class_)


@dataclass(frozen=True, slots=True)
class Linear:
    """Values to places; what lies outside is held at the edge.

    >>> Linear(0, 1, 0, 100)(0.25), Linear(0, 1, 100, 0)(2)
    (25.0, 0.0)
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class FromZero:
    """Sizes over several powers of ten, with zero at a place of its own before a gap.

    >>> scale = FromZero(0.001, 0.1, 0, 20, 120)
    >>> scale(0), scale(0.001), scale(0.01)
    (0, 20.0, 70.0)
    """

    low: float
    high: float
    zero: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        if value <= 0:
            return self.zero
        log = Linear(math.log10(self.low), math.log10(self.high), self.start, self.end)
        return log(math.log10(value))

    def ticks(self) -> list[float]:
        """Powers of ten; with halves and fifths of them where there are few."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        tens = [10.0**power for power in range(first, last + 1)]
        for steps in ((1,), (1, 3), (1, 2, 5)):
            inside = [t * s for t in tens for s in steps if self.low <= t * s <= self.high]
            if len(inside) >= 2:
                return inside
        return [self.low, self.high]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between two values.

    >>> ticks(-1.0, 0.1), ticks(0, 0.3, 3)
    ([-1.0, -0.75, -0.5, -0.25, 0.0], [0.0, 0.2])
    """
    power = 10.0 ** math.floor(math.log10(high - low))
    for step in (power / 10, power / 5, power / 4, power / 2, power, 2 * power, 2.5 * power, 5 * power):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [round(n * step, 10) for n in range(first, last + 1)]
    return [low, high]
