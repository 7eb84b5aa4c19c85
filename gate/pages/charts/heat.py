"""Where the weights moved: a table of the layers' parts, each shaded by how far it went relative to its own size."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gate.domain.evidence import LayerDisplacement
from gate.pages.numbers import percent

SHADES = 7
NUMBERS_UP_TO = 8
"""With more layers than this a cell is too narrow to print its number in; it is still read out."""
_BLOCK = re.compile(r"^(?P<before>.*?)\.(?P<block>\d+)\.(?P<part>.+)$")
_ENDINGS = (".weight", ".bias")


@dataclass(frozen=True, slots=True)
class Cell:
    """One tensor: its relative move in words, its shade from 0 (least) to 6 (most), its full name."""

    shown: str
    shade: int
    tensor: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Rows by part, columns by layer; ``others`` belong to no layer; ``bounds`` are the shades' upper ends."""

    blocks: tuple[int, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    others: tuple[tuple[str, Cell], ...]
    bounds: tuple[str, ...]
    numbers: bool


def heat_map(layers: Sequence[LayerDisplacement]) -> HeatMap | None:
    """The map, or ``None`` where nothing is known or nothing moved."""
    moves = {layer.tensor: layer.relative or 0.0 for layer in layers}
    most = max(moves.values(), default=0.0)
    if most <= 0:
        return None
    found: dict[str, dict[int, Cell]] = {}
    others: list[tuple[str, Cell]] = []
    for tensor, move in moves.items():
        cell = Cell(percent(move), shade(move / most), tensor)
        block = _BLOCK.match(tensor)
        if block is None:
            others.append((short(tensor), cell))
        else:
            found.setdefault(short(block["part"]), {})[int(block["block"])] = cell
    blocks = tuple(sorted({number for row in found.values() for number in row}))
    rows = tuple((part, tuple(row.get(number) for number in blocks)) for part, row in found.items())
    bounds = tuple(percent(most * ((n + 1) / SHADES) ** 2) for n in range(SHADES))
    return HeatMap(blocks, rows, tuple(others), bounds, len(blocks) <= NUMBERS_UP_TO)


def shade(share: float) -> int:
    """The shade of a share of the largest move; small moves are told apart better than large ones.

    >>> shade(0), shade(0.02), shade(0.3), shade(1)
    (0, 0, 3, 6)
    """
    return min(SHADES - 1, int(share**0.5 * SHADES))


def short(tensor: str) -> str:
    """A tensor's name without what all have in common.

    >>> short("self_attn.q_proj.weight"), short("model.embed_tokens.weight")
    ('self_attn.q_proj', 'embed_tokens')
    """
    for ending in _ENDINGS:
        tensor = tensor.removesuffix(ending)
    return tensor.removeprefix("model.")
