"""The bill of the packages that are installed, as the images hold it."""

import json
from importlib.metadata import distribution, version

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from typer.testing import CliRunner

from gate.adapters.installed import bill_of_packages
from gate.cli import app


def test_the_bill_is_valid_and_names_each_package_once_with_its_version() -> None:
    text = bill_of_packages()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode()) is None
    document = json.loads(text)
    found = {each["name"]: each["version"] for each in document["components"]}
    assert len(found) == len(document["components"])
    for name in ("sqlalchemy", "celery", "torch", "mlflow-skinny"):
        assert found[name] == version(name)
    assert document["metadata"]["component"]["name"] == "basin-gate"


def test_the_bill_tells_licences_as_packages_state_them() -> None:
    (component,) = json.loads(bill_of_packages([distribution("basin-gate"), distribution("fastapi")]))["components"]
    assert component["licenses"] == [{"expression": "MIT"}]
    assert component["purl"] == f"pkg:pypi/fastapi@{version('fastapi')}"


def test_the_same_packages_give_the_same_bill_and_the_first_of_a_name_counts() -> None:
    some = [distribution(name) for name in ("fastapi", "celery")]
    assert bill_of_packages(some) == bill_of_packages([*reversed(some), *some])


def test_the_command_prints_the_version_or_the_bill() -> None:
    assert CliRunner().invoke(app, ["version"]).stdout.strip() == version("basin-gate")
    assert json.loads(CliRunner().invoke(app, ["version", "--bom"]).stdout)["bomFormat"] == "CycloneDX"
