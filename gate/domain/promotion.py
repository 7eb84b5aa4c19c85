"""What a policy protects, compared as the most lenient database would: no spelling slips past."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gate.domain.policy import Policy

RESERVED = "gate."
OWNERS_TAGS = frozenset({"gate.base"})
"""Tags in the gate's namespace that a model's owner writes; they are input, not result."""

NO_STAGE = "None"
"""MLflow's name for being in no stage."""


@dataclass(frozen=True, slots=True)
class Holding:
    """An alias or a stage of a registered model, and the version (its number) that it leads to.

    Of kind ``model``, the place is the registered model itself, held by its newest version.
    """

    name: str
    kind: Literal["alias", "stage", "model"]
    place: str
    version: str

    @property
    def key(self) -> str:
        """The place within its registered model; no alias can hold a colon.

        >>> Holding("m", "stage", "Production", "3").key
        'stage:Production'
        """
        return self.place if self.kind == "alias" else f"{self.kind}:{self.place}"


def folded(text: str) -> str:
    """A text without case, accents, width, invisible characters or surrounding space.

    MySQL's default collation takes all of these for the same alias, whatever the registry's code compares.

    >>> folded("Chämpion ") == folded("ＣＨＡＭＰＩＯＮ") == "champion"
    True
    """
    plain = unicodedata.normalize("NFKD", text)
    kept = (_digit(c) for c in plain if unicodedata.category(c)[0] not in "MC")
    return unicodedata.normalize("NFKD", "".join(kept).casefold()).strip()


def same_name(given: str, protected: str) -> bool:
    """Whether a database could take one text for the other.

    Latin letters that no normal form takes apart (``ø``, ``ł``, ``æ``) stand for any one or two letters.

    >>> same_name("prøduction", "production"), same_name("product", "production")
    (True, False)
    """
    one, other = folded(given), folded(protected)
    return one == other or bool(re.fullmatch(_pattern(one), other)) or bool(re.fullmatch(_pattern(other), one))


def protects_alias(policy: Policy, alias: str) -> bool:
    """Whether the alias may be set on approved versions only."""
    return _among(alias, policy.protected.aliases)


def protects_stage(policy: Policy, stage: str) -> bool:
    """Whether the stage is for approved versions only."""
    return _among(stage, policy.protected.stages)


def protects_model(policy: Policy, name: str) -> bool:
    """Whether the registered model takes copies of approved versions only."""
    return _among(name, policy.protected.registered_models)


def is_reserved(tag: str) -> bool:
    """Whether a version's tag is one of the gate's results, which nobody else should write."""
    return folded(tag).startswith(RESERVED) and tag not in OWNERS_TAGS


def _among(given: str, protected: Iterable[str]) -> bool:
    return any(same_name(given, each) for each in protected)


def _digit(character: str) -> str:
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)


def _pattern(text: str) -> str:
    return "".join(".{1,2}" if _is_latin_variant(c) else re.escape(c) for c in text)


def _is_latin_variant(character: str) -> bool:
    return not character.isascii() and unicodedata.name(character, "").startswith("LATIN ")
