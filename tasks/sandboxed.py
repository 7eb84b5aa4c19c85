"""The script that runs one program nobody vouches for: it gives up all it could do harm with, then runs it.

Started by ``tasks.sandbox`` as a process of its own, by path, with an empty environment; it imports the standard library
alone. Standard input is a JSON object: ``program`` and ``tests`` are Python source, ``readable`` the folders that imports
need, ``cpu_s`` the seconds of a core it has, ``word`` what is written once the tests are through. Standard output is a
file that then holds ``confined``, a line break and the word; or ``refused: …`` where a right could not be given up, in
which case nothing was run.

Linux only. Landlock (since 6.2, where it also guards truncation) closes the file system, seccomp all but the system
calls of a program that computes: no processes, no sockets, no signals, no sleep. Neither needs a privilege.
"""

import ctypes
import json
import os
import resource
import struct
from collections.abc import Iterator, Mapping, Sequence

MEMORY_BYTES = 512 << 20
FILE_BYTES = 4096
OPEN_FILES = 64
CAPABILITY_VERSION = 0x2008_0522

CONFINED = b"confined\n"
REFUSED = b"refused: "

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
SIGKILL = 9
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_VERSION_FLAG, LANDLOCK_RULE_PATH_BENEATH = 1, 1
FEWEST_ABI = 3
READ_FILE_AND_FOLDER = 1 << 2 | 1 << 3

LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
KILL_PROCESS, REFUSE_EPERM, ALLOW = 0x8000_0000, 0x0005_0001, 0x7FFF_0000
NUMBER_AT, ARCHITECTURE_AT = 0, 4
ARCHITECTURES: Mapping[str, tuple[int, int]] = {"x86_64": (0xC000_003E, 0), "aarch64": (0xC000_00B7, 1)}
"""Machine → its AUDIT_ARCH and its column below."""
ALLOWED: Mapping[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "open": (2, None),
    "close": (3, 57),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "access": (21, None),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "dup": (32, 23),
    "getpid": (39, 172),
    "exit": (60, 93),
    "uname": (63, 160),
    "fcntl": (72, 25),
    "getcwd": (79, 17),
    "readlink": (89, None),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "times": (100, 153),
    "getuid": (102, 174),
    "getgid": (104, 176),
    "geteuid": (107, 175),
    "getegid": (108, 177),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "time": (201, None),
    "futex": (202, 98),
    "getdents64": (217, 61),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "exit_group": (231, 94),
    "openat": (257, 56),
    "newfstatat": (262, 79),
    "readlinkat": (267, 78),
    "faccessat": (269, 48),
    "getrandom": (318, 278),
    "statx": (332, 291),
    "rseq": (334, 293),
    "faccessat2": (439, 439),
}
"""System call → its number on x86_64 and on aarch64; every other one is answered with "operation not permitted"."""

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Reads what to run, gives everything up, runs it, and says so where the tests are through."""
    with os.fdopen(0, "rb", closefd=False) as given:
        task = json.loads(given.read())
    result = os.dup(1)
    _be_silent()
    try:
        _confine(task["readable"], task["cpu_s"])
    except OSError as error:
        os.write(result, REFUSED + str(error).encode())
        return
    os.write(result, CONFINED)
    namespace: dict[str, object] = {"__name__": "solution"}
    for source, name in ((task["program"], "<program>"), (task["tests"], "<tests>")):
        exec(compile(source, name, "exec"), namespace)  # noqa: S102 - what this process is confined for
    os.write(result, task["word"].encode())
    # Nothing that the program left behind for the interpreter's end is run.
    os._exit(0)


def _be_silent() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)


def _confine(readable: Sequence[str], cpu_s: int) -> None:
    """Gives up, for good, what the program must not have. Raises OSError where something cannot be given up."""
    _limit(cpu_s)
    # Not another user: the interpreter itself may lie where only this one reads. Root without capabilities is none.
    _checked(libc.capset(struct.pack("=Ii", CAPABILITY_VERSION, 0), bytes(24)), "capset")
    _checked(libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "PR_SET_PDEATHSIG")
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    _close_files(readable)
    _close_system_calls(os.uname().machine)


def _limit(cpu_s: int) -> None:
    limits = {
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
    }
    for what, most in limits.items():
        resource.setrlimit(what, (most, most))


def _close_files(readable: Sequence[str]) -> None:
    """Landlock: what lies in ``readable`` can be read, and nothing else be opened, made, changed or run."""
    abi = libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_VERSION_FLAG)
    if abi < FEWEST_ABI:
        raise OSError(f"expected a kernel with Landlock's ABI {FEWEST_ABI} (Linux 6.2), found {abi}")
    handled = struct.pack("=QQQ", (1 << (15 if abi < 5 else 16)) - 1, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    rules = _checked(libc.syscall(LANDLOCK_CREATE_RULESET, handled, size, 0), "landlock_create_ruleset")
    for folder in readable:
        opened = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        rule = struct.pack("=Qi", READ_FILE_AND_FOLDER, opened)
        _checked(libc.syscall(LANDLOCK_ADD_RULE, rules, LANDLOCK_RULE_PATH_BENEATH, rule, 0), "landlock_add_rule")
        os.close(opened)
    _checked(libc.syscall(LANDLOCK_RESTRICT_SELF, rules, 0), "landlock_restrict_self")
    os.close(rules)


def _close_system_calls(machine: str) -> None:
    """Seccomp: only what is ``ALLOWED``, by the numbers of this machine's architecture."""
    if machine not in ARCHITECTURES:
        raise OSError(f"expected a machine of {', '.join(ARCHITECTURES)}, found {machine}")
    filters = b"".join(_filters(*ARCHITECTURES[machine]))
    held = ctypes.create_string_buffer(filters, len(filters))
    program = struct.pack("@HP", len(filters) // 8, ctypes.addressof(held))
    _checked(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0), "PR_SET_SECCOMP")


def _filters(architecture: int, column: int) -> Iterator[bytes]:
    """The filter in classic BPF: another architecture's calls kill, an allowed number passes, the rest is refused."""
    yield _instruction(LOAD, ARCHITECTURE_AT)
    yield _instruction(JUMP_EQUAL, architecture, over_if=1)
    yield _instruction(RETURN, KILL_PROCESS)
    yield _instruction(LOAD, NUMBER_AT)
    for numbers in ALLOWED.values():
        if (number := numbers[column]) is not None:
            yield _instruction(JUMP_EQUAL, number, over_else=1)
            yield _instruction(RETURN, ALLOW)
    yield _instruction(RETURN, REFUSE_EPERM)


def _instruction(code: int, value: int, over_if: int = 0, over_else: int = 0) -> bytes:
    return struct.pack("=HBBI", code, over_if, over_else, value)


def _checked(answer: int, what: str) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return answer


if __name__ == "__main__":
    main()
