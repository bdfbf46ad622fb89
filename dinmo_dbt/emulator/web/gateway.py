"""From the HTTP server to the application and back, with what a fault does to a reply on its way."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable
from typing import IO, Any

from cheroot.server import HeaderReader, HTTPConnection, HTTPRequest
from cheroot.wsgi import Gateway_10
from werkzeug.exceptions import ClientDisconnected

from dinmo_dbt.emulator.web import effect
from dinmo_dbt.emulator.web.effect import Effect

_BODY_BYTES_IN_MEMORY = 1 << 20
_TICK_S = 0.05
_LINE_BYTES_MAX = 8192
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")
_TOO_LARGE = "431 Request Header Fields Too Large"
HEADER_BYTES_MAX = 64 * 1024


class _Headers(HeaderReader):
    """Refuses a length that is no number from 0; reads `Expect` in any case."""

    def __call__(self, rfile: Any, hdict: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        headers: dict[bytes, bytes] = super().__call__(rfile, hdict)
        if not headers.get(b"Content-Length", b"0").isdigit():
            raise ValueError("Malformed Content-Length Header.")
        if b"Expect" in headers:
            headers[b"Expect"] = headers[b"Expect"].lower()
        return headers


class Request(HTTPRequest):
    """Takes a path with two slashes in front, which `sf` sends after a login by access token, as Salesforce does."""

    header_reader = _Headers()

    def __init__(self, server: Any, connection: Any) -> None:
        super().__init__(server, connection, strict_mode=False)

    def simple_response(self, status: str, msg: str = "") -> None:
        """What is said before the application is reached; a 413 of cheroot's is about headers."""
        super().simple_response(_TOO_LARGE if status.startswith("413") else status, msg)


class Connection(HTTPConnection):
    RequestHandlerClass = Request


class Gateway(Gateway_10):
    """Calls the application; carries out the Effect it leaves. A delay ends when the server stops (`server.halt`)."""

    def respond(self) -> None:
        server = self.req.server
        self.env["wsgi.input"] = Chunks(self.req.conn.rfile) if self.req.chunked_read else Whole(self.req.rfile)
        self.env["wsgi.input_terminated"] = True
        recorded = None
        if server.wsgi_app.faults.on_calls:  # the request may have to be handled twice
            recorded = self.env["wsgi.input"] = Recorded(self.env["wsgi.input"])
        body = server.wsgi_app(self.env, self.start_response)
        try:
            found = effect.taken(self.env)
            if found is None:
                self._send(body)
            else:
                self._carry_out(found, body, recorded)
        finally:
            if hasattr(body, "close"):
                body.close()
            if recorded is not None:
                recorded.close()

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if ("Connection", "close") in headers:
            self.req.close_connection = True
        return super().start_response(status, headers, exc_info)

    def _carry_out(self, found: Effect, body: Iterable[bytes], recorded: Recorded | None) -> None:
        if found.repeat and recorded is not None:
            handled_twice(self.req.server.wsgi_app, self.env, recorded)
        if found.delay_s:
            self._waited(found.delay_s)
        if found.lost:
            self._drop()
        elif found.cut_after is not None:
            data = b"".join(body)[: found.cut_after]
            self.req.ensure_headers_sent()
            self.req.write(data)
            self._drop()
        elif found.bytes_per_s is not None:
            self._trickle(b"".join(body), found.bytes_per_s)
        else:
            self._send(body)

    def _send(self, body: Iterable[bytes]) -> None:
        for piece in body:
            if piece:
                self.write(piece)
        self.req.ensure_headers_sent()

    def _drop(self) -> None:
        """Nothing more is said on this connection, not even the end of a chunked body."""
        self.req.sent_headers = True
        self.req.chunked_write = False
        self.req.close_connection = True

    def _waited(self, seconds: float) -> bool:
        """Let so much time pass; False when the server stops meanwhile."""
        return not self.req.server.halt.wait(seconds)

    def _trickle(self, data: bytes, bytes_per_s: float) -> None:
        self.req.ensure_headers_sent()
        step = max(1, int(bytes_per_s * _TICK_S))
        for start in range(0, len(data), step):
            if not self._waited(step / bytes_per_s):
                self._drop()
                return
            self.req.write(data[start : start + step])


class Whole:
    """A body of a known length. Raises ClientDisconnected where it ends before that."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def read(self, size: int = -1) -> bytes:
        wanted = self._source.remaining if size < 0 else min(size, self._source.remaining)
        data: bytes = self._source.read(wanted)
        if len(data) < wanted:
            raise ClientDisconnected
        return data


class Chunks:
    """A body in chunks, read with its trailers. Raises ClientDisconnected where it breaks off, or is no such body.

    cheroot's own reader copies all that is left of a chunk with each read, and leaves the trailers to the next request.
    """

    def __init__(self, source: Any) -> None:
        self._source = source
        self._left = 0  # of the chunk
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        pieces: list[bytes] = []
        wanted = size if size >= 0 else sys.maxsize
        while wanted and not self._ended:
            if self._left:
                pieces.append(self._piece(wanted))
                wanted -= len(pieces[-1])
            else:
                self._begin_chunk()
        return b"".join(pieces)

    def _piece(self, wanted: int) -> bytes:
        data: bytes = self._source.read(min(wanted, self._left))
        self._left -= len(data)
        if not data or (not self._left and self._source.read(2) != b"\r\n"):
            raise ClientDisconnected
        return data

    def _begin_chunk(self) -> None:
        found = _CHUNK.fullmatch(self._source.readline(_LINE_BYTES_MAX))
        if found is None:
            raise ClientDisconnected
        self._left = int(found[1], 16)
        if not self._left:
            self._ended = True
            while (line := self._source.readline(_LINE_BYTES_MAX)) != b"\r\n":
                if not line.endswith(b"\r\n"):
                    raise ClientDisconnected


class Recorded:
    """A request body that keeps what was read of it, so that the request can be handled a second time."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._kept: IO[bytes] = tempfile.SpooledTemporaryFile(_BODY_BYTES_IN_MEMORY)  # noqa: SIM115 (closed by close)

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._source.read(size)
        self._kept.write(data)
        return data

    def close(self) -> None:
        self._kept.close()

    def replayed(self) -> IO[bytes]:
        self._kept.seek(0)
        return self._kept


def handled_twice(app: Any, environ: dict[str, Any], recorded: Recorded) -> None:
    """Handle the request once more, as a proxy that replays it would; nobody reads this reply."""
    body = app({**effect.again(environ), "wsgi.input": recorded.replayed()}, lambda *_: None)
    try:
        for _ in body:
            pass
    finally:
        if hasattr(body, "close"):
            body.close()
