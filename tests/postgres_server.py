"""One throw-away Postgres server on loopback, of the programs that this machine has."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVER_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")


@dataclass(frozen=True)
class Postgres:
    port: int
    password: str
    database: str = "shop"

    def output(self, **changes: object) -> dict[str, object]:
        return {
            "type": "postgres",
            "host": "127.0.0.1",
            "port": self.port,
            "user": "owner",
            "password": self.password,
            "dbname": self.database,
            "schema": "public",
            **changes,
        }

    def run(self, *statements: str) -> None:
        import psycopg2

        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user="owner", password=self.password, dbname=self.database
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        finally:
            connection.close()


@contextmanager
def running(programs: Path) -> Iterator[Postgres]:
    """A server of these programs, which goes at the end with all that is in it."""
    folder = Path(tempfile.mkdtemp(prefix="dinmo-postgres-"))
    user = _server_user()
    if user is not None:
        shutil.chown(folder, user)
    password = "correct-horse"
    (folder / "password").write_text(password)
    (folder / "password").chmod(0o644)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), *arguments]
        done = subprocess.run(command, user=user, cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    data = str(folder / "data")
    run("initdb", "-D", data, "-U", "owner", "-A", "scram-sha-256", "--pwfile", str(folder / "password"),
        "--encoding", "UTF8", "--no-locale", "--no-sync")  # fmt: skip
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories='' -c fsync=off"
    run("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        server = Postgres(port, password)
        import psycopg2

        connection = psycopg2.connect(host="127.0.0.1", port=port, user="owner", password=password, dbname="postgres")
        connection.autocommit = True
        connection.cursor().execute("create database shop")
        connection.close()
        yield server
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def server_programs() -> Path | None:
    for pattern in SERVER_FOLDERS:
        for folder in sorted(Path("/").glob(pattern.lstrip("/")), reverse=True):
            if (folder / "initdb").is_file() and (folder / "pg_ctl").is_file():
                return folder
    return None


def _server_user() -> str | None:
    """Postgres refuses to run as root: then it runs as the package's own user, or as nobody."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"
