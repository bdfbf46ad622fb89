"""serve's endpoint over HTTP: one request a connection, bounded in time, bytes and number.

A request reaches the application once it is whole, so a client that drips keeps no other waiting: it costs a place
among many, and loses it when its time is up, or when a newer client needs it.
"""

from __future__ import annotations

import asyncio
import io
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from dinmo_dbt.codes import PORT_TAKEN
from dinmo_dbt.errors import UsageError

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

REQUEST_S = 10.0  # from the first byte that is waited for to the last that is sent
HEAD_BYTES_MAX = 16 << 10
BODY_BYTES_MAX = 1 << 20
CONNECTIONS_MAX = 100  # beyond it the oldest goes
ANSWERING = 4  # whole requests that are answered at once

_LINE = re.compile(rb"([A-Z]{1,20}) (/[\x21-\x7e]*) HTTP/1\.[01]")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")


_Reply = tuple[str, list[tuple[str, str]], bytes]


class _BadRequest(Exception):
    """No request that is answered."""

    def __init__(self, status: HTTPStatus) -> None:
        self.status = status


@contextmanager
def listening(host: str, port: int, app: WSGIApplication) -> Iterator[str]:
    """The endpoint's URL while it is served, by threads of its own. UsageError DB822 if it can't be listened there."""
    endpoint = _Endpoint(app)
    at: Future[int] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(endpoint.serve(host, port, at)), daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{at.result()}"
    except OSError as error:
        if not at.done() or at.exception() is None:
            raise
        message = f"port {port} of {host} can't be listened on: {error.strerror or error}"
        raise UsageError(PORT_TAKEN, message, hint="choose another with --port") from error
    finally:
        endpoint.stop()
        thread.join(timeout=5)


class _Endpoint:
    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        self._open: dict[asyncio.Task[None], None] = {}  # oldest first
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = asyncio.Event()

    async def serve(self, host: str, port: int, at: Future[int]) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = await asyncio.start_server(self._connected, host, port, limit=HEAD_BYTES_MAX)
        except OSError as error:
            at.set_exception(error)
            return
        with ThreadPoolExecutor(ANSWERING, thread_name_prefix="endpoint") as self._pool:
            at.set_result(server.sockets[0].getsockname()[1])
            await self._over.wait()
            server.close()
            for task in list(self._open):
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    def stop(self) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # it never listened, and its loop is over
                self._loop.call_soon_threadsafe(self._over.set)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = None
        if len(self._open) > CONNECTIONS_MAX:
            next(iter(self._open)).cancel()
        try:
            await asyncio.wait_for(self._exchange(reader, writer), REQUEST_S)
            writer.close()
        except (TimeoutError, asyncio.CancelledError, asyncio.IncompleteReadError, OSError):
            writer.transport.abort()  # what it does not take is not kept
        finally:
            del self._open[task]

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_head = False
        try:
            environ = await _request(reader, writer)
        except _BadRequest as refused:
            reply: _Reply = f"{refused.status.value} {refused.status.phrase}", [], b""
        else:
            is_head = environ["REQUEST_METHOD"] == "HEAD"
            answer = asyncio.get_running_loop().run_in_executor(self._pool, self._answer, environ)
            reply = await asyncio.shield(answer)
        status, headers, body = reply
        named = {name.lower() for name, _ in headers}
        headers += [] if "content-length" in named else [("Content-Length", str(len(body)))]
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers), "Connection: close", "", ""]
        writer.write("\r\n".join(lines).encode("latin-1") + (b"" if is_head else body))
        await writer.drain()

    def _answer(self, environ: dict[str, Any]) -> _Reply:
        begun: list[Any] = []
        body = b"".join(self._app(environ, lambda status, headers, _=None: begun.extend((status, headers))))  # type: ignore[arg-type]
        return begun[0], list(begun[1]), body


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, Any]:
    """A whole request, as WSGI has it (PEP 3333)."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise _BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from None
    first, *lines = head[:-4].split(b"\r\n")
    line, headers = _LINE.fullmatch(first), [_HEADER.fullmatch(each) for each in lines]
    if line is None or None in headers:
        raise _BadRequest(HTTPStatus.BAD_REQUEST)
    known: dict[str, str] = {}
    for header in headers:
        assert header is not None
        name, value = header[1].decode("ascii").upper().replace("-", "_"), header[2].decode("latin-1")
        if name in known and name in ("CONTENT_LENGTH", "TRANSFER_ENCODING", "AUTHORIZATION"):
            raise _BadRequest(HTTPStatus.BAD_REQUEST)
        known[name] = value
    body = await _body(known, reader, writer)
    path, _, query = line[2].partition(b"?")
    return {
        "REQUEST_METHOD": line[1].decode("ascii"),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("ascii"),
        "CONTENT_TYPE": known.pop("CONTENT_TYPE", ""),
        "CONTENT_LENGTH": str(len(body)),
        **{f"HTTP_{name}": value for name, value in known.items()},
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
    }


async def _body(known: dict[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    declared = known.pop("CONTENT_LENGTH", "0")
    if "TRANSFER_ENCODING" in known:
        raise _BadRequest(HTTPStatus.LENGTH_REQUIRED)
    if not re.fullmatch(r"[0-9]{1,18}", declared):
        raise _BadRequest(HTTPStatus.BAD_REQUEST)
    if int(declared) > BODY_BYTES_MAX:
        raise _BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    if known.get("EXPECT", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return await reader.readexactly(int(declared))
