"""Processes that begin warm. Most of what a short command takes is to import dbt; here one process has imported it, and
forks. Each command is still a process of its own, with its session, folder, environment and streams, and can be killed.

Where an import itself is in question, or a variable that the interpreter reads as it starts: begin cold.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

LIBRARIES = ("dbt.config.profile", "dbt.adapters.duckdb", "duckdb", "pyarrow.compute", "simple_salesforce")
STATUS_BYTES = 4


class WarmPopen(subprocess.Popen[str]):
    """`Popen` of [sys.executable, "-m", MODULE or SCRIPT, ARGUMENT...], always in a session of its own."""

    _status: int  # where the one who reaps it writes how it ended

    def _execute_child(  # type: ignore[override]
        self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any, env: Any,
        startupinfo: Any, creationflags: Any, shell: Any,
        p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int, errread: int, errwrite: int, *rest: Any,
    ) -> None:  # fmt: skip
        self._status, told = os.pipe()
        asked = json.dumps([[str(word) for word in args[1:]], str(cwd), env]).encode()
        with _asking:
            nest = _nest()
            socket.send_fds(nest, [len(asked).to_bytes(4)], [p2cread, c2pwrite, errwrite, told])
            nest.sendall(asked)
            self.pid = int.from_bytes(nest.recv(4, socket.MSG_WAITALL))
        self._child_created = True
        os.close(told)
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if wait_flags & os.WNOHANG and not select.select([self._status], [], [], 0)[0]:
            return 0, 0
        status = int.from_bytes(os.read(self._status, STATUS_BYTES))
        os.close(self._status)
        return self.pid, status

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):  # type: ignore[attr-defined]
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


_nests: dict[int, socket.socket] = {}
_asking = threading.Lock()


def _nest() -> socket.socket:
    """The process that forks for this one; it ends with this one."""
    if os.getpid() not in _nests:
        ours, theirs = socket.socketpair()
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # a process that forks has one thread
        command = [sys.executable, __file__, str(theirs.fileno())]
        nest = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        _nests[os.getpid()] = ours
        atexit.register(lambda: (ours.close(), nest.wait()))
    return _nests[os.getpid()]


def _import_all() -> None:
    import logging
    import warnings

    import dinmo_dbt

    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        for name in LIBRARIES:
            importlib.import_module(name)
        for module in pkgutil.walk_packages(dinmo_dbt.__path__, "dinmo_dbt."):
            if not module.name.endswith("__main__") and "channels.attempt" not in module.name:
                importlib.import_module(module.name)
    logging.getLogger().handlers.clear()  # as `as_dbt_runs` does after the same import
    threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    others = [name for name in threads if name != "jemalloc_bg_thd"]  # which starts again by itself
    assert len(others) == 1, f"{others}: a fork would lose all but one"


def _serve(asked: socket.socket) -> tuple[list[str], str, dict[str, str]]:
    """Fork for each request; in the child, return what was asked for. Write down how each child ended."""
    ears, mouth = socket.socketpair()
    for end in (ears, mouth):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(mouth.fileno())
    statuses: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([asked, ears], [], [])
        if ears in ready:
            with contextlib.suppress(BlockingIOError):
                ears.recv(4096)
        for pid, status in _ended(statuses):
            with contextlib.suppress(BrokenPipeError), os.fdopen(statuses.pop(pid), "wb") as told:
                told.write((status & 0xFFFFFFFF).to_bytes(STATUS_BYTES))
        if asked not in ready:
            continue
        head, streams, _, _ = socket.recv_fds(asked, 4, 4)
        if not head:
            os._exit(0)
        words, folder, environment = json.loads(asked.recv(int.from_bytes(head), socket.MSG_WAITALL))
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            for number, stream in enumerate(streams[:3]):
                os.dup2(stream, number)
            os.closerange(3, 1024)
            for end in (asked, ears, mouth):
                end.detach()
            return words, folder, environment
        for stream in streams[:3]:
            os.close(stream)
        statuses[pid] = streams[3]
        asked.sendall(pid.to_bytes(4))


def _ended(children: dict[int, int]) -> list[tuple[int, int]]:
    found = [os.waitpid(pid, os.WNOHANG) for pid in children]
    return [(pid, status) for pid, status in found if pid]


def _begin(words: list[str], folder: str, environment: dict[str, str]) -> None:
    """As the interpreter would, with `-m MODULE` or a script."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Not those of the process that forked: its streams may be files, and these pipes.
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], folder
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    _import_all()
    _begin(*_serve(socket.socket(fileno=int(sys.argv[1]))))
