"""Ports of loopback for the servers of tests, several processes of which ask for some at the same time."""

import socket

from gate.embedded import held_port

HELD: list[socket.socket] = []


def free_port() -> int:
    """A port that no other process is given before this one ends; nobody answers there until a server is started."""
    HELD.append(held_port())
    return int(HELD[-1].getsockname()[1])
