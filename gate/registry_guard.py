"""The MLflow plug-in that refuses to promote what is not approved, inside the registry, before anything changes.

``mlflow server --registry-store-uri gate+postgresql://…`` gives MLflow its own store with every act checked that can
change what ``models:/name@alias`` or ``models:/name/Production`` resolves to. Each answer is computed from the
version's row, the policies and the trusted public keys: no network, no private key. In doubt it refuses.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from flask import g, has_request_context
from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL
from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES
from mlflow.exceptions import MlflowException
from mlflow.prompt.constants import _CLIENT_PROMPT_SOURCE_PLACEHOLDER, _STORE_PROMPT_SOURCE_PLACEHOLDER
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.store.artifact.utils.models import _parse_model_uri
from mlflow.store.model_registry.abstract_store import AbstractStore
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlModelVersionTag, SqlRegisteredModelAlias
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.model_registry.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore
from mlflow.utils.validation import _validate_model_version
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME
from pydantic import ValidationError

from gate.adapters.guard_metrics import tell
from gate.adapters.policy_files import DEFAULT, policy_sources, select_policy
from gate.adapters.rulebook import Rulebook
from gate.domain.checkpoint import ModelVersion
from gate.domain.enforcement import TAG_REVOKED, TAG_RUN
from gate.domain.errors import GateError
from gate.domain.policy import Policy
from gate.domain.probe import PROBE_ALIAS, said
from gate.domain.promotion import Kind, Mode, is_reserved, mode_of, same_name, strictest
from gate.settings import Settings

PREFIX = "gate+"
PROMPT_SOURCES = (_CLIENT_PROMPT_SOURCE_PLACEHOLDER, _STORE_PROMPT_SOURCE_PLACEHOLDER)
"""Sources of prompts, which have no artifacts. The tag that says *prompt* proves nothing: anybody can set it."""
COPIES_FOLLOWED = 8


class Guard:
    """Answers whether an act is allowed; holds no state but the rulebook it read last."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._settings: Settings | None = None
        self._stamp: tuple[object, ...] | None = None
        self._rulebook: Rulebook | None = None

    @property
    def now(self) -> int:
        """Unix seconds."""
        return int(self._clock())

    def rulebook(self, act: str) -> Rulebook:
        """The rules that hold now; without readable rules each act that they could forbid is refused."""
        try:
            self._settings = self._settings or Settings()
            given = (
                *policy_sources(self._settings.policies or DEFAULT),
                self._settings.trusted_keys_file,
                self._settings.revocations_file,
            )
            stamp = tuple(_stamps(given))
            if self._rulebook is None or stamp != self._stamp:
                self._rulebook, self._stamp = Rulebook(self._settings), stamp
        except (GateError, ValidationError, OSError) as error:
            deny(act, f"the guard's own configuration cannot be read, and it fails closed: {error}")
        return self._rulebook


class GuardMixin(AbstractStore):
    """Everything that can change what a protected name resolves to, checked before the store does it."""

    def __init__(self, db_uri: str) -> None:
        super().__init__(db_uri)
        self._guard = Guard()

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        act = f"setting alias {_shown(alias)} on version {_shown(version)} of {_shown(name)}"
        if alias == PROBE_ALIAS:
            deny(act, said(self._guard.rulebook(act).state))
        self._check(act, name, version, "alias", alias)
        super().set_registered_model_alias(name, alias, version)

    def transition_model_version_stage(
        self, name: str, version: str, stage: str, archive_existing_versions: bool
    ) -> Any:
        act = f"moving version {_shown(version)} of {_shown(name)} to stage {_shown(stage)}"
        self._check(act, name, version, "stage", stage)
        # As a number: MLflow compares the text that it was given with an integer column, which psycopg 3 refuses.
        number = _validate_model_version(version)
        return super().transition_model_version_stage(name, number, stage, archive_existing_versions)

    def create_model_version(
        self, name: str, source: str, run_id: str | None = None, tags: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        act = f"creating a version of {_shown(name)} from {_shown(source)}"
        rules = self._guard.rulebook(act)
        for policy in rules.policies.policies:
            if mode := mode_of(policy, "model", name):
                self._enforce(act, policy, mode, self._copy_refusal(rules, source, policy))
        kept = tags if self._may_write(rules) else [t for t in tags or [] if not is_reserved(t.key)]
        return super().create_model_version(name, source, run_id, kept, *args, **kwargs)

    def rename_registered_model(self, name: str, new_name: str) -> Any:
        act = f"renaming {_shown(name)} to {_shown(new_name)}"
        rules = self._guard.rulebook(act)
        for policy in rules.policies.policies:
            if modes := [mode for each in (name, new_name) if (mode := mode_of(policy, "model", each))]:
                why = f"policy {policy.name} protects that registered model; copy versions instead"
                self._enforce(act, policy, strictest(modes, policy), why)
        for version in self._promoted(name):
            self._check_move(act, rules, version, new_name)
        return super().rename_registered_model(name, new_name)

    def set_model_version_tag(self, name: str, version: str, tag: Any) -> None:
        act = f"setting tag {_shown(tag.key)} on version {_shown(version)} of {_shown(name)}"
        self._reserve(act, tag.key)
        self._hold_revocation(act, name, version, tag.key, tag.value)
        super().set_model_version_tag(name, version, tag)

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        act = f"deleting tag {_shown(key)} of version {_shown(version)} of {_shown(name)}"
        self._reserve(act, key)
        self._hold_revocation(act, name, version, key, None)
        super().delete_model_version_tag(name, version, key)

    def _check(self, act: str, name: str, version: str, kind: Kind, place: str) -> None:
        rules = self._guard.rulebook(act)
        if not any(mode_of(policy, kind, place) for policy in rules.policies.policies):
            return
        candidate = self._version(name, version)
        if self._is_prompt(candidate):
            return
        policy = select_policy(rules.policies, candidate)
        if policy is not None and (mode := mode_of(policy, kind, place)):
            self._enforce(act, policy, mode, self._refusal(rules, candidate, policy), candidate)

    def _refusal(self, rules: Rulebook, version: ModelVersion, policy: Policy) -> str | None:
        """Why neither the version nor what it is a copy of is approved; the version's own reason."""
        own = rules.refusal(version, policy, self._guard.now)
        if own is None or any(rules.refusal(o, policy, self._guard.now) is None for o in self._origins(version)):
            return None
        return own

    def _copy_refusal(self, rules: Rulebook, source: str, policy: Policy) -> str | None:
        origin = self._source_version(source)
        if origin is None:
            return f"policy {policy.name} lets it take only copies (models:/<name>/<version>) of approved versions"
        why = self._refusal(rules, origin, policy)
        return why and f"{origin.uri} is not approved: {why}"

    def _check_move(self, act: str, rules: Rulebook, version: ModelVersion, new_name: str) -> None:
        """A rename carries aliases and stages along, and voids approvals, which are bound to the name."""
        for named in (version, version.model_copy(update={"name": new_name})):
            policy = select_policy(rules.policies, named)
            if policy is None or self._is_prompt(version):
                continue
            places: list[tuple[Kind, str]] = [("alias", alias) for alias in version.aliases]
            places.append(("stage", version.stage))
            held = {place: mode for kind, place in places if (mode := mode_of(policy, kind, place))}
            if held:
                why = f"version {version.version} holds {', '.join(held)}, protected by policy {policy.name}; remove it"
                self._enforce(act, policy, strictest(held.values(), policy), f"{why} first")

    def _is_prompt(self, version: ModelVersion) -> bool:
        """Whether no files can be served for it; what its row says of its source alone is not enough."""
        real = version.name, version.version
        return version.source in PROMPT_SOURCES and self.get_model_version_download_uri(*real) in PROMPT_SOURCES

    def _promoted(self, name: str) -> Iterator[ModelVersion]:
        model = self.get_registered_model(name)
        numbers = {str(number) for number in model.aliases.values()}
        numbers |= {str(latest.version) for latest in model.latest_versions}
        return (self._version(name, number) for number in sorted(numbers))

    def _origins(self, version: ModelVersion) -> Iterator[ModelVersion]:
        """The versions that this one is a copy of, nearest first."""
        for _ in range(COPIES_FOLLOWED):
            origin = self._source_version(version.source)
            if origin is None or not self._is_copy(version, origin):
                return
            yield origin
            version = origin

    def _is_copy(self, version: ModelVersion, origin: ModelVersion) -> bool:
        """Whether the origin is still the one copied: a model deleted and made again has the same numbers."""
        places = [self.get_model_version_download_uri(v.name, v.version) for v in (version, origin)]
        return origin.created_ms <= version.created_ms and places[0] == places[1]

    def _source_version(self, source: str) -> ModelVersion | None:
        try:
            parsed = _parse_model_uri(source)
            return self._version(parsed.name, parsed.version) if parsed.name and parsed.version else None
        except MlflowException:
            return None

    def _version(self, name: str, version: str) -> ModelVersion:
        """A version as its rows say. Columns are read, not MLflow's entities, which take five times as long."""
        of = SqlModelVersion
        columns = (of.name, of.version, of.creation_time, of.source, of.run_id, of.current_stage)
        here = of.name == name, of.version == _validate_model_version(version), *self._get_workspace_clauses(of)
        with self.ManagedSessionMaker() as session:
            row = session.query(*columns).filter(*here, of.current_stage != STAGE_DELETED_INTERNAL).first()
            if row is None:
                self.get_model_version(name, version)  # raises, in MLflow's own words
                raise MlflowException(f"Model Version (name={name}, version={version}) not found")
            tags = self._beside(session, SqlModelVersionTag, row, SqlModelVersionTag.key, SqlModelVersionTag.value)
            aliases = self._beside(session, SqlRegisteredModelAlias, row, SqlRegisteredModelAlias.alias)
            return ModelVersion(
                name=row.name,
                version=str(row.version),
                created_ms=row.creation_time,
                source=row.source or "",
                run_id=row.run_id,
                tags=dict(tuple(tag) for tag in tags),
                aliases=tuple(alias for (alias,) in aliases),
                stage=row.current_stage,
            )

    def _beside(self, session: Any, table: Any, row: Any, *columns: Any) -> Any:
        """What another table says of the version."""
        of_it = table.name == row.name, table.version == row.version, *self._get_workspace_clauses(table)
        return session.query(*columns).filter(*of_it).all()

    def _enforce(
        self, act: str, policy: Policy, mode: Mode, why: str | None, version: ModelVersion | None = None
    ) -> None:
        run = version.tags.get(TAG_RUN) if version else None
        if why is None:
            return
        if mode != "enforce":
            told = mode.replace("_", " ")
            tell("would_refuse", "%s of policy %s, would be refused: %s: %s", told, policy.name, act, why)
            return
        deny(act + self._workspace(), f"{why} (evaluation run {_shown(run)})" if run else why)

    def _workspace(self) -> str:
        """Where an act is done, if not where every gate looks that was not told otherwise."""
        name = self._get_active_workspace()
        return "" if name == DEFAULT_WORKSPACE_NAME else f" in workspace {_shown(name)}, which needs a gate of its own,"

    def _reserve(self, act: str, key: str) -> None:
        if not is_reserved(key):
            return
        rules = self._guard.rulebook(act)
        if rules.writers and not self._may_write(rules):
            deny(act, f"tags gate.* are written by {', '.join(sorted(rules.writers))} only (GATE_GUARD_TAG_WRITERS)")

    def _hold_revocation(self, act: str, name: str, version: str, key: str, value: str | None) -> None:
        """Whoever asks, the gate itself included: a revocation is for good."""
        if not same_name(key, TAG_REVOKED):
            return
        rules = self._guard.rulebook(act)
        candidate = self._version(name, version)
        mark = candidate.tags.get(TAG_REVOKED)
        if value != mark and rules.is_for_good(mark, candidate.identity):
            deny(act, "its approval was revoked, and a revocation is never taken back; register the files anew")

    def _may_write(self, rules: Rulebook) -> bool:
        return _user() in rules.writers


class GuardedStore(GuardMixin, SqlAlchemyStore):
    """MLflow's SQL store, guarded."""


class GuardedWorkspaceStore(GuardMixin, WorkspaceAwareSqlAlchemyStore):
    """MLflow's SQL store with workspaces, guarded."""


def guarded_store(store_uri: str) -> GuardMixin:
    """The store behind a ``gate+…`` URI. Reads go to the primary: an approval must not be judged by an old row."""
    raw = store_uri.removeprefix(PREFIX)
    return GuardedWorkspaceStore(raw) if MLFLOW_ENABLE_WORKSPACES.get() else GuardedStore(raw)


def deny(act: str, why: str) -> NoReturn:
    """Refuse with 403, which MLflow's clients do not retry and its UI shows as it is."""
    tell("refused", "refused: %s: %s", act, why)
    raise MlflowException(f"[basin-gate] {act[:1].upper()}{act[1:]} is refused: {why}", error_code=PERMISSION_DENIED)


def _stamps(paths: Iterable[Path | None]) -> Iterator[object]:
    for path in paths:
        parts = sorted(path.iterdir()) if path is not None and path.is_dir() else [path]
        for part in parts:
            status = part.stat() if part is not None and part.exists() else None
            yield (part, status and (status.st_mtime_ns, status.st_size, status.st_ino))


def _user() -> str | None:
    """The authenticated user of the request that MLflow is answering, where its authentication is on."""
    return getattr(g, "mlflow_authenticated_user", None) if has_request_context() else None


def _shown(text: object) -> str:
    shown = repr(str(text))
    return shown if len(shown) <= 120 else f"{shown[:117]}...'"
