"""Layers of policies: organisation, team, model. A document names its parent and says only what it tightens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gate.adapters.marked_yaml import MarkedYaml, Place
from gate.domain.errors import InvalidInput
from gate.domain.layers import LAYERS, OWN, loosened, merged
from gate.domain.policy import Policy, PolicySet

FIX = "say it at least as strictly, leave it out to inherit it, or have the layer above loosened"


def parent_file(document: MarkedYaml, above: tuple[Path, ...]) -> Path | None:
    """The file of the policy that a document names as its parent, in the same folder; ``None`` for one without.

    Raises ``InvalidInput`` where layer and parent do not fit, the parent is not there, or documents name each other.
    """
    parent = _parent_name(document)
    if parent is None:
        return None
    for file in sorted(document.file.parent.glob("*.y*ml")):
        if _name_of(file) == parent and file != document.file:
            if file in above:
                raise _refused(document, "parent", f"expected a policy above, found {parent!r} below; end the circle")
            return file
    raise _refused(
        document, "parent", f"expected a policy of that name in {document.file.parent}, found no {parent!r}; add it"
    )


def parent_in_force(document: MarkedYaml, policies: PolicySet) -> Policy | None:
    """The same for a document that stands in no folder: its parent is one of the policies in force."""
    parent = _parent_name(document)
    if parent is None:
        return None
    for policy in policies.policies:
        if policy.name == parent and parent != document.value.get("name"):
            return policy
    raise _refused(
        document, "parent", f"expected a policy that is in force, found no {parent!r}; put it in force first"
    )


def _parent_name(document: MarkedYaml) -> Any:
    layer, parent = document.value.get("layer"), document.value.get("parent")
    if parent is None:
        if layer in LAYERS[1:]:
            raise _refused(
                document, "layer", f"expected a parent with layer: {layer}, found none; name the policy it tightens"
            )
        return None
    if layer not in LAYERS[1:]:
        raise _refused(
            document, "parent", f"expected layer: team or model with a parent, found {layer!r}; name the layer"
        )
    return parent


def layered(document: MarkedYaml, parent: Policy) -> Mapping[str, Any]:
    """The document with all that it inherits. Raises ``InvalidInput`` where the parent is not of a layer above."""
    layer = document.value["layer"]
    over = LAYERS.index(parent.layer) if parent.layer else -1
    if over < 0 or over >= LAYERS.index(layer):
        above = " or ".join(LAYERS[: LAYERS.index(layer)])
        found = f"layer: {parent.layer}" if parent.layer else "no layer"
        raise _refused(document, "parent", f"expected a parent with layer: {above}, found {found}; correct one of them")
    return merged(parent, document.value)


def own_part(policy: Policy, document: Mapping[str, Any], parent: Policy) -> dict[str, Any]:
    """What a policy's document has to say of its own, for the rest to be inherited from its parent."""
    above = parent.model_dump(mode="json")
    inherited = {rule.name for rule in parent.rules if policy.origins.get(rule.name) != f"{policy.layer} {policy.name}"}
    own = {key: value for key, value in document.items() if value != (above.get(key) if key not in OWN else "")}
    own["rules"] = [
        {key: value for key, value in rule.items() if value is not None}
        for rule in document["rules"]
        if rule["name"] not in inherited
    ]
    before = f"({parent.match}) && ("
    if policy.match.startswith(before) and policy.match.endswith(")"):
        own["match"] = policy.match[len(before) : -1]
    return own


def refuse_loosened(document: MarkedYaml, parent: Policy, policy: Policy) -> None:
    """Raises ``InvalidInput`` with the line of each place where a policy might let through what its parent would not."""
    found = [
        f"{document.file}:{document.line(_place(document, each))}: looser than {parent.layer} {parent.name}: {each}; {FIX}"
        for each in loosened(parent, policy)
    ]
    if found:
        raise InvalidInput("\n".join(found))


def _place(document: MarkedYaml, loosening: str) -> Place:
    """Where in the document the text is that a loosening speaks of."""
    first, _, rest = loosening.partition(":")[0].partition(".")
    if first != "rules":
        return (first, rest) if rest else (first,)
    names = [rule.get("name") for rule in document.value.get("rules", ())]
    return ("rules", names.index(rest)) if rest in names else ("rules",)


def _name_of(file: Path) -> str | None:
    """The name that a file gives its policy, if it can be told; what is wrong with the file is told when it is loaded."""
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    name = value.get("name") if isinstance(value, dict) else None
    return name if isinstance(name, str) else None


def _refused(document: MarkedYaml, key: str, problem: str) -> InvalidInput:
    return InvalidInput(f"{document.file}:{document.line((key,))}: {key}: {problem}")
