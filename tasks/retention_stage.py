"""The comparison with the base, capability by capability: before the verdict, and further where a reviewer asks for it."""

from functools import partial

from gate.domain.evidence import Measurement, Name, PairedOutcomes
from gate.domain.overview import Narrowing
from tasks.answers_stage import REFUSAL, Heard, tell_kinds
from tasks.estimates import measurement
from tasks.measurements.confidence import Interval
from tasks.measurements.perturbation import write_weights
from tasks.measurements.retention import Retention, measure_retention
from tasks.measuring import Measuring


def retain(m: Measuring) -> None:
    """Compares what the plan has compared before the verdict; what it leaves undecided can be gone on with."""
    write_weights(m.bench.model, m.weights)
    sure: dict[str, Narrowing] = {}
    share = 0.4 / max(1, len(m.capabilities))
    for place, name in enumerate(m.capabilities):
        heard = _heard_by(m, name)
        found = _compared(m, sure, (0.1 + place * share, share), name, (), m.plan.retention_items, heard)
        m.add(*_estimates(m, name, found, heard))
        _keep(m, name, found)


def go_on(m: Measuring, more: int | None) -> None:
    """Goes on with what is undecided, by at most ``more`` items of each capability, or by all there are.

    The new estimates take the places of those before.
    """
    write_weights(m.bench.model, m.weights)
    sure: dict[str, Narrowing] = {}
    before = m.evidence.paired_outcomes
    share = 1 / max(1, len(before))
    for place, kept in enumerate(before):
        heard = _heard_by(m, kept.capability)
        found = _compared(m, sure, (place * share, share), kept.capability, kept.outcomes, more, heard)
        _replace(m, _estimates(m, kept.capability, found, heard))
        _keep(m, kept.capability, found)


def _compared(
    m: Measuring,
    sure: dict[str, Narrowing],
    part: tuple[float, float],
    name: str,
    known: tuple[float, ...],
    most: int | None,
    heard: Heard | None,
) -> Retention:
    """Compares one capability; ``part`` is where its part of the whole begins, and how large it is."""
    base = m.capabilities[name]
    m.tell(f"comparing with the base: {name}", part[0])
    m.retained[name] = measure_retention(
        m.scorers()[name] if heard is None else heard.scorer(),
        base.outcomes,
        capability=name,
        margin=base.margin,
        alpha=m.alphas[name],
        seed=m.seed,
        batch=m.plan.batch_items,
        stop_when_decided=m.plan.stop_when_decided,
        progress=partial(_heard, m, sure, part, name),
        known=known,
        most=most,
    )
    return m.retained[name]


def _heard(
    m: Measuring, sure: dict[str, Narrowing], part: tuple[float, float], name: str, used: int, found: Interval
) -> None:
    """Tells how sure the comparison is by now; where nothing can be said on a side, any change is still possible."""
    base = m.capabilities[name]
    of = len(base.outcomes)
    lower, upper = -1.0 if found.lower is None else found.lower, 1.0 if found.upper is None else found.upper
    sure[name] = Narrowing(name, found.value, lower, upper, base.margin, used, of)
    m.tell(f"comparing with the base: {name}", part[0] + part[1] * used / of, tuple(sure.values()))


def _heard_by(m: Measuring, name: str) -> Heard | None:
    """Who listens to the answers, where more than their scores is told of them."""
    judged = m.bench.suite.benchmark(name).scorer == REFUSAL
    return Heard(m.bench, name, m.plan.batch_items) if judged else None


def _estimates(m: Measuring, name: str, found: Retention, heard: Heard | None) -> tuple[Measurement, ...]:
    kinds = [] if heard is None else tell_kinds(m.bench, heard, m.weights, found.items, m.alphas[name])
    return measurement(Name.SCORE, name, found.score), measurement(Name.RETENTION, name, found.difference), *kinds


def _replace(m: Measuring, found: tuple[Measurement, ...]) -> None:
    by_name = {(each.name, each.capability): each for each in found}
    changed = tuple(by_name.get((each.name, each.capability), each) for each in m.evidence.measurements)
    m.evidence = m.evidence.model_copy(update={"measurements": changed})


def _keep(m: Measuring, name: str, found: Retention) -> None:
    """Keeps what it takes to go on, in the place of what was kept of this capability; nothing where there is no going on."""
    of = len(m.capabilities[name].outcomes)
    others = tuple(each for each in m.evidence.paired_outcomes if each.capability != name)
    open_ = found.decision is None and len(found.outcomes) < of
    kept = (PairedOutcomes(capability=name, outcomes=found.outcomes, of=of),) if open_ else ()
    m.evidence = m.evidence.model_copy(update={"paired_outcomes": (*others, *kept)})
