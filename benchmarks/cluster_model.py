"""A discrete-event model of the gate's workers: what is registered when, how long each stage takes, who is free.

It begins jobs in the order that the ledger does (``gate.domain.scheduling``). Queues as in the product: a CPU worker
inspects, then a GPU worker of the kind's queue measures, which first loads the base unless it is the one that it measured
against last. A worker of several queues takes from them in turn, as Celery does.
"""

import heapq
import itertools
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gate.domain.scheduling import Lane, turns

WINDOW_S = 3600.0
DAY_S = 86_400.0


@dataclass(frozen=True)
class Kind:
    """A kind of version. Seconds: to inspect one on a CPU worker, to measure it and to load its base on a GPU of speed 1."""

    name: str
    inspect_s: float
    measure_s: float
    load_s: float = 0.0
    need_gb: float = 0.0
    """Memory of the device that measuring it takes."""
    queue: str = "gpu"


@dataclass
class Version:
    """A registered version: when, by which team, of which kind; and when it had its measurements."""

    at: float
    team: str
    kind: Kind
    measured_at: float = math.inf

    @property
    def took_s(self) -> float:
        """Seconds from its registration to its verdict; judging takes a moment and is left out."""
        return self.measured_at - self.at


@dataclass
class Worker:
    """One worker: the queue it serves and others beside it, how fast it is, its device's memory, the base it has loaded."""

    queue: str
    speed: float = 1.0
    memory_gb: float = math.inf
    beside: tuple[str, ...] = ()
    warm: str = ""
    turn: int = 0

    @property
    def queues(self) -> Sequence[str]:
        """All that it serves, beginning with the one whose turn it is."""
        every = (self.queue, *self.beside)
        first = self.turn % len(every)
        return every[first:] + every[:first]


@dataclass
class Run:
    """A job held by a worker, with the seconds of work that are left of it."""

    worker: Worker
    version: Version
    queue: str
    begun_at: float
    left_s: float


@dataclass
class Cluster:
    """Workers and what waits for them. ``cores`` is how many jobs run at full speed at once; the others share."""

    workers: Sequence[Worker]
    cores: float = math.inf
    now: float = 0.0
    waiting: dict[str, list[tuple[float, Version]]] = field(default_factory=lambda: defaultdict(list))
    runs: list[Run] = field(default_factory=list)
    past: dict[str, list[tuple[float, float, str]]] = field(default_factory=lambda: defaultdict(list))
    busy_s: float = 0.0
    too_small: int = 0
    """Measurements begun on a device that does not hold them."""

    def simulate(self, versions: Sequence[Version]) -> None:
        """Until every version has been measured."""
        arrivals = sorted(versions, key=lambda version: version.at)
        arrived = 0
        while arrived < len(arrivals) or self.runs or any(self.waiting.values()):
            self._begin()
            next_at = arrivals[arrived].at if arrived < len(arrivals) else math.inf
            self._pass(min(next_at, self.now + min((run.left_s for run in self.runs), default=math.inf) / self._rate()))
            while arrived < len(arrivals) and arrivals[arrived].at <= self.now:
                self.waiting["cpu"].append((self.now, arrivals[arrived]))
                arrived += 1

    def _rate(self) -> float:
        """How fast each running job goes on: all share the cores alike."""
        return min(1.0, self.cores / len(self.runs)) if self.runs else 1.0

    def _pass(self, until: float) -> None:
        done_s, rate = until - self.now, self._rate()
        self.now = until
        for run in self.runs:
            run.left_s -= done_s * rate
            self.busy_s += done_s if run.queue != "cpu" else 0.0
        ended = [run for run in self.runs if run.left_s <= 1e-9]
        self.runs = [run for run in self.runs if run.left_s > 1e-9]
        for run in ended:
            self._end(run)

    def _end(self, run: Run) -> None:
        self.past[run.queue].append((run.begun_at, self.now, run.version.team))
        if run.queue == "cpu":
            self.waiting[run.version.kind.queue].append((self.now, run.version))
        else:
            run.version.measured_at = self.now

    def _begin(self) -> None:
        held = {id(run.worker) for run in self.runs}
        # The fastest free worker first: it is the one that answers a doorbell soonest again.
        for worker in sorted(self.workers, key=lambda worker: -worker.speed):
            queue = next((queue for queue in worker.queues if self.waiting[queue]), None)
            if id(worker) not in held and queue is not None:
                worker.turn += 1
                version = self._next(queue)
                work_s = version.kind.inspect_s if queue == "cpu" else self._measurement_s(worker, version.kind)
                self.runs.append(Run(worker, version, queue, self.now, work_s / worker.speed))

    def _measurement_s(self, worker: Worker, kind: Kind) -> float:
        self.too_small += kind.need_gb > worker.memory_gb
        load_s = 0.0 if worker.warm == kind.name else kind.load_s
        worker.warm = kind.name
        return kind.measure_s + load_s

    def _next(self, queue: str) -> Version:
        waiting = self.waiting[queue]
        oldest: dict[str, tuple[float, Version]] = {}
        for entry in waiting:
            oldest.setdefault(entry[1].team, entry)
        lanes = [self._lane(queue, team, since) for team, (since, _) in oldest.items()]
        entry = oldest[next(turns(lanes, awaited_last=True)).team]
        waiting.remove(entry)
        return entry[1]

    def _lane(self, queue: str, team: str, since: float) -> Lane:
        held = [run for run in self.runs if run.queue == queue and run.version.team == team]
        earliest = self.now - WINDOW_S
        self.past[queue] = [one for one in self.past[queue] if one[1] > earliest]
        used = sum(end - max(begin, earliest) for begin, end, who in self.past[queue] if who == team)
        return Lane(team, since, None, len(held), used + sum(self.now - max(run.begun_at, earliest) for run in held))


def working_days(
    per_day: float, days: int, kinds: Sequence[tuple[Kind, float]], teams: int, seed: int
) -> Iterator[Version]:
    """Registrations at random, two thirds of them between 9 and 17 o'clock; kinds by their weights, teams alike."""
    random_source = random.Random(seed)
    for day, _ in itertools.product(range(days), range(round(per_day))):
        hour = random_source.uniform(9, 17) if random_source.random() < 2 / 3 else random_source.uniform(0, 24)
        [kind] = random_source.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
        yield Version(day * DAY_S + hour * 3600, f"team {random_source.randrange(teams)}", kind)


def quantile(values: Sequence[float], part: float) -> float:
    """The smallest value that so large a part of the values does not exceed."""
    return heapq.nsmallest(max(1, math.ceil(part * len(values))), values)[-1]
