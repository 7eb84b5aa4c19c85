"""``basin-gate verify-keyless``: whether files are approved by a bundle that needs no key of the gate's."""

from pathlib import Path
from typing import Annotated

import typer

from gate.look.printing import AsJson
from gate.look.printing import told as say


def verify_keyless(
    folder: Annotated[Path, typer.Argument(help="The folder with the files.")],
    bundle: Annotated[
        Path, typer.Option(help="The Sigstore bundle: attestations/sigstore.json of the evaluation's run.")
    ],
    identity: Annotated[str, typer.Option(help="Who must have signed, as the certificate names it.")],
    issuer: Annotated[str, typer.Option(help="Who must have vouched for the identity: the token's issuer.")],
    trust: Annotated[
        str, typer.Option(help="production, staging, or a file with a trusted root or a client trust configuration.")
    ] = "production",
    policy: Annotated[
        Path | None, typer.Option(help="Policy file or folder: its present text must be what it was approved by.")
    ] = None,
    expect: Annotated[str, typer.Option(help="The version that the files must be, models:/NAME/VERSION.")] = "",
    as_json: AsJson = False,
) -> None:
    """Verify without the gate's key that files are approved. Exit status 0 verified, 1 refused, 2 could not be decided.

    Revocations are signed with the gate's key and not known here: ask `basin-gate verify` where they matter.
    """
    from gate.adapters.keyless import KeylessVerifier
    from gate.adapters.policy_files import load_policies
    from gate.domain.reference import parse_reference
    from gate.domain.verification import Demand, told
    from gate.verify import FolderCheck

    demand = Demand(
        resource=parse_reference(expect).resource if expect else None,
        policies={p.name: p.digest for p in load_policies(policy).policies} if policy else None,
    )
    found = FolderCheck(KeylessVerifier.of(trust, identity, issuer), demand).folder(folder, bundle)
    say(as_json, {"verified": found.verified, **found.model_dump(mode="json")}, told(found))
    raise typer.Exit(0 if found.verified else 1)
