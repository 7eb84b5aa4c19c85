"""What the candidate certainly still answers right, from one forward pass over the base's own answers.

If each token of the base's greedy answer, its end included, is the candidate's first guess after the same prefix, then
greedy decoding writes the same answer (by induction over its tokens), and what is right about it stays right:

    S(θ₁) ≥ share of items with (base right and every token agreed)

On the items asked this is exact, whatever the weights did. Where a score of 1 means safe, one minus the bound is at
least the share of unsafe answers. A low bound is uninformative, not bad: a style that changed agrees nowhere.

Tensor suffixes: T positions, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tasks.measurements.confidence import Interval, clopper_pearson

NOISE = 8.0
"""Rounding errors of the first guess's logit within which two guesses count as a tie, and a tie as disagreement."""


def agrees(logits_TV: Tensor, tokens: Sequence[int]) -> bool:
    """Whether each token is the first guess at its position, by more than other batch shapes would change.

    >>> agrees(torch.tensor([[0.0, 2.0], [1.0, 0.0]]), [1, 0])
    True
    >>> agrees(torch.tensor([[0.0, 2.0], [1.0, 1.0]]), [1, 0])
    False
    """
    wanted_T1 = torch.tensor(tokens, device=logits_TV.device)[:, None]
    own_T = logits_TV.gather(-1, wanted_T1).squeeze(-1)
    best_other_T = logits_TV.scatter(-1, wanted_T1, -torch.inf).max(dim=-1).values
    doubt_T = NOISE * torch.finfo(logits_TV.dtype).eps * own_T.abs()
    # With NaN on either side the comparison is false: no agreement.
    return bool((own_T - best_other_T > doubt_T).all())


def greedy_agreement(right: Sequence[bool], agreed: Sequence[bool], alpha: float) -> Interval:
    """The bound: the share of items that the base has right and the candidate agrees on, with its exact interval.

    >>> greedy_agreement([True, True, False, True], [True, False, True, True], 0.05).value
    0.5
    """
    kept = sum(r and a for r, a in zip(right, agreed, strict=True))
    return clopper_pearson(kept, len(right), alpha)
