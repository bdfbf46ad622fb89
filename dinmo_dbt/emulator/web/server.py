"""The HTTP server: one process per data folder, loopback only, stopped cleanly by signal or end of stdin."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Unpack

from cheroot.server import HTTPConnection, HTTPRequest
from cheroot.wsgi import Server

from dinmo_dbt.emulator.errors import EmulatorError, FolderInUse
from dinmo_dbt.emulator.options import OrgOptions
from dinmo_dbt.emulator.web.app import App

_LOCK_WAIT_S = 10.0
_LOCK_POLL_S = 0.05
_HEADER_BYTES_MAX = 64 * 1024
_THREADS = 8


class _Request(HTTPRequest):
    """Takes a path with two slashes in front, which `sf` sends after a login by access token, as Salesforce does."""

    def __init__(self, server: Any, connection: Any) -> None:
        super().__init__(server, connection, strict_mode=False)


class _Connection(HTTPConnection):
    RequestHandlerClass = _Request


@contextmanager
def folder_lock(data: Path, *, wait_s: float) -> Iterator[None]:
    """Hold `data/server.lock` for this process, or raise FolderInUse naming the holder after `wait_s`.

    The lock is the operating system's, so it ends with the process whatever ends that.
    """
    data.mkdir(parents=True, exist_ok=True)
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
    *, schema: Path | None, data: Path, records: Path | None, port: int = 0, standing: bool = False,
    exit_with_stdin: bool = False, announce: Callable[[dict[str, Any]], None], **options: Unpack[OrgOptions],
) -> None:  # fmt: skip
    """Serve the org in `data` until SIGTERM, SIGINT or, if asked, the end of stdin.

    Call it from the main thread. `announce` is called once, when the server listens.
    """
    with folder_lock(data, wait_s=_LOCK_WAIT_S):
        app = App(schema=schema, data=data, records=records, **options)
        try:
            _serve(app, data, port, standing, exit_with_stdin, announce)
        finally:
            app.close()


def _serve(
    app: App, data: Path, port: int, standing: bool, exit_with_stdin: bool, announce: Callable[[dict[str, Any]], None]
) -> None:
    server = Server(
        ("127.0.0.1", port), app, numthreads=_THREADS, max=4 * _THREADS, request_queue_size=128,
        timeout=60, shutdown_timeout=5,
    )  # fmt: skip
    server.max_request_header_size = _HEADER_BYTES_MAX
    server.ConnectionClass = _Connection
    try:
        server.prepare()
    except OSError as error:
        raise EmulatorError(f"can't listen on 127.0.0.1:{port}: {error}") from error
    stop = threading.Event()
    serving = threading.Thread(target=server.serve, name="emulator-http", daemon=True)
    previous = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGTERM, signal.SIGINT)}
    path = data / "server.json"
    try:
        serving.start()
        if exit_with_stdin:
            watcher = threading.Thread(target=_watch_stdin, args=(stop,), name="emulator-stdin", daemon=True)
            watcher.start()
        who = app.identity
        line = {
            "instance_url": f"http://127.0.0.1:{server.bind_addr[1]}", "access_token": who.access_token,
            "username": who.username, "client_id": who.client_id, "client_secret": who.client_secret,
            "organization_id": who.organization_id, "password": who.password, "security_token": who.security_token,
            "refresh_token": who.refresh_token, "pid": os.getpid(),
        }  # fmt: skip
        _write_private(path, json.dumps({**line, "standing": standing}))
        announce(line)
        while not stop.wait(timeout=1.0):
            if not serving.is_alive():
                raise EmulatorError("the HTTP server stopped by itself")
    finally:
        path.unlink(missing_ok=True)
        server.stop()
        for number, handler in previous.items():
            signal.signal(number, handler)


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
