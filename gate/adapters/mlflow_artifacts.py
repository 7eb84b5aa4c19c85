"""Fetching a version's files: only from where they may lie, only when the upload is complete, all or nothing."""

import json
import os
import posixpath
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp
from typing import Any
from urllib.parse import unquote, urlsplit

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

from gate.adapters.mlflow_calls import ABSENT, asking
from gate.domain.errors import InvalidInput, NotFound, NotMeasurable, Unavailable

MOST_FILES = 20_000
MOST_FOLDERS_DEEP = 16
MOST_INDEX_BYTES = 50_000_000
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".pkl")
CONFIGURATIONS = frozenset({"config.json", "adapter_config.json"})
OUR_SERVERS = frozenset({"mlflow-artifacts", "http", "https"})
OBJECT_STORES = frozenset({"s3", "gs", "wasbs", "abfss", "r2", "b2"})

Listing = Mapping[str, int]
"""Path inside the folder → size in bytes."""


class ArtifactFetcher:
    """Fetches artifact folders of one MLflow server.

    ``local_roots`` are folders of this machine that sources may point into; none unless the operator says so,
    since whoever can register a version chooses its source.
    """

    def __init__(
        self,
        tracking_uri: str,
        *,
        most_bytes: int,
        local_roots: Sequence[Path] = (),
    ) -> None:
        self._tracking_uri = tracking_uri
        self._most_bytes = most_bytes
        self._local_roots = tuple(root.resolve() for root in local_roots)

    def fetch(self, uri: str, into: Path, *, may_be_uploading: bool = False) -> Path:
        """Every file under ``uri``, in the new folder ``into``.

        One that changes while it is read is `Unavailable`, and so is an empty or incomplete one that
        ``may_be_uploading``. Else an incomplete one is fetched as it is (its defects are findings), and an empty
        one is `NotFound`.
        """
        self._allow(uri)
        with asking(f"artifacts {uri}"):
            repository = get_artifact_repository(uri, tracking_uri=self._tracking_uri)
            listing = self._settled(repository, uri, may_be_uploading)
            self._within_limits(listing, uri, into)
            return self._download(repository, listing, uri, into)

    def listing(self, uri: str) -> Listing | None:
        """Each file under ``uri`` with its size; ``None`` where another than the MLflow server would have to be
        asked, which may keep the asker waiting for long."""
        if urlsplit(uri).scheme not in OUR_SERVERS:
            return None
        self._allow(uri)
        with asking(f"artifacts {uri}"):
            return self._listing(get_artifact_repository(uri, tracking_uri=self._tracking_uri))

    def _allow(self, uri: str) -> None:
        """Refuse sources that would make the gate read its own disk or call hosts nobody chose."""
        parts = urlsplit(uri)
        ours = urlsplit(self._tracking_uri)
        if parts.scheme in ("", "file"):
            self._allow_local(Path(unquote(parts.path)))
        elif parts.scheme == "runs":
            # A run lies where its experiment's creator wanted it to, which may be anywhere.
            with asking(f"the run of {uri}"):
                underlying = RunsArtifactRepository.get_underlying_uri(uri, self._tracking_uri)
            self._allow(underlying)
        elif parts.scheme in OUR_SERVERS and parts.netloc not in ("", ours.netloc):
            raise InvalidInput(
                f"expected artifacts on the MLflow server {ours.netloc}, found {parts.netloc} in {uri}; register the "
                "version from this server's artifacts"
            )
        elif parts.scheme not in OUR_SERVERS | OBJECT_STORES:
            raise InvalidInput(
                f"expected a source of {sorted(OUR_SERVERS | OBJECT_STORES)} or runs, found {uri}; register the version "
                "from MLflow's artifact store"
            )

    def _allow_local(self, folder: Path) -> None:
        real = folder.resolve()
        if not any(real == root or root in real.parents for root in self._local_roots):
            raise InvalidInput(
                f"expected artifacts in MLflow's artifact store, found the local path {folder}; register the version "
                "from a run or a logged model"
            )

    def _settled(self, repository: Any, uri: str, may_be_uploading: bool) -> Listing:
        listing = self._listing(repository)
        if may_be_uploading and not self._complete(repository, listing):
            raise Unavailable(f"expected a whole checkpoint at {uri}, found it incomplete; it may still be uploaded")
        if not listing:
            raise NotFound(f"expected files at {uri}, found none; upload the artifacts before registering the version")
        return listing

    def _listing(self, repository: Any) -> Listing:
        files: dict[str, int] = {}
        for path, size in _walk(repository, None, 0):
            files[_safe(path)] = size
            if len(files) > MOST_FILES:
                raise NotMeasurable(f"expected at most {MOST_FILES} files in a checkpoint, found more")
        return files

    def _complete(self, repository: Any, listing: Listing) -> bool:
        """Whether there are weights, a configuration, and every shard that an index names."""
        names = {posixpath.basename(path) for path in listing}
        if not names & CONFIGURATIONS or not any(name.endswith(WEIGHTS) for name in names):
            return False
        indexes = [
            p for p, size in listing.items() if p.endswith(".safetensors.index.json") and size < MOST_INDEX_BYTES
        ]
        return all(shard in listing for index in indexes for shard in _shards(repository, index))

    def _within_limits(self, listing: Listing, uri: str, into: Path) -> None:
        total = sum(listing.values())
        if total > self._most_bytes:
            raise NotMeasurable(
                f"expected at most {self._most_bytes} bytes, found {total} at {uri}; raise GATE_MAX_ARTIFACT_BYTES"
            )
        into.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(into.parent).free
        if total > free:
            raise Unavailable(f"expected {total} free bytes for {uri} in {into.parent}, found {free}; make room")

    def _download(self, repository: Any, listing: Listing, uri: str, into: Path) -> Path:
        part = Path(mkdtemp(prefix=f".{into.name[:40]}-", dir=into.parent))
        try:
            _download_listed(repository, "", part)
            found = _on_disk(part)
            if found != dict(listing) or self._listing(repository) != listing:
                raise Unavailable(f"{uri} changed while it was fetched; the upload may still be running")
            shutil.rmtree(into, ignore_errors=True)
            part.rename(into)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return into


def _walk(repository: Any, folder: str | None, depth: int) -> Iterator[tuple[str, int]]:
    if depth > MOST_FOLDERS_DEEP:
        raise NotMeasurable(f"expected at most {MOST_FOLDERS_DEEP} folders inside one another, found more at {folder}")
    for entry in repository.list_artifacts(folder):
        if entry.is_dir:
            yield from _walk(repository, _safe(entry.path), depth + 1)
        else:
            yield entry.path, entry.file_size or 0


def _safe(path: str) -> str:
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\\" in path or "\0" in path or not parts:
        raise InvalidInput(f"expected a path inside the artifact folder, found {path!r}; register the files anew")
    return path


def _shards(repository: Any, index: str) -> Iterator[str]:
    """Paths of the shards an index names; a broken index names none, and is a finding later."""
    folder = mkdtemp(prefix="basin-gate-index-")
    try:
        named = json.loads(_download_listed(repository, index, Path(folder)).read_bytes())["weight_map"].values()
        yield from {posixpath.join(posixpath.dirname(index), str(name)) for name in named}
    except (ValueError, KeyError, AttributeError, TypeError):
        return
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download_listed(repository: Any, path: str, into: Path) -> Path:
    """Fetches what was listed a moment ago. MLflow's client says of a run's file that it does not exist whatever kept it
    from fetching it, a restart of the server included: that must not become a finding against the candidate."""
    try:
        return Path(repository.download_artifacts(path, dst_path=str(into)))
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        raise Unavailable(
            f"expected to fetch {path or 'the files'} just listed, found: {str(error.message)[:300]}; "
            "the server may be restarting, or the files were removed"
        ) from error


def _on_disk(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where) / name
            found[path.relative_to(folder).as_posix()] = path.lstat().st_size
    return found
