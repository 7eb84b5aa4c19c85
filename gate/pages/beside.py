"""What a report shows of the measurements that only a plan's ``also`` brings: each number in words, and the update's spectrum."""

from dataclasses import dataclass

from markupsafe import Markup

from gate.domain.evidence import MEANINGS, Evidence, LayerDisplacement, Name
from gate.domain.vocabulary import EXTRAS
from gate.pages.charts.bullets import share_bar
from gate.pages.charts.heat import short
from gate.pages.numbers import ABSENT, compact, interval, percent

MOST_MATRICES = 8
ASKED = " (only where the plan asks)"
SIGNED = (
    Name.PRECONDITIONED_ALIGNMENT,
    Name.PRECONDITIONED_ALIGNMENT_Z,
    Name.PREDICTED_LOSS_INCREASE,
    Name.ADAPTIVE_ROBUSTNESS_CHANGE,
    Name.ALIGNMENT_COSINE,
    Name.REFUSAL_LOG_ODDS_SHIFT,
)


@dataclass(frozen=True, slots=True)
class Beside:
    """One measurement: its name, what it means, and of each capability (empty for the whole) the number."""

    name: str
    means: str
    unit: str
    found: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """One matrix of the update: how far it went, and how much of that along its strongest direction."""

    name: str
    tensor: str
    moved: str
    largest: str
    share: str
    directions: str
    bar: Markup


def beside(evidence: Evidence) -> list[Beside]:
    """Every measurement that was asked for and made, in the order in which they are made."""
    asked = [name for names in EXTRAS.values() for name in names]
    found = [(name, [m for m in evidence.measurements if m.name == name]) for name in asked]
    return [
        Beside(
            name,
            MEANINGS[name].sentence.replace(ASKED, ""),
            MEANINGS[name].unit,
            tuple((m.capability or "", interval(m.estimate, sign=name in SIGNED)) for m in made),
        )
        for name, made in found
        if made
    ]


def strongest(evidence: Evidence) -> list[Matrix]:
    """The matrices whose update has the largest singular values; none where the spectrum was not asked for."""
    known = [layer for layer in evidence.layers if layer.top_share is not None]
    known.sort(key=lambda layer: (-(layer.spectral_norm or 0.0), layer.tensor))
    return [_matrix(layer) for layer in known[:MOST_MATRICES]]


def _matrix(layer: LayerDisplacement) -> Matrix:
    least = layer.top_share or 0.0
    most = min(1.0, ((layer.spectral_norm_at_most or 0.0) / layer.norm) ** 2)
    share = percent(least) if percent(least) == percent(most) else f"{percent(least)} to {percent(most)}"
    return Matrix(
        name=short(layer.tensor),
        tensor=layer.tensor,
        moved=ABSENT if layer.relative is None else percent(layer.relative),
        largest=compact(layer.spectral_norm or 0.0),
        share=share,
        directions=compact(1 / least),
        bar=share_bar(least, f"{layer.tensor}: {share} of its squared movement along one direction"),
    )
