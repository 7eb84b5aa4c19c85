"""What checkov says of everything that the chart renders, and of the Dockerfile, beside what is accepted with a reason."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from rendered_chart import BIN, EXAMPLES, ROOT, Manifest, rendered

CHECKOV = BIN.parent / "checkov" / "bin" / "checkov"
ACCEPTED = yaml.safe_load((ROOT / "tests" / "tools" / "accepted_findings.yaml").read_text())
CARELESS = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "careless"},
    "spec": {"hostPID": True, "containers": [{"name": "a", "image": "a", "securityContext": {"privileged": True}}]},
}


class Finding(NamedTuple):
    """A policy that something in a file does not follow."""

    file: str
    check: str
    resource: str
    name: str

    @property
    def accepted(self) -> bool:
        """Whether it is listed, with the reason."""
        return any(
            one["check"] == self.check and re.fullmatch(one["found_in"], self.resource.replace(".default.", "."))
            for one in ACCEPTED
        )


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Sequence[dict[str, Any]]:
    """Checkov's reports of one run over all examples, the Dockerfile and a careless pod."""
    if not CHECKOV.exists():
        pytest.skip("checkov is not installed; run: tests/tools/install_checkov.sh .venv/checkov")
    folder = tmp_path_factory.mktemp("rendered")
    for example in EXAMPLES:
        (folder / f"{example}.yaml").write_text(yaml.safe_dump_all(map(_plain, rendered(example))))
    (folder / "careless.yaml").write_text(yaml.safe_dump(CARELESS))
    shutil.copy(ROOT / "Dockerfile", folder)
    asked = ["--directory", folder, "--framework", "kubernetes", "dockerfile", "--skip-download", "--output", "json"]
    done = subprocess.run([CHECKOV, *map(str, asked)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, (
        f"expected findings, as in a careless pod; found status {done.returncode}: {done.stderr}"
    )
    return json.loads(done.stdout)


def _plain(manifest: Manifest) -> Manifest:
    """The manifest, as a Job where it is KEDA's ScaledJob, which checkov does not know."""
    if manifest["kind"] != "ScaledJob":
        return manifest
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": manifest["metadata"],
        "spec": manifest["spec"]["jobTargetRef"],
    }


@pytest.fixture(scope="module")
def findings(reports: Sequence[dict[str, Any]]) -> Sequence[Finding]:
    """Everything that checkov found."""
    return [
        Finding(Path(one["file_path"]).name, one["check_id"], one["resource"], one["check_name"])
        for report in reports
        for one in report["results"]["failed_checks"]
    ]


def test_checkov_finds_nothing_in_what_the_chart_renders_but_what_is_accepted(findings: Sequence[Finding]) -> None:
    assert [each for each in findings if each.file != "careless.yaml" and not each.accepted] == []


def test_checkov_read_every_file_and_knows_a_careless_pod(
    reports: Sequence[dict[str, Any]], findings: Sequence[Finding]
) -> None:
    read = {Path(one["file_path"]).name for report in reports for one in report["results"]["passed_checks"]}

    assert read >= {"Dockerfile", *(f"{example}.yaml" for example in EXAMPLES)}
    assert {"CKV_K8S_16", "CKV_K8S_17"} <= {each.check for each in findings if each.file == "careless.yaml"}
    assert not any(report["summary"]["parsing_errors"] for report in reports)


def test_nothing_is_accepted_that_checkov_no_longer_finds(findings: Sequence[Finding]) -> None:
    found = {each.check for each in findings if each.file != "careless.yaml"}

    assert {one["check"] for one in ACCEPTED} == found
    assert all(one["why"] for one in ACCEPTED)
