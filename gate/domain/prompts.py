"""Prompts whose answers changed: what the base said, what the candidate says, and how the judge took each.

Texts for people, bounded in number and length. They stand beside the evidence, which holds their digest; no rule reads
them, and no signed statement carries them.
"""

from gate.domain.checkpoint import Frozen, Sha256
from gate.domain.evidence import Evidence, digest_json

MOST_KEPT = 20
"""Prompts of one capability that are kept at most."""
PROMPT_CHARACTERS = 1200
ANSWER_CHARACTERS = 600
OPTION_CHARACTERS = 200
MOST_OPTIONS = 8
WRITTEN, CHOSEN = ("exact", "cloze"), "choice"
"""The scorers whose answers are as long as their reference, and the one whose answer is chosen."""
SHOWN = frozenset({*WRITTEN, CHOSEN, "number", "code", "refusal"})
"""The scorers whose answers can be shown."""


class Option(Frozen):
    """One choice, and how likely each model finds it: mean log-likelihood per byte, in nats; ``None`` if not finite."""

    text: str
    base: float | None
    candidate: float | None


class ChangedPrompt(Frozen):
    """One prompt with both answers. Scores are the judge's, 0 wrong to 1 right; ``options`` where one is chosen."""

    item: int
    prompt: str
    expected: str
    base: str
    candidate: str
    base_score: float
    candidate_score: float
    options: tuple[Option, ...] = ()

    @property
    def fell(self) -> bool:
        """Whether the judge liked the base's answer better."""
        return self.candidate_score < self.base_score


class CapabilityPrompts(Frozen):
    """A capability's changes: how many items were compared, how many fell or rose, and some of those.

    ``changed`` are the first in the random order of the comparison, those that fell before those that rose.
    """

    capability: str
    compared: int
    fell: int
    rose: int
    changed: tuple[ChangedPrompt, ...] = ()


class ChangedPrompts(Frozen):
    """What changed, by capability, in the suite's order; capabilities that nobody compared are not there."""

    capabilities: tuple[CapabilityPrompts, ...] = ()

    @property
    def digest(self) -> Sha256:
        """sha256 of the canonical JSON; the evidence carries it."""
        return digest_json(self.model_dump(mode="json"))


NO_PROMPTS = ChangedPrompts()


def cut(text: str, most: int) -> str:
    """The text as UTF-8 can carry it, with at most so many characters; ``…`` where it went on.

    >>> cut("a\\ud800bcd", 3)
    'a?…'
    """
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return whole if len(whole) <= most else whole[: most - 1] + "…"


def fitting(evidence: Evidence, kept: ChangedPrompts | None) -> ChangedPrompts:
    """The texts kept beside this evidence, if they are the ones it holds the digest of; else none."""
    return kept if kept is not None and kept.digest == evidence.prompts_sha256 else ChangedPrompts()
