"""Onboarded bases: taking one in, and having its bytes on this machine."""

import re
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from pydantic import ValidationError

from gate.bootstrap import build_registry
from gate.domain.checkpoint import Ancestor, Base, Checkpoint, Frozen
from gate.domain.errors import InvalidInput
from gate.domain.gpu_sizes import ANY_SIZE, GpuSizes
from gate.domain.jobs import PROFILE, profile_key
from gate.domain.policy import DEFECT_DEFAULTS, Policy, PolicySet
from gate.domain.records import JobRequest
from gate.domain.verdict import Enforcement
from gate.ports import Ledger
from gate.settings import Settings
from tasks.places import Places
from tasks.static_stage import inspect_folder
from tasks.suites import load_suite

VERSION_URI = re.compile(r"^models:/(?P<name>.+)/(?P<version>[0-9]+)$")


def base_files(settings: Settings, base: Base) -> Path:
    """The folder with the base's files, fetched again where this machine does not have them.

    Whoever measures against them holds them against the digests attested at onboarding.
    """
    folder = Places(settings).base(base.digest)
    return folder if folder.is_dir() else _fetch(settings, base.source, folder)


def ancestor_files(settings: Settings, ancestor: Ancestor) -> Path:
    """The folder with the files of the model that a base was aligned from, fetched as `base_files` does."""
    folder = Places(settings).base(ancestor.checkpoint.digest)
    return folder if folder.is_dir() else _fetch(settings, ancestor.source, folder)


def take_in(
    settings: Settings,
    ledger: Ledger,
    source: str,
    *,
    suite: str,
    name: str,
    references: tuple[str, ...] = (),
    ancestor: str = "",
) -> Base:
    """Onboards a base from ``models:/name/version`` or a folder: hashes it, refuses what is unsound, keeps it.

    ``name`` is what it is called; ``references`` are further texts that mean it in adapters, tags and runs; ``ancestor``
    is the unaligned model it came from, given as the base is.
    """
    source, suite = _lasting(source), _lasting(suite)
    suite_digest, checkpoint = _digest_of(suite), _kept(settings, source)
    base = Base(
        name=name,
        digest=checkpoint.digest,
        source=source,
        suite=suite,
        references=references,
        checkpoint=checkpoint,
        suite_digest=suite_digest,
        ancestor=_ancestor(settings, _lasting(ancestor), checkpoint) if ancestor else None,
    )
    ledger.save_base(base, time.time())
    ledger.audit("base onboarded", "operator", {"base": name, "digest": base.digest, "source": source}, time.time())
    return base


def _kept(settings: Settings, source: str) -> Checkpoint:
    """What a base's files are, which are kept on this machine. Raises `InvalidInput` for what is unsound."""
    places = Places(settings)
    places.root.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=places.root) as room:
        folder = _fetch(settings, source, Path(room) / "base")
        found = inspect_folder(folder)
        unsound = [d for d in found.defects if DEFECT_DEFAULTS[d.code] is Enforcement.BLOCK]
        if unsound or not found.checkpoint.parameters:
            why = "; ".join(d.message for d in unsound) or "no weights"
            raise InvalidInput(f"base {source}: expected a sound checkpoint, found: {why}")
        kept = places.base(found.checkpoint.digest)
        kept.parent.mkdir(parents=True, exist_ok=True)
        if not kept.is_dir():
            folder.replace(kept)
    return found.checkpoint


def _ancestor(settings: Settings, source: str, of: Checkpoint) -> Ancestor:
    checkpoint = _kept(settings, source)
    if checkpoint.digest == of.digest:
        raise InvalidInput(f"expected the model that the base was aligned from, found the base itself in {source}")
    if checkpoint.parameters != of.parameters:
        raise InvalidInput(
            f"expected an ancestor of the base's {of.parameters} parameters, found {checkpoint.parameters} in {source}"
        )
    return Ancestor(source=source, checkpoint=checkpoint)


def _digest_of(suite: str) -> str:
    """The digest that a suite's files have whatever the day: which of its hidden items are asked now says nothing of them."""
    return load_suite(suite, now=0.0).digest


def _lasting(place: str) -> str:
    """A folder or file by its whole path: workers run elsewhere than the operator; anything else as it is."""
    return str(Path(place).resolve()) if Path(place).exists() else place


def _fetch(settings: Settings, source: str, into: Path) -> Path:
    """Copies a base's files into a new folder; killed half way it leaves nothing under that name."""
    if match := VERSION_URI.match(source):
        registry = build_registry(settings)
        return registry.fetch(registry.version(match["name"], match["version"]), into)
    if not Path(source).is_dir():
        raise InvalidInput(f"expected a base as models:/NAME/VERSION or a folder, found {source!r}")
    into.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=into.parent) as room:
        return Path(shutil.copytree(source, Path(room) / "copy")).replace(into)


class WantedBase(Frozen):
    """A base as an operator describes it; ``name`` is the source where none is given."""

    source: str
    suite: str
    name: str = ""
    references: tuple[str, ...] = ()
    ancestor: str = ""

    def is_met_by(self, base: Base) -> bool:
        """Whether an onboarded base is as described here, its suite with the same items; its own bytes are not looked at."""
        described = (self.name or self.source, _lasting(self.source), _lasting(self.suite), self.references)
        same = described == (base.name, base.source, base.suite, base.references)
        same = same and (_lasting(self.ancestor) if self.ancestor else "") == (
            base.ancestor.source if base.ancestor else ""
        )
        return same and base.suite_digest == _digest_of(base.suite)


class WantedBases(Frozen):
    """All that an operator wants onboarded."""

    bases: tuple[WantedBase, ...]


def read_wanted(file: Path) -> tuple[WantedBase, ...]:
    """The bases of a YAML file: ``bases`` of ``source``, ``suite`` and, where given, ``name``, ``references``, ``ancestor``."""
    try:
        return WantedBases.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))).bases
    except (yaml.YAMLError, ValidationError) as error:
        raise InvalidInput(
            f"{file}: expected a list `bases` of source, suite, name, references and ancestor, found: {error}"
        ) from error


def request_profiles(ledger: Ledger, base: Base, policies: PolicySet, sizes: GpuSizes = ANY_SIZE) -> int:
    """Has the base profiled under each policy's plan ahead of its first fine-tune; how many profiles that are.

    Raises `NotMeasurable` for a base that no GPU worker holds.
    """
    jobs = [profile_job(base, policy, sizes) for policy in policies.policies]
    wanted = {job.key: job for job in jobs}
    ledger.enqueue(tuple(wanted.values()), time.time())
    return len(wanted)


def profile_job(base: Base, policy: Policy, sizes: GpuSizes = ANY_SIZE) -> JobRequest:
    """The job that profiles a base under a policy's plan. Raises `NotMeasurable` where no GPU worker holds it."""
    suite = load_suite(base.suite).digest
    key = profile_key(base.digest, suite, policy.plan.digest)
    queue = sizes.queue_for(base, policy.plan.compute_dtype)
    return JobRequest(key, PROFILE, queue, {"base": base.name, "policy": policy.digest, "suite": suite})
