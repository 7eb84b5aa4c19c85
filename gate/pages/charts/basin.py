"""The basin, one panel for each capability: what the base loses to random noise, and where the candidate stands.

Both axes are shared by all panels. Across: how far from the base, as RMS per weight, so that random noise and the
fine-tune's own update are on one scale. Up: the change of the score against the base.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from gate.domain.evidence import Curve, CurvePoint, Estimate, Evidence, Name
from gate.pages.charts.svg import FromZero, Linear, area, element, group, path, picture, ticks
from gate.pages.numbers import ABSENT, compact, interval, percent, signed

WIDTH, HEIGHT = 340.0, 226.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 10.0, 16.0, 42.0
GAP = 24.0


@dataclass(frozen=True, slots=True)
class Panel:
    """One capability's picture, the word for how it fares (``kept``, ``lost`` or ``unsure``), and its sentence."""

    capability: str
    state: str
    caption: str
    svg: Markup


@dataclass(frozen=True, slots=True)
class _Frame:
    """The axes that all panels share."""

    across: FromZero
    up: Linear


def panels(evidence: Evidence) -> list[Panel]:
    """A panel for each capability of which there is anything to draw, what was lost before what was kept."""
    known = [c for c in evidence.capabilities if _curve(evidence, "noise", c) or evidence.find(Name.RETENTION, c)]
    shown = worst_first(evidence, known)
    frame = _frame(evidence, shown)
    return [_panel(evidence, capability, frame) for capability in shown] if frame else []


def _frame(evidence: Evidence, capabilities: Sequence[str]) -> _Frame | None:
    rms = _rms(evidence)
    sizes = [p.at for c in evidence.curves if c.kind == "noise" for p in c.points]
    sizes += [rms * p.at for c in evidence.curves if c.kind == "line" for p in c.points] + [rms]
    sizes = [size for size in sizes if size > 0]
    if not sizes or not capabilities:
        return None
    low, high = min(sizes) / 1.5, max(sizes) * 1.25
    deepest = min(_deepest(evidence, c) for c in capabilities)
    left = LEFT + 8
    return _Frame(
        FromZero(low, high, left, left + GAP, WIDTH - RIGHT - 6),
        Linear(max(-1.0, deepest - 0.08), 0.16, HEIGHT - BOTTOM, TOP),
    )


def _deepest(evidence: Evidence, capability: str) -> float:
    """The lowest thing worth showing of a capability."""
    lows = [-1.5 * evidence.margins.get(capability, 0.1)]
    noise, line = _curve(evidence, "noise", capability), _curve(evidence, "line", capability)
    start = _start(noise)
    for curve in (noise, line):
        lows += [p.estimate.value - start for p in curve.points] if curve else []
    change = evidence.find(Name.RETENTION, capability)
    if change is not None:
        lows.append(change.value if change.lower is None else change.lower)
    return min(lows)


def _panel(evidence: Evidence, capability: str, frame: _Frame) -> Panel:
    noise, line = _curve(evidence, "noise", capability), _curve(evidence, "line", capability)
    start, rms = _start(noise), _rms(evidence)
    layers = [
        *_ground(evidence, capability, frame),
        *_edge(evidence, capability, frame),
        *(_drawn(noise.points, start, 1.0, frame, "noise") if noise else ()),
        *(_drawn(line.points, _anchor(evidence, line, start), rms, frame, "own") if line and rms else ()),
        *_headroom(evidence, capability, rms, frame),
        *_marks(evidence, capability, rms, frame),
    ]
    caption = _caption(evidence, capability)
    label = f"{capability}: {caption}"
    return Panel(capability, state(evidence, capability), caption, picture(WIDTH, HEIGHT, label, *layers))


def state(evidence: Evidence, capability: str) -> str:
    """``kept``, ``lost``, or ``unsure`` where the interval says neither, or nothing was measured."""
    change, margin = evidence.find(Name.RETENTION, capability), evidence.margins.get(capability)
    if change is None or margin is None:
        return "unsure"
    if change.lower is not None and change.lower >= -margin:
        return "kept"
    return "lost" if change.upper is not None and change.upper < -margin else "unsure"


def worst_first(evidence: Evidence, capabilities: Sequence[str]) -> list[str]:
    """Lost ones, then those nobody can be sure of, then kept ones; each in the suite's order."""
    return sorted(capabilities, key=lambda c: ("lost", "unsure", "kept").index(state(evidence, c)))


def _caption(evidence: Evidence, capability: str) -> str:
    change = evidence.find(Name.RETENTION, capability)
    position = evidence.find(Name.BASIN_POSITION, capability)
    headroom = evidence.find(Name.HEADROOM, capability)
    said = [f"change {interval(change, sign=True, least=2)}" if change else "change not measured"]
    said += [f"{percent(position.value)} of the way to the edge"] if position else []
    said += [f"headroom {_multiple(headroom)}"] if headroom else []
    return "; ".join(said)


def _multiple(headroom: Estimate) -> str:
    """Headroom in words."""
    return f"{'at least ' if no_end(headroom) else ''}{compact(headroom.value)} × its update"


def no_end(headroom: Estimate) -> bool:
    """Whether the farthest point tried was still certainly kept, so that the number is only a lower bound."""
    return headroom.upper is None and headroom.lower == headroom.value


def _ground(evidence: Evidence, capability: str, frame: _Frame) -> Iterator[Markup]:
    """The lost ground, the grid, the axes."""
    left, right, bottom = LEFT, WIDTH - RIGHT, frame.up.start
    margin = evidence.margins.get(capability)
    if margin is not None:
        floor = frame.up(-margin)
        yield element("rect", x=left, y=floor, width=right - left, height=bottom - floor, class_="lost-ground")
        yield element("line", x1=left, x2=right, y1=floor, y2=floor, class_="floor")
        yield element("text", "lost", x=right - 4, y=floor + 12, text_anchor="end", class_="tick floor-text")
    for value in ticks(frame.up.low, frame.up.high):
        y = frame.up(value)
        yield element("line", x1=left, x2=right, y1=y, y2=y, class_="zero" if value == 0 else "grid")
        shown = "base" if value == 0 else signed(value, 1 if round(value, 1) == value else 2)
        yield element("text", shown, x=left - 5, y=y + 3.5, text_anchor="end", class_="tick")
    yield from _sizes(frame, bottom)


def _sizes(frame: _Frame, bottom: float) -> Iterator[Markup]:
    for value in [0.0, *frame.across.ticks()]:
        x = frame.across(value)
        yield element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis")
        yield element("text", f"{value:g}", x=x, y=bottom + 15, text_anchor="middle", class_="tick")
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis")
    gap = frame.across.zero + GAP / 2
    yield element("path", d=f"M{gap - 4:.1f} {bottom + 4:.1f}l4 -8m1 8l4 -8", class_="axis")
    yield element("text", "distance from the base (RMS per weight)", x=middle, y=bottom + 32, text_anchor="middle", class_="tick")  # fmt: skip


def _edge(evidence: Evidence, capability: str, frame: _Frame) -> Iterator[Markup]:
    """The largest random noise the base survives."""
    sigma = evidence.find(Name.BASIN_SIGMA, capability)
    if sigma is None or sigma.value <= 0:
        return
    x = frame.across(sigma.value)
    yield element("line", x1=x, x2=x, y1=frame.up.end, y2=frame.up.start, class_="edge")
    yield element("text", f"edge {compact(sigma.value)}", x=x - 4, y=frame.up.start - 6, text_anchor="end", class_="tick edge-text")  # fmt: skip


def _drawn(points: Sequence[CurvePoint], start: float, unit: float, frame: _Frame, class_: str) -> Iterator[Markup]:
    """A curve with its band: ``unit`` turns its positions into RMS, ``start`` is the base's score."""
    ordered = sorted(points, key=lambda p: p.at)
    places = [frame.across(p.at * unit) for p in ordered]
    middle = [(x, frame.up(p.estimate.value - start)) for x, p in zip(places, ordered, strict=True)]
    low = [(x, frame.up(_low(p.estimate) - start)) for x, p in zip(places, ordered, strict=True)]
    high = [(x, frame.up(_high(p.estimate) - start)) for x, p in zip(places, ordered, strict=True)]
    yield area(high, low, f"band {class_}")
    yield path(middle, f"curve {class_}")
    for x, y in middle:
        yield element("circle", cx=x, cy=y, r=2.4, class_=f"dot {class_}")


def _headroom(evidence: Evidence, capability: str, rms: float, frame: _Frame) -> Iterator[Markup]:
    """How much further along its own direction it could go: a bar over the plot, an arrow where no end was found."""
    room = evidence.find(Name.HEADROOM, capability)
    if room is None or rms <= 0:
        return
    start, end, y = frame.across(rms), frame.across(rms * max(0.0, 1 + room.value)), frame.up.end - 6
    yield element("line", x1=start, x2=end, y1=y, y2=y, class_="headroom")
    tip = f"M{end - 4:.1f} {y - 4:.1f}l5 4l-5 4" if no_end(room) else f"M{end:.1f} {y - 4:.1f}v8"
    yield element("path", d=tip, class_="headroom")


def _marks(evidence: Evidence, capability: str, rms: float, frame: _Frame) -> Iterator[Markup]:
    """The base, random moves of the candidate's size, and the candidate itself on top."""
    yield element("circle", cx=frame.across(0), cy=frame.up(0), r=3.6, class_="base-mark")
    if rms <= 0:
        return
    x = frame.across(rms)
    yield element("line", x1=x, x2=x, y1=frame.up.end, y2=frame.up.start, class_="candidate-at")
    control = evidence.find(Name.RETENTION_RANDOM, capability)
    if control is not None:
        yield element("circle", cx=x, cy=frame.up(control.value), r=9.0, class_="control")
    change = evidence.find(Name.RETENTION, capability)
    if change is None:
        return
    y, size = frame.up(change.value), 6.5
    mark = f"M{x:.1f} {y - size:.1f}l{size} {size}l{-size} {size}l{-size} {-size}Z"
    ends = {"y1": frame.up(_low(change, -1.0)), "y2": frame.up(_high(change))}
    whisker = element("line", x1=x, x2=x, class_="whisker", **ends)
    yield group([whisker, element("path", d=mark, class_="candidate")])


def _low(estimate: Estimate, least: float = 0.0) -> float:
    return least if estimate.lower is None else estimate.lower


def _high(estimate: Estimate) -> float:
    return 1.0 if estimate.upper is None else estimate.upper


def _start(noise: Curve | None) -> float:
    """The base's own score on the items of its curve."""
    return min(noise.points, key=lambda p: p.at).estimate.value if noise and noise.points else 0.0


def _anchor(evidence: Evidence, line: Curve, start: float) -> float:
    """The base's score on the items of the line, which may be fewer: the line passes through the candidate's mark."""
    at_candidate = next((p.estimate.value for p in line.points if p.at == 1.0), None)
    change = evidence.find(Name.RETENTION, line.capability)
    return start if at_candidate is None or change is None else at_candidate - change.value


def _curve(evidence: Evidence, kind: str, capability: str) -> Curve | None:
    return next((c for c in evidence.curves if (c.kind, c.capability) == (kind, capability)), None)


def _rms(evidence: Evidence) -> float:
    found = evidence.find(Name.DISPLACEMENT_RMS)
    return found.value if found else 0.0


def where(evidence: Evidence) -> str:
    """The candidate's distance for a heading."""
    rms = _rms(evidence)
    return compact(rms) if rms else ABSENT
