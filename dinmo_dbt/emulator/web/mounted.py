"""The org under `requests` without a socket: both ends of HTTP as they are, and memory in the place of the wire.

The client's half is `requests`, urllib3 and http.client, the server's is cheroot's parser and the gateway of `serve`,
so both say and raise what they do over a port, faults included. A connection carries one call (its reply says
`Connection: close`), the call is handled in the client's own thread when its reply is first read, and nothing but the
reply's end is decided later. What a fault lets wait passes on the org's clock: at once where that stands still, else
in real time, and no longer than the client's own read timeout.
"""

from __future__ import annotations

import io
import tempfile
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import requests
from cheroot.wsgi import Server
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection

from dinmo_dbt.emulator.web import gateway

if TYPE_CHECKING:
    from dinmo_dbt.emulator.clock import Clock

_BYTES_IN_MEMORY = 1 << 20
_PORTS = {"http": 80, "https": 443}


class Answering(Protocol):
    """A WSGI application with a clock."""

    @property
    def clock(self) -> Clock: ...
    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]: ...


class MountedAdapter(HTTPAdapter):
    """Answers every request of the prefixes it is mounted for; proxies, `verify` and `cert` have no meaning here."""

    def __init__(self, app: Answering) -> None:
        super().__init__()
        self._app = app
        self._server = Server(("127.0.0.1", 0), app)  # never started: it tells requests where they are
        self._server.gateway = _Gateway
        self._server.max_request_header_size = gateway.HEADER_BYTES_MAX

    def cert_verify(self, *_: Any, **__: Any) -> None:
        """There is no certificate."""

    def request_url(self, request: requests.PreparedRequest, _: Any) -> str:
        return super().request_url(request, {})

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, *_: Any, **__: Any
    ) -> HTTPConnectionPool:
        url = urlsplit(request.url or "")
        port = None if url.port == _PORTS.get(url.scheme) else url.port  # which a Host header leaves out
        pool = HTTPConnectionPool(url.hostname or "", port)
        pool.ConnectionCls = partial(_ClientConnection, self._server, url.scheme)  # type: ignore[assignment]
        return pool


class _ClientConnection(HTTPConnection):
    """urllib3's connection, with a wire that leads to the app."""

    def __init__(self, server: Server, scheme: str, **more: Any) -> None:
        super().__init__(**more)
        self._server = server
        self._scheme = scheme

    def _new_conn(self) -> Any:
        return _Wire(self._server, self._scheme)


class _Wire:
    """What a client takes for its socket: keeps a request, and has it handled when the reply is read."""

    def __init__(self, server: Server, scheme: str) -> None:
        self.scheme = scheme
        self.timeout: float | None = None
        self.reply = _Reply(self, server.wsgi_app.clock)
        self._server = server
        self._request: IO[bytes] = tempfile.SpooledTemporaryFile(_BYTES_IN_MEMORY)  # noqa: SIM115 (closed by close)

    def settimeout(self, timeout: float | None) -> None:
        self.timeout = timeout

    def sendall(self, data: bytes) -> None:
        self._request.write(data)

    def makefile(self, *_: Any) -> io.BufferedReader:
        self._request.seek(0)
        _ServerConnection(self._server, self, self._end).communicate()  # type: ignore[no-untyped-call]
        self.reply.rewind()
        return io.BufferedReader(self.reply)

    def close(self) -> None:
        self._request.close()

    def _end(self, _: _Wire, mode: str, *__: Any) -> Any:
        """The server's end of the wire."""
        return self._request if mode == "rb" else self.reply.written


class _Reply(io.RawIOBase):
    """What the server sent, and the pauses it made; a pause longer than the client waits ends in TimeoutError."""

    def __init__(self, wire: _Wire, clock: Clock) -> None:
        self._wire = wire
        self._clock = clock
        self._pauses: deque[tuple[int, float]] = deque()  # after so many bytes, so many seconds
        self.written: IO[bytes] = tempfile.SpooledTemporaryFile(_BYTES_IN_MEMORY)  # noqa: SIM115 (closed by close)

    def pause(self, seconds: float) -> None:
        self._pauses.append((self.written.tell(), seconds))

    def rewind(self) -> None:
        self.written.seek(0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        at = self.written.tell()
        while self._pauses and self._pauses[0][0] <= at:
            self._wait(self._pauses.popleft()[1])
        until = self._pauses[0][0] if self._pauses else at + len(buffer)
        data = self.written.read(min(len(buffer), until - at))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.written.close()
        super().close()

    def _wait(self, seconds: float) -> None:
        longest = self._wire.timeout
        if longest is not None and seconds > longest:
            self._clock.wait(longest)
            raise TimeoutError("timed out")
        self._clock.wait(seconds)


class _Request(gateway.Request):
    def __init__(self, server: Server, connection: Any) -> None:
        super().__init__(server, connection)
        self.scheme = connection.socket.scheme.encode()


class _ServerConnection(gateway.Connection):
    RequestHandlerClass = _Request


class _Gateway(gateway.Gateway):
    """Puts a delay into the reply instead of sitting it out: the client may not wait that long."""

    def _waited(self, seconds: float) -> bool:
        self.req.conn.socket.reply.pause(seconds)
        return True
