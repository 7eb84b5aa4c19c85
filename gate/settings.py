"""Every setting of the product, read once from the environment (``GATE_*``) or from files of secrets."""

import urllib.parse
from datetime import date
from functools import lru_cache
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from gate.domain.errors import InvalidInput
from gate.domain.gpu_sizes import GpuSizes, read_sizes
from gate.domain.prompts import MOST_KEPT
from gate.domain.scheduling import Sharing, checked_pattern


class Settings(BaseSettings):
    """Settings are frozen; a secret has no default and never prints itself."""

    model_config = SettingsConfigDict(env_prefix="GATE_", frozen=True, extra="ignore", secrets_dir=None)

    state_dir: Path = Field(
        default=Path(".state"), description="Folder for the ledger, caches and downloaded artifacts."
    )
    database_url: str = Field(
        default="", description="SQLAlchemy URL of the ledger; empty means SQLite inside state_dir."
    )
    broker_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="Celery broker (Redis or Valkey): `redis://…`, `rediss://…`, or `sentinel://:PASSWORD@HOST:26379;sentinel://HOST:26379`.",
    )
    broker_sentinel_master: str = Field(default="", description="Name of the master, with a `sentinel://` address.")
    broker_sentinel_password: SecretStr | None = Field(
        default=None, description="Password of Sentinel itself, where it has one; the master's stands in the address."
    )
    broker_ca_file: Path | None = Field(
        default=None,
        description="PEM file with the authority of Sentinel's and the master's certificates; with it both are asked by TLS. (For one Redis it stands in a `rediss://` address.)",
    )
    mlflow_tracking_uri: str = Field(
        default="http://127.0.0.1:5000", description="The MLflow server guarded by this gate."
    )
    mlflow_experiment: str = Field(
        default="basin-gate", description="MLflow experiment that receives one run per evaluation."
    )
    mlflow_ui_url: str = Field(
        default="", description="Address of the MLflow UI as people reach it; empty means the tracking URI."
    )
    public_url: str = Field(
        default="http://127.0.0.1:8500", description="Address of this gate as MLflow and people reach it."
    )
    api_bind: str = Field(
        default="", description="`HOST:PORT` on which the API listens; empty means the address in `GATE_PUBLIC_URL`."
    )
    tls_certificate_file: Path | None = Field(
        default=None, description="PEM file with the API's certificate chain; with it, the API speaks HTTPS only."
    )
    tls_key_file: Path | None = Field(default=None, description="PEM file with the private key of that certificate.")
    tokens_file: Path | None = Field(
        default=None,
        description="YAML file of the tokens that the API takes (`basin-gate token new` prints its lines), read again when it changes; without it the API serves this machine alone.",
    )
    oidc_issuer: str = Field(
        default="",
        description="OpenID Connect issuer whose bearer tokens the API takes, exactly as it calls itself (`https://…`); empty means none.",
    )
    oidc_audience: str = Field(
        default="", description="Audience that such a token must be made for; needed with an issuer."
    )
    oidc_roles_claim: str = Field(
        default="roles", description="Claim that names the caller's roles; dots lead into it, as `realm_access.roles`."
    )
    oidc_roles: str = Field(
        default="",
        description="Which of the claim's words is which role: `ml-leads=reviewer,everybody=reader`; empty takes the roles' own words.",
    )
    oidc_name_claim: str = Field(
        default="sub", description="Claim that names the caller in records; one that nobody can choose for themselves."
    )
    oidc_leeway_s: float = Field(
        default=30.0, ge=0, le=300, description="By how many seconds the issuer's clock may differ from the gate's."
    )
    api_open: bool = Field(
        default=False,
        description="Whether the API asks nobody for a token although others can reach it: only where a proxy before it authenticates.",
    )
    api_token: SecretStr | None = Field(default=None, description="Token that commands which ask the API send.")
    api_token_file: Path | None = Field(default=None, description="File with that token, instead of it.")
    webhook_secrets: SecretStr | None = Field(
        default=None,
        description="Webhook secret, or several separated by commas during rotation; the first signs new webhooks.",
    )
    webhook_secrets_file: Path | None = Field(default=None, description="File with the webhook secrets, one per line.")
    webhook_tolerance_s: int = Field(
        default=600, ge=300, description="How old a delivery's timestamp may be, in seconds."
    )
    webhook_max_bytes: int = Field(default=1_000_000, ge=1024, description="Largest accepted delivery body, in bytes.")
    signing_key_file: Path | None = Field(
        default=None, description="PEM file with the Ed25519 private key that signs verdicts."
    )
    signing_key_replace_by: date | None = Field(
        default=None,
        description="Day (`YYYY-MM-DD`) before which the signing key is to be replaced; alerts remind of it, nothing else does.",
    )
    trusted_keys_file: Path | None = Field(
        default=None, description="PEM file with one or more Ed25519 public keys trusted for approvals."
    )
    sigstore: str = Field(
        default="",
        description="Where verdicts are signed without a key as well (Sigstore): `production`, `staging`, or a file with a client trust configuration; empty means nowhere. Needs `basin-gate[sigstore]`; then no verdict is given without such a signature.",
    )
    sigstore_token_file: Path | None = Field(
        default=None,
        description="File with the identity token that keyless signatures are made with, such as a projected service account token for the audience `sigstore`; a secret.",
    )
    channels_file: Path | None = Field(
        default=None,
        description="YAML file that gives each channel which policies name in `on_blocked.notify` its address (an Apprise URL: Slack, Teams, mail, webhook …); a secret.",
    )
    revocations_file: Path | None = Field(
        default=None,
        description="Signed list of revoked approvals (`basin-gate revocations`) for the guard and `basin-gate verify`; without it they know only the marks on versions.",
    )
    policies: Path | None = Field(
        default=None, description="Policy file or folder of policies; unset means the shipped default.yaml."
    )
    guard_tag_writers: str = Field(
        default="",
        description="MLflow users, separated by commas, who may write gate.* tags; empty means everybody who may tag.",
    )
    guard_current_policy_only: bool = Field(
        default=False,
        description="Whether the guard takes approvals only under the present text of the policy, not an earlier one.",
    )
    reconcile_every_s: float = Field(default=15.0, gt=0, description="Seconds between reconciler sweeps.")
    rehash_every_s: float = Field(
        default=86_400.0,
        ge=0,
        description="Seconds within which a worker fetches and hashes the files of each promoted version again; 0 turns it off.",
    )
    selfcheck_every_s: float = Field(
        default=0.0,
        ge=0,
        description="Seconds within which workers check the gate anew by planted candidates on each onboarded base, under each policy; 0 turns it off, 86400 is daily.",
    )
    lease_s: float = Field(default=60.0, gt=1, description="Seconds a worker holds a job without renewing it.")
    team_pattern: str = Field(
        default="",
        description="Regular expression whose one group takes a team out of a registered model's name, from its beginning, as `([^.]+)[.]`; workers' time is shared between teams. Without it, or where it does not match, each registered model is a team.",
    )
    fair_window_s: float = Field(
        default=3600.0, gt=0, description="Seconds over which a team's use of workers counts against its next turn."
    )
    cancel_superseded: bool = Field(
        default=False,
        description="Whether an evaluation is ended, without a verdict, when a newer version of its registered model is registered before it was begun and nobody asks about it.",
    )
    max_attempts: int = Field(default=4, ge=1, description="How often a job is tried before its verdict becomes error.")
    max_artifact_bytes: int = Field(default=200_000_000_000, gt=0, description="Largest checkpoint fetched, in bytes.")
    prompts_kept: int = Field(
        default=MOST_KEPT,
        ge=0,
        le=MOST_KEPT,
        description="Prompts with a changed answer that are kept and shown, per capability; 0 keeps none, for a suite that its trainees' makers must not read.",
    )
    hidden_items_secret: SecretStr | None = Field(
        default=None,
        description="Secret, of 32 bytes or more, that draws a suite's hidden items of each period; the same for every worker and for `basin-gate base`.",
    )
    hidden_items_secret_file: Path | None = Field(default=None, description="File with that secret, instead of it.")
    code_execution: bool = Field(
        default=False,
        description="Whether a worker runs the programs that candidates write for a suite's scorer `code`, each in a process that Landlock and seccomp confine; off, such a suite is not measurable.",
    )
    stop_grace_s: float = Field(
        default=30.0, ge=0, description="Seconds a worker told to stop lets its job go on before it hands it back."
    )
    heartbeat_file: Path | None = Field(
        default=None, description="File that a worker or the dispatcher touches while it turns; its age tells liveness."
    )
    gpu_memory_gb: str = Field(
        default="",
        description="Memory that a GPU worker has for a job in GB, all its devices together, as `24,80`: each size has a queue of its own (`gpu-24`, `gpu-80`), and a job goes to the smallest that holds what it takes. Without it all share the queue `gpu`. The same for every process.",
    )
    device: str = Field(
        default="auto",
        description="Torch device of gpu-queue workers: auto (every GPU there is), cpu, cuda:0, mps, or several as `cuda:0,cuda:1`, over which a base is split that none of them holds alone.",
    )
    threads: int = Field(default=0, ge=0, description="Torch threads per worker; 0 leaves torch's choice.")
    metrics_port: int = Field(
        default=0, ge=0, description="Port of /metrics of a worker or the dispatcher; 0 turns it off."
    )
    log_level: str = Field(default="INFO", description="Level of the JSON log.")
    traces_endpoint: str = Field(
        default="",
        description="OTLP/HTTP address that traces are sent to, as `http://collector:4318/v1/traces`; empty means none. Needs `basin-gate[tracing]`; the OpenTelemetry SDK's own variables (`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER` …) say the rest.",
    )

    def api_address(self) -> tuple[str, int]:
        """Host and port on which the API listens."""
        bind = urllib.parse.urlsplit(f"//{self.api_bind}" if self.api_bind else self.public_url)
        return bind.hostname or "127.0.0.1", bind.port or 8500

    def token_of_api(self) -> str | None:
        """The token to ask the API with, if any. Raises `InvalidInput` for two, or a file that does not hold one."""
        if self.api_token_file is None:
            return self.api_token.get_secret_value().strip() or None if self.api_token else None
        if self.api_token is not None:
            raise InvalidInput("expected GATE_API_TOKEN or GATE_API_TOKEN_FILE, found both; unset one")
        try:
            words = self.api_token_file.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            found = getattr(error, "strerror", None) or "something that is not text"
            raise InvalidInput(f"GATE_API_TOKEN_FILE: expected a file with one token, found: {found}") from error
        if len(words) != 1:
            raise InvalidInput(f"GATE_API_TOKEN_FILE: expected a file with one token, found {len(words)} words")
        return words[0]

    def sharing(self) -> Sharing:
        """How workers' time is shared between teams. Raises `InvalidInput` for a pattern that names no team."""
        return Sharing(checked_pattern(self.team_pattern), self.fair_window_s)

    def gpu_sizes(self) -> GpuSizes:
        """The sizes of the GPU workers' devices. Raises `InvalidInput` for what names none."""
        return read_sizes(self.gpu_memory_gb)

    def secrets_of_webhook(self) -> tuple[str, ...]:
        """The webhook secrets, those set directly before those of the file; the first signs new webhooks."""
        given = self.webhook_secrets.get_secret_value().split(",") if self.webhook_secrets else []
        if self.webhook_secrets_file is not None:
            given += self.webhook_secrets_file.read_text().splitlines()
        return tuple(dict.fromkeys(secret.strip() for secret in given if secret.strip()))


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
