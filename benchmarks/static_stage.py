"""What the static stage costs: ``python benchmarks/static_stage.py``.

Every digest and the displacement of two checkpoints, against reading both files, hashing both on all cores, that and one
look at each number (the least that hashing and measuring can take here), and loading both with transformers and subtracting.
Each runs in a process of its own, turn about, on files that are in the page cache; the best of the rounds counts. The
processor's time, over all cores, is the fairer measure on a busy machine.

``--peers FOLDER`` adds a second table, of modeldiffr's fingerprint and modeldelta, where ``pip install --no-deps --target FOLDER
modeldelta modeldiffr`` has put them: on a smaller pair, because modeldelta does not come to an end on the large one.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from memory import watched

WEIGHTS = "model.safetensors"
PIECE = 1 << 22
SEEN_AT_ONCE = 1 << 15


def read(base: Path, candidate: Path) -> None:
    """Both files once, into one buffer."""
    buffer = bytearray(PIECE)
    for folder in (base, candidate):
        with (folder / WEIGHTS).open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def sha256(base: Path, candidate: Path) -> None:
    """Both files' digests, a thread each."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(_digest, (base / WEIGHTS, candidate / WEIGHTS)))


def _digest(path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashed_and_seen(base: Path, candidate: Path) -> Callable[[], None]:
    """Both files' digests, and the sum of the squares of their bfloat16 numbers in float32, a thread a file."""
    import torch

    def look(path: Path) -> None:
        sha256, buffer, numbers = hashlib.sha256(), bytearray(PIECE), torch.empty(SEEN_AT_ONCE)
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                sha256.update(memoryview(buffer)[:count])
                read = torch.frombuffer(buffer, dtype=torch.bfloat16, count=count // 2)
                for start in range(0, len(read), SEEN_AT_ONCE):
                    part = read[start : start + SEEN_AT_ONCE]
                    seen = numbers[: len(part)].copy_(part)
                    torch.dot(seen, seen)

    def act() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(look, (base / WEIGHTS, candidate / WEIGHTS)))

    return act


def static_stage(base: Path, candidate: Path) -> Callable[[], None]:
    """Ours: the digests of every file of both folders, the displacement, and what is wrong with them."""
    from gate.domain.checkpoint import Checkpoint, Layout
    from tasks.bench import file_digest
    from tasks.checkpoints import locate
    from tasks.static_stage import inspect_folder

    names = sorted(path.name for path in base.iterdir())
    # The base's digests as onboarding would have noted them: not part of what is timed.
    attested = Checkpoint(layout=Layout.FULL, files=tuple(file_digest(base, n) for n in names), dtype="bfloat16")

    def act() -> None:
        found = inspect_folder(candidate, (locate(base), attested))
        assert not found.defects, found.defects
        assert found.measurements

    return act


def transformers_difference(base: Path, candidate: Path) -> Callable[[], None]:
    """Both models loaded, the norm of their difference; no digests."""
    import torch
    from transformers import AutoModelForCausalLM

    def act() -> None:
        ours, theirs = (AutoModelForCausalLM.from_pretrained(f, local_files_only=True) for f in (base, candidate))
        squares = 0.0
        with torch.no_grad():
            for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
                squares += float((other.float() - one.float()).square().sum())
        assert squares > 0

    return act


def modeldiffr_fingerprint(base: Path, candidate: Path) -> Callable[[], None]:
    """modeldiffr's digests of every tensor of both, and which of them differ; no displacement."""
    peer = import_module("modeldiffr.fingerprint.weights")

    def act() -> None:
        ours, theirs = (peer.weights_fingerprint(folder).leaves for folder in (base, candidate))
        assert peer.diff_weights(ours, theirs)["changed_count"] > 0

    return act


def modeldelta_comparison(base: Path, candidate: Path) -> Callable[[], None]:
    """modeldelta's norms, cosines and spectra of the differences; no digests."""
    peer, loader = import_module("modeldelta.core.weight_diff"), import_module("modeldelta.utils.model_loader")

    def act() -> None:
        found, skipped = peer.compare_models(*(loader.get_tensor_map(str(folder)) for folder in (base, candidate)))
        assert found, skipped

    return act


OURS = "static stage"
LOADING = "load with transformers and subtract"
CONTENDERS: Mapping[str, Callable[[Path, Path], Callable[[], None]]] = {
    "read both files": lambda *pair: partial(read, *pair),
    "sha256 of both, all cores": lambda *pair: partial(sha256, *pair),
    "sha256 of both and one look at each number": hashed_and_seen,
    OURS: static_stage,
    LOADING: transformers_difference,
}
PEERS: Mapping[str, Callable[[Path, Path], Callable[[], None]]] = {
    "modeldiffr, fingerprint of both": modeldiffr_fingerprint,
    "modeldelta": modeldelta_comparison,
}
PATIENCE_S = 300
"""How long a peer may take."""


def once(name: str, small: tuple[Path, Path], pair: tuple[Path, Path]) -> None:
    """One contender in this process, after a run on the small pair; prints its costs as JSON."""
    contender = {**CONTENDERS, **PEERS}[name]
    contender(*small)()
    act = contender(*pair)
    with watched() as growth:
        begun, used = time.monotonic(), time.process_time()
        act()
        costs = {"seconds": time.monotonic() - begun, "processor": time.process_time() - used}
    print(json.dumps({**costs, "grown": growth.most}))


def run(name: str, folder: Path, peers: Path | None = None, patience: int | None = None) -> Mapping[str, float] | None:
    """One contender's costs, in a process of its own; None where it was not done in time."""
    command = [sys.executable, __file__, "--contender", name, "--folder", str(folder)]
    paths = [str(peers)] if peers else []
    try:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=patience, env=environment)
    except subprocess.TimeoutExpired:
        return None
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def compare(folder: Path, quick: bool, rounds: int) -> Mapping[str, Mapping[str, float] | None]:
    """The best of the rounds of each contender."""
    from checkpoint_pair import LARGE, SMALL, make_pair

    make_pair(folder / "small", SMALL)
    *_, weights = make_pair(folder / "pair", SMALL if quick else LARGE)
    print(f"{weights:,} weights, {(folder / 'pair/base' / WEIGHTS).stat().st_size / 1e6:.0f} MB a checkpoint\n")
    best: dict[str, Mapping[str, float] | None] = {}
    for _ in range(rounds):
        for name in CONTENDERS:
            found = run(name, folder)
            assert found
            known = best.get(name) or found
            best[name] = {cost: (max if cost == "grown" else min)(known[cost], found[cost]) for cost in found}
    return best


def compare_peers(folder: Path, quick: bool, rounds: int, peers: Path) -> Mapping[str, Mapping[str, float] | None]:
    """The static stage, loading and subtracting, and each peer on one smaller pair; the best of the rounds."""
    from checkpoint_pair import MIDDLE, SMALL, make_pair

    make_pair(folder / "small", SMALL)
    *_, weights = make_pair(folder / "pair", SMALL if quick else MIDDLE)
    print(
        f"\nPeers: {weights:,} weights, {(folder / 'pair/base' / WEIGHTS).stat().st_size / 1e6:.0f} MB a checkpoint\n"
    )
    best: dict[str, Mapping[str, float] | None] = {}
    for name in (OURS, LOADING, *PEERS):
        found = [run(name, folder, peers, PATIENCE_S) for _ in range(rounds)]
        done = [costs for costs in found if costs]
        best[name] = {cost: min(each[cost] for each in done) for cost in done[0]} if done else None
    return best


def table(best: Mapping[str, Mapping[str, float] | None]) -> str:
    """Ratios to the static stage, and the anonymous memory beyond the interpreter."""
    ours = best[OURS]
    assert ours
    lines = ["| | time | processor time | memory of its own |", "| --- | --- | --- | --- |"]
    for name, costs in best.items():
        if costs is None:
            lines.append(f"| {name} | not done in {PATIENCE_S} s | | |")
            continue
        time_ratio, processor_ratio = (costs[cost] / ours[cost] for cost in ("seconds", "processor"))
        lines.append(f"| {name} | {time_ratio:.2f} | {processor_ratio:.2f} | {costs['grown'] / 1e6:.0f} MB |")
    return "\n".join(lines)


def reading(best: Mapping[str, Mapping[str, float] | None]) -> str:
    """The ratios that were aimed at, in words."""
    found, lines = {name: costs for name, costs in best.items() if costs}, []
    ours = found[OURS]
    for cost, what in (("seconds", "time"), ("processor", "processor time")):
        slower = max(found[name][cost] for name in ("read both files", "sha256 of both, all cores"))
        least = found["sha256 of both and one look at each number"][cost]
        loading = found[LOADING][cost]
        lines.append(
            f"\nIn {what} the static stage takes {ours[cost] / slower:.2f} × the slower of reading and hashing, "
            f"{ours[cost] / least:.2f} × hashing and one look at each number; "
            f"loading both with transformers takes {loading / ours[cost]:.2f} × the static stage."
        )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny checkpoints: does it run?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=Path, help="where modeldelta and modeldiffr are installed")
    parser.add_argument("--contender", choices=(*CONTENDERS, *PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        small, pair = ((arguments.folder / n / "base", arguments.folder / n / "candidate") for n in ("small", "pair"))
        once(arguments.contender, small, pair)
        return
    with TemporaryDirectory() as room:
        rounds = 1 if arguments.quick else arguments.rounds
        best = compare(Path(room), arguments.quick, rounds)
        print(table(best), reading(best), sep="\n")
        if arguments.peers:
            print(table(compare_peers(Path(room) / "peers", arguments.quick, rounds, arguments.peers)))


if __name__ == "__main__":
    main()
