"""Whether the candidate still means to refuse, against its base: where the plan's ``also`` asks for it."""

from collections.abc import Sequence
from typing import NamedTuple

from gate.domain.evidence import Name
from gate.domain.vocabulary import EXTRAS, Extra
from tasks.divergence_stage import NO_NUMBER
from tasks.estimates import measurement
from tasks.measurements.basin import noise_items
from tasks.measurements.benchmark import Benchmark
from tasks.measurements.perturbation import write_weights
from tasks.measurements.refusal import PromptStates, log_odds_shift, prompt_states, refusal_starts, retained_gap
from tasks.measurements.retention import item_order
from tasks.measuring import Measuring

NO_GAP = "not measurable: the base's own states do not certainly tell these harmful requests from the harmless ones"
NO_START = "not measurable: no refusal begins otherwise than the answers to harmless requests do"
GAPS = (Name.REFUSAL_DIRECTION_GAP, Name.REFUSAL_DIRECTION_PERCENTILE)
FEWEST = 8


class _Asked(NamedTuple):
    """A capability's benchmark and the items that are read."""

    benchmark: Benchmark
    items: Sequence[int]


def measure_refusal(m: Measuring) -> None:
    """The shift of the refusal log-odds, and what is left of the refusal direction beside random ones."""
    m.tell("reading requests it should refuse", 1.0)
    if (why := _why_not(m)) is not None:
        _leave_out(m, EXTRAS[Extra.REFUSAL], why)
        return
    harmful, harmless = asked = [_asked(m, name) for name in (m.plan.refusal_harmful, m.plan.refusal_harmless)]
    starts = refusal_starts(m.bench.tokenizer, harmful.benchmark, harmless.benchmark, harmful.items, harmless.items)
    m.bench.restore()
    base = _states(m, asked, starts)
    write_weights(m.bench.model, m.weights)
    candidate = _states(m, asked, starts)
    _add_shift(m, candidate[0], base[0], bool(starts))
    _add_gap(m, candidate, base)


def _add_shift(m: Measuring, candidate: PromptStates, base: PromptStates, told_apart: bool) -> None:
    shift = log_odds_shift(candidate.log_odds, base.log_odds, m.plan.alpha) if told_apart else None
    if shift is None:
        m.leave_out(Name.REFUSAL_LOG_ODDS_SHIFT, None, NO_NUMBER if told_apart else NO_START)
    else:
        m.add(measurement(Name.REFUSAL_LOG_ODDS_SHIFT, None, shift))


def _add_gap(
    m: Measuring, candidate: tuple[PromptStates, PromptStates], base: tuple[PromptStates, PromptStates]
) -> None:
    found = retained_gap(base, candidate, seed=m.seed, directions=m.plan.refusal_directions, alpha=m.plan.alpha)
    if found is None:
        _leave_out(m, GAPS, NO_GAP if all(states.finite for states in candidate) else NO_NUMBER)
    else:
        m.add(measurement(GAPS[0], None, found.ratio), measurement(GAPS[1], None, found.percentile))


def _leave_out(m: Measuring, names: Sequence[Name], why: str) -> None:
    for name in names:
        m.leave_out(name, None, why)


def _why_not(m: Measuring) -> str | None:
    """What keeps the two kinds of requests from being read, if anything does."""
    counts = {benchmark.name: len(benchmark.items) for benchmark in m.bench.suite.benchmarks}
    for kind, name in (("harmful", m.plan.refusal_harmful), ("harmless", m.plan.refusal_harmless)):
        if counts.get(name, 0) < FEWEST:
            return (
                f"not measurable: expected a capability {name!r} with {FEWEST} {kind} requests or more, "
                f"found {counts.get(name, 'none')}; name another in the plan's refusal_{kind}"
            )
    return None


def _asked(m: Measuring, capability: str) -> _Asked:
    benchmark = m.bench.suite.benchmark(capability)
    count = len(benchmark.items)
    order = item_order(count, m.profile.seed, f"{capability}/refusal")
    return _Asked(benchmark, noise_items(count, m.plan.refusal_items, order))


def _states(m: Measuring, asked: Sequence[_Asked], starts: frozenset[int]) -> tuple[PromptStates, PromptStates]:
    harmful, harmless = (
        prompt_states(m.bench.model, m.bench.tokenizer, benchmark, items, starts, m.plan.batch_items, m.bench.forwards)
        for benchmark, items in asked
    )
    return harmful, harmless
