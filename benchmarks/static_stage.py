"""What the static stage costs: ``python benchmarks/static_stage.py``.

Every digest and the displacement of two checkpoints, against reading both files, hashing both on all cores, and loading
both with transformers and subtracting. Each runs in a process of its own, turn about, on files that are in the page
cache; the best of the rounds counts.
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


def static_stage(base: Path, candidate: Path) -> float:
    """Ours: the digests of every file of both folders, the displacement, and what is wrong with them."""
    from gate.domain.checkpoint import Checkpoint, Layout
    from tasks.bench import file_digest
    from tasks.checkpoints import locate
    from tasks.static_stage import inspect_folder

    names = sorted(path.name for path in base.iterdir())
    # The base's digests as onboarding would have noted them: not part of what is timed.
    attested = Checkpoint(layout=Layout.FULL, files=tuple(file_digest(base, n) for n in names), dtype="bfloat16")
    begun = time.monotonic()
    found = inspect_folder(candidate, (locate(base), attested))
    assert not found.defects, found.defects
    assert found.measurements
    return time.monotonic() - begun


def transformers_difference(base: Path, candidate: Path) -> None:
    """Both models loaded, the norm of their difference."""
    import torch
    from transformers import AutoModelForCausalLM

    ours, theirs = (AutoModelForCausalLM.from_pretrained(folder, local_files_only=True) for folder in (base, candidate))
    squares = 0.0
    with torch.no_grad():
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            squares += float((other.float() - one.float()).square().sum())


CONTENDERS: Mapping[str, Callable[[Path, Path], float | None]] = {
    "read both files": read,
    "sha256 of both, all cores": sha256,
    "static stage": static_stage,
    "load with transformers and subtract": transformers_difference,
}


def once(name: str, small: tuple[Path, Path], pair: tuple[Path, Path]) -> None:
    """One contender in this process, after a run on the small pair; prints seconds and memory as JSON."""
    contender = CONTENDERS[name]
    contender(*small)
    with watched() as growth:
        begun = time.monotonic()
        own = contender(*pair)
        seconds = time.monotonic() - begun
    print(json.dumps({"seconds": own or seconds, "grown": growth.most}))


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
            if name not in best or found["seconds"] < best[name]["seconds"]:
                best[name] = found
    return best


def table(best: Mapping[str, Mapping[str, float]]) -> str:
    """Ratios to the static stage, and the anonymous memory beyond the interpreter."""
    ours = best["static stage"]["seconds"]
    lines = ["| | time / static stage's | memory of its own |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | {found['seconds'] / ours:.2f} | {found['grown'] / 1e6:.0f} MB |" for name, found in best.items()
    ]
    floor = max(best["read both files"]["seconds"], best["sha256 of both, all cores"]["seconds"])
    loading = best["load with transformers and subtract"]["seconds"]
    lines.append(f"\nThe static stage takes {ours / floor:.2f} × the slower of reading and hashing,")
    lines.append(f"and is {loading / ours:.1f} × faster than loading both with transformers.")
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
