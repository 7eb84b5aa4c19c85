"""What is judged: a registered version, the files it is made of, and the base it came from."""

import hashlib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


PROMPT_SOURCES = frozenset({"prompt-template", "dummy-source"})
"""What MLflow writes as the source of a prompt (its server; its client and UI). No files can lie there."""


class Frozen(BaseModel):
    """A value that crosses a process boundary: immutable, closed, and refusing NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelVersion(Frozen):
    """One version of a registered model, as the registry tells it now.

    ``(name, version)`` is not an identity: a registered model can be deleted and made again, which
    starts its numbers afresh. ``identity`` adds the creation time and the source.
    """

    name: str
    version: str
    created_ms: int
    source: str
    run_id: str | None = None
    tags: Mapping[str, str] = {}
    description: str = ""
    aliases: tuple[str, ...] = ()
    stage: str = "None"

    @property
    def uri(self) -> str:
        """The registry address, for people: ``models:/name/version``."""
        return f"models:/{self.name}/{self.version}"

    @property
    def is_prompt(self) -> bool:
        """Whether this is a prompt, which MLflow keeps in the same registry. Its source tells; never its tags,
        which anyone who may edit a model can set."""
        return self.source in PROMPT_SOURCES

    @property
    def identity(self) -> str:
        """What an approval is bound to; differs for a version that was deleted and made again.

        >>> ModelVersion(name="a b", version="1", created_ms=7, source="models:/m-1").identity
        'models:/a%20b/1?created=7&source=models%3A%2Fm-1'
        """
        return version_identity(self.name, self.version, self.created_ms, self.source)


def version_identity(name: str, version: str, created_ms: int, source: str) -> str:
    """The identity of a registered version as one URI, reproducible from the registry's row alone."""
    return (
        f"models:/{quote(name, safe='')}/{quote(version, safe='')}?created={created_ms}&source={quote(source, safe='')}"
    )


class FileDigest(Frozen):
    """One file of a checkpoint: its path inside the folder, its bytes' sha256, its size in bytes."""

    path: str
    sha256: Sha256
    size: int = Field(ge=0)


def digest_of(files: Iterable[FileDigest]) -> str:
    """One sha256 over all files: of ``path NUL sha256 LF`` lines in path order."""
    whole = hashlib.sha256()
    for file in sorted(files, key=lambda f: f.path):
        whole.update(f"{file.path}\0{file.sha256}\n".encode())
    return whole.hexdigest()


class Layout(StrEnum):
    """How the weights lie in the folder."""

    FULL = "full"
    SHARDED = "sharded"
    ADAPTER = "adapter"
    UNKNOWN = "unknown"


class Checkpoint(Frozen):
    """The files of one candidate or base, each with its digest."""

    layout: Layout
    files: tuple[FileDigest, ...]
    dtype: str = "unknown"
    parameters: int = Field(default=0, ge=0)

    @property
    def digest(self) -> str:
        """sha256 over every file; changes when any byte of any file does."""
        return digest_of(self.files)


class Lineage(Frozen):
    """Which base a candidate says it came from, and how that was found out.

    ``reference`` is the text found (``models:/base/1``, a repository id, a digest); ``found_by`` the
    place it stood in; ``None`` where no place said anything.
    """

    reference: str | None = None
    found_by: str = "nothing"


class Ancestor(Frozen):
    """The model that a base was aligned from: where it was fetched from, and its files as they were then."""

    source: str
    checkpoint: Checkpoint


class Base(Frozen):
    """An onboarded base: allowed as a reference, its digest attested at onboarding.

    ``source`` is where it was fetched from, ``references`` further texts that mean it, ``suite`` the name or
    folder of the suite its fine-tunes are measured with. ``suite_digest`` is that suite's as it was onboarded with: where it
    is another one later, verdicts are opened again. A base onboarded before that was kept has none. ``ancestor`` is
    the unaligned model it came from, where that is known.
    """

    name: str
    digest: Sha256
    source: str
    suite: str
    references: tuple[str, ...] = ()
    checkpoint: Checkpoint
    suite_digest: Sha256 | None = Field(default=None, exclude_if=lambda found: found is None)
    ancestor: Ancestor | None = Field(default=None, exclude_if=lambda found: found is None)

    def answers_to(self, reference: str) -> bool:
        """Whether a lineage reference means this base (exact text, its name, its source or its digest)."""
        return reference in (self.name, self.source, self.digest, f"sha256:{self.digest}", *self.references)
