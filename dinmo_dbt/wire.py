"""One HTTP attempt as a whole: bounded in time below the library, and its reply in bytes, encodings and memory.

requests and urllib3 bound each wait for a byte, and neither the sum of them nor what a reply unpacks to. Bytes that
come one by one, in a header, an interim reply, a chunk's length or a TLS handshake, never meet such a timeout. So the
socket itself is cut when the attempt's time is up, whatever waits on it.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextvars import ContextVar, Token
from typing import Any, BinaryIO

import numpy as np
import requests
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from dinmo_dbt.text import whole_text

LOOKUP_SECONDS_MAX = 7.0  # of a host's name: the system's own bound may be minutes
JSON_MEMORY_MAX = 192 << 20  # of a parsed reply, with its text
_CHUNK_BYTES = 1 << 16
_SMALL_BYTES = 1 << 20  # a JSON text that can't make much of itself
_BYTES_A_TOKEN = 100  # about the most: of an object with one key, or of a key that no other object has


class Broken(Exception):
    """No whole reply, or none that can be read; `again`: whether another attempt may bring one. The text is ours."""

    def __init__(self, reason: str, *, again: bool = True) -> None:
        super().__init__(reason)
        self.again = again


class ReplyTooLong(Broken):
    """The reply is more than is read; another attempt would bring the same, and asking for less may help."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, again=False)


class Attempt:
    """One request and its reply: `with Attempt(seconds) as attempt`, and what a `session` of ours sends within is cut
    at the end of its time, whatever it waits for; the system's look-up of a name by `LOOKUP_SECONDS_MAX` too.

    `is_unsent`: a connection was begun, and nothing of the request has gone out.
    """

    def __init__(self, seconds: float) -> None:
        self.is_unsent = False
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._is_cut = False
        self._held: socket.socket | None = None
        self._timer: threading.Timer | None = None
        self._token: Token[Attempt | None] | None = None

    def __enter__(self) -> Attempt:
        self._token = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        _current.reset(self._token)
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
        if self._held is not None:
            self._held.close()

    @property
    def left_s(self) -> float:
        return max(0.0, self._end - time.monotonic())

    @property
    def is_over(self) -> bool:
        return self._is_cut or time.monotonic() >= self._end

    @property
    def overdue(self) -> str:
        return f"not done within {self._seconds:g} seconds"

    def check(self) -> None:
        """Broken once the time is up: what was read may end where we cut it, which looks like the sender's end."""
        if self.is_over:
            raise Broken(self.overdue)

    def hold(self, sock: socket.socket) -> None:
        """The socket to cut. A handle of our own: TLS takes the first one over, and a pool keeps or closes it."""
        with self._lock:
            if self._held is not None:
                self._held.close()
            self._held = socket.socket(fileno=os.dup(sock.fileno()))
            if self._timer is None:
                self._timer = threading.Timer(self.left_s, self._cut)
                self._timer.daemon = True
                self._timer.start()
            elif self.is_over:
                _shut(self._held)

    def _cut(self) -> None:
        with self._lock:
            self._is_cut = True
            if self._held is not None:
                _shut(self._held)


_current: ContextVar[Attempt | None] = ContextVar("attempt", default=None)


def session(*, trust_env: bool, user_agent: str, pool_size: int) -> requests.Session:
    """A session that repeats nothing by itself, asks for no encoding but gzip, and stands under the `Attempt` it is
    used in. `trust_env`: proxies and certificates of the environment."""
    # urllib3 logs every URL at DEBUG, and a query's URL holds row values.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.WARNING)
    made = requests.Session()
    made.trust_env = trust_env
    made.headers["User-Agent"] = user_agent
    made.headers["Accept-Encoding"] = "gzip"
    adapter = _Adapter(max_retries=urllib3.Retry(0, read=False), pool_maxsize=pool_size)
    made.mount("https://", adapter)
    made.mount("http://", adapter)
    return made


def copy(response: requests.Response, file: BinaryIO, bytes_max: int, attempt: Attempt) -> int:
    """The body, unpacked, into `file`; its size. Broken if it breaks off, is too large, or takes too long."""
    size = 0
    for piece in _unpacked(response, bytes_max, attempt):
        size += len(piece)
        if size > bytes_max:
            raise ReplyTooLong(f"a reply of more than {bytes_max} bytes")
        file.write(piece)
    return size


def text(response: requests.Response, bytes_max: int, attempt: Attempt) -> bytearray:
    """The body, unpacked; Broken as in `copy`."""
    body = bytearray()
    for piece in _unpacked(response, bytes_max, attempt):
        if len(body) + len(piece) > bytes_max:
            raise ReplyTooLong(f"a reply of more than {bytes_max} bytes")
        body += piece
    return body


def values(body: bytes | bytearray, *, exact_numbers: bool = False, memory_max: int = JSON_MEMORY_MAX) -> Any:
    """UTF-8 JSON as values; `exact_numbers`: numbers as their text.

    Broken if it is none, is nested deeper than Python goes, or would take more than about `memory_max` bytes. What no
    file and no database takes is replaced (`whole_text`).
    """
    if len(body) > _SMALL_BYTES and _cost(body) > memory_max:
        raise ReplyTooLong("a reply of more values than there is memory for")
    odd = whole_text.is_odd(body)
    try:
        plain = body.decode("utf-8-sig", "surrogatepass")
        del body
        found = json.loads(plain, parse_float=str, parse_int=str) if exact_numbers else json.loads(plain)
        return whole_text.whole(found) if odd else found
    except (ValueError, RecursionError):
        raise Broken("the reply is not JSON") from None


_WIDE, _WIDE_ESCAPE = re.compile(rb"[\xf0-\xff]"), re.compile(rb"\\u[dD][89abAB]")
_ESCAPED = re.compile(rb"\\*.?", re.DOTALL)


def check_cost(file: BinaryIO, memory_max: int) -> None:
    """Broken if the JSON in `file` would take more than about `memory_max` bytes once it is read."""
    file.seek(0)
    body = file.read()
    if len(body) > _SMALL_BYTES and _cost(body) > memory_max:
        raise ReplyTooLong("a file of more values than there is memory for")


def _cost(body: bytes | bytearray) -> int:
    """About the bytes that the text and its values take: 1, 2 or 4 a character, by the widest of its text."""
    wide = 1 if body.isascii() else 4 if _WIDE.search(body) else 2
    widest = 4 if _WIDE_ESCAPE.search(body) else 2 if b"\\u" in body else 1
    return len(body) * (wide + max(wide, widest)) + _tokens(body) * _BYTES_A_TOKEN


def _tokens(body: bytes | bytearray) -> int:
    """How many of `, : [ {` stand outside of strings."""
    count, start, quotes = 0, 0, 0
    while start < len(body):
        cut = min(start + _SMALL_BYTES, len(body))
        whole = _ESCAPED.match(body, cut - 1)
        assert whole is not None
        piece = bytes(body[start : whole.end()]).replace(b"\\\\", b"").replace(b'\\"', b"")
        start = whole.end()
        letters = np.frombuffer(piece, np.uint8)
        within = (np.cumsum(letters == ord('"'), dtype=np.int32) + quotes) & 1
        count += int(np.count_nonzero(_IS_TOKEN[letters[within == 0]]))
        quotes = int(within[-1]) if len(within) else quotes
    return count


_IS_TOKEN = np.isin(np.arange(256), np.frombuffer(b",:[{", np.uint8))


def _unpacked(response: requests.Response, bytes_max: int, attempt: Attempt) -> Iterator[bytes]:
    """The body as it comes, in pieces of a bounded size. One layer of gzip is taken off, and no other encoding: none
    was asked for, and each layer could hold a thousand times its size."""
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if coding in ("", "identity"):
        return _pieces(response, bytes_max, attempt)
    if coding in ("gzip", "x-gzip"):
        return _gunzipped(_pieces(response, bytes_max, attempt), attempt)
    raise Broken("a reply in an encoding that was not asked for", again=False)


def _pieces(response: requests.Response, bytes_max: int, attempt: Attempt) -> Iterator[bytes]:
    size = 0
    try:
        # As it comes: `iter_content` waits until a chunk is full, however long that takes.
        while piece := response.raw.read1(_CHUNK_BYTES, decode_content=False):
            attempt.check()
            size += len(piece)
            if size > bytes_max:
                raise ReplyTooLong(f"a reply of more than {bytes_max} bytes")
            yield piece
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError):
        attempt.check()
        raise Broken("the reply broke off") from None
    attempt.check()


def _gunzipped(pieces: Iterator[bytes], attempt: Attempt) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(wbits=31)
    is_whole = True
    try:
        for piece in pieces:
            while piece:
                attempt.check()
                if unpacker.eof:  # a gzip file may have several members (RFC 1952, 2.2)
                    unpacker = zlib.decompressobj(wbits=31)
                yield unpacker.decompress(piece, _CHUNK_BYTES)
                piece = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            is_whole = unpacker.eof
        if not is_whole:
            yield unpacker.flush()
            is_whole = unpacker.eof
    except zlib.error:
        raise Broken("the reply can't be unpacked") from None
    if not is_whole:
        raise Broken("the reply broke off")


class _Adapter(requests.adapters.HTTPAdapter):
    """requests' adapter over connections that an `Attempt` holds, a proxy's too."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if type(manager) is urllib3.ProxyManager:  # one by SOCKS has pools of its own
            manager.pool_classes_by_scheme = _POOLS
        return manager


class _HeldConnection(HTTPConnection):
    """A connection whose socket the current attempt holds, from its first address to the reply's last byte."""

    def _new_conn(self) -> socket.socket:
        attempt = _attempt()
        attempt.is_unsent = True
        try:
            addresses = _addresses(self._dns_host.strip("[]"), self.port, min(LOOKUP_SECONDS_MAX, attempt.left_s))
        except socket.gaierror as unknown:
            raise NameResolutionError(self.host, self, unknown) from unknown
        except (UnicodeError, OSError) as unknown:
            raise NewConnectionError(self, "no such host") from unknown
        fault: OSError = TimeoutError()
        for family, kind, protocol, _, address in addresses:
            if attempt.is_over:
                break
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(min(float(self.timeout or attempt.left_s), attempt.left_s))
                sock.connect(address)
                attempt.hold(sock)
                return sock
            except OSError as refused:
                sock.close()
                fault = refused
        if isinstance(fault, TimeoutError):
            raise ConnectTimeoutError(self, "no connection in time") from fault
        raise NewConnectionError(self, "no connection") from fault

    def request(self, *args: Any, **options: Any) -> None:
        if self.sock is None:
            self.connect()
        attempt = _attempt()
        attempt.hold(self.sock)
        attempt.is_unsent = False
        super().request(*args, **options)


def _addresses(host: str, port: int, seconds: float) -> list[Any]:
    """`getaddrinfo`, which can't be broken off: what takes too long ends in a thread of its own, and is a gaierror."""
    if host == "localhost" or re.fullmatch(r"[0-9.]+|[0-9A-Fa-f:.]+", host):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    found: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def look() -> None:
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as unknown:
            found.put(unknown)

    threading.Thread(target=look, name="look-up", daemon=True).start()
    try:
        answer = found.get(timeout=seconds)
    except queue.Empty:
        raise socket.gaierror(socket.EAI_AGAIN, "no answer in time") from None
    if isinstance(answer, BaseException):
        raise answer
    addresses: list[Any] = answer
    return addresses


class _HeldTls(_HeldConnection, HTTPSConnection):
    """The same over TLS: urllib3's own handshake, on a socket that is held."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HeldConnection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HeldTls


_POOLS = {"http": _Pool, "https": _TlsPool}


def _attempt() -> Attempt:
    attempt = _current.get()
    assert attempt is not None, "a session of ours is used within an Attempt"
    return attempt


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side was faster
