"""The HTTP and HTTPS servers: one process per data folder, loopback only, stopped cleanly by signal or end of stdin."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import ssl
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Unpack

from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Server

from dinmo_dbt.emulator.errors import EmulatorError, FolderInUse
from dinmo_dbt.emulator.options import OrgOptions
from dinmo_dbt.emulator.web.app import App
from dinmo_dbt.emulator.web.gateway import HEADER_BYTES_MAX, Connection, Gateway
from dinmo_dbt.emulator.web.tls import certificate

_LOCK_WAIT_S = 10.0
_LOCK_POLL_S = 0.05
_THREADS = 40  # more calls at one time than an org allows, and some that hang
_KEPT_ALIVE_MAX = 256
_STOP_S = 2.0
_STOP_POLL_S = 0.02


@contextmanager
def folder_lock(data: Path, *, wait_s: float) -> Iterator[None]:
    """Hold `data/server.lock` for this process, or raise FolderInUse naming the holder after `wait_s`.

    The lock is the operating system's, so it ends with the process whatever ends that.
    """
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (data / "server.lock").open("a+", encoding="ascii") as file:
        deadline = time.monotonic() + wait_s
        while not _try_lock(file):
            if time.monotonic() >= deadline:
                raise FolderInUse(_holder(file))
            time.sleep(_LOCK_POLL_S)
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: IO[str]) -> int:
    file.seek(0)
    text = file.read().strip()
    return int(text) if text.isdigit() else 0


def serve(
    *, schema: Path | None, data: Path, records: Path | None, port: int = 0, https_port: int = 0,
    standing: bool = False, exit_with_stdin: bool = False, announce: Callable[[dict[str, Any]], None],
    **options: Unpack[OrgOptions],
) -> None:  # fmt: skip
    """Serve the org in `data` until SIGTERM, SIGINT or, if asked, the end of stdin.

    Call it from the main thread. `announce` is called once, when the server listens.
    """
    with folder_lock(data, wait_s=_LOCK_WAIT_S):
        app = App(schema=schema, data=data, records=records, **options)
        try:
            _serve(app, data, (port, https_port), standing, exit_with_stdin, announce)
        finally:
            app.close()


def _serve(
    app: App, data: Path, ports: tuple[int, int], standing: bool, exit_with_stdin: bool,
    announce: Callable[[dict[str, Any]], None],
) -> None:  # fmt: skip
    stop = threading.Event()
    authority, *pair = certificate(data / "tls")
    plain, secure = _listening(app, ports[0], stop, None), _listening(app, ports[1], stop, pair)
    servers = [
        (server, threading.Thread(target=server.serve, name=f"emulator-{name}", daemon=True))
        for name, server in (("http", plain), ("https", secure))
    ]
    previous = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGTERM, signal.SIGINT)}
    path = data / "server.json"
    try:
        for _, thread in servers:
            thread.start()
        if exit_with_stdin:
            watcher = threading.Thread(target=_watch_stdin, args=(stop,), name="emulator-stdin", daemon=True)
            watcher.start()
        who = app.identity
        line = {
            "instance_url": f"http://127.0.0.1:{plain.bind_addr[1]}", "access_token": who.access_token,
            "username": who.username, "client_id": who.client_id, "client_secret": who.client_secret,
            "organization_id": who.organization_id, "password": who.password, "security_token": who.security_token,
            "refresh_token": who.refresh_token, "https_url": f"https://localhost:{secure.bind_addr[1]}",
            "ca_file": str(authority.absolute()), "pid": os.getpid(),
        }  # fmt: skip
        _write_private(path, json.dumps({**line, "standing": standing}))
        announce(line)
        while not stop.wait(timeout=1.0):
            if not all(thread.is_alive() for _, thread in servers):
                raise EmulatorError("the HTTP server stopped by itself")
    finally:
        stop.set()  # delayed replies end now
        path.unlink(missing_ok=True)
        _stop([server for server, _ in servers])
        for number, handler in previous.items():
            signal.signal(number, handler)


def _listening(app: App, port: int, stop: threading.Event, pair: list[Path] | None) -> Server:
    server = Server(
        ("127.0.0.1", port), app, numthreads=_THREADS, max=_THREADS, request_queue_size=128, timeout=60,
    )  # fmt: skip
    server.max_request_header_size = HEADER_BYTES_MAX
    server.keep_alive_conn_limit = _KEPT_ALIVE_MAX
    server.ConnectionClass = _Connection
    server.opened = weakref.WeakSet()  # type: ignore[attr-defined]  # by _Connection
    server.gateway = Gateway
    server.halt = stop  # type: ignore[attr-defined]  # read by Gateway
    if pair is not None:
        server.ssl_adapter = _Tls(*map(str, pair))
    try:
        server.prepare()
    except OSError as error:
        raise EmulatorError(f"can't listen on 127.0.0.1:{port}: {error}") from error
    return server


class _Connection(Connection):
    """A connection that can be cut, and whose TLS begins in the thread that serves it, not in the one that accepts."""

    def __init__(self, server: Server, sock: socket.socket, *more: Any) -> None:
        super().__init__(server, sock, *more)
        self._greeted = not isinstance(sock, ssl.SSLSocket)
        server.opened.add(self)  # type: ignore[attr-defined]

    def communicate(self) -> bool:
        if not self._greeted:
            try:
                self.socket.do_handshake()
            except OSError:  # not TLS, or gone
                return False
            self._greeted = True
        kept: bool = super().communicate()  # type: ignore[no-untyped-call]
        return kept

    def cut(self, how: int) -> None:
        with suppress(OSError):
            socket.socket.shutdown(self.socket, how)  # SSLSocket's own would let a reply go on without TLS


class _Tls(BuiltinSSLAdapter):
    def wrap(self, sock: socket.socket) -> tuple[socket.socket, dict[str, str]]:
        return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), {}


def _stop(servers: list[Server]) -> None:
    """Let replies that are being made go out, for 2 s at most; read nothing more from anybody."""
    stopping = [threading.Thread(target=server.stop, daemon=True) for server in servers]
    for thread in stopping:
        thread.start()
    began = time.monotonic()
    while any(thread.is_alive() for thread in stopping):
        how = socket.SHUT_RD if time.monotonic() - began < _STOP_S else socket.SHUT_RDWR
        for connection in [c for s in servers for c in s.opened]:  # type: ignore[attr-defined]
            connection.cut(how)
        stopping[0].join(_STOP_POLL_S)


def _watch_stdin(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop.set()


def _write_private(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner only: it holds a token."""
    partial = path.with_suffix(".tmp")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def reset(data: Path) -> None:
    """Empty the data folder, so that the next start mints a new org. Refused while a server holds it."""
    if not data.exists():
        return
    with folder_lock(data, wait_s=0.0):
        for path in data.iterdir():
            if path.name == "server.lock":
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
