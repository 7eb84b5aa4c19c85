"""The static stage's own memory does not grow with the model: 600 MB are compared in less than 256 MB."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_folders import safetensors_bytes

ELEMENTS = 150_000_000
PROGRAM = """
import json, sys, threading
from pathlib import Path
import torch
from tasks.checkpoints import locate
from tasks.static_stage import inspect_folder

def anonymous():
    line = next(l for l in open("/proc/self/status") if l.startswith("RssAnon"))
    return int(line.split()[1]) * 1024

base, candidate = map(Path, sys.argv[1:])
inspect_folder(base.parent / "small")  # what importing and starting threads takes is no part of it
before, peak, done = anonymous(), 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.02):
        peak = max(peak, anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
attested = inspect_folder(base).checkpoint
found = inspect_folder(candidate, (locate(base), attested))
done.set()
watcher.join()
norm = found.measurements[0].estimate.value
print(json.dumps({"grown": peak - before, "norm": norm, "defects": [d.code for d in found.defects]}))
"""


def sparse_checkpoint(folder: Path, elements: int, last: bytes) -> Path:
    """A float32 checkpoint of one huge tensor, all zero but for its last number; takes no room on disk."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    entry = {"dtype": "F32", "shape": [elements // 1000, 1000], "data_offsets": [0, 4 * elements]}
    with (folder / "model.safetensors").open("wb") as file:
        start = file.write(safetensors_bytes({"w": entry}, b""))
        file.seek(start + 4 * elements - 4)
        file.write(last)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_memory_stays_small_whatever_the_models_size(tmp_path: Path) -> None:
    three = b"\x00\x00\x40\x40"
    base = sparse_checkpoint(tmp_path / "base", ELEMENTS, b"\0\0\0\0")
    candidate = sparse_checkpoint(tmp_path / "candidate", ELEMENTS, three)
    sparse_checkpoint(tmp_path / "small", 1000, three)
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(base), str(candidate)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["norm"] == 3.0
    assert found["defects"] == []
    assert found["grown"] < 256_000_000, found
