"""Who holds which protected place, read from the registry in slices so that a sweep's cost stays bounded.

A few pages of registered models are read at each sweep: a small registry as a whole every time, a large one in turns.
"""

from collections.abc import Container, Iterator

from gate.adapters.standing import Standing
from gate.domain.promotion import Holding
from gate.ports import Registry

PAGES_A_SWEEP = 4
"""Pages of 1,000 registered models read at one sweep."""
NEW_AT_ONCE = 1_000
"""So many new ones are looked at in one sweep; the others in the next, so that one sweep comes to its end."""


class Holders:
    """The protected places of the registry as they were last read."""

    def __init__(self, standing: Standing, registry: Registry) -> None:
        self._standing, self._registry = standing, registry
        self._of: dict[str, tuple[Holding, ...]] = {}
        self._this_round: set[str] = set()
        self._cursor = ""

    def read(self) -> None:
        """Read the next pages. A model that is not met in a whole round is gone, or has another name."""
        for _ in range(PAGES_A_SWEEP):
            models, self._cursor = self._registry.holdings(self._cursor)
            for name, found in models.items():
                self._of[name] = tuple(held for held in found if self._guards(held))
            self._this_round |= models.keys()
            if not self._cursor:
                self._of = {name: held for name, held in self._of.items() if name in self._this_round}
                self._this_round = set()
                return

    def held(self) -> Iterator[Holding]:
        """Every holding of a protected place, as far as read."""
        for holdings in self._of.values():
            yield from holdings

    def new(self, known: Container[Holding]) -> list[Holding]:
        """Those never looked at, as many as one sweep can look at."""
        return [each for each in self.held() if each not in known][:NEW_AT_ONCE]

    def _guards(self, held: Holding) -> bool:
        match held.kind:
            case "alias":
                return self._standing.guards_alias(held.place)
            case "stage":
                return self._standing.guards_stage(held.place)
            case "model":
                return self._standing.guards_model(held.place)
