"""A WSGI app on loopback over real HTTP, in a thread of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cheroot.wsgi import Server


@contextmanager
def served(
    app: Callable[..., Any], *, threads: int = 4, connection: type | None = None, gateway: type | None = None
) -> Iterator[str]:
    """Its address, on a free port. `connection`, `gateway`: other classes for what is between the app and the wire."""
    server = Server(("127.0.0.1", 0), app, numthreads=threads, request_queue_size=256)
    server.expiration_interval = 0.02  # a stop waits for it: half a second, in each of hundreds of tests
    if connection is not None:
        server.ConnectionClass = connection
    if gateway is not None:
        server.gateway = gateway
        server.halt = threading.Event()  # which the emulator's asks for
    server.prepare()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.bind_addr[1]}"
    finally:
        server.stop()
        thread.join()
