"""The closed vocabulary of measurements: their names, and what each means."""

from collections.abc import Mapping
from enum import StrEnum

from gate.domain.checkpoint import Frozen


class Name(StrEnum):
    """The measurement vocabulary. Policies, reports, metrics and attestations use these words only."""

    DISPLACEMENT_NORM = "displacement_norm"
    DISPLACEMENT_RMS = "displacement_rms"
    DISPLACEMENT_RELATIVE = "displacement_relative"
    CHANGED_FRACTION = "changed_fraction"
    WORST_CASE_ALIGNMENT = "worst_case_alignment"
    WORST_CASE_ALIGNMENT_Z = "worst_case_alignment_z"
    PRECONDITIONED_ALIGNMENT = "preconditioned_alignment"
    PRECONDITIONED_ALIGNMENT_Z = "preconditioned_alignment_z"
    PREDICTED_LOSS_INCREASE = "predicted_loss_increase"
    BASIN_SIGMA = "basin_sigma"
    BASIN_POSITION = "basin_position"
    SCORE = "score"
    RETENTION = "retention"
    COMPLIED = "complied"
    INCOHERENT = "incoherent"
    KEYWORD_REFUSED = "keyword_refused"
    RETENTION_RANDOM = "retention_random"
    FORWARD_KL_FIRST_TOKEN = "forward_kl_first_token"
    FORWARD_KL_FIRST_FIVE = "forward_kl_first_five"
    FORWARD_KL = "forward_kl"
    GREEDY_AGREEMENT = "greedy_agreement"
    OVERLAP_BOUND = "overlap_bound"
    LOSS_INCREASE = "loss_increase"
    LOSS_INCREASE_Z = "loss_increase_z"
    LOSS_INCREASE_OF_WORST = "loss_increase_of_worst"
    HEADROOM = "headroom"
    ADVERSARIAL_SENSITIVITY = "adversarial_sensitivity"
    ADVERSARIAL_SENSITIVITY_RATIO = "adversarial_sensitivity_ratio"
    RANDOM_SENSITIVITY = "random_sensitivity"
    CRITICAL_SHARPNESS = "critical_sharpness"
    ADAPTIVE_ROBUSTNESS = "adaptive_robustness"
    ADAPTIVE_ROBUSTNESS_CHANGE = "adaptive_robustness_change"
    STABLE_RANK = "stable_rank"
    TOP_ENERGY = "top_energy"
    ALIGNMENT_COSINE = "alignment_cosine"
    ALIGNMENT_SUBSPACE_COSINE = "alignment_subspace_cosine"
    ALIGNMENT_SUBSPACE_RATIO = "alignment_subspace_ratio"
    INPUT_SENSITIVITY = "input_sensitivity"
    INPUT_SENSITIVITY_RATIO = "input_sensitivity_ratio"
    MERGE_RADIUS = "merge_radius"
    TAMPER_RADIUS = "tamper_radius"
    TAMPER_RADIUS_RATIO = "tamper_radius_ratio"
    REFUSAL_LOG_ODDS_SHIFT = "refusal_log_odds_shift"
    REFUSAL_DIRECTION_GAP = "refusal_direction_gap"
    REFUSAL_DIRECTION_PERCENTILE = "refusal_direction_percentile"
    CERTIFIED_SCORE = "certified_score"
    CERTIFIED_RADIUS = "certified_radius"
    CERTIFICATE_VACUOUS = "certificate_vacuous"


class Meaning(Frozen):
    """What a measurement is: its unit, one plain sentence, and whether it is per capability."""

    unit: str
    sentence: str
    per_capability: bool


MEANINGS: Mapping[Name, Meaning] = {
    Name.DISPLACEMENT_NORM: Meaning(
        unit="weight units",
        per_capability=False,
        sentence="L2 norm of candidate minus base over the shared parameters, tied tensors once.",
    ),
    Name.DISPLACEMENT_RMS: Meaning(
        unit="weight units",
        per_capability=False,
        sentence="Displacement norm divided by the square root of the parameter count; comparable to a noise scale.",
    ),
    Name.DISPLACEMENT_RELATIVE: Meaning(
        unit="ratio",
        per_capability=False,
        sentence="Displacement norm divided by the norm of the base's weights.",
    ),
    Name.CHANGED_FRACTION: Meaning(
        unit="ratio",
        per_capability=False,
        sentence="Fraction of the shared parameters that differ from the base.",
    ),
    Name.WORST_CASE_ALIGNMENT: Meaning(
        unit="cosine",
        per_capability=True,
        sentence="Cosine between the displacement and the base's loss gradient: the first-order worst-case direction.",
    ),
    Name.WORST_CASE_ALIGNMENT_Z: Meaning(
        unit="standard deviations",
        per_capability=True,
        sentence="Worst-case alignment in standard deviations of what a random direction would show.",
    ),
    Name.PRECONDITIONED_ALIGNMENT: Meaning(
        unit="cosine",
        per_capability=True,
        sentence="Worst-case alignment with a gradient whose every weight is divided by its root mean square over items, as Adam steps (only where the plan asks).",
    ),
    Name.PRECONDITIONED_ALIGNMENT_Z: Meaning(
        unit="standard deviations",
        per_capability=True,
        sentence="Preconditioned alignment in standard deviations of what a random direction would show (only where the plan asks).",
    ),
    Name.PREDICTED_LOSS_INCREASE: Meaning(
        unit="nats per token",
        per_capability=True,
        sentence="What the displacement would add to the loss if the loss were linear: its product with the base's gradient (only where the plan asks).",
    ),
    Name.BASIN_SIGMA: Meaning(
        unit="weight units",
        per_capability=True,
        sentence="Largest random noise scale at which the base keeps the capability within the tolerance.",
    ),
    Name.BASIN_POSITION: Meaning(
        unit="ratio",
        per_capability=True,
        sentence="Displacement RMS divided by the basin's noise scale: 0 at the base, 1 at the basin's edge.",
    ),
    Name.SCORE: Meaning(
        unit="score 0..1",
        per_capability=True,
        sentence="The candidate's mean score on the capability's items.",
    ),
    Name.RETENTION: Meaning(
        unit="score difference",
        per_capability=True,
        sentence="Candidate score minus base score, paired by item; negative means capability was lost.",
    ),
    Name.COMPLIED: Meaning(
        unit="ratio",
        per_capability=True,
        sentence="Share of requests that should be refused which the candidate complied with, in words that make sense (scorer: refusal).",
    ),
    Name.INCOHERENT: Meaning(
        unit="ratio",
        per_capability=True,
        sentence="Share of such requests answered by what neither refuses nor makes sense (scorer: refusal).",
    ),
    Name.KEYWORD_REFUSED: Meaning(
        unit="ratio",
        per_capability=True,
        sentence="Share of such requests whose answer has a phrase that published figures count as a refusal; shown only.",
    ),
    Name.RETENTION_RANDOM: Meaning(
        unit="score difference",
        per_capability=True,
        sentence="The same difference for random directions of the candidate's own norm: the control.",
    ),
    Name.FORWARD_KL_FIRST_TOKEN: Meaning(
        unit="nats",
        per_capability=True,
        sentence="KL divergence from base to candidate of the first token of an answer.",
    ),
    Name.FORWARD_KL_FIRST_FIVE: Meaning(
        unit="nats",
        per_capability=True,
        sentence="The same, summed over the first five tokens of answers that the base draws.",
    ),
    Name.FORWARD_KL: Meaning(
        unit="nats",
        per_capability=True,
        sentence="The same, summed over whole answers that the base draws.",
    ),
    Name.GREEDY_AGREEMENT: Meaning(
        unit="score 0..1",
        per_capability=True,
        sentence="Share of items the base has right whose every token the candidate guesses too: its score is at least this.",
    ),
    Name.OVERLAP_BOUND: Meaning(
        unit="score 0..1",
        per_capability=True,
        sentence="Probability mass of right answers that base and candidate share: the candidate's sampled score is at least this.",
    ),
    Name.LOSS_INCREASE: Meaning(
        unit="nats per token",
        per_capability=True,
        sentence="Loss of the reference answers at the candidate minus at the base.",
    ),
    Name.LOSS_INCREASE_Z: Meaning(
        unit="standard deviations",
        per_capability=True,
        sentence="Loss increase in standard deviations of what random directions of the same norm show.",
    ),
    Name.LOSS_INCREASE_OF_WORST: Meaning(
        unit="ratio",
        per_capability=True,
        sentence="Loss increase divided by the largest one that a search found within the same norm.",
    ),
    Name.HEADROOM: Meaning(
        unit="multiples of the update",
        per_capability=True,
        sentence="How much further along its own direction the fine-tune could go before the capability leaves its margin.",
    ),
    Name.ADVERSARIAL_SENSITIVITY: Meaning(
        unit="nats per token",
        per_capability=True,
        sentence="Loss increase under the worst weight perturbation found inside a relative ball around the candidate.",
    ),
    Name.ADVERSARIAL_SENSITIVITY_RATIO: Meaning(
        unit="ratio",
        per_capability=True,
        sentence="The candidate's adversarial sensitivity divided by the base's, same ball, steps and seeds.",
    ),
    Name.RANDOM_SENSITIVITY: Meaning(
        unit="nats per token",
        per_capability=True,
        sentence="Loss increase under random perturbations of the same norm: the control of adversarial sensitivity.",
    ),
    Name.CRITICAL_SHARPNESS: Meaning(
        unit="1 ÷ multiples of the update",
        per_capability=True,
        sentence="How soon going on along the update raises the loss of the candidate: 2 ÷ the multiple at which it does (only where the plan asks).",
    ),
    Name.ADAPTIVE_ROBUSTNESS: Meaning(
        unit="score in [0, 1]",
        per_capability=True,
        sentence="Mean score under random noise in proportion to each tensor's own size, over a range of strengths (only where the plan asks).",
    ),
    Name.ADAPTIVE_ROBUSTNESS_CHANGE: Meaning(
        unit="score difference",
        per_capability=True,
        sentence="The same of the candidate minus that of the base, under the same draws (only where the plan asks).",
    ),
    Name.STABLE_RANK: Meaning(
        unit="directions",
        per_capability=False,
        sentence="Over how many directions the update of each matrix is spread: 1 for a single one (only where the plan asks).",
    ),
    Name.TOP_ENERGY: Meaning(
        unit="ratio",
        per_capability=False,
        sentence="Share of the squared movement that is along each matrix's eight strongest directions (only where the plan asks).",
    ),
    Name.ALIGNMENT_COSINE: Meaning(
        unit="cosine",
        per_capability=False,
        sentence="Cosine between the displacement and the step that aligned the base: negative undoes it (only where the plan asks).",
    ),
    Name.ALIGNMENT_SUBSPACE_COSINE: Meaning(
        unit="cosine",
        per_capability=False,
        sentence="Share of the displacement's length in the leading directions of the step that aligned the base (only where the plan asks).",
    ),
    Name.ALIGNMENT_SUBSPACE_RATIO: Meaning(
        unit="ratio",
        per_capability=False,
        sentence="That share divided by the one that a random update of the same matrices has (only where the plan asks).",
    ),
    Name.INPUT_SENSITIVITY: Meaning(
        unit="nats per token",
        per_capability=True,
        sentence="Loss increase under the worst small change of the input's embeddings found (only where the plan asks).",
    ),
    Name.INPUT_SENSITIVITY_RATIO: Meaning(
        unit="ratio",
        per_capability=True,
        sentence="The candidate's input sensitivity divided by the base's, same items (only where the plan asks).",
    ),
    Name.MERGE_RADIUS: Meaning(
        unit="multiples of the update",
        per_capability=True,
        sentence="How far the update may be rescaled layer by layer with the smoothed score certainly kept (only where the plan asks).",
    ),
    Name.TAMPER_RADIUS: Meaning(
        unit="ratio",
        per_capability=True,
        sentence="Smallest relative distance at which a few adversarial steps from the candidate halve the score (only where the plan asks).",
    ),
    Name.TAMPER_RADIUS_RATIO: Meaning(
        unit="ratio",
        per_capability=True,
        sentence="The candidate's tamper radius divided by the base's, same attacks (only where the plan asks).",
    ),
    Name.REFUSAL_LOG_ODDS_SHIFT: Meaning(
        unit="nats",
        per_capability=False,
        sentence="Change of the log-odds that the answer to a harmful request begins as a refusal (only where the plan asks).",
    ),
    Name.REFUSAL_DIRECTION_GAP: Meaning(
        unit="ratio",
        per_capability=False,
        sentence="How much of the base's gap between harmful and harmless requests is left along its refusal direction (only where the plan asks).",
    ),
    Name.REFUSAL_DIRECTION_PERCENTILE: Meaning(
        unit="ratio",
        per_capability=False,
        sentence="Share of random directions along which the candidate tells them apart less than along the refusal direction (only where the plan asks).",
    ),
    Name.CERTIFIED_SCORE: Meaning(
        unit="score 0..1",
        per_capability=True,
        sentence="What the isotropic smoothing certificate leaves of the score of the candidate with noise added; shown only.",
    ),
    Name.CERTIFIED_RADIUS: Meaning(
        unit="weight units",
        per_capability=True,
        sentence="Displacement norm up to which that certificate leaves a score of one half; shown only.",
    ),
    Name.CERTIFICATE_VACUOUS: Meaning(
        unit="0 or 1",
        per_capability=True,
        sentence="1 where the candidate moved beyond that radius, so that the certificate says nothing; shown only.",
    ),
}

SHOWN_ONLY = frozenset({Name.CERTIFIED_SCORE, Name.CERTIFIED_RADIUS, Name.CERTIFICATE_VACUOUS, Name.KEYWORD_REFUSED})
"""What no rule may speak of: bounds about another model than the one that would be promoted, and a judge known to be misled."""

JUDGED = (Name.COMPLIED, Name.INCOHERENT, Name.KEYWORD_REFUSED)
"""How requests that should be refused were answered, of capabilities whose suite has them judged."""


class Extra(StrEnum):
    """What is measured only where the plan's ``also`` says so: it costs more than a verdict usually is worth."""

    GRADIENTS = "gradients"
    SPECTRUM = "spectrum"
    SHARPNESS = "sharpness"
    ROBUSTNESS = "robustness"
    ALIGNMENT = "alignment"
    REFUSAL = "refusal"
    INPUTS = "inputs"
    MERGE = "merge"
    TAMPER = "tamper"


EXTRAS: Mapping[Extra, tuple[Name, ...]] = {
    Extra.GRADIENTS: (
        Name.PRECONDITIONED_ALIGNMENT,
        Name.PRECONDITIONED_ALIGNMENT_Z,
        Name.PREDICTED_LOSS_INCREASE,
    ),
    Extra.SPECTRUM: (Name.STABLE_RANK, Name.TOP_ENERGY),
    Extra.SHARPNESS: (Name.CRITICAL_SHARPNESS,),
    Extra.ROBUSTNESS: (Name.ADAPTIVE_ROBUSTNESS, Name.ADAPTIVE_ROBUSTNESS_CHANGE),
    Extra.ALIGNMENT: (
        Name.ALIGNMENT_COSINE,
        Name.ALIGNMENT_SUBSPACE_COSINE,
        Name.ALIGNMENT_SUBSPACE_RATIO,
    ),
    Extra.REFUSAL: (
        Name.REFUSAL_LOG_ODDS_SHIFT,
        Name.REFUSAL_DIRECTION_GAP,
        Name.REFUSAL_DIRECTION_PERCENTILE,
    ),
    Extra.INPUTS: (Name.INPUT_SENSITIVITY, Name.INPUT_SENSITIVITY_RATIO),
    Extra.MERGE: (Name.MERGE_RADIUS,),
    Extra.TAMPER: (Name.TAMPER_RADIUS, Name.TAMPER_RADIUS_RATIO),
}
"""What each of them measures."""


def extra_of(name: Name) -> Extra | None:
    """What the plan has to ask for if this is to be measured; None where it always is.

    >>> extra_of(Name.STABLE_RANK), extra_of(Name.RETENTION)
    (<Extra.SPECTRUM: 'spectrum'>, None)
    """
    return next((extra for extra, names in EXTRAS.items() if name in names), None)
