"""What was measured: estimates with intervals, the base's profile, the evidence on a candidate."""

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, Field, model_validator

from gate.domain.checkpoint import Checkpoint, Frozen, Lineage, Sha256
from gate.domain.vocabulary import MEANINGS as MEANINGS
from gate.domain.vocabulary import Extra
from gate.domain.vocabulary import Meaning as Meaning
from gate.domain.vocabulary import Name as Name


class Estimate(Frozen):
    """A number with its interval: the truth lies in ``[lower, upper]`` with probability ≥ 1 − alpha.

    ``alpha`` is 0 for what is computed exactly. ``n`` counts the independent units behind it, ``method``
    names the interval's construction. A bound may be absent (``None``) where the procedure gives none on
    that side: an absent bound clears no limit.
    """

    value: float
    lower: float | None
    upper: float | None
    alpha: float = Field(ge=0, lt=1)
    n: int = Field(default=1, ge=0)
    method: str = "exact"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.lower is not None and self.lower > self.value:
            raise ValueError(f"expected lower <= value, found {self.lower} > {self.value}")
        if self.upper is not None and self.upper < self.value:
            raise ValueError(f"expected upper >= value, found {self.upper} < {self.value}")
        return self

    @classmethod
    def exact(cls, value: float, n: int = 1) -> "Estimate":
        """A number without uncertainty.

        >>> Estimate.exact(2.0).upper
        2.0
        """
        return cls(value=value, lower=value, upper=value, alpha=0.0, n=n)


class Measurement(Frozen):
    """One measured number: which, of what capability (``None`` for whole-checkpoint ones), how sure."""

    name: Name
    capability: str | None = None
    estimate: Estimate

    @model_validator(mode="after")
    def _capability_given_where_needed(self) -> Self:
        if MEANINGS[self.name].per_capability != (self.capability is not None):
            raise ValueError(f"{self.name}: capability expected only for per-capability measurements")
        return self


class DefectCode(StrEnum):
    """What can be wrong with a checkpoint itself, found without asking it anything."""

    ARTIFACTS_MISSING = "artifacts_missing"
    ARTIFACTS_UNREADABLE = "artifacts_unreadable"
    BASE_UNRESOLVED = "base_unresolved"
    BASE_MISMATCH = "base_mismatch"
    NON_FINITE_WEIGHTS = "non_finite_weights"
    MISSING_TENSORS = "missing_tensors"
    EXTRA_TENSORS = "extra_tensors"
    SHAPE_MISMATCH = "shape_mismatch"
    VOCABULARY_RESIZED = "vocabulary_resized"
    ARCHITECTURE_CHANGED = "architecture_changed"
    TOKENIZER_CHANGED = "tokenizer_changed"
    DTYPE_CHANGED = "dtype_changed"
    UNSAFE_FILE = "unsafe_file"
    CUSTOM_CODE = "custom_code"
    ARCHIVE_FILE = "archive_file"
    NOT_MEASURABLE = "not_measurable"


class Defect(Frozen):
    """One defect: its code and a message that says expected, found, what to do."""

    code: DefectCode
    message: str


class LayerDisplacement(Frozen):
    """Displacement of one tensor: its norm, the base tensor's norm, its size; of a matrix, where asked for, its spectrum.

    ``spectral_norm`` is the largest singular value of its update that was found, ``spectral_norm_at_most`` the most that it
    can be (for all matrices together with the plan's error probability). Without them they are in no document.
    """

    tensor: str
    norm: float
    base_norm: float
    parameters: int
    spectral_norm: float | None = Field(default=None, exclude_if=lambda norm: norm is None)
    spectral_norm_at_most: float | None = Field(default=None, exclude_if=lambda norm: norm is None)

    @property
    def relative(self) -> float | None:
        """How far it moved as a share of its own size in the base; ``None`` where the base has nothing there."""
        return self.norm / self.base_norm if self.base_norm > 0 else None

    @property
    def top_share(self) -> float | None:
        """The share of the squared movement that is along its strongest direction: 1 ÷ its stable rank.

        >>> LayerDisplacement(tensor="w", norm=4.0, base_norm=1.0, parameters=4, spectral_norm=2.0).top_share
        0.25
        """
        if self.spectral_norm is None or self.norm <= 0:
            return None
        return min(1.0, (self.spectral_norm / self.norm) ** 2)


class LayerAlignment(Frozen):
    """How the update of one layer (``None`` for the whole checkpoint, ``rest`` for what is in none) lies to the alignment step.

    ``cosine`` and ``within`` are what ``alignment_cosine`` and ``alignment_subspace_cosine`` mean, of this layer's tensors.
    ``by_chance`` is what ``within`` is of updates in random directions, each tensor's of its length; ``within_sd`` and
    ``cosine_sd`` are the standard deviations over these, the cosine's mean being 0.
    """

    layer: str | None = None
    cosine: float
    cosine_sd: float = Field(ge=0)
    within: float = Field(ge=0, le=1)
    by_chance: float = Field(ge=0)
    within_sd: float = Field(ge=0)

    @property
    def ratio(self) -> float:
        """How many times what is expected by chance lies in the alignment's directions; 1 where nothing is expected.

        >>> LayerAlignment(cosine=0.0, cosine_sd=0.1, within=0.5, by_chance=0.25, within_sd=0.01).ratio
        2.0
        """
        return self.within / self.by_chance if self.by_chance else 1.0


class CurvePoint(Frozen):
    """One point of a curve: the noise scale or the multiple of the update, and the score there."""

    at: float
    estimate: Estimate


class Curve(Frozen):
    """A capability's score along something: ``kind`` is ``noise`` (base) or ``line`` (own direction)."""

    kind: str = Field(pattern="^(noise|line)$")
    capability: str
    points: tuple[CurvePoint, ...]


class Rollout(Frozen):
    """The base's own answers to one item as token ids: by first guesses, and drawn at temperature 1.

    ``log_probability`` is the drawn answer's; ``greedy`` is empty where answers are not what is scored.
    """

    item: int = Field(ge=0)
    greedy: tuple[int, ...] = ()
    greedy_right: bool = False
    sampled: tuple[int, ...]
    log_probability: float
    sampled_right: bool = False


class Attack(Frozen):
    """How far one adversarial fine-tuning went (L2 norm), and whether it broke the capability."""

    norm: float = Field(ge=0)
    broke: bool


class PairedOutcomes(Frozen):
    """The candidate's scores on the items compared so far of a capability that is undecided, in the order the seed fixes.

    ``of`` are the items there are to compare: what lies beyond was kept back, and is compared when somebody asks for it.
    """

    capability: str
    outcomes: tuple[float, ...]
    of: int = Field(ge=1)

    @property
    def reserve(self) -> int:
        """How many items were kept back.

        >>> PairedOutcomes(capability="math", outcomes=(1.0, 0.0), of=5).reserve
        3
        """
        return self.of - len(self.outcomes)


class CapabilityProfile(Frozen):
    """What the base can do in one capability, and how much noise it takes before that is lost.

    ``outcomes`` are the base's per-item scores in item order; ``sensitivity`` the loss increases (nats per
    token) that gradient ascent reached inside the ball, one per seed; ``random_sensitivity`` the controls.
    ``tampering`` are the attacks on the base, one per seed, where the plan asks for them.
    """

    capability: str
    margin: float = Field(gt=0, le=1)
    score: Estimate
    outcomes: tuple[float, ...]
    noise: tuple[CurvePoint, ...]
    basin_sigma: Estimate | None
    sensitivity: tuple[float, ...] = ()
    random_sensitivity: tuple[float, ...] = ()
    rollouts: tuple[Rollout, ...] = ()
    tampering: tuple[Attack, ...] = Field(default=(), exclude_if=lambda found: not found)
    measurable: bool = True
    why_not: str = ""


class BasinProfile(Frozen):
    """A base's profile: once per base × suite × plan, shared by all its fine-tunes."""

    base_digest: Sha256
    suite_digest: Sha256
    plan_digest: Sha256
    parameters: int
    weight_norm: float
    capabilities: tuple[CapabilityProfile, ...]
    gradients_sha256: Sha256 | None
    seed: int
    provenance: Mapping[str, str]
    seconds: float


class StageCost(Frozen):
    """What one stage took: wall seconds, forward passes over one item, peak memory in bytes."""

    stage: str
    seconds: float
    forwards: int = 0
    peak_bytes: int = 0


class ComputeDtype(StrEnum):
    """The dtype in which models run while they are measured."""

    STORED = "stored"
    """That of the base's own weights: what serving sees."""
    FLOAT32 = "float32"
    """Single precision: half-precision weights convert to it without loss, and CPUs compute in it faster."""


ROBUST_STRENGTHS = (0.04, 0.08, 0.16, 0.32)
"""Noise in multiples of each tensor's root mean square."""


class Plan(Frozen):
    """How to measure: every choice that can change a number. Its digest is part of the request's key.

    ``also`` names what is measured beyond what every verdict has; the settings below it are for that alone. ``retention_items``
    is how many items of each capability are compared with the base before the verdict, rounded up to whole batches; the rest is
    kept in reserve for a reviewer who asks for more samples. All of these are in no document while they are as they were from the
    first, so that no digest changes.
    """

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    noise_scales: tuple[float, ...] = (0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04)
    noise_draws: int = Field(default=6, ge=2)
    noise_items: int = Field(default=24, ge=1)
    line_points: tuple[float, ...] = (1.5, 2.0, 3.0, 5.0)
    line_items: int = Field(default=64, ge=1)
    ball: float = Field(default=0.001, gt=0, lt=1)
    ascent_steps: int = Field(default=4, ge=1)
    ascent_seeds: int = Field(default=5, ge=2)
    ascent_items: int = Field(default=8, ge=1)
    gradient_items: int = Field(default=32, ge=1)
    batch_items: int = Field(default=32, ge=1)
    random_draws: int = Field(default=4, ge=2)
    rollout_items: int = Field(default=24, ge=1)
    rollout_tokens: int = Field(default=40, ge=5)
    loss_items: int = Field(default=8, ge=1)
    direction_steps: int = Field(default=3, ge=1)
    compute_dtype: ComputeDtype = ComputeDtype.STORED
    stop_when_decided: bool = True
    retention_items: int | None = Field(default=None, ge=1, exclude_if=lambda found: found is None)
    also: tuple[Extra, ...] = Field(default=(), exclude_if=lambda found: found == ())
    refusal_harmful: str = Field(default="safety", exclude_if=lambda found: found == "safety")
    refusal_harmless: str = Field(default="help", exclude_if=lambda found: found == "help")
    refusal_items: int = Field(default=32, ge=8, exclude_if=lambda found: found == 32)
    refusal_directions: int = Field(default=200, ge=200, exclude_if=lambda found: found == 200)
    input_ball: float = Field(default=0.1, gt=0, lt=1, exclude_if=lambda found: found == 0.1)
    input_steps: int = Field(default=3, ge=1, exclude_if=lambda found: found == 3)
    robust_strengths: tuple[float, ...] = Field(
        default=ROBUST_STRENGTHS, min_length=1, exclude_if=lambda found: found == ROBUST_STRENGTHS
    )
    robust_draws: int = Field(default=6, ge=2, exclude_if=lambda found: found == 6)
    robust_items: int = Field(default=24, ge=1, exclude_if=lambda found: found == 24)
    merge_scale: float = Field(default=0.5, gt=0, exclude_if=lambda found: found == 0.5)
    merge_draws: int = Field(default=64, ge=2, exclude_if=lambda found: found == 64)
    merge_items: int = Field(default=8, ge=1, exclude_if=lambda found: found == 8)
    tamper_reach: float = Field(default=0.02, gt=0, lt=1, exclude_if=lambda found: found == 0.02)
    tamper_steps: int = Field(default=12, ge=1, exclude_if=lambda found: found == 12)
    tamper_seeds: int = Field(default=5, ge=5, exclude_if=lambda found: found == 5)

    @property
    def digest(self) -> str:
        """sha256 of the plan's canonical JSON."""
        return digest_json(self.model_dump(mode="json"))


class Evidence(Frozen):
    """All that is known about one candidate under one base, suite and plan. Facts only, no permission.

    ``unmeasured`` says why a measurement is not here (``"retention/math" → "stopped: verdict decided"``);
    ``errors`` are operational failures: with any of them the verdict is ``error`` unless already blocked.
    ``prompts_sha256`` is the digest of the texts kept beside it (``gate.domain.prompts``); where none were kept, and in
    evidence older than that, it is in no document, so that no digest changes. ``paired_outcomes`` are of the undecided
    capabilities that items were kept back of, so that their comparison can go on; where there are none, in no document either.
    ``alignment`` is of the whole and then of each layer, where the plan asks and the base's ancestor is known; else in none.
    """

    key: Sha256
    candidate: Checkpoint
    lineage: Lineage
    base_name: str | None = None
    base_digest: Sha256 | None = None
    suite: str = ""
    suite_digest: Sha256 | None = None
    plan: Plan = Plan()
    seed: int = 0
    capabilities: tuple[str, ...] = ()
    margins: Mapping[str, float] = {}
    measurements: tuple[Measurement, ...] = ()
    curves: tuple[Curve, ...] = ()
    layers: tuple[LayerDisplacement, ...] = ()
    defects: tuple[Defect, ...] = ()
    unmeasured: Mapping[str, str] = {}
    errors: tuple[str, ...] = ()
    costs: tuple[StageCost, ...] = ()
    provenance: Mapping[str, str] = {}
    prompts_sha256: Sha256 | None = Field(default=None, exclude_if=lambda digest: digest is None)
    paired_outcomes: tuple[PairedOutcomes, ...] = Field(default=(), exclude_if=lambda found: not found)
    alignment: tuple[LayerAlignment, ...] = Field(default=(), exclude_if=lambda found: not found)

    def find(self, name: Name, capability: str | None = None) -> Estimate | None:
        """The estimate of a measurement, or ``None`` where it was not made."""
        for m in self.measurements:
            if m.name == name and m.capability == capability:
                return m.estimate
        return None

    @property
    def digest(self) -> str:
        """sha256 of the evidence's canonical JSON."""
        return digest_json(self.model_dump(mode="json"))


def canonical_json(value: Any) -> bytes:
    """The one JSON form that is hashed and signed: sorted keys, no spaces, UTF-8, no NaN."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_json(value: Any) -> str:
    """sha256 of the canonical JSON form.

    >>> digest_json({"b": 1, "a": 2}) == digest_json({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(canonical_json(value)).hexdigest()


def extended_evidence_key(evidence_key: str, verdict_digest: str) -> str:
    """The key of evidence that more samples were added to because of what was decided on a verdict."""
    return digest_json(["evidence", evidence_key, "extended", verdict_digest])
