"""Channels: the names that policies use, the addresses that only the dispatcher knows, and Apprise to send by."""

import logging
from collections.abc import Mapping
from pathlib import Path

from gate.adapters.marked_yaml import read_marked
from gate.domain.errors import InvalidInput, Unavailable


class Channels:
    """The channels of a file, read at each message: an address changed there counts at once."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def send(self, channel: str, title: str, body: str) -> None:
        """Send a message. Raises `InvalidInput` for a channel that is not in the file, and `Unavailable` where it was not
        taken; no error holds the address."""
        address = self._addresses().get(channel)
        if address is None:
            raise InvalidInput(
                f"expected the channel {channel!r} in GATE_CHANNELS_FILE, found none; add `{channel}: URL`"
            )
        # Its log quotes addresses, whose path and password are secrets.
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
        # Here, so that a process that tells nobody does not read its hundred plug-ins.
        import apprise

        sender = apprise.Apprise()
        if not sender.add(address):
            raise InvalidInput(
                f"expected an Apprise URL for the channel {channel!r}, found otherwise; see its documentation"
            )
        if not sender.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT):
            raise Unavailable(
                f"expected the channel {channel!r} to take a message, found that it did not; trying again"
            )

    def _addresses(self) -> Mapping[str, str]:
        if self._file is None:
            return {}
        found = read_marked(self._file).value
        if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
            raise InvalidInput(f"{self._file}: expected lines `CHANNEL: URL`, found otherwise; write one a line")
        return found
