"""The isotropic smoothing certificate of the basin paper, and the radius within which it says anything.

For ε ~ N(0, σ²I) and a score S in [0, 1] (Cohen, Rosenfeld & Kolter 2019, arXiv 1902.02918; Chen et al. 2025,
Theorem 4.3):

    E S(θ₁ + ε) ≥ Φ( Φ⁻¹(p) − ‖θ₁ − θ₀‖ / σ ),  p = E S(θ₀ + ε)

It is true and it is tight, and for checkpoints it is vacuous: the noise is σ·√d long and the certificate reaches about
3σ, so that a cast to 16 bits already leaves it. And it speaks of the candidate with noise added, never of the
candidate itself. It is shown because readers of the paper ask for it, and decides nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from tasks.measurements.confidence import Interval

EVEN = 0.5
"""The smoothed score down to which the radius reaches."""

LARGEST_ALPHA = 0.999


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is certified at the candidate's distance, how far the certificate reaches, and at which noise scale.

    ``score`` and ``radius`` (weight units) are lower bounds; the smoothed score is at least ½ within the radius.
    """

    score: Interval
    radius: Interval
    sigma: float
    vacuous: bool


def isotropic_certificate(noisy: Sequence[tuple[float, Interval]], norm: float) -> Certificate | None:
    """The certificate at distance ``norm`` from the base's scores under noise, as (scale, score) pairs.

    The scale that reaches farthest is chosen after the scores are known, so all of them share the error probability.
    ``None`` where no scale has a lower bound.

    >>> half = Interval(0.9, 0.84134474, 1.0, 0.01, 6, "given")
    >>> found = isotropic_certificate([(0.003, half)], norm=0.002)
    >>> round(found.radius.value, 6), round(found.score.value, 4), found.vacuous
    (0.003, 0.6306, False)
    """
    reaches = [(sigma * _quantile(p.lower), sigma, p) for sigma, p in noisy if p.lower is not None and sigma > 0]
    if not reaches:
        return None
    reach, sigma, chosen = max(reaches, key=lambda each: each[0])
    alpha = min(LARGEST_ALPHA, sum(p.alpha for _, _, p in reaches))
    score = float(stats.norm.cdf((reach - norm) / sigma))
    radius = max(0.0, reach)
    method = f"smoothing at scale {sigma:g}, {chosen.method}"
    return Certificate(
        _at_least(score, alpha, chosen.n, method), _at_least(radius, alpha, chosen.n, method), sigma, norm > radius
    )


def _quantile(p: float) -> float:
    """Φ⁻¹ of a lower bound, which is never quite 1 of finitely many draws."""
    return float(stats.norm.ppf(min(max(p, 0.0), 1 - 1e-12)))


def _at_least(value: float, alpha: float, n: int, method: str) -> Interval:
    return Interval(value, value, None, alpha, n, method)
