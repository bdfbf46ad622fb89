"""A relay on loopback by which Redshift's driver talks to a plain Postgres, and what dbt-redshift asks of the catalog.

Three things keep the driver from logging in: it sends parameters that only Redshift knows, it takes the end of the list
of ways to authenticate for one of them, and it reads the server's version as Python's packages are numbered.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

PROTOCOL = 196608  # 3.0
KNOWN = {b"user", b"database", b"options", b"replication", b"application_name", b"client_encoding", b"datestyle"}
READY, ERROR = b"Z", b"E"
SASL = struct.pack("!i", 10)

# What dbt-redshift 1.11.2 asks for in a whole `dbt build` and Postgres 15 lacks.
CATALOG = (
    "create or replace function public.pg_get_late_binding_view_cols() returns setof record language sql as "
    "$$ select null::name, null::name, null::name, null::varchar, null::int where false $$",
    "set allow_system_table_mods = on",
    "create or replace view pg_catalog.svv_external_columns as select ''::text as redshift_database_name, "
    "''::text as schemaname, ''::text as tablename, ''::text as columnname, ''::text as external_type, "
    "0 as columnnum, 0 as part_key, ''::text as is_nullable where false",
)


@contextlib.contextmanager
def relaying(postgres_port: int) -> Iterator[int]:
    """The relay's port, for as long as this lasts."""
    hub = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(hub, postgres_port), daemon=True).start()
    try:
        yield int(hub.getsockname()[1])
    finally:
        hub.shutdown(socket.SHUT_RDWR)
        hub.close()


def _accept(hub: socket.socket, postgres_port: int) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = hub.accept()
            threading.Thread(target=_relay, args=(client, postgres_port), daemon=True).start()


def _relay(client: socket.socket, postgres_port: int) -> None:
    server = socket.create_connection(("127.0.0.1", postgres_port))
    with contextlib.suppress(EOFError, OSError):
        server.sendall(_sized(_known_parameters(_message(client))))
        threading.Thread(target=_pump, args=(client, server), daemon=True).start()
        kind = b""
        while kind not in (READY, ERROR):
            kind = _exactly(server, 1)
            body = _message(server)
            client.sendall(kind + _sized(_understood(kind, body)))
    _pump(server, client)


def _known_parameters(body: bytes) -> bytes:
    """A start-up message without the parameters that Postgres refuses; any other first message as it is."""
    if struct.unpack("!i", body[:4])[0] != PROTOCOL:
        return body
    words = body[4:].split(b"\0")
    pairs = ((name, value) for name, value in zip(words[::2], words[1::2], strict=False) if name in KNOWN)
    return body[:4] + b"".join(name + b"\0" + value + b"\0" for name, value in pairs) + b"\0"


def _understood(kind: bytes, body: bytes) -> bytes:
    if kind == b"R" and body.startswith(SASL):
        return body.removesuffix(b"\0")
    is_version = kind == b"S" and body.startswith(b"server_version\0")
    return b"server_version\x008.0.2\0" if is_version else body


def _message(source: socket.socket) -> bytes:
    """What follows a length, which counts itself."""
    return _exactly(source, struct.unpack("!i", _exactly(source, 4))[0] - 4)


def _sized(body: bytes) -> bytes:
    return struct.pack("!i", len(body) + 4) + body


def _exactly(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = source.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def _pump(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            to.sendall(data)
    for each in (source, to):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
