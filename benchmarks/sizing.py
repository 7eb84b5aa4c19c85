"""How many GPU workers a registry needs: a simulation of working days, from stage seconds that are declared or your own.

``python benchmarks/sizing.py [--per-day 1000] [--days 3] [--seeds 3]``; ``--quick`` for one small day. For each mix of
versions the smallest number of workers whose 95th percentile of the time from registration to verdict is within the
promise. Then the same load on mixed GPUs, and the waits of a small team beside one that registers a sweep at once.
``--stages 7B=INSPECT,MEASURE,LOAD`` puts your own seconds in place of the declared ones.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cluster_model import DAY_S, Cluster, Kind, Version, Worker, quantile, working_days

from gate.domain.checkpoint import Base, Checkpoint, Layout
from gate.domain.gpu_sizes import GB, GpuSizes, bytes_needed

FORWARDS = 7_000
"""Forward passes over one item that a whole measurement by the default plan takes, as a fine-tune of the staged base counted
them with its suite: 4,163, of which 1,400 come with a gradient and count three times."""
TOKENS = 256
"""Tokens of an item with its answer."""
EFFECTIVE_FLOPS = 3e14
"""Of a GPU of speed 1: about 30 % of an H100's dense bfloat16 peak (989e12)."""
READ_BYTES_S = 1e9
"""How fast the shared volume or the object store is read, and files are hashed."""
BYTES_PER_PARAMETER = 2

SIZES = {"7B": 7e9, "70B": 70e9}
"""Parameters."""


@dataclass(frozen=True)
class Mix:
    """How much of what is registered, and how soon most verdicts are to be there."""

    name: str
    parts: Mapping[str, float]
    promise_s: float


MIXES = (
    Mix("7B only", {"7B": 1.0}, 3600),
    Mix("9 of 10 7B, 1 of 10 70B", {"7B": 0.9, "70B": 0.1}, 4 * 3600),
    Mix("half 70B", {"7B": 0.5, "70B": 0.5}, 4 * 3600),
)


@dataclass(frozen=True)
class Device:
    """A class of GPU workers: its speed beside an H100's, by dense bfloat16 peak, and its memory."""

    name: str
    speed: float
    memory_gb: int


L40S, A100, H100 = Device("L40S", 0.37, 48), Device("A100", 0.32, 80), Device("H100", 1.0, 80)
LARGE = Device("of 432 GB", 1.0, 432)
"""A single device that holds 70B, at an H100's speed: assumed."""
FLEETS = (
    ("one queue", {LARGE: 5}),
    ("one queue", {LARGE: 3, L40S: 8}),
    ("a queue each", {LARGE: 3, L40S: 8}),
    ("a queue each, large take smaller too", {LARGE: 3, L40S: 8}),
    ("a queue each", {LARGE: 3, H100: 2}),
    ("a queue each, large take smaller too", {LARGE: 3, A100: 4}),
)


def declared(name: str, parameters: float) -> Kind:
    """Stage seconds that follow from the number of parameters by the constants above."""
    read_s = parameters * BYTES_PER_PARAMETER / READ_BYTES_S
    compute_s = FORWARDS * TOKENS * 2 * parameters / EFFECTIVE_FLOPS
    # Inspecting fetches the files, hashes them and reads them beside the base's; measuring reads the candidate again.
    need_gb = bytes_needed(base_of(name, parameters)) / GB
    return Kind(name, inspect_s=3 * read_s, measure_s=read_s + compute_s, load_s=2 * read_s, need_gb=need_gb)


def base_of(name: str, parameters: float) -> Base:
    """A base of that size in bfloat16, of which nothing else is known."""
    checkpoint = Checkpoint(layout=Layout.FULL, files=(), dtype="bfloat16", parameters=int(parameters))
    return Base(name=name, digest="0" * 64, source=name, suite=name, checkpoint=checkpoint)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-day", type=float, default=1000)
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--teams", type=int, default=10)
    parser.add_argument("--stages", action="append", default=[], metavar="NAME=INSPECT,MEASURE,LOAD")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.per_day, given.days, given.seeds = 20, 1, 1
    kinds = {name: declared(name, parameters) for name, parameters in SIZES.items()}
    for name, (inspect_s, measure_s, load_s) in map(own, given.stages):
        known = kinds.get(name, Kind(name, 0.0, 0.0))
        kinds[name] = replace(known, inspect_s=inspect_s, measure_s=measure_s, load_s=load_s)
    for kind in kinds.values():
        print(
            f"{kind.name}: inspect {kind.inspect_s:.0f} s, measure {kind.measure_s:.0f} s, load the base {kind.load_s:.0f} s"
        )
    rows(given, kinds)
    mixed(given, kinds)
    sweep(kinds["7B"], 20 if given.quick else 200)


def own(text: str) -> tuple[str, tuple[float, float, float]]:
    """Stage seconds from the command line."""
    name, _, seconds = text.partition("=")
    inspect_s, measure_s, load_s = map(float, seconds.split(","))
    return name, (inspect_s, measure_s, load_s)


def rows(given: argparse.Namespace, kinds: Mapping[str, Kind]) -> None:
    """The sizing table: H100s only."""
    print(f"\n{given.per_day:g} versions a day on H100s, {given.days} days, {given.seeds} seeds (the worst is shown)\n")
    print("| versions | promise for 95 % | CPU workers | GPU workers | GPUs busy | median | 95 % within |")
    print("|---|---|---|---|---|---|---|")
    for mix in MIXES:
        for cpus, gpus in sizes(given, mix, kinds):
            found = [simulated([Worker("gpu")] * gpus, cpus, mix, kinds, given, seed) for seed in range(given.seeds)]
            worst = max(found, key=lambda one: one.late_s)
            if worst.late_s <= mix.promise_s:
                break
        print(
            f"| {mix.name} | {hours(mix.promise_s)} | {cpus} | {gpus} | {worst.busy:.0%} | {hours(worst.median_s)} | "
            f"{hours(worst.late_s)} |",
            flush=True,
        )


def sizes(given: argparse.Namespace, mix: Mix, kinds: Mapping[str, Kind]) -> Iterator[tuple[int, int]]:
    """CPU and GPU workers to try, from as many as the mean load keeps busy; CPU workers are cheap and never few."""
    per_s = given.per_day / DAY_S
    cpu = per_s * sum(part * kinds[name].inspect_s for name, part in mix.parts.items())
    gpu = per_s * sum(part * kinds[name].measure_s for name, part in mix.parts.items())
    for gpus in range(max(1, int(gpu)), 1000):
        yield max(1, int(3 * cpu) + 1), gpus


@dataclass(frozen=True)
class Outcome:
    """What came of one simulation: times from registration to verdict, and the part of the GPUs' time that was used."""

    median_s: float
    late_s: float
    late_large_s: float
    busy: float
    too_small: int


def simulated(
    gpus: Sequence[Worker], cpus: int, mix: Mix, kinds: Mapping[str, Kind], given: argparse.Namespace, seed: int
) -> Outcome:
    """So many days on these workers."""
    weights = [(kinds[name], part) for name, part in mix.parts.items()]
    versions = list(working_days(given.per_day, given.days, weights, given.teams, seed))
    cluster = Cluster([*(Worker("cpu") for _ in range(cpus)), *map(replace, gpus)])
    cluster.simulate(versions)
    took = [version.took_s for version in versions]
    large = [version.took_s for version in versions if version.kind.name == "70B"]
    busy = cluster.busy_s / (cluster.now * len(gpus))
    return Outcome(quantile(took, 0.5), quantile(took, 0.95), quantile(large or [0.0], 0.95), busy, cluster.too_small)


def mixed(given: argparse.Namespace, kinds: Mapping[str, Kind]) -> None:
    """Nine versions of 7B to one of 70B on GPUs of several sizes: all on one queue, or each where it fits."""
    print(
        f"\n{MIXES[1].name} on mixed GPUs (70B needs {kinds['70B'].need_gb:.0f} GB, 7B {kinds['7B'].need_gb:.0f} GB)\n"
    )
    print("| GPUs | queues | GPUs busy | median | 95 % within | 95 % of 70B within | begun on a device too small |")
    print("|---|---|---|---|---|---|---|")
    for queues, fleet in FLEETS:
        sizes = GpuSizes() if queues == "one queue" else GpuSizes(tuple(sorted({d.memory_gb for d in fleet})))
        routed = {
            name: replace(kind, queue=sizes.queue_for(base_of(name, SIZES[name]))) for name, kind in kinds.items()
        }
        workers = [worker(d, sizes, "take smaller" in queues) for d, count in fleet.items() for _ in range(count)]
        found = simulated(workers, 4, MIXES[1], routed, given, 0)
        named = " + ".join(f"{count} {device.name}" for device, count in fleet.items())
        waits = f"{hours(found.median_s)} | {hours(found.late_s)} | {hours(found.late_large_s)}"
        print(f"| {named} | {queues} | {found.busy:.0%} | {waits} | {found.too_small} |", flush=True)


def worker(device: Device, sizes: GpuSizes, takes_smaller: bool) -> Worker:
    """A worker of a class, on the queue of its size."""
    if not sizes.gb:
        return Worker("gpu", device.speed, device.memory_gb)
    own = sizes.gb.index(device.memory_gb)
    return Worker(sizes.queues[own], device.speed, device.memory_gb, sizes.queues[:own] if takes_smaller else ())


def sweep(kind: Kind, many: int) -> None:
    """One team registers many at once; another one version a quarter of an hour, of the same size."""
    flood = [Version(0.0, "sweep", kind) for _ in range(many)]
    for shared, name in ((True, "teams take turns"), (False, "all in one line")):
        small = [Version(60.0 + 900 * n, "small" if shared else "sweep", kind) for n in range(4)]
        cluster = Cluster([Worker("cpu"), Worker("cpu"), Worker("gpu"), Worker("gpu")])
        cluster.simulate([*(replace(version) for version in flood), *small])
        print(
            f"\n{many} at once on 2 GPU workers, {name}: another team's versions take {hours(max(v.took_s for v in small))}"
        )


def hours(seconds: float) -> str:
    """Seconds as people say them.

    >>> hours(90), hours(5400)
    ('2 min', '1.5 h')
    """
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    main()
