"""The forms in which a verdict leaves the gate."""

from enum import StrEnum


class Format(StrEnum):
    """A CycloneDX 1.6 bill of materials, or a section of a model card in Markdown."""

    CYCLONEDX = "cyclonedx"
    MODEL_CARD = "model-card"
