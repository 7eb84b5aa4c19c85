"""The Python packages of this installation as a CycloneDX 1.6 bill of materials: what an image was built of.

The same packages give the same document; no tool beyond this one is needed where an image is built.
"""

import json
import re
import uuid
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions, version
from typing import Any

OURS = "basin-gate"


def bill_of_packages(found: Iterable[Distribution] | None = None) -> bytes:
    """The document, of all packages that Python finds unless some are given; the first of a name counts, as it does
    where Python imports it."""
    packages = _named(distributions() if found is None else found)
    text = "\n".join(f"{name}=={package.version}" for name, package in packages.items())
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": OURS, "name": OURS, "version": version(OURS)},
        },
        "components": [_component(name, package) for name, package in packages.items() if name != OURS],
        "dependencies": [{"ref": OURS, "dependsOn": [_purl(*each) for each in packages.items() if each[0] != OURS]}],
    }
    return json.dumps(document, indent=2, ensure_ascii=False).encode()


def _named(found: Iterable[Distribution]) -> dict[str, Distribution]:
    packages: dict[str, Distribution] = {}
    for package in found:
        packages.setdefault(re.sub(r"[-_.]+", "-", package.name).lower(), package)
    return dict(sorted(packages.items()))


def _component(name: str, package: Distribution) -> dict[str, Any]:
    purl = _purl(name, package)
    made = {"type": "library", "bom-ref": purl, "name": name, "version": package.version, "purl": purl}
    licenses = list(_licenses(package))
    return made | ({"licenses": licenses} if licenses else {})


def _purl(name: str, package: Distribution) -> str:
    return f"pkg:pypi/{name}@{package.version}"


def _licenses(package: Distribution) -> Iterator[dict[str, Any]]:
    """What the package says of its licence: an SPDX expression, or else its classifiers' names."""
    if "License-Expression" in package.metadata:
        yield {"expression": package.metadata["License-Expression"]}
        return
    prefix = "License :: "
    for classifier in package.metadata.get_all("Classifier") or ():
        if classifier.startswith(prefix):
            yield {"license": {"name": classifier.rpartition(" :: ")[2]}}
