"""Which base a candidate came from: the places that can say it, in order of trust, and the onboarded base meant.

The word found is only a pointer. It picks one of the bases an operator onboarded; what is measured is the
candidate against that base's attested bytes, so a wrong or invented word can cost an approval but not gain one.
"""

from collections.abc import Iterable, Mapping, Sequence

from gate.domain.checkpoint import Base, Frozen, Lineage

BASE_TAG = "gate.base"
"""The tag on a version or a registered model that names its base; an owner's own word goes before all others."""

RUN_KEYS = ("base_model", "base_model_name_or_path", "model_name_or_path")
"""Parameters of a training run that name what it started from."""


class LineageHints(Frozen):
    """What each place says about the base; ``None`` where it says nothing.

    ``source_model_name`` is where MLflow's transformers flavor loaded the logged model from. That is the base only
    for an adapter or a reference; for full weights it is the fine-tuned checkpoint itself (``source_is_base``).
    ``run`` holds the training run's parameters and inputs.
    """

    version_tag: str | None = None
    model_tag: str | None = None
    mlmodel_base: str | None = None
    adapter_base: str | None = None
    adapter_revision: str | None = None
    source_model_name: str | None = None
    source_model_revision: str | None = None
    source_is_base: bool = False
    run: Mapping[str, str] = {}


def resolve_lineage(hints: LineageHints) -> Lineage:
    """The first place that names a base, and which place it was.

    >>> resolve_lineage(LineageHints(version_tag=" ", adapter_base="org/base", adapter_revision="abc"))
    Lineage(reference='org/base@abc', found_by='adapter_config.json')
    >>> resolve_lineage(LineageHints()).reference is None
    True
    """
    for reference, found_by in _places(hints):
        if reference is not None and reference.strip():
            return Lineage(reference=reference.strip(), found_by=found_by)
    return Lineage()


def _places(hints: LineageHints) -> Iterable[tuple[str | None, str]]:
    yield hints.version_tag, f"version tag {BASE_TAG}"
    yield hints.model_tag, f"registered model tag {BASE_TAG}"
    yield hints.mlmodel_base, "MLmodel metadata.base_model"
    yield _at(hints.adapter_base, hints.adapter_revision), "adapter_config.json"
    if hints.source_is_base:
        yield _at(hints.source_model_name, hints.source_model_revision), "MLmodel source_model_name"
    for key in RUN_KEYS:
        yield hints.run.get(key), f"training run {key}"


def _at(name: str | None, revision: str | None) -> str | None:
    return f"{name}@{revision}" if name and name.strip() and revision else name


def match_base(lineage: Lineage, bases: Sequence[Base]) -> Base | None:
    """The onboarded base a lineage means, by exact text; ``None`` where none does or several do.

    Several bases answering to one text is an operator's mistake: guessing among them could pick the nearest.
    """
    if lineage.reference is None:
        return None
    meant = [base for base in bases if base.answers_to(lineage.reference)]
    return meant[0] if len({base.digest for base in meant}) == 1 else None
