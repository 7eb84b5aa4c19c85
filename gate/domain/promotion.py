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

Kind = Literal["alias", "stage", "model"]
Mode = Literal["enforce", "warn", "dry_run"]
STRICTEST_FIRST: tuple[Mode, ...] = ("enforce", "warn", "dry_run")

NO_STAGE = "None"
"""MLflow's name for being in no stage."""


@dataclass(frozen=True, slots=True)
class Holding:
    """An alias or a stage of a registered model, and the version (its number) that it leads to.

    Of kind ``model``, the place is the registered model itself, held by its newest version.
    """

    name: str
    kind: Kind
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

    A letter with an accent or another form stands for its plain letter, alone or with up to two more (``ä`` for ``ae``,
    ``ß`` for ``s``); a Latin letter without a plain one (``ø``, ``æ``), a number or a modifier of another script for
    anything up to three letters, or nothing; any other letter for itself or for nothing.

    >>> same_name("prøduction", "production"), same_name("champ\u0640ion", "champion"), same_name("baße", "base")
    (True, True, True)
    >>> same_name("product", "production"), same_name("чемпион", "champion")
    (False, False)
    """
    one, other = folded(given), folded(protected)
    return one == other or bool(re.fullmatch(_pattern(given), other)) or bool(re.fullmatch(_pattern(protected), one))


def mode_of(policy: Policy, kind: Kind, place: str) -> Mode | None:
    """What a policy makes of an unapproved promotion to a place: it is refused, let pass and told of, or let pass.

    ``None`` where it does not keep the place. Of several protected names that a database could take for it, the strictest.
    """
    kept = policy.protected
    names = {"alias": kept.aliases, "stage": kept.stages, "model": kept.registered_models}[kind]
    modes: list[Mode] = [kept.modes.get(name, "enforce") for name in names if same_name(place, name)]
    return strictest(modes, policy) if modes else None


def strictest(modes: Iterable[Mode], policy: Policy) -> Mode:
    """The strictest of several, as far as the policy as a whole is in force."""
    return "dry_run" if policy.enforcement == "dry_run" else min(modes, key=STRICTEST_FIRST.index)


def strictest_of(modes: Iterable[Mode | None]) -> Mode | None:
    """The strictest of what several policies make of a place; ``None`` where none of them keeps it."""
    return min((mode for mode in modes if mode), key=STRICTEST_FIRST.index, default=None)


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
    spelt = folded(tag).startswith(RESERVED) or any(same_name(tag[:n], RESERVED) for n in _beginnings(tag))
    return spelt and tag not in OWNERS_TAGS


def _beginnings(tag: str) -> Iterable[int]:
    """How long the part of a tag may be that a database takes for the gate's namespace; what is ASCII needs no guess."""
    return () if tag.isascii() else range(1, len(tag) + 1)


def _among(given: str, protected: Iterable[str]) -> bool:
    return any(same_name(given, each) for each in protected)


def _digit(character: str) -> str:
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)


def _pattern(text: str) -> str:
    return "".join(_spellings(c) for c in unicodedata.normalize("NFC", text.strip()))


def _spellings(character: str) -> str:
    """A pattern of what a database's collation may take the character for."""
    plain = folded(character)
    if character.isascii():
        return re.escape(character.casefold())
    if plain.isascii() and plain:
        return f"(?:{re.escape(plain)}|{re.escape(plain[0])}.{{0,2}})"
    if unicodedata.category(character)[0] == "N" or unicodedata.category(character) == "Lm" or _has_latin(plain):
        return ".{0,3}"
    return f"(?:{re.escape(plain)})?"


def _has_latin(text: str) -> bool:
    return any(unicodedata.name(c, "").startswith("LATIN ") for c in text)
