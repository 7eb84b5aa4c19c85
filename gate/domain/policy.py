"""Permission: rules over measurements, and the one function where evidence meets them."""

from collections.abc import Mapping
from datetime import date
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from gate.domain.checkpoint import Frozen, Sha256
from gate.domain.evidence import MEANINGS, DefectCode, Evidence, Name, Plan, digest_json
from gate.domain.verdict import Enforcement
from gate.domain.vocabulary import SHOWN_ONLY

Layer = Literal["organisation", "team", "model"]
DESCRIPTIVE = frozenset({Name.FORWARD_KL_FIRST_TOKEN, Name.FORWARD_KL_FIRST_FIVE, Name.FORWARD_KL})
"""What has an interval that describes the answers drawn, and promises no level of confidence."""
DEFECT_DEFAULTS: Mapping[DefectCode, Enforcement] = {
    DefectCode.ARTIFACTS_MISSING: Enforcement.BLOCK,
    DefectCode.ARTIFACTS_UNREADABLE: Enforcement.BLOCK,
    DefectCode.BASE_UNRESOLVED: Enforcement.REVIEW,
    DefectCode.BASE_MISMATCH: Enforcement.BLOCK,
    DefectCode.NON_FINITE_WEIGHTS: Enforcement.BLOCK,
    DefectCode.MISSING_TENSORS: Enforcement.BLOCK,
    DefectCode.EXTRA_TENSORS: Enforcement.REVIEW,
    DefectCode.SHAPE_MISMATCH: Enforcement.BLOCK,
    DefectCode.VOCABULARY_RESIZED: Enforcement.REVIEW,
    DefectCode.ARCHITECTURE_CHANGED: Enforcement.BLOCK,
    DefectCode.TOKENIZER_CHANGED: Enforcement.REVIEW,
    DefectCode.DTYPE_CHANGED: Enforcement.WARN,
    DefectCode.UNSAFE_FILE: Enforcement.BLOCK,
    DefectCode.CUSTOM_CODE: Enforcement.BLOCK,
    DefectCode.ARCHIVE_FILE: Enforcement.BLOCK,
    DefectCode.NOT_MEASURABLE: Enforcement.REVIEW,
}


class Calibration(Frozen):
    """What a limit was learned from, and what it promises: of good fine-tunes like those, at most ``false_block`` fail any of
    ``rules``, at ``confidence``. It speaks of this base, suite and plan alone; of any other, its rule is not decided.

    ``good_digest`` and ``bad_digest`` are over the candidates' digests; of the bad ones, ``bad_held`` failed some of the rules.
    """

    base_digest: Sha256
    suite_digest: Sha256
    plan_digest: Sha256
    day: date
    rules: tuple[str, ...] = Field(min_length=1)
    false_block: float = Field(gt=0, lt=1)
    confidence: float = Field(gt=0, lt=1)
    good: int = Field(ge=1)
    good_digest: Sha256
    bad: int = Field(ge=0)
    bad_held: int = Field(ge=0)
    bad_digest: Sha256

    @property
    def scope(self) -> tuple[str, str, str]:
        """The base, suite and plan that it speaks of, by digest."""
        return self.base_digest, self.suite_digest, self.plan_digest

    def covers(self, evidence: Evidence) -> bool:
        """Whether the evidence is of that base, measured with that suite and plan."""
        return self.scope == (evidence.base_digest, evidence.suite_digest, evidence.plan.digest)


class Rule(Frozen):
    """A closed comparator over one measurement.

    Exactly one of ``at_least`` and ``at_most``; the word ``margin`` stands for minus the suite's margin of the
    capability (only with ``retention``). ``capability`` is a name, or ``*`` for each capability of the suite.
    ``when`` is a CEL expression over facts of the candidate; where it is false the rule does not apply. ``confidence`` is
    the least level at which an interval decides. ``failure: open``, with its ``failure_reason``, lets a version through
    for which the measurement is missing; a ``critical`` rule never does. ``calibration`` says what the limit was learned
    from, where it was. What is not said is in no document, so that no digest changes.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    measurement: Name
    capability: str | None = None
    at_least: float | Literal["margin"] | None = None
    at_most: float | None = None
    enforcement: Enforcement = Enforcement.BLOCK
    reason: str = Field(min_length=1)
    when: str | None = Field(default=None, min_length=1, exclude_if=lambda found: found is None)
    confidence: float | None = Field(default=None, ge=0.5, lt=1, exclude_if=lambda found: found is None)
    critical: bool = Field(default=False, exclude_if=lambda found: not found)
    failure: Literal["closed", "open"] = Field(default="closed", exclude_if=lambda found: found == "closed")
    failure_reason: str | None = Field(default=None, min_length=1, exclude_if=lambda found: found is None)
    calibration: Calibration | None = Field(default=None, exclude_if=lambda found: found is None)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.measurement in SHOWN_ONLY:
            raise ValueError(
                f"rule {self.name}: expected a measurement of the candidate, found {self.measurement}: the certificate "
                "speaks of the model with noise added and is shown only; write the rule on retention"
            )
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"rule {self.name}: expected exactly one of at_least and at_most")
        if self.at_least == "margin" and self.measurement is not Name.RETENTION:
            raise ValueError(f"rule {self.name}: at_least: margin is only for measurement: retention")
        if MEANINGS[self.measurement].per_capability != (self.capability is not None):
            need = "a capability (a name or '*')" if self.capability is None else "no capability"
            raise ValueError(f"rule {self.name}: {self.measurement} takes {need}")
        self._refuse_open()
        self._refuse_confidence()
        return self

    def _refuse_open(self) -> None:
        if self.failure == "open" and self.critical:
            raise ValueError(
                f"rule {self.name}: expected failure: closed on a critical rule, found open; what is critical must be measured"
            )
        if (self.failure == "open") != (self.failure_reason is not None):
            found = "none" if self.failure_reason is None else "one with failure: closed"
            raise ValueError(
                f"rule {self.name}: expected failure_reason with failure: open and only there, found {found}; "
                "say why a version may pass unmeasured, or let the rule fail closed"
            )

    def _refuse_confidence(self) -> None:
        if self.confidence is not None and self.measurement in DESCRIPTIVE:
            raise ValueError(
                f"rule {self.name}: expected no confidence, found {self.confidence:g}: the interval of {self.measurement} "
                "describes the answers drawn and holds no stated level; write the rule on retention or score"
            )


class Protected(Frozen):
    """What only an approved version may be given: aliases, stages, and registered models to copy into.

    ``modes`` loosens single ones of these names. With ``dry_run`` an unapproved promotion passes, and the guard records
    that it would have been refused; with ``warn`` the reconciler tells of it besides, and undoes nothing.
    """

    aliases: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    registered_models: tuple[str, ...] = ()
    modes: Mapping[str, Literal["warn", "dry_run"]] = Field(default={}, exclude_if=lambda found: not found)

    @model_validator(mode="after")
    def _of_names_kept(self) -> Self:
        if unknown := sorted(set(self.modes) - {*self.aliases, *self.stages, *self.registered_models}):
            raise ValueError(
                f"protected.modes: expected names that are protected beside it, found {unknown}; list them too"
            )
        return self


class OnApproved(Frozen):
    """What the gate itself does with an approved version."""

    alias: str | None = None
    tags: Mapping[str, str] = Field(default={}, exclude_if=lambda tags: not tags)

    @model_validator(mode="after")
    def _no_tag_of_the_gate(self) -> Self:
        if taken := sorted(key for key in self.tags if key.startswith("gate.") or not key.strip()):
            raise ValueError(
                f"on_approved.tags: expected names outside gate.*, found {taken}; those are the gate's own"
            )
        return self


class OnBlocked(Frozen):
    """What the gate itself does about a version that it does not approve.

    ``restore``: a protected alias that it holds since an approval goes back to who held it before, where it is blocked
    now. ``notify``: the channels that are told.
    """

    restore: bool = False
    notify: tuple[str, ...] = ()


class Budget(Frozen):
    """The most that measuring one candidate may take; past it nothing more is measured, and nothing is approved."""

    gpu_seconds: float = Field(gt=0)


class WaiverTerms(Frozen):
    """That this policy grants waivers, and for how long at most."""

    max_days: int = Field(ge=1, le=365)


class BreakGlassTerms(Frozen):
    """That somebody on call may let a version be promoted against its verdict, for how many hours at most, and within how
    many hours somebody else has to review that."""

    max_hours: int = Field(ge=1, le=168)
    review_within_hours: int = Field(default=24, ge=1, le=720)


class Policy(Frozen):
    """One policy document. ``match`` is a CEL expression over ``version`` (name, tags and so on); ``true`` means each.

    ``layer`` and ``parent`` say whose document it is and which one it tightens; ``origins`` then tells of each rule the
    policy it was written in (never written by hand). ``on_bypass`` says what becomes of a protected alias that was moved around the gate: ``alert`` reports it,
    ``restore`` also puts it back on the version that last held it with an approval, or takes it off.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    description: str = ""
    match: str = "true"
    enforcement: Literal["enforce", "dry_run"] = "enforce"
    protected: Protected = Protected()
    rules: tuple[Rule, ...] = Field(min_length=1)
    defects: Mapping[DefectCode, Enforcement] = {}
    on_approved: OnApproved = OnApproved()
    on_blocked: OnBlocked = Field(default=OnBlocked(), exclude_if=lambda found: found == OnBlocked())
    on_bypass: Literal["alert", "restore"] = "alert"
    validity_days: int = Field(default=90, ge=1, le=3650)
    plan: Plan = Plan()
    budget: Budget | None = Field(default=None, exclude_if=lambda found: found is None)
    waivers: WaiverTerms | None = Field(default=None, exclude_if=lambda found: found is None)
    break_glass: BreakGlassTerms | None = Field(default=None, exclude_if=lambda found: found is None)
    layer: Layer | None = Field(default=None, exclude_if=lambda found: found is None)
    parent: str | None = Field(default=None, exclude_if=lambda found: found is None)
    origins: SkipJsonSchema[Mapping[str, str]] = Field(default={}, exclude_if=lambda found: not found)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        names = [r.name for r in self.rules]
        if len(set(names)) != len(names):
            raise ValueError(f"policy {self.name}: rule names must differ, found {names}")
        if not any(r.enforcement in (Enforcement.BLOCK, Enforcement.REVIEW) for r in self.rules):
            raise ValueError(
                f"policy {self.name}: expected at least one rule that blocks or asks for review; for a policy "
                "that only watches, keep the rules and set enforcement: dry_run"
            )
        if not any(_always_decides(r) for r in self.rules):
            raise ValueError(
                f"policy {self.name}: expected at least one deciding rule without when and with failure: closed, found "
                "none; what nothing speaks of would otherwise be approved by nothing"
            )
        return self

    @property
    def digest(self) -> str:
        """sha256 of the policy's canonical JSON."""
        return digest_json(self.model_dump(mode="json"))

    def on_defect(self, code: DefectCode) -> Enforcement:
        """What this policy makes of a defect; its own word first, else the default."""
        return self.defects.get(code, DEFECT_DEFAULTS[code])


def _always_decides(rule: Rule) -> bool:
    return (
        rule.enforcement in (Enforcement.BLOCK, Enforcement.REVIEW) and rule.when is None and rule.failure == "closed"
    )


class PolicySet(Frozen):
    """The loaded policies in the order they are asked; the first whose ``match`` holds judges a version."""

    policies: tuple[Policy, ...] = Field(min_length=1)

    @property
    def protected(self) -> Protected:
        """Everything any enforcing policy protects."""
        each = [p.protected for p in self.policies if p.enforcement == "enforce"]
        return Protected(
            aliases=tuple(sorted({a for p in each for a in p.aliases})),
            stages=tuple(sorted({s for p in each for s in p.stages})),
            registered_models=tuple(sorted({m for p in each for m in p.registered_models})),
        )
