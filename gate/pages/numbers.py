"""Numbers as people should read them: rounded to their uncertainty, never more exact than they are."""

import math

from gate.domain.evidence import Estimate
from gate.domain.sentences import number

ABSENT = "–"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def decimals(estimate: Estimate) -> int:
    """How many decimals the interval's width supports, between 0 and 4.

    >>> decimals(Estimate(value=0.5, lower=0.4, upper=0.6, alpha=0.05))
    2
    """
    if estimate.lower is None or estimate.upper is None or estimate.upper == estimate.lower:
        return 2
    return max(0, min(4, -math.floor(math.log10((estimate.upper - estimate.lower) / 2.5))))


def signed(value: float, places: int = 2) -> str:
    """A difference with its sign; a true minus; no ``-0.00``.

    >>> signed(-0.001), signed(0.25)
    ('0.00', '+0.25')
    """
    return number(value, places, sign=True)


def compact(value: float) -> str:
    """A positive quantity to three significant digits, without exponents where they can be avoided.

    >>> compact(0.012345), compact(1234.5), compact(0), compact(0.0000437)
    ('0.0123', '1234', '0', '4.4 × 10⁻⁵')
    """
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    if abs(value) < 1e-4:
        digits, power = f"{value:.1e}".split("e")
        return f"{digits} × 10{str(int(power)).translate(RAISED)}".replace("-", "−")
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}".replace("-", "−")


def percent(value: float) -> str:
    """A ratio as a percentage to two significant digits.

    >>> percent(0.0086), percent(0.5)
    ('0.86 %', '50 %')
    """
    hundredths = 100 * value
    text = f"{hundredths:.0f}" if abs(hundredths) >= 10 else f"{hundredths:.2g}"
    return f"{text} %".replace("-", "−")


def interval(estimate: Estimate | None, *, sign: bool = False, least: int = 0) -> str:
    """``value (lower to upper)`` with at least so many decimals; ``value (lower or more)`` without an upper bound.

    What is its own upper bound, with none below, is ``value or less``.
    """
    if estimate is None:
        return ABSENT
    places = max(least, decimals(estimate))
    if estimate.lower == estimate.upper == estimate.value:
        return signed(estimate.value) if sign else compact(estimate.value)
    if estimate.lower is None and estimate.upper == estimate.value:
        return f"{signed(estimate.value) if sign else compact(estimate.value)} or less"
    low, middle, high = (
        "?" if v is None else _fixed(v, places, sign) for v in (estimate.lower, estimate.value, estimate.upper)
    )
    if estimate.upper is None and estimate.lower is not None:
        return f"{middle} ({low} or more)"
    return f"{middle} ({low} to {high})"


def _fixed(value: float, places: int, sign: bool) -> str:
    return number(value, places, sign=sign)
