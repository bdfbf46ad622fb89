"""serve's endpoint against clients that drip, hang up, ask for too much, or are no HTTP."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
import requests

from dinmo_dbt.cli import endpoint
from dinmo_dbt.errors import UsageError


def app(environ, start_response):
    body = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} ".encode() + environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


@pytest.fixture
def url() -> Iterator[str]:
    with endpoint.listening("127.0.0.1", 0, app) as url:
        yield url


def connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def answer(url: str, sent: bytes) -> bytes:
    with connected(url) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_a_request_is_answered_whole(url):
    assert requests.get(f"{url}/health", timeout=30).text == "GET /health "
    assert (
        requests.post(f"{url}/dbt-cloud?a=1", data=b"x" * 100_000, timeout=30).text
        == "POST /dbt-cloud " + "x" * 100_000
    )
    head = requests.head(f"{url}/health", timeout=30)
    assert (head.status_code, head.text, head.headers["Connection"]) == (200, "", "close")


@pytest.mark.parametrize(
    "begun", [b"", b"G", b"GET /health HTTP/1.1\r\nX: ", b"POST /dbt-cloud HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"]
)
def test_clients_that_drip_keep_nobody_waiting(url, begun):
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(url)) for _ in range(40)]
        for client in clients:
            client.sendall(begun)
        for _ in range(3):
            assert requests.get(f"{url}/health", timeout=30).status_code == 200
            for client in clients:
                client.sendall(b"a")


def test_beyond_so_many_the_oldest_goes_and_the_newest_is_answered(url, monkeypatch):
    monkeypatch.setattr(endpoint, "CONNECTIONS_MAX", 5)
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(url)) for _ in range(20)]
        assert requests.get(f"{url}/health", timeout=30).status_code == 200
        assert is_closed(clients[0])


def test_who_is_not_done_in_time_is_let_go(url, monkeypatch):
    monkeypatch.setattr(endpoint, "REQUEST_S", 0.2)
    with connected(url) as client:
        client.sendall(b"GET /health HTT")
        assert is_closed(client)


@pytest.mark.parametrize(
    "sent, status",
    [
        (b"\r\n\r\n", 400),
        (b"GET health HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab", 100),
    ],
)
def test_what_is_no_request_is_refused_and_the_next_is_answered(url, sent, status):
    assert answer(url, sent).startswith(f"HTTP/1.1 {status} ".encode())
    assert requests.get(f"{url}/health", timeout=30).status_code == 200


def test_a_port_that_is_taken_is_said(url):
    with pytest.raises(UsageError, match="DB822"), endpoint.listening("127.0.0.1", urlsplit(url).port, app):
        pass
