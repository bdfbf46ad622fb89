"""One HTTP attempt ends at its time, whatever the other side does with its bytes, and its reply has bounds."""

from __future__ import annotations

import contextlib
import gc
import gzip
import json
import os
import random
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from emulator.deep import examples
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt import wire
from dinmo_dbt.dbt_cloud import client as dbt_cloud
from dinmo_dbt.emulator.web import tls
from dinmo_dbt.errors import DbtCloudError, NotApplied, OutcomeUnknown
from dinmo_dbt.org import Secret
from dinmo_dbt.salesforce import attempt, pauses, request
from dinmo_dbt.salesforce import client as salesforce
from dinmo_dbt.text import whole_text

Behave = Callable[[socket.socket, threading.Event], None]
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class RawServer:
    """A loopback port whose connections do as they are told, one after the other, until it is closed."""

    def __init__(self, *behaviours: Behave, context: ssl.SSLContext | None = None) -> None:
        self._behaviours, self._tls = behaviours, context
        self.over = threading.Event()
        self.connections = 0
        self._threads: list[threading.Thread] = []
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port = self._listening.getsockname()[1]
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"{'https://localhost' if self._tls else 'http://127.0.0.1'}:{self.port}"

    def _start(self, what: Callable[..., None], *given: Any) -> None:
        self._threads.append(threading.Thread(target=what, args=given, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                held = self._tls.wrap_socket(sock, server_side=True) if self._tls else sock
                for behave in self._behaviours:
                    behave(held, self.over)
            except OSError:
                return

    def close(self) -> None:
        self.over.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()


def asked(sock: socket.socket, _: threading.Event) -> None:
    """Reads a request's head, and its body as far as that came along."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = sock.recv(1 << 16)
        if not piece:
            raise OSError("closed")
        got += piece


def whole(sock: socket.socket, over: threading.Event) -> None:
    asked(sock, over)
    sock.sendall(WHOLE)


def dripping(before: bytes, drop: bytes) -> Behave:
    def behave(sock: socket.socket, over: threading.Event) -> None:
        asked(sock, over)
        sock.sendall(before)
        while not over.wait(0.01):
            sock.sendall(drop)

    return behave


def unread(sock: socket.socket, over: threading.Event) -> None:
    """Takes the bytes of a request one by one."""
    while not over.wait(0.01):
        sock.recv(1)


def silent(_: socket.socket, over: threading.Event) -> None:
    over.wait()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
DRIPS: dict[str, Behave] = {
    "nothing": silent,
    "status line": dripping(b"HTTP/1.1 20", b"0"),
    "a header": dripping(b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
    "interim replies": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "headers of interim replies": dripping(b"HTTP/1.1 100 Continue\r\n", b"X: a\r\n"),
    "a body with a length": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" "),
    "a body without one": dripping(b"HTTP/1.1 200 OK\r\n\r\n{}", b" "),
    "a chunk's length": dripping(CHUNKED, b"0"),
    "a chunk's extension": dripping(CHUNKED + b"1;", b"x"),
    "a chunk": dripping(CHUNKED + b"ffff\r\n", b" "),
    "trailers": dripping(CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: a\r\n"),
    "gzip of nothing": dripping(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"{}"), gzip.compress(b"")
    ),
    "a request that is not read": unread,
}


@contextlib.contextmanager
def serving(*behaviours: Behave, context: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    server = RawServer(*behaviours, context=context)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """What a test began is over after it: threads, and open files and sockets."""
    threads, sockets = set(threading.enumerate()), _sockets()
    yield
    gc.collect()  # frames of errors that were caught
    # What an earlier test of this process left may end meanwhile; only what is new counts.
    assert (set(threading.enumerate()) - threads, _sockets() - sockets) == (set(), set())


def _sockets() -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
    return {name for name in found if name.startswith("socket:")}


@pytest.fixture
def trusted(tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    """A TLS server's context, and the authority that a client is to trust for it."""
    authority, certificate, key = tls.certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, str(authority)


def send(session: requests.Session, url: str, seconds: float, body: bytes | None = None) -> bytes:
    with (
        wire.Attempt(seconds) as attempt,
        session.request("POST", url, data=body, stream=True, timeout=(10, 60)) as response,
    ):
        return bytes(wire.text(response, 1 << 20, attempt))


def fails(session: requests.Session, url: str, body: bytes | None = None) -> None:
    with pytest.raises((wire.Broken, requests.exceptions.RequestException)):
        send(session, url, 0.2, body)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with wire.session(trust_env=False, user_agent="x", pool_size=2) as session:
        yield session


@pytest.mark.parametrize("drip", DRIPS)
def test_whatever_drips_the_attempt_ends(nothing_left: None, session: requests.Session, drip: str) -> None:
    with serving(DRIPS[drip]) as server:
        fails(session, server.url, b"x" * (8 << 20) if drip == "a request that is not read" else None)
        session.close()


@pytest.mark.parametrize("drip", [silent, DRIPS["a header"], DRIPS["a chunk's extension"], unread])
def test_over_tls_too(nothing_left: None, session: requests.Session, drip: Behave, trusted: Any) -> None:
    context, session.verify = trusted
    with serving(drip, context=context) as server:
        fails(session, server.url, b"x" * (8 << 20) if drip is unread else None)
        session.close()


def test_a_handshake_and_a_proxy_that_drip_are_cut(nothing_left: None, session: requests.Session) -> None:
    def handshake(sock: socket.socket, over: threading.Event) -> None:
        sock.recv(1 << 16)
        sock.sendall(b"\x16\x03\x03\xff\x00")  # a record that is long in coming
        while not over.wait(0.01):
            sock.sendall(b"\x02")

    with serving(handshake) as server:
        fails(session, f"https://127.0.0.1:{server.port}")
    with serving(DRIPS["a header"]) as server:  # of the reply to CONNECT
        session.proxies = {"https": server.url}
        fails(session, "https://org.example")
    session.close()


def test_a_connection_that_is_kept_is_cut_in_its_second_use(nothing_left: None, session: requests.Session) -> None:
    with serving(whole, DRIPS["a header"]) as server:
        assert send(session, server.url, 60) == b"{}"
        fails(session, server.url)
        assert server.connections == 1
        session.close()


def test_a_kept_connection_outlives_the_time_of_the_attempt_that_made_it(
    nothing_left: None, session: requests.Session, trusted: Any
) -> None:
    context, session.verify = trusted
    with serving(whole, whole, whole, context=context) as server:
        for seconds in (5, 60, 60):
            assert send(session, server.url, seconds) == b"{}"
        assert server.connections == 1
        session.close()


def test_a_host_of_many_dead_addresses_is_given_up_in_time(
    session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        crowd = [socket.socket() for _ in range(4)]
        for sock in crowd:  # the queue of a server that accepts nothing: a further connection waits
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", full.getsockname())
        asked_of = []
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **_: asked_of.append(a) or [address] * 10_000)
        fails(session, "http://many.example")
        assert len(asked_of) == 1
        for sock in crowd:
            sock.close()


# What the clients make of it


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "JSON_SECONDS_MAX", 0.2)
    monkeypatch.setattr(dbt_cloud, "JSON_SECONDS_MAX", 0.2)
    monkeypatch.setattr(salesforce, "ATTEMPTS_MAX", 2)
    monkeypatch.setattr(pauses, "ATTEMPTS_MAX", 2)
    monkeypatch.setattr(dbt_cloud, "ATTEMPTS_MAX", 2)


def client_of(url: str) -> salesforce.Client:
    login = salesforce.Login(url, Secret("t"), "00D000000000001EAA")
    return salesforce.Client(lambda _: login, sleep=lambda _: None, rng=random.Random(1))


@pytest.mark.parametrize("drip", DRIPS)
def test_an_insert_that_is_cut_is_unknown_and_a_read_is_not_applied(hasty: None, drip: str) -> None:
    body = b"x" * (8 << 20) if drip == "a request that is not read" else b"{}"
    with serving(DRIPS[drip]) as server:
        client = client_of(server.url)
        with pytest.raises(OutcomeUnknown, match=r"not done within 0\.2 seconds"):
            client.call(request.Request("POST", "x", request.CallEffect.ONCE, body=body))
        assert client.meter.calls == 1
        with pytest.raises(NotApplied, match=r"not done within 0\.2 seconds, at attempt 2"):
            client.call(request.Request("POST", "x", body=body))
        client.close()


def test_an_insert_is_sent_again_where_the_handshake_never_ended(hasty: None) -> None:
    with serving(silent) as server:
        client = client_of(f"https://127.0.0.1:{server.port}")
        with pytest.raises(NotApplied, match=r"not done within 0\.2 seconds, 2 times"):
            client.call(request.Request("POST", "x", request.CallEffect.ONCE, body=b"{}"))
        client.close()


@pytest.mark.parametrize("status", [102, 103, 199])
def test_an_interim_reply_is_no_answer_and_the_next_call_does_not_read_its_end(status: int) -> None:
    def early(sock: socket.socket, over: threading.Event) -> None:
        asked(sock, over)
        sock.sendall(f"HTTP/1.1 {status} Early\r\nLink: </x>\r\n\r\n".encode())
        asked(sock, over)  # a second call on this connection would get the first one's answer
        sock.sendall(WHOLE.replace(b"{}", b"[]"))

    with serving(early) as server:
        client = client_of(server.url)
        with pytest.raises(OutcomeUnknown, match=f"HTTP {status}"):
            client.call(request.Request("POST", "x", request.CallEffect.ONCE, body=b"{}"))
        with pytest.raises(NotApplied, match="DB607"):
            client.get("x")
        assert server.connections == 1 + pauses.ATTEMPTS_MAX
        client.close()


class _Clock:
    def now(self) -> float:
        return 0.0

    def sleep(self, _: float) -> None:
        """No time passes."""


@pytest.mark.parametrize("drip", [name for name in DRIPS if name != "a request that is not read"])
def test_dbt_cloud_that_drips_is_not_reached(hasty: None, drip: str) -> None:
    with serving(DRIPS[drip]) as server:
        client = dbt_cloud.CloudClient(dbt_cloud.Account(server.url, "1", Secret("t")), _Clock())
        with pytest.raises(DbtCloudError, match=r"DB226 .*not done within 0\.2 seconds, at attempt 2"):
            client.run("7")
        client.close()


# What a reply unpacks to


def answered(body: bytes, headers: str, bytes_max: int = 1 << 20) -> bytes:
    def behave(sock: socket.socket, over: threading.Event) -> None:
        asked(sock, over)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{headers}\r\n\r\n"
        sock.sendall(head.encode() + body)

    with (
        serving(behave) as server,
        wire.session(trust_env=False, user_agent="x", pool_size=1) as session,
        wire.Attempt(60) as attempt,
        session.get(server.url, stream=True, timeout=60) as response,
    ):
        return bytes(wire.text(response, bytes_max, attempt))


@given(
    texts=st.lists(st.binary(max_size=300).map(lambda b: b * random.Random(len(b)).choice([1, 900])), max_size=4),
    piece=st.integers(1, 200_000),
)
@examples(60)
def test_gzip_is_taken_off_whatever_its_members_and_pieces(texts: list[bytes], piece: int) -> None:
    packed = b"".join(gzip.compress(text) for text in texts)
    pieces = (packed[start : start + piece] for start in range(0, len(packed), piece))
    with wire.Attempt(60) as attempt:
        found = list(wire._gunzipped(pieces, attempt))
    assert b"".join(found) == b"".join(texts)
    assert all(len(each) <= wire._CHUNK_BYTES for each in found)


@given(cut=st.integers(1, 60))
@examples(30)
def test_gzip_that_breaks_off_is_no_reply(cut: int) -> None:
    packed = gzip.compress(random.Random(1).randbytes(90))
    with wire.Attempt(60) as attempt, pytest.raises(wire.Broken):
        list(wire._gunzipped(iter([packed[:cut]]), attempt))


@pytest.mark.parametrize("coding", ["deflate", "br", "zstd", "gzip, gzip", "gzip,br", "x", ", ".join(["gzip"] * 900)])
def test_no_other_encoding_is_taken(coding: str) -> None:
    with pytest.raises(wire.Broken, match="encoding") as caught:
        answered(zlib.compress(b"{}"), f"Content-Encoding: {coding}")
    assert not caught.value.again


def test_what_is_packed_and_what_is_unpacked_are_both_bounded() -> None:
    assert answered(gzip.compress(b"{}"), "Content-Encoding: GZIP") == b"{}"
    for body in (gzip.compress(b" " * (2 << 20)), gzip.compress(b"") * 60_000):
        with pytest.raises(wire.Broken, match="more than 1048576 bytes") as caught:
            answered(body, "Content-Encoding: gzip")
        assert not caught.value.again


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(alphabet='a,:[{"\\\n\0é😀\ud83d'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


def tokens(value: Any) -> int:
    """Of the compact text: its opening brackets, colons and commas."""
    if isinstance(value, list | dict):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(0, len(value) - 1) + (len(value) if isinstance(value, dict) else 0) + sum(map(tokens, inner))
    return 0


@given(value=JSON, ascii_only=st.booleans(), piece=st.integers(1, 9))
@examples(200)
def test_tokens_are_counted_outside_of_strings(value: Any, ascii_only: bool, piece: int) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":")).encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "_SMALL_BYTES", piece)
        assert wire._tokens(text) == tokens(value)


@given(value=JSON, ascii_only=st.booleans())
@examples(200)
def test_values_are_those_of_the_text_but_for_what_no_file_takes(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    found = wire.values(text)
    found_text = json.dumps(found, ensure_ascii=False)
    found_text.encode()
    assert "\\u0000" not in found_text
    plain = json.loads(text)
    if whole_text.whole(plain) == plain:
        assert found == plain
    else:
        assert "\ufffd" in found_text


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "lists": lambda n: b"[" + b"[]," * (n // 3) + b"[]]",
    "objects": lambda n: b"[" + b"{}," * (n // 3) + b"{}]",
    "members": lambda n: b"[" + b'{"a":1},' * (n // 8) + b"{}]",
    "names": lambda n: b"{" + b"".join(b'"%x":0,' % k for k in range(n // 10)) + b'"z":0}',
    "numbers": lambda n: b"[" + b"999," * (n // 4) + b"9]",
    "texts": lambda n: b"[" + b'"ab",' * (n // 5) + b'""]',
    "wide texts": lambda n: b"[" + '"😀",'.encode() * (n // 7) + b'""]',
    "one wide text": lambda n: b'["' + b"a" * n + '😀"]'.encode(),
    "one wide text by an escape": lambda n: b'["' + b"a" * n + b'\\ud83d\\ude00"]',
    "texts that an escape makes wide": lambda n: b"[" + b'"aaaaaaaaaaaaaaaa\\ud83d\\ude00",' * (n // 31) + b'""]',
    "halves of pairs": lambda n: b'["' + b"\\ud83d" * (n // 6) + b'"]',
    "backslashes": lambda n: b'["' + b"\\\\" * (n // 2) + b'"]',
    "deep": lambda n: b"[" * (n // 2) + b"]" * (n // 2),
    "a long number": lambda n: b"9" * n,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
def test_json_takes_no_more_memory_than_its_bound(kind: str, tmp_path: Path) -> None:
    """In a process of its own, by the kernel's own count of its peak; 24 MB in `make test`, which is a third of it."""
    import subprocess
    import sys

    (tmp_path / "body").write_bytes(HOSTILE[kind](24 << 20))
    code = (
        "import sys\nfrom pathlib import Path\nsys.path.append(sys.argv[2])\n"
        "from peak import peak_bytes\nfrom dinmo_dbt import wire\n"
        "body = bytearray(Path(sys.argv[1]).read_bytes()); before = peak_bytes()\n"
        "try: wire.values(body)\nexcept wire.Broken: pass\n"
        "print((peak_bytes() - before) >> 20)"
    )
    command = [sys.executable, "-c", code, tmp_path / "body", Path(__file__).parent]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= (wire.JSON_MEMORY_MAX >> 20) + 48, done.stdout
