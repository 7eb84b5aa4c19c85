"""MLflow as the registry: what exists there, and the writing of verdicts into it."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.entities.model_registry import ModelVersionTag
from mlflow.entities.webhook import WebhookEvent, WebhookStatus
from mlflow.store.model_registry.rest_store import RestStore
from mlflow.utils.credentials import get_default_host_creds

from gate.adapters.mlflow_artifacts import ArtifactFetcher
from gate.adapters.mlflow_calls import asking, be_impatient
from gate.adapters.mlflow_pages import page_of_models, page_of_versions
from gate.adapters.mlflow_rows import holdings_of, version_in, version_of
from gate.domain.checkpoint import PROMPT_SOURCES, ModelVersion
from gate.domain.enforcement import (
    Action,
    DescriptionBlock,
    RemoveAlias,
    RemoveTag,
    RunRecord,
    SetAlias,
    SetStage,
    SetTag,
    with_block,
)
from gate.domain.errors import InvalidInput, NotFound
from gate.domain.events import SUBSCRIPTIONS
from gate.domain.promotion import Holding

PAGE = 100
DRESSED_AS_PROMPT = "tag.`mlflow.prompt.is_prompt` = 'true'"
"""A model carrying this tag is left out of MLflow's own searches; the gate looks for it by the tag."""
RUN_KEY = "gate.evaluation"
RUN_WRITTEN = "gate.written"
WEBHOOK_NAME = "basin-gate"
UPLOAD_PATIENCE_S = 30.0
"""How long after its registration a version's files may still be on their way, in seconds."""


class RegistrySettings(Protocol):
    """What the adapter needs of the settings."""

    @property
    def mlflow_tracking_uri(self) -> str: ...

    @property
    def mlflow_ui_url(self) -> str: ...

    @property
    def mlflow_experiment(self) -> str: ...

    @property
    def max_artifact_bytes(self) -> int: ...


class MlflowRegistry:
    """The registry port over MLflow's REST API; needs mlflow-skinny only.

    Reads go to the REST store below `MlflowClient`, because the client hides what is tagged as a prompt, and
    anyone who may edit a model can tag it so.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        *,
        local_roots: Sequence[Path] = (),
        upload_patience_s: float = UPLOAD_PATIENCE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        be_impatient()
        self.uri = settings.mlflow_tracking_uri.rstrip("/")
        if not self.uri.startswith(("http://", "https://")):
            raise InvalidInput(
                f"expected GATE_MLFLOW_TRACKING_URI to be the URL of an MLflow server, found {self.uri!r}"
            )
        self.ui_url = (settings.mlflow_ui_url or self.uri).rstrip("/")
        self._experiment = settings.mlflow_experiment
        self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        self._store = RestStore(partial(get_default_host_creds, self.uri))
        self._fetcher = ArtifactFetcher(self.uri, most_bytes=settings.max_artifact_bytes, local_roots=local_roots)
        self._upload_patience_s = upload_patience_s
        self._clock = clock

    # -- what exists

    def version(self, name: str, version: str) -> ModelVersion:
        """One version as it is now. Raises `NotFound`."""
        with asking(f"version {version} of {name!r}"):
            return version_of(self._store.get_model_version(name, version))

    def versions(self, since_ms: int = 0) -> Iterator[ModelVersion]:
        """Versions made at or after ``since_ms``, newest first. Those dressed up as prompts are `hidden_versions`."""
        for page in self._pages(self._store.search_model_versions, None, order_by=["creation_timestamp DESC"]):
            for found in page:
                if found.creation_timestamp < since_ms:
                    return
                yield version_of(found)

    def hidden_versions(self) -> Iterator[ModelVersion]:
        """Versions that MLflow's searches leave out since their model carries a prompt's tag; real prompts are not
        among them. One tag on one version hides all of its model, so each number of such a model is asked for."""
        tagged: dict[str, set[int]] = {}
        for page in self._pages(self._store.search_model_versions, DRESSED_AS_PROMPT):
            for found in page:
                tagged.setdefault(found.name, set()).add(int(found.version))
                if not version_of(found).is_prompt:
                    yield version_of(found)
        for name, seen in tagged.items():
            yield from self._unseen(name, seen)

    def _unseen(self, name: str, seen: set[int]) -> Iterator[ModelVersion]:
        with asking(f"latest versions of {name!r}"):
            newest = max((int(v.version) for v in self._store.get_latest_versions(name)), default=0)
        for number in sorted(set(range(1, newest + 1)) - seen):
            try:
                found = self.version(name, str(number))
            except NotFound:
                continue
            if not found.is_prompt:
                yield found

    def versions_page(self, cursor: str) -> tuple[Sequence[ModelVersion], str]:
        """The next versions, oldest first, without those dressed up as prompts, and where to go on."""
        with asking("searching the registry"):
            page, after = page_of_versions(self.uri, cursor)
        return [version_in(row) for row in page], after

    def holdings(self, cursor: str) -> tuple[Mapping[str, Sequence[Holding]], str]:
        """The next registered models with what their versions hold, those dressed up as prompts last."""
        dressed, _, token = cursor.partition(":")
        wanted = DRESSED_AS_PROMPT.replace("tag.", "tags.") if dressed else None
        with asking("searching the registry"):
            page, rest = page_of_models(self.uri, token, wanted)
        after = f"{dressed}:{rest}" if rest else "" if dressed else "dressed:"
        return {row["name"]: holdings_of(row) for row in page}, after

    def has_files(self, version: ModelVersion) -> bool:
        """Whether artifacts would be served for a version that says it is a prompt."""
        with asking(f"source of {version.uri}"):
            return self._store.get_model_version_download_uri(version.name, version.version) not in PROMPT_SOURCES

    def alias_of(self, name: str, alias: str) -> str | None:
        """The version that an alias points to, or ``None``."""
        try:
            with asking(f"alias {alias!r} of {name!r}"):
                return str(self._store.get_model_version_by_alias(name, alias).version)
        except (NotFound, InvalidInput):
            return None

    def _pages(self, search: Callable[..., Any], wanted: str | None, **kwargs: Any) -> Iterator[Iterable[Any]]:
        token: str | None = None
        while True:
            with asking("searching the registry"):
                page = search(filter_string=wanted, max_results=PAGE, page_token=token, **kwargs)
            yield page
            token = page.token
            if not token:
                return

    def model_tags(self, name: str) -> Mapping[str, str]:
        """The tags of a registered model (a team may name the base there, once for all versions)."""
        with asking(f"registered model {name!r}"):
            return dict(self._store.get_registered_model(name).tags)

    def training_params(self, version: ModelVersion) -> Mapping[str, str]:
        """Parameters of the run that made the version and of its logged model; empty where there is none."""
        params: dict[str, str] = {}
        run_id = version.run_id
        if version.source.startswith("models:/m-"):
            try:
                with asking(f"logged model {version.source}"):
                    model = self._client.get_logged_model(version.source.removeprefix("models:/").split("/")[0])
            except NotFound:
                model = None
            if model is not None:
                run_id = run_id or model.source_run_id
                params |= model.params or {}
        return self._run_params(run_id) | params

    def _run_params(self, run_id: str | None) -> dict[str, str]:
        if not run_id:
            return {}
        try:
            with asking(f"run {run_id}"):
                return dict(self._client.get_run(run_id).data.params)
        except (NotFound, InvalidInput):
            return {}

    def fetch(self, version: ModelVersion, into: Path) -> Path:
        """Every file of the version, in the new folder ``into``.

        Raises `NotFound` where there is nothing to fetch (any more), `Unavailable` where a later try can help (also
        while a version made just now is incomplete: nobody stands and waits for an upload), `InvalidInput` where the source may not be read, `NotMeasurable` where it is too large.
        """
        if self.version(version.name, version.version).identity != version.identity:
            raise NotFound(
                f"expected {version.identity}, found another version of that number; it was made again since"
            )
        with asking(f"source of {version.uri}"):
            uri = self._store.get_model_version_download_uri(version.name, version.version)
        age_s = self._clock() - version.created_ms / 1000
        # Either side of now: the registry's clock need not be ours.
        return self._fetcher.fetch(uri, into, may_be_uploading=abs(age_s) < self._upload_patience_s)

    def listing(self, version: ModelVersion) -> Mapping[str, int] | None:
        """Each file of the version with its size; ``None`` where MLflow itself does not serve them."""
        with asking(f"source of {version.uri}"):
            uri = self._store.get_model_version_download_uri(version.name, version.version)
        return self._fetcher.listing(uri)

    # -- the writing of verdicts

    def apply(self, version: ModelVersion, actions: Sequence[Action]) -> None:
        """Bring the version to what the actions say. Repeating it changes nothing: only differences are written."""
        with asking(f"writing to {version.uri}"):
            now = version_of(self._store.get_model_version(version.name, version.version))
            for action in actions:
                self._apply(now, action)

    def _apply(self, now: ModelVersion, action: Action) -> None:
        match action:
            case SetTag(key, value):
                if now.tags.get(key) != value:
                    self._store.set_model_version_tag(now.name, now.version, ModelVersionTag(key, value))
            case DescriptionBlock():
                wanted = with_block(now.description, action)
                if wanted != now.description:
                    self._store.update_model_version(now.name, now.version, wanted)
            case SetAlias(alias):
                if alias not in now.aliases:
                    self._store.set_registered_model_alias(now.name, alias, now.version)
            case RemoveAlias(alias):
                if alias in now.aliases:
                    self._store.delete_registered_model_alias(now.name, alias)
            case RemoveTag(key, value):
                if now.tags.get(key) == value:
                    self._store.delete_model_version_tag(now.name, now.version, key)
            case SetStage(stage):
                if stage != now.stage:
                    self._store.transition_model_version_stage(now.name, now.version, stage, False)

    def write_run(self, record: RunRecord) -> str:
        """Write the run of an evaluation, or complete it; its id. One run per key, however often it is tried."""
        with asking(f"the run of evaluation {record.key}"):
            run = self._run_of(record.key) or self._create_run(record)
            run_id = str(run.info.run_id)
            if run.data.tags.get(RUN_WRITTEN) != (record.mark or record.outcome):
                self._fill_run(run_id, record, run.data.params)
            return run_id

    def run_url(self, run_id: str) -> str:
        """Where people see a run."""
        return f"{self.ui_url}/#/experiments/{self._experiment_id}/runs/{run_id}"

    def _run_of(self, key: str) -> Any | None:
        found = self._client.search_runs(
            [self._experiment_id], f"tags.`{RUN_KEY}` = '{key}'", ViewType.ACTIVE_ONLY, 1, ["attributes.start_time ASC"]
        )
        return found[0] if found else None

    def _create_run(self, record: RunRecord) -> Any:
        return self._client.create_run(
            self._experiment_id, start_time=record.at_ms, tags={RUN_KEY: record.key}, run_name=record.name[:250]
        )

    def _fill_run(self, run_id: str, record: RunRecord, known: Mapping[str, str]) -> None:
        metrics = [Metric(name, value, record.at_ms, 0) for name, value in sorted(record.metrics.items())]
        for start in range(0, len(metrics), 500):
            self._client.log_batch(run_id, metrics=metrics[start : start + 500])
        self._client.log_batch(
            run_id,
            # MLflow keeps a parameter as it was first.
            params=[Param(name, value) for name, value in sorted(record.params.items()) if name not in known],
            tags=[RunTag(name, value) for name, value in sorted(record.tags.items())],
        )
        for path, content in sorted(record.artifacts.items()):
            self._log_artifact(run_id, path, content)
        self._client.set_terminated(run_id, "FINISHED", end_time=record.at_ms)
        # Last of all: a run without this tag was left half written, and is written again.
        self._client.set_tag(run_id, RUN_WRITTEN, record.mark or record.outcome)

    def _log_artifact(self, run_id: str, path: str, content: bytes) -> None:
        from tempfile import TemporaryDirectory

        with TemporaryDirectory(prefix="basin-gate-") as folder:
            local = Path(folder) / Path(path).name
            local.write_bytes(content)
            self._client.log_artifact(run_id, str(local), str(Path(path).parent) if "/" in path else None)

    @cached_property
    def _experiment_id(self) -> str:
        with asking(f"experiment {self._experiment!r}"):
            found = self._client.get_experiment_by_name(self._experiment)
            if found is None:
                return str(self._client.create_experiment(self._experiment))
            if found.lifecycle_stage == "deleted":
                self._client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)

    # -- the webhook

    def ensure_webhook(self, url: str, secret: str, *, renew_secret: bool = False) -> str:
        """Make sure that MLflow tells this gate; ``created``, ``repaired`` or ``kept``.

        MLflow never tells a webhook's secret, so it is set again only when asked (once at start).
        """
        events = [WebhookEvent.from_str(name) for name in SUBSCRIPTIONS]
        with asking("webhooks (needs an administrator, and MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY on the server)"):
            mine = next((hook for hook in self._webhooks() if hook.name == WEBHOOK_NAME), None)
            if mine is None:
                self._client.create_webhook(
                    WEBHOOK_NAME, url, events, "Basin Gate's door", secret, WebhookStatus.ACTIVE
                )
                return "created"
            sound = mine.url == url and mine.status.is_active() and set(mine.events) == set(events)
            if sound and not renew_secret:
                return "kept"
            self._client.update_webhook(
                mine.webhook_id, url=url, events=events, secret=secret, status=WebhookStatus.ACTIVE
            )
            return "kept" if sound else "repaired"

    def _webhooks(self) -> Iterator[Any]:
        token: str | None = None
        while True:
            page = self._client.list_webhooks(max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return
