"""The command line: ``basin-gate …``. Exit 0 done, 1 blocked, 2 usage or operational error, 3 needs review."""

import json
import os
import signal
import sys
import time
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from gate.adapters.logs import configure_logging
from gate.adapters.tracing import start_tracing
from gate.check.command import check
from gate.doctor.command import doctor
from gate.domain.errors import GateError, InvalidInput, Unavailable
from gate.export import export
from gate.keyless_command import verify_keyless
from gate.look.audit import audit_app
from gate.look.breaking import break_glass
from gate.look.command import diff, ls, show
from gate.look.printing import AsJson, told
from gate.look.reviewing import review_app
from gate.look.waiving import waiver_app
from gate.look.watching import watch
from gate.rehearse import command as rehearse
from gate.settings import settings

app = typer.Typer(
    name="basin-gate",
    help="A model-registry safety gate: measures fine-tunes against their base's stability basin, and holds the block.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
policy_app = typer.Typer(no_args_is_help=True, help="Policies: check them before they decide anything.")
keys_app = typer.Typer(no_args_is_help=True, help="Signing keys.")
token_app = typer.Typer(no_args_is_help=True, help="Tokens of the HTTP API.")
ledger_app = typer.Typer(no_args_is_help=True, help="The ledger's database.")
app.add_typer(policy_app, name="policy")
app.add_typer(keys_app, name="keys")
app.add_typer(token_app, name="token")
app.add_typer(ledger_app, name="ledger")
app.command("check")(check)
app.command("doctor")(doctor)
for look in (ls, show, watch, diff):
    app.command(look.__name__)(look)
app.command("export")(export)
app.command("break-glass")(break_glass)
policy_app.command("test")(rehearse.run_tests)
for rehearsal in (rehearse.explain, rehearse.replay, rehearse.diff, rehearse.suggest):
    policy_app.command(rehearsal.__name__)(rehearsal)
app.add_typer(audit_app, name="audit")
app.add_typer(review_app, name="review")
app.add_typer(waiver_app, name="waiver")

out = Console()
err = Console(stderr=True)


@app.command("version")
def show_version(
    bom: Annotated[
        bool, typer.Option("--bom", help="Print all packages of this installation as CycloneDX instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the version."""
    if not bom:
        told(as_json, {"version": version("basin-gate")}, version("basin-gate"))
        return
    from gate.adapters.installed import bill_of_packages

    sys.stdout.write(bill_of_packages().decode() + "\n")


@app.command()
def up(
    state: Annotated[Path, typer.Option(help="Folder that keeps everything: ledger, MLflow, keys, logs.")] = Path(
        ".state/gate"
    ),
    policies: Annotated[
        Path | None, typer.Option(help="Policy file or folder; the shipped default without it.")
    ] = None,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow server.")] = 5000,
    api_port: Annotated[int, typer.Option(help="Port of the gate's API.")] = 8500,
) -> None:
    """Run the whole product on this machine: Valkey, MLflow with the guard, API, dispatcher, two workers."""
    from gate.embedded import EmbeddedStack

    stack = EmbeddedStack(state, policies=policies, mlflow_port=mlflow_port, api_port=api_port)
    # SIGTERM ends it as Ctrl-C does, so that nothing it started is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        stack.start(lambda name: err.print(f"starting {name} …"))
        out.print(f"MLflow  {stack.mlflow_uri}\ngate    {stack.api_url}\nlogs    {stack.state / 'logs'}")
        out.print("Onboard a base in another shell with these variables, then register fine-tunes of it:")
        for name, value in sorted(stack.environment.items()):
            out.print(f"  export {name}={value}", soft_wrap=True)
        while not (dead := stack.dead()):
            time.sleep(2)
        raise Unavailable(f"{', '.join(dead)} ended by itself:\n{stack.log_tail(dead[0])}")
    except KeyboardInterrupt:
        err.print("stopping …")
    finally:
        stack.stop()


@app.command()
def api() -> None:
    """Serve the webhook door and the HTTP API at the address in GATE_API_BIND (HOST:PORT), else in GATE_PUBLIC_URL."""
    import uvicorn

    from gate.api.app import build_app

    configure_logging(settings().log_level)
    start_tracing(settings().traces_endpoint, "api")
    host, port = settings().api_address()
    uvicorn.run(
        build_app(settings()),
        host=host,
        port=port,
        ssl_certfile=settings().tls_certificate_file,
        ssl_keyfile=settings().tls_key_file,
        log_config=None,
        access_log=False,
        server_header=False,
        # Pages that watch an evaluation hold a connection open; they open another one elsewhere.
        timeout_graceful_shutdown=3,
    )


@app.command()
def dispatcher() -> None:
    """Run the dispatcher: doorbells, MLflow writes, the ledger's sweep, the reconciler."""
    from gate.bootstrap import build_ledger, build_policies, build_queue, build_registry, migrate_ledger
    from gate.dispatcher import Dispatcher

    configure_logging(settings().log_level)
    start_tracing(settings().traces_endpoint, "dispatcher")
    migrate_ledger(settings())
    Dispatcher(
        ledger=build_ledger(settings()),
        queue=build_queue(settings()),
        registry=build_registry(settings()),
        policies=build_policies(settings()),
        settings=settings(),
    ).run()


@app.command()
def worker(
    queue: Annotated[
        str, typer.Argument(help="cpu, gpu, or with GATE_GPU_MEMORY_GB gpu-SIZE; several with commas: gpu-80,gpu-24")
    ],
    until_idle: Annotated[
        float | None,
        typer.Option(
            min=0, help="End when nothing has been due for so many seconds; for pods that are started for work."
        ),
    ] = None,
) -> None:
    """Run a Celery worker of one queue: one job at a time, the base kept warm between jobs.

    Told to stop (SIGTERM), it gives its job GATE_STOP_GRACE_S seconds to end, then hands it to the next worker.
    """
    known = settings().gpu_sizes().all_queues
    if not set(queue.split(",")) <= set(known):
        raise InvalidInput(f"expected a queue of {', '.join(known)} (GATE_GPU_MEMORY_GB), found {queue!r}")
    if until_idle is not None and "," in queue:
        raise InvalidInput(f"expected one queue with --until-idle, found {queue!r}; start a worker for each")
    if until_idle is not None:
        _become("tasks.drain", queue, str(until_idle))
    # Celery's answer to SIGTERM is to finish the job, however long it takes; to SIGQUIT, to hand it back after a grace.
    os.environ["REMAP_SIGTERM"] = "SIGQUIT"
    _become(
        *("celery", "-A", "tasks.app", "worker", "-Q", queue, "-n", f"{queue}-{os.getpid()}@%h"),
        *("--pool", "prefork", "-c", "1", "--without-gossip", "--without-mingle", "-l", settings().log_level.lower()),
    )


def _become(module: str, *words: str) -> NoReturn:
    """Goes on as another of Python's programs, so that signals reach it and not a parent of it."""
    os.execv(sys.executable, [sys.executable, "-m", module, *words])  # noqa: S606  (that there is no shell is wanted)


@ledger_app.command()
def migrate(as_json: AsJson = False) -> None:
    """Bring the ledger's tables to this version."""
    from gate.bootstrap import migrate_ledger

    migrate_ledger(settings())
    told(as_json, {"up_to_date": True}, "The ledger is up to date.")


@keys_app.command()
def generate(
    private: Annotated[Path, typer.Argument(help="Where to write the private key (PEM, readable by its owner only).")],
) -> None:
    """Make an Ed25519 signing key; the public key is printed, for GATE_TRUSTED_KEYS_FILE."""
    from gate.adapters.signing import generate_key

    if private.exists():
        raise InvalidInput(f"expected no file at {private}, found one; a key is never overwritten")
    sys.stdout.write(generate_key(private).decode())


@token_app.command("new")
def new_token(
    name: Annotated[str, typer.Argument(help="Whose it is: letters, digits, dots, dashes.")],
    role: Annotated[str, typer.Option(help="reader, submitter, policy_author, reviewer or administrator.")],
    as_json: AsJson = False,
) -> None:
    """Make a token: prints it, once, and then the line for GATE_TOKENS_FILE, which keeps its sha256 alone."""
    from gate.domain.access import made_token

    token, line = made_token(name, role)
    if as_json:
        told(as_json, {"token": token, "line": line})
        return
    err.print("The token, which is shown now and kept nowhere, and its line for GATE_TOKENS_FILE:")
    sys.stdout.write(f"{token}\n{line}\n")


@policy_app.command()
def lint(
    path: Annotated[Path, typer.Argument(help="Policy file or folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check policies as the service would load them; says file, line, expected, found, fix."""
    from gate.adapters.policy_files import load_policies

    policies = load_policies(path).policies
    if as_json:
        rows = [{"digest": policy.digest, **policy.model_dump(mode="json")} for policy in policies]
        sys.stdout.write(json.dumps({"policies": rows}, indent=2, ensure_ascii=False) + "\n")
        return
    for policy in policies:
        out.print(
            f"{policy.name}: {len(policy.rules)} rules, {policy.enforcement}, sha256 {policy.digest}", soft_wrap=True
        )


@app.command()
def verify(
    target: Annotated[str, typer.Argument(help="A folder, models:/NAME/VERSION or models:/NAME@ALIAS.")],
    attestation: Annotated[
        Path | None, typer.Option(help="The folder's attestation; basin-gate.vsa.json inside it without this.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="PEM file of trusted public keys; GATE_TRUSTED_KEYS_FILE without it.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Policy file or folder: its present text must be what it was approved by.")
    ] = None,
    expect: Annotated[
        str, typer.Option(help="For a folder: the version that its files must be, models:/NAME/VERSION.")
    ] = "",
    into: Annotated[
        Path | None, typer.Option(help="For a version: new folder to fetch it into, left only if it is verified.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="File of digests already made; trusts size, inode and times of change.")
    ] = None,
    revocations: Annotated[
        Path | None, typer.Option(help="Signed list of revoked approvals; GATE_REVOCATIONS_FILE without it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Verify that files are approved, byte for byte. Exit status 0 verified, 1 refused, 2 could not be decided."""
    from gate.adapters.folder_digests import DigestCache
    from gate.adapters.policy_files import load_policies
    from gate.domain.reference import parse_reference
    from gate.domain.verification import Demand
    from gate.domain.verification import told as told_of
    from gate.verify import FolderCheck, known_revocations, trusted

    registered = target.startswith("models:")
    if (registered and (attestation or expect)) or (not registered and into):
        raise InvalidInput("expected --attestation and --expect with a folder, --into with models:/…, found otherwise")
    demand = Demand(
        resource=parse_reference(expect).resource if expect else None,
        policies={p.name: p.digest for p in load_policies(policy).policies} if policy else None,
    )
    verifier = trusted(keys)
    known = known_revocations(verifier, revocations or settings().revocations_file)
    check = FolderCheck(verifier, demand, DigestCache(cache) if cache else None, revocations=known)
    if registered:
        from gate.bootstrap import build_registry

        found = check.version(build_registry(settings()), parse_reference(target), into)
    else:
        found = check.folder(Path(target), attestation)
    told(as_json, {"verified": found.verified, **found.model_dump(mode="json")}, told_of(found))
    raise typer.Exit(0 if found.verified else 1)


app.command("verify-keyless")(verify_keyless)


@app.command()
def revoke(
    target: Annotated[str, typer.Argument(help="models:/NAME/VERSION or models:/NAME@ALIAS.")],
    reason: Annotated[str, typer.Option(help="Why; everybody who is refused reads it.")],
    as_json: AsJson = False,
) -> None:
    """Take an approval back for good, and with it that of every version with the same bytes. Needs the signing key."""
    from gate.adapters.revoking import Revoker
    from gate.adapters.standing import referenced
    from gate.bootstrap import build_ledger, build_registry, build_signer
    from gate.domain.reference import parse_reference

    version = referenced(build_registry(settings()), parse_reference(target))
    revoked = Revoker(build_ledger(settings()), build_signer(settings())).revoke(version, reason, "operator")
    uris = [each.uri for each in revoked]
    told(as_json, {"revoked": uris}, *(f"revoked: {uri}" for uri in uris))


@app.command()
def revocations(
    days: Annotated[
        int | None, typer.Option(min=1, help="Days after which readers refuse the list as too old; without it, never.")
    ] = None,
) -> None:
    """Print the signed list of all revocations, for GATE_REVOCATIONS_FILE and verify. Needs the signing key."""
    from gate.adapters.revoking import Revoker
    from gate.bootstrap import build_ledger, build_signer

    listed = Revoker(build_ledger(settings()), build_signer(settings())).listed(days)
    sys.stdout.write(json.dumps(listed) + "\n")


def main() -> None:
    """Entry point: joins the bench's commands, turns our errors into one clear line and exit status 2."""
    for entry in entry_points(group="basin_gate.commands"):
        try:
            entry.load()(app)
        except ModuleNotFoundError:
            continue  # the API image has no bench: its commands are simply not offered
    try:
        app()
    except GateError as error:
        # A terminal wraps at words; a pipe gets the message whole.
        err.print(f"basin-gate: {error}", style="red", markup=False, highlight=False, soft_wrap=not err.is_terminal)
        raise SystemExit(2) from None
