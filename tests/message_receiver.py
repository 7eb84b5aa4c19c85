"""A channel's far end on loopback: takes messages over HTTP as Slack and the like do, or refuses them, or hangs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any


class Receiver:
    """What was taken, in order; ``refuse`` so many, and hold each while ``hold`` is not set."""

    def __init__(self, port: int) -> None:
        # Apprise waits four seconds for an answer: a loaded machine may take longer, and a receiver that holds does.
        self.url = f"json://127.0.0.1:{port}/top-secret-path?cto=300&rto=300"
        self.taken: list[dict[str, Any]] = []
        self.asked = Event()
        self.refuse = 0
        self.hold = Event()
        self.hold.set()


@contextmanager
def a_receiver() -> Iterator[Receiver]:
    """A receiver on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            receiver.asked.set()
            receiver.hold.wait()
            refused = receiver.refuse > 0
            receiver.refuse -= refused
            if not refused:
                receiver.taken.append(message)
            self.send_response(500 if refused else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: the test tells what was taken."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(server.server_address[1])
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()
