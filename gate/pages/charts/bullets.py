"""Numbers against their limits as bullet graphs: where it may be, where it is, how sure that is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from gate.domain.evidence import Estimate
from gate.domain.verdict import Finding
from gate.pages.charts.svg import Linear, element, picture
from gate.pages.numbers import ABSENT, interval, percent
from gate.pages.rules import limit_of

WIDTH, HEIGHT, PAD = 320.0, 26.0, 3.0


@dataclass(frozen=True, slots=True)
class Range:
    """What a row of graphs spans, so that they can be compared with each other."""

    low: float
    high: float


def span(findings: Sequence[Finding]) -> Range:
    """The range of all findings of one rule: every number and limit, zero, and a little air. An interval may run out
    of it: one that is very wide would press all the rest into a corner."""
    known = [finding.estimate for finding in findings if finding.estimate is not None]
    limits = [limit for f in findings for limit in (f.at_least, f.at_most) if limit is not None]
    values = [0.0, *limits, *(estimate.value for estimate in known)]
    low, high = min(values), max(values)
    extent = (high - low) or 1.0
    lowest = min([low, *(max(e.lower, low - extent) for e in known if e.lower is not None)])
    highest = max([high, *(min(e.upper, high + extent) for e in known if e.upper is not None)])
    air = 0.08 * (highest - lowest or 1.0)
    return Range(lowest - air if lowest < 0 else lowest, highest + air)


def bullet(finding: Finding, over: Range) -> Markup | None:
    """The graph of one finding; ``None`` where there is no number or no limit."""
    limit = finding.at_least if finding.at_least is not None else finding.at_most
    if finding.estimate is None or limit is None:
        return None
    across = Linear(over.low, over.high, PAD, WIDTH - PAD)
    parts = [
        *_grounds(across, limit, above=finding.at_least is not None),
        *_measure(across, finding.estimate, finding.result.value),
        element("line", x1=across(limit), x2=across(limit), y1=1.0, y2=HEIGHT - 1, class_="limit"),
    ]
    label = f"{finding.rule} {finding.capability or ''}: {interval(finding.estimate)}, {limit_of(finding)}"
    return picture(WIDTH, HEIGHT, label, *parts, class_="chart bullet")


def _grounds(across: Linear, limit: float, *, above: bool) -> Iterator[Markup]:
    """The allowed side broad, the other one narrow: told apart without colour."""
    at = across(limit)
    yield _ground(across.start, at, good=not above)
    yield _ground(at, across.end, good=above)


def _ground(start: float, end: float, *, good: bool) -> Markup:
    inset = 3.0 if good else 8.0
    class_ = "good-ground" if good else "bad-ground"
    return element("rect", x=start, y=inset, width=end - start, height=HEIGHT - 2 * inset, class_=class_)


def _measure(across: Linear, estimate: Estimate, result: str) -> Iterator[Markup]:
    """The bar from zero, the interval, the point."""
    zero, at, middle = across(0.0), across(estimate.value), HEIGHT / 2
    yield element("rect", x=min(zero, at), y=middle - 3, width=abs(at - zero), height=6.0, class_=f"measure {result}")
    low, high = _ends(across, estimate)
    if high - low > 1:
        yield element("line", x1=low, x2=high, y1=middle, y2=middle, class_="whisker")
        for bound, x in ((estimate.lower, low), (estimate.upper, high)):
            if bound is not None:
                yield element("line", x1=x, x2=x, y1=middle - 4, y2=middle + 4, class_="whisker")
    yield element("circle", cx=at, cy=middle, r=4.2, class_=f"point {result}")


def _ends(across: Linear, estimate: Estimate) -> tuple[float, float]:
    low = across.start if estimate.lower is None else across(estimate.lower)
    high = across.end if estimate.upper is None else across(estimate.upper)
    return low, high


def change_strip(change: Estimate | None, margin: float | None, over: Range, least: int = 2) -> Markup | None:
    """A capability's change against the base on the axis all capabilities share: zero, margin, interval, point."""
    if change is None:
        return None
    across = Linear(over.low, over.high, PAD, WIDTH - PAD)
    zero = across(0.0)
    parts = [element("line", x1=zero, x2=zero, y1=1.0, y2=HEIGHT - 1, class_="zero")]
    result = "pass"
    if margin is not None:
        at = across(-margin)
        parts += [
            _ground(across.start, at, good=False),
            element("line", x1=at, x2=at, y1=1.0, y2=HEIGHT - 1, class_="limit"),
        ]
        result = "fail" if change.upper is not None and change.upper < -margin else "pass"
    parts += _measure(across, change, result)
    label = f"change against the base {interval(change, sign=True, least=least)}, margin {margin if margin is not None else ABSENT}"
    return picture(WIDTH, HEIGHT, label, *parts, class_="chart bullet")


def place_bar(position: float) -> Markup:
    """How far out in the basin, from the base at the left to beyond the edge, which is the tick."""
    across = Linear(0.0, 1.25, 2.0, 78.0)
    edge, at = across(1.0), across(position)
    return picture(
        80.0,
        12.0,
        f"{percent(position)} of the way to the edge",
        element("rect", x=2.0, y=4.0, width=edge - 2.0, height=4.0, class_="good-ground"),
        element("rect", x=edge, y=4.0, width=78.0 - edge, height=4.0, class_="bad-ground"),
        element("line", x1=edge, x2=edge, y1=1.0, y2=11.0, class_="limit"),
        element("circle", cx=at, cy=6.0, r=3.4, class_="point own"),
        class_="chart place",
    )


def share_bar(share: float, label: str) -> Markup:
    """A share of one as a bar, on a track that is the whole."""
    across = Linear(0.0, 1.0, PAD, WIDTH - PAD)
    return picture(
        WIDTH,
        HEIGHT,
        label,
        element("rect", x=PAD, y=9.0, width=WIDTH - 2 * PAD, height=8.0, class_="track"),
        element("rect", x=PAD, y=9.0, width=across(share) - PAD, height=8.0, class_="measure own"),
        element("circle", cx=across(share), cy=HEIGHT / 2, r=4.2, class_="point own"),
        class_="chart bullet",
    )
