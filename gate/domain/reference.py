"""How people and manifests name a registered version: ``models:/name/version`` or ``models:/name@alias``."""

import re
from urllib.parse import quote

from gate.domain.checkpoint import Frozen
from gate.domain.errors import InvalidInput

# MLflow reads such a reference as a URL: what follows a question mark is dropped, control characters too. Either
# would let one text mean one version here and another one there.
_BY_NUMBER = re.compile(r"models:/(?P<name>[^/?]+)/(?P<version>[1-9][0-9]{0,17})")
_BY_ALIAS = re.compile(r"models:/(?P<name>[^/?]+)@(?P<alias>[^/?@]+)")


class VersionReference(Frozen):
    """A registered model, and either a version number or an alias of it."""

    name: str
    version: str | None = None
    alias: str | None = None

    @property
    def resource(self) -> str:
        """How an attestation's ``resourceUri`` begins for this numbered version."""
        return f"models:/{quote(self.name, safe='')}/{self.version}"


def parse_reference(text: str) -> VersionReference:
    """The version a reference names. Raises `InvalidInput` for stages and ``latest``, which move freely.

    >>> parse_reference("models:/help desk/3")
    VersionReference(name='help desk', version='3', alias=None)
    >>> parse_reference("models:/help desk@champion").alias
    'champion'
    """
    found = _BY_NUMBER.fullmatch(text) or _BY_ALIAS.fullmatch(text)
    if found is None or not text.isprintable():
        raise InvalidInput(
            f"expected models:/NAME/VERSION or models:/NAME@ALIAS, found {text!r}; stages, latest and logged models "
            "(models:/m-…) name no version that an approval could be bound to"
        )
    return VersionReference(**found.groupdict())
