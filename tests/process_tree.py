"""What a running stack consists of, told by the kernel and not by whoever started it."""

from pathlib import Path


def processes_of(state: Path) -> dict[int, str]:
    """Every process that carries this state folder in its environment, whosever child it has become."""
    mark = f"GATE_STATE_DIR={state}".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found
