"""The bench: one base with its suite, loaded once and kept warm, whose weights are set to whatever is measured.

One model is in memory at a time: the pristine base stays on disk (memory-mapped), the loaded copy is overwritten
with the candidate, with noise, or with points along the fine-tune's direction.
"""

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch

from gate.domain.checkpoint import Base, Checkpoint, FileDigest
from gate.domain.errors import InvalidInput
from gate.domain.evidence import ComputeDtype
from gate.domain.overview import Narrowing
from tasks.checkpoints import Located, SafetensorsWeights, load_model, locate
from tasks.measurements.benchmark import ScoreItems, scorer
from tasks.measurements.confidence import Interval
from tasks.measurements.language import Forwards
from tasks.measurements.perturbation import write_weights
from tasks.placing import devices_of, names_of
from tasks.sandbox import check_items
from tasks.suites import Suite, load_suite

_TORCH: Mapping[ComputeDtype, torch.dtype | None] = {ComputeDtype.STORED: None, ComputeDtype.FLOAT32: torch.float32}


class Tell(Protocol):
    """Told the stage and the fraction of the whole that is behind, and how sure comparisons are; may raise to stop."""

    def __call__(self, stage: str, fraction: float, narrowing: Sequence[Narrowing] | None = None, /) -> None: ...


@dataclass(slots=True)
class Bench:
    """A loaded base: its pristine weights, the model they were loaded into, its tokenizer and its suite.

    ``ancestor`` has the folder of the model it was aligned from fetched, where that is known.
    """

    base: Base
    located: Located
    weights: SafetensorsWeights
    suite: Suite
    model: Any
    tokenizer: Any
    ancestor: Callable[[], Path] | None = None
    forwards: Forwards = field(default_factory=Forwards)

    @classmethod
    def load(cls, base: Base, folder: Path, device: str, compute_dtype: ComputeDtype = ComputeDtype.STORED) -> "Bench":
        """Loads the base from its folder, whose bytes must be the onboarded ones, onto a device or several (`devices_of`).

        Raises `NotMeasurable` for a suite with code where nobody may run it, or whose tests prove nothing, and for a
        base that the devices do not hold.
        """
        check_bytes(base, folder)
        suite = load_suite(base.suite)
        check_suite(suite)
        located = locate(folder)
        weights = SafetensorsWeights.open(located)
        model, tokenizer = load_model(located, weights, devices_of(device), _TORCH[compute_dtype])
        return cls(base, located, weights, suite, model, tokenizer)

    def ask(self, suite: Suite) -> None:
        """Asks the items of another suite from now on. Raises `NotMeasurable` as ``load`` does."""
        if suite.digest != self.suite.digest:
            check_suite(suite)
            self.suite = suite

    def restore(self) -> None:
        """Sets the model back to the pristine base."""
        write_weights(self.model, self.weights)

    def scorers(self, batch: int) -> Mapping[str, ScoreItems]:
        """Each capability's scorer of whatever the model's weights are when it is called."""
        return {b.name: scorer(self.model, self.tokenizer, b, batch, self.forwards) for b in self.suite.benchmarks}

    def provenance(self) -> Mapping[str, str]:
        """What the numbers were made with."""
        return {
            "device": names_of(self.model),
            "dtype": str(next(self.model.parameters()).dtype).removeprefix("torch."),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": version("transformers"),
            "basin-gate": version("basin-gate"),
            **({} if self.forwards.most is None else {"rows at once": str(self.forwards.most)}),
            **({} if self.suite.period is None else {"hidden items of": str(self.suite.period)}),
        }


def check_suite(suite: Suite) -> None:
    """Refuses code that nobody may run, or whose tests prove nothing, by `NotMeasurable`."""
    for benchmark in suite.benchmarks:
        if benchmark.scorer == "code":
            check_items(benchmark)


def check_bytes(base: Base, folder: Path) -> None:
    """Refuses a folder whose files are not byte for byte the ones that were onboarded."""
    check_files(f"base {base.name}", base.checkpoint, folder)


def check_files(what: str, onboarded: Checkpoint, folder: Path) -> None:
    """Refuses a folder whose files are not byte for byte those of a checkpoint."""
    for file in onboarded.files:
        if file_digest(folder, file.path) != file:
            raise InvalidInput(
                f"{what}: expected {file.path} with sha256 {file.sha256}, found other bytes in {folder.name}; "
                "remove the cached folder, or onboard the base again if it was changed on purpose"
            )


def file_digest(folder: Path, path: str) -> FileDigest:
    """Path, sha256 and size of one file."""
    with (folder / path).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return FileDigest(path=path, sha256=sha256, size=file.tell())


def exactly(value: float, n: int) -> Interval:
    """A computed number as an interval of no width."""
    return Interval(value, value, value, 0.0, n, "exact")
