"""What the static stage costs: ``python benchmarks/static_stage.py``.

Every digest and the displacement of two checkpoints, against reading both files, hashing both on all cores, and loading
both with transformers and subtracting. Each runs in a process of its own, turn about, on files that are in the page
cache; the best of the rounds counts. The processor's time, over all cores, is the fairer measure on a busy machine.
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
from pathlib import Path
from tempfile import TemporaryDirectory

from memory import watched

WEIGHTS = "model.safetensors"
PIECE = 1 << 22


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


OURS = "static stage"
CONTENDERS: Mapping[str, Callable[[Path, Path], Callable[[], None]]] = {
    "read both files": lambda *pair: partial(read, *pair),
    "sha256 of both, all cores": lambda *pair: partial(sha256, *pair),
    OURS: static_stage,
    "load with transformers and subtract": transformers_difference,
}


def once(name: str, small: tuple[Path, Path], pair: tuple[Path, Path]) -> None:
    """One contender in this process, after a run on the small pair; prints its costs as JSON."""
    CONTENDERS[name](*small)()
    act = CONTENDERS[name](*pair)
    with watched() as growth:
        begun, used = time.monotonic(), time.process_time()
        act()
        costs = {"seconds": time.monotonic() - begun, "processor": time.process_time() - used}
    print(json.dumps({**costs, "grown": growth.most}))


def compare(folder: Path, quick: bool, rounds: int) -> Mapping[str, Mapping[str, float]]:
    """The best of the rounds of each contender."""
    from checkpoint_pair import LARGE, SMALL, make_pair

    make_pair(folder / "small", SMALL)
    *_, weights = make_pair(folder / "pair", SMALL if quick else LARGE)
    print(f"{weights:,} weights, {(folder / 'pair/base' / WEIGHTS).stat().st_size / 1e6:.0f} MB a checkpoint\n")
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for name in CONTENDERS:
            command = [sys.executable, __file__, "--contender", name, "--folder", str(folder)]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(ran.stdout.splitlines()[-1])
            known = best.setdefault(name, found)
            best[name] = {cost: (max if cost == "grown" else min)(known[cost], found[cost]) for cost in found}
    return best


def table(best: Mapping[str, Mapping[str, float]]) -> str:
    """Ratios to the static stage, and the anonymous memory beyond the interpreter."""
    ours = best[OURS]
    lines = ["| | time | processor time | memory of its own |", "| --- | --- | --- | --- |"]
    for name, found in best.items():
        time_ratio, processor_ratio = (found[cost] / ours[cost] for cost in ("seconds", "processor"))
        lines.append(f"| {name} | {time_ratio:.2f} | {processor_ratio:.2f} | {found['grown'] / 1e6:.0f} MB |")
    for cost, what in (("seconds", "time"), ("processor", "processor time")):
        floor = max(best[name][cost] for name in ("read both files", "sha256 of both, all cores"))
        loading = best["load with transformers and subtract"][cost]
        lines.append(
            f"\nIn {what} the static stage takes {ours[cost] / floor:.2f} × the slower of reading and hashing; "
            f"loading both with transformers takes {loading / ours[cost]:.2f} × the static stage."
        )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny checkpoints: does it run?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contender", choices=tuple(CONTENDERS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        small, pair = ((arguments.folder / n / "base", arguments.folder / n / "candidate") for n in ("small", "pair"))
        once(arguments.contender, small, pair)
        return
    with TemporaryDirectory() as room:
        print(table(compare(Path(room), arguments.quick, 1 if arguments.quick else arguments.rounds)))


if __name__ == "__main__":
    main()
