"""What lies in a folder of artifacts that ought not to: links, pickles, archives, programs. Nothing is opened or run.

Files are known by their first bytes as well as by their names: a pickle called ``weights.txt`` is a pickle. Python
unpickles whatever it is given to, and unpacking an archive can fill a disk, so neither is ever tried.
"""

import os
import pickletools
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from gate.domain.evidence import Defect, DefectCode

HEAD = 512
SMALL = 1 << 16

PICKLE_SUFFIXES = frozenset({".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pt2", ".pth"})
ARCHIVE_SUFFIXES = frozenset(
    {".7z", ".bz2", ".gz", ".lz4", ".npz", ".rar", ".tar", ".tgz", ".whl", ".xz", ".zip", ".zst"}
)
CODE_SUFFIXES = frozenset({".bat", ".cmd", ".ps1", ".py", ".pyc", ".pyw", ".sh"})
PROGRAM_SUFFIXES = frozenset({".dll", ".dylib", ".exe", ".jar", ".pyd", ".so"})
WEIGHT_SUFFIXES = frozenset(
    {".ggml", ".gguf", ".h5", ".keras", ".mlmodel", ".msgpack", ".npy", ".onnx", ".pb", ".safetensors", ".tflite"}
)
"""Files that some consumer would serve weights from, besides the pickles."""

ARCHIVE_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a")
COMPRESSED_MAGIC = (b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
PROGRAM_MAGIC = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\x00asm")
CALLING_OPCODES = frozenset({"BUILD", "INST", "NEWOBJ", "NEWOBJ_EX", "OBJ", "REDUCE"})


@dataclass(frozen=True, slots=True)
class Scan:
    """The plain files of a folder (paths inside it, sorted) and the defects seen on the way."""

    files: tuple[str, ...]
    defects: tuple[Defect, ...]


def scan(root: Path) -> Scan:
    """Every plain file under ``root``, and a defect for whatever is unsafe, code, an archive, or no plain file."""
    files: list[str] = []
    defects: list[Defect] = []
    for path, name in _walk(root):
        if not name.isprintable():
            defects.append(_defect(DefectCode.UNSAFE_FILE, ascii(name), "a name that is no text", "rename the file"))
        elif not stat.S_ISREG(path.lstat().st_mode):
            defects.append(_special(name, path))
        else:
            files.append(name)
            defects.extend(_of_file(name, path))
    return Scan(tuple(sorted(files)), tuple(defects))


def _walk(root: Path) -> Iterator[tuple[Path, str]]:
    for at, folders, names in os.walk(root, followlinks=False):
        folders.sort()
        links = [f for f in folders if (Path(at) / f).is_symlink()]
        for name in sorted([*names, *links]):
            path = Path(at) / name
            yield path, path.relative_to(root).as_posix()


def _special(name: str, path: Path) -> Defect:
    what = f"a link to {str(path.readlink())!r}" if path.is_symlink() else "a device, pipe or socket"
    return Defect(
        code=DefectCode.UNSAFE_FILE,
        message=f"{name}: expected a plain file, found {what}; it was not followed: copy the folder with its "
        "contents (cp -rL) and register the copy",
    )


def _of_file(name: str, path: Path) -> Iterator[Defect]:
    with path.open("rb") as file:
        head = file.read(HEAD)
    suffix = path.suffix.lower()
    if suffix in PICKLE_SUFFIXES or _is_pickle(head, path):
        yield _defect(DefectCode.UNSAFE_FILE, name, "a pickle, which runs code when it is loaded", _advice(path.name))
    elif suffix in PROGRAM_SUFFIXES or head.startswith(PROGRAM_MAGIC):
        yield _defect(DefectCode.UNSAFE_FILE, name, "a compiled program", "leave it out of the model's artifacts")
    elif suffix in CODE_SUFFIXES or head.startswith(b"#!"):
        advice = "register a model whose architecture transformers itself has"
        yield _defect(DefectCode.CUSTOM_CODE, name, "code that came with the model", advice)
    elif suffix in ARCHIVE_SUFFIXES or _is_archive(head):
        advice = "it was not unpacked: register the files themselves"
        yield _defect(DefectCode.ARCHIVE_FILE, name, "an archive", advice)


def unmeasured_weights(files: Iterable[str], measured: Collection[str]) -> Iterator[Defect]:
    """A defect for each file of weights that nothing was compared with: a consumer could serve it instead."""
    for name in files:
        if Path(name).suffix.lower() in WEIGHT_SUFFIXES and name not in measured:
            yield Defect(
                code=DefectCode.NOT_MEASURABLE,
                message=f"{name}: expected only the weights that are measured, found more weights beside them; "
                "register a folder that holds one model in one format",
            )


def _advice(file: str) -> str:
    if file == "training_args.bin":
        return "delete it (the Trainer's own settings, not needed to serve the model) and register again"
    if file in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "optimizer.bin", "scaler.pt"):
        return "delete it (training state, not needed to serve the model) and register again"
    return "save the weights as safetensors and register again"


def _defect(code: DefectCode, name: str, found: str, advice: str) -> Defect:
    return Defect(
        code=code,
        message=f"{name}: expected safetensors, JSON, YAML or text, found {found}; {advice}",
    )


def _is_archive(head: bytes) -> bool:
    return head.startswith((*ARCHIVE_MAGIC, *COMPRESSED_MAGIC)) or head[257:262] == b"ustar"


def _is_pickle(head: bytes, path: Path) -> bool:
    if head[:1] == b"\x80" and 2 <= int.from_bytes(head[1:2]) <= 5:
        return True
    if head.startswith(b"\x93NUMPY"):
        return b"'|O'" in head  # an array of objects is stored as a pickle
    # Protocols 0 and 1 have no mark. A small file that is a whole, calling pickle from its first byte to STOP is one.
    return head[:1] in b"c(]}lditpIiFSVXUKMNGJL" and path.stat().st_size <= SMALL and _runs_as_pickle(path)


def _runs_as_pickle(path: Path) -> bool:
    calls = False
    try:
        for opcode, _, _ in pickletools.genops(BytesIO(path.read_bytes())):
            calls = calls or opcode.name in CALLING_OPCODES
    except Exception:  # whatever pickletools cannot read to its end, it could not load either
        return False
    return calls
