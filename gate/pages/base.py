"""One base: its basin as its profile has it, and its fine-tunes as points in it."""

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from gate.domain.checkpoint import Checkpoint, Layout, Lineage
from gate.domain.evidence import BasinProfile, Curve, Evidence, Measurement, Name
from gate.domain.overview import FleetRow
from gate.pages.charts.svg import FromZero, Linear, element, picture, ticks
from gate.pages.numbers import signed

WIDTH, HEIGHT = 720.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 14.0, 44.0
NEAREST = 0.001
_SHAPES = {
    "approved": "M0 -5a5 5 0 1 1 0 10a5 5 0 1 1 0 -10Z",
    "blocked": "M-5 -5L5 5M5 -5L-5 5",
    "needs_review": "M0 -6L6 5L-6 5Z",
    "error": "M-4.5 -4.5H4.5V4.5H-4.5Z",
}


def of_profile(profile: BasinProfile) -> Evidence:
    """What a profile knows, as evidence on the base itself: curves and edges, no candidate."""
    found = [c for c in profile.capabilities if c.noise]
    edges = [
        Measurement(name=Name.BASIN_SIGMA, capability=c.capability, estimate=c.basin_sigma)
        for c in found
        if c.basin_sigma is not None
    ]
    return Evidence(
        key=profile.base_digest,
        candidate=Checkpoint(layout=Layout.UNKNOWN, files=()),
        lineage=Lineage(),
        capabilities=tuple(c.capability for c in found),
        margins={c.capability: c.margin for c in found},
        measurements=tuple(edges),
        curves=tuple(Curve(kind="noise", capability=c.capability, points=c.noise) for c in found),
    )


def scatter(rows: Sequence[FleetRow]) -> Markup | None:
    """Each judged fine-tune by its place in the basin and its largest loss; ``None`` without any."""
    points = [(r.basin_position, r.worst_change, r) for r in rows]
    known = [(p, c, r) for p, c, r in points if p is not None and c is not None]
    if not known:
        return None
    across = FromZero(NEAREST, max(2.0, *(p for p, _, _ in known)), LEFT + 10, LEFT + 40, WIDTH - RIGHT)
    up = Linear(min(-0.25, *(c for _, c, _ in known)) - 0.06, 0.1, HEIGHT - BOTTOM, TOP)
    marks = [_mark(across(max(p, NEAREST) if p > 0 else 0), up(c), r) for p, c, r in known]
    label = f"{len(known)} fine-tunes by their distance from the base and the largest loss of score among their capabilities"
    return picture(WIDTH, HEIGHT, label, *_axes(across, up), *marks)


def _mark(x: float, y: float, row: FleetRow) -> Markup:
    version, outcome = row.evaluation.request.version, row.evaluation.outcome or "error"
    told = f"{version.name} version {version.version}: {outcome.replace('_', ' ')}"
    shape = element("path", element("title", told[:200]), d=_SHAPES[outcome], class_=f"shape {outcome}")
    return element("g", shape, transform=f"translate({x:.1f} {y:.1f})")


def _axes(across: FromZero, up: Linear) -> Iterator[Markup]:
    bottom, right = up.start, WIDTH - RIGHT
    edge = across(1.0)
    yield element("rect", x=edge, y=TOP, width=right - edge, height=bottom - TOP, class_="lost-ground")
    yield element("line", x1=edge, x2=edge, y1=TOP, y2=bottom, class_="edge")
    yield element(
        "text", "edge of the basin", x=edge - 6, y=(TOP + bottom) / 2, text_anchor="end", class_="tick edge-text"
    )
    for value in ticks(up.low, up.high):
        y = up(value)
        yield element("line", x1=LEFT, x2=right, y1=y, y2=y, class_="zero" if value == 0 else "grid")
        yield element("text", "base" if value == 0 else signed(value), x=LEFT - 6, y=y + 4, text_anchor="end", class_="tick")  # fmt: skip
    for value in [0.0, *across.ticks()]:
        x = across(value)
        yield element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis")
        yield element("text", f"{100 * value:g} %", x=x, y=bottom + 17, text_anchor="middle", class_="tick")
    yield element("line", x1=LEFT, x2=right, y1=bottom, y2=bottom, class_="axis")
    yield element("text", "of the way from the base to the edge of its basin", x=(LEFT + right) / 2, y=bottom + 36, text_anchor="middle", class_="tick")  # fmt: skip
