"""Relative critical sharpness: how soon a further step along the update raises the loss again.

    λ_c = 2/η_c,   η_c = inf{η > 0 : L(θ₁ + η·Δ) > L(θ₁)}

In multiples of the update. A quadratic bowl with its bottom at θ₁ + s·Δ has η_c = 2s, so λ_c = 1/s: small where the fine-tune
was still on its way down, without end where it stands at the bottom or beyond (Kalra and others 2025 on critical learning
rates). Looked for at doubling steps, then by halving the bracket: a rise that is over between two looks is not seen.
"""

from collections.abc import Callable

from tasks.measurements.confidence import Interval

FIRST = 1 / 16
FURTHEST = 4.0
HALVINGS = 3


def critical_sharpness(loss: Callable[[float], float], items: int) -> Interval:
    """λ_c between the bracket's ends; ``loss(η)`` is the mean loss at θ₁ + η·Δ on so many items.

    No upper bound where the first step already costs; no lower one, and the value at most 2/4, where none costs.
    What is not a number counts as more.

    >>> found = critical_sharpness(lambda eta: (eta - 0.5) ** 2, 8)
    >>> found.lower <= 2.0 <= found.upper
    True
    """
    here = loss(0.0)
    below, above = 0.0, FIRST
    while above < FURTHEST and loss(above) <= here:
        below, above = above, 2 * above
    if above >= FURTHEST and loss(FURTHEST) <= here:
        return Interval(2 / FURTHEST, None, 2 / FURTHEST, 0.0, items, "no rise along the line")
    for _ in range(HALVINGS if below else 0):
        middle = (below + above) / 2
        below, above = (middle, above) if loss(middle) <= here else (below, middle)
    if not below:
        return Interval(2 / above, 2 / above, None, 0.0, items, "rises at the first step")
    return Interval(4 / (below + above), 2 / above, 2 / below, 0.0, items, "bracket along the line")
