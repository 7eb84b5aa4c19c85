"""Every known way past the guard: an unguarded second server on the same database, and the database itself.

Each must be told of and undone by the reconciler within a minute.
"""

from collections.abc import Callable

from evasions import IS_PROMPT, Act, is_protected, unapproved
from guarded_stand import GuardedStand, Target
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag

from gate.domain.enforcement import TAG_ATTESTATION

BYPASSES: dict[str, tuple[Act, str]] = {}
SWEEPS = 3
"""So many are made within a minute."""


def bypass(name: str, told: str = "promoted without approval") -> Callable[[Act], Act]:
    """Enters a bypass, and what the audit log must tell of it."""

    def enter(act: Act) -> Act:
        BYPASSES[name] = (act, told)
        return act

    return enter


@bypass("alias row changed in the database")
def _(s: GuardedStand, t: Target) -> None:
    assert (
        s.sql("update registered_model_aliases set version = 2 where name = :n and alias = 'champion'", n=t.name) == 1
    )


@bypass("alias row added to the database")
def _(s: GuardedStand, t: Target) -> None:
    columns = "workspace, name, alias, version"
    chosen = "select workspace, name, 'production', 2 from registered_model_aliases where name = :n"
    assert s.sql(f"insert into registered_model_aliases ({columns}) {chosen}", n=t.name) == 1


@bypass("alias set by a second server")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.set_registered_model_alias(t.name, "champion", "2")


@bypass("alias set by a second server in another spelling")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.set_registered_model_alias(t.name, "Chämpion", "2")


@bypass("the gate's own alias set by a second server")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.set_registered_model_alias(t.name, "approved", "2")


@bypass("alias of a model dressed up as a prompt")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.set_registered_model_tag(t.name, RegisteredModelTag(IS_PROMPT, "true"))
    s.unguarded.set_registered_model_alias(t.name, "champion", "2")


@bypass("alias of a version whose row says it is a prompt")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.set_registered_model_alias(t.name, "champion", "2")
    s.sql("update model_versions set source = 'prompt-template' where name = :n and version = 2", n=t.name)


@bypass("stage row changed in the database")
def _(s: GuardedStand, t: Target) -> None:
    s.sql("update model_versions set current_stage = 'Production' where name = :n and version = 2", n=t.name)


@bypass("stage moved by a second server")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.transition_model_version_stage(t.name, "2", "Production", False)


@bypass("stage moved by a second server, the approved one archived")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.transition_model_version_stage(t.name, 2, "Production", True)


@bypass("alias onto a model deleted and made again")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.delete_registered_model(t.name)
    s.unguarded.create_registered_model(t.name)
    s.unguarded.create_model_version(t.name, "s3://bucket/evil")
    s.unguarded.set_registered_model_alias(t.name, "champion", "1")


@bypass("model with a protected alias renamed by a second server")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.set_registered_model_alias(t.name, "champion", "2")
    s.unguarded.rename_registered_model(t.name, f"{t.name} renamed")


@bypass("source of the approved version changed in the database")
def _(s: GuardedStand, t: Target) -> None:
    s.sql("update model_versions set source = 's3://bucket/evil' where name = :n and version = 1", n=t.name)


@bypass("creation time of the approved version changed in the database")
def _(s: GuardedStand, t: Target) -> None:
    s.sql("update model_versions set creation_time = creation_time + 1 where name = :n and version = 1", n=t.name)


@bypass("approval of version 1 copied onto version 2 by a second server")
def _(s: GuardedStand, t: Target) -> None:
    approval = s.client.get_model_version(t.name, "1").tags[TAG_ATTESTATION]
    s.unguarded.set_model_version_tag(t.name, "2", ModelVersionTag(TAG_ATTESTATION, approval))
    s.unguarded.set_registered_model_alias(t.name, "champion", "2")


def undone_and_told(stand: GuardedStand, target: Target, name: str) -> None:
    """Carries out a bypass and checks what became of it within a minute."""
    stand.client.transition_model_version_stage(target.name, "1", "Production")
    stand.sweep()
    act, told = BYPASSES[name]
    act(stand, target)
    assert unapproved(stand, target) or identities(stand) != {target.good.identity, target.bad.identity}
    promoted = identities(stand)

    for _ in range(SWEEPS):
        stand.sweep()
        if not unapproved(stand, target) and leading(stand) <= {target.good.identity}:
            break

    assert unapproved(stand, target) == set()
    assert leading(stand) <= {target.good.identity}
    facts = [fact for identity in promoted for fact in stand.audited(identity)]
    assert told in facts
    assert {"alias restored", "alias removed", "stage restored", "stage removed"} & set(facts)
    assert stand.drifted() == 0


def identities(stand: GuardedStand) -> set[str]:
    """The identities of all versions that there are."""
    with stand.unguarded.engine.connect() as connection:
        rows = connection.exec_driver_sql("select name, version from model_versions").all()
    return {stand.registry.version(row.name, str(row.version)).identity for row in rows}


def leading(stand: GuardedStand) -> set[str]:
    """The identities of the versions that hold a protected place."""
    held = [
        (name, number) for name in stand.models() for place, number in stand.leads(name).items() if is_protected(place)
    ]
    return {stand.registry.version(name, number).identity for name, number in held}
