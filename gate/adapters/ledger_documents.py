"""The JSON documents that the ledger keeps. Each row says the schema its document was written in.

A document of an older schema is read as the present code reads it; what a newer program wrote is not guessed at.
"""

from typing import TypeVar

from pydantic import ValidationError

from gate.domain.checkpoint import Frozen
from gate.domain.errors import Unavailable

DOCUMENT_SCHEMA = 1
"""What is written now. It rises when a program of before would misread a document, not when a field is added."""

Document = TypeVar("Document", bound=Frozen)


def read_document(kind: type[Document], key: str, body: str, schema: int = DOCUMENT_SCHEMA) -> Document:
    """A kept document; ``Unavailable`` where this program cannot read it: another one that can may take over."""
    what = f"{kind.__name__.lower()} {key}"
    if schema > DOCUMENT_SCHEMA:
        raise Unavailable(
            f"{what}: expected a document of schema {DOCUMENT_SCHEMA} or older, found {schema}; a newer version of this "
            "program wrote it: upgrade this one"
        )
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise Unavailable(
            f"{what}: expected a document of schema {DOCUMENT_SCHEMA} or older, found at {place}: {first['msg']}; if a newer "
            "version of this program wrote it, upgrade this one"
        ) from error
