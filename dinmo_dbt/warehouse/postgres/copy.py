"""One COPY under way: a thread feeds a pipe, Arrow parses the other end."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from typing import Any

import psycopg2
import pyarrow as pa

from dinmo_dbt.warehouse.postgres.csv import end_of_rows, parse
from dinmo_dbt.warehouse.postgres.errors import refused
from dinmo_dbt.warehouse.postgres.values import convert
from dinmo_dbt.warehouse.query import BATCH_ROWS, Cause, QueryRefused

# One parsed block, unless a row is longer. Eight times 32K rows of 32 bytes, 32K of 256 bytes.
BLOCK_BYTES = 8 << 20
ROW_BYTES_MAX = 256 << 20
PIPE_BUFFER_BYTES = 1 << 20
# How values are written, whatever the role's own settings are; with them the CSV reads back exactly. The time zone
# stays the session's: views may depend on it, and `timestamptz` is written with its offset.
_EXACT_TEXT = (
    "set local datestyle = 'ISO'; set local intervalstyle = 'postgres'; set local extra_float_digits = 3; "
    "set local bytea_output = 'hex'"
)


class Copy:
    """One COPY under way: a thread feeds a pipe, Arrow parses the other end."""

    def __init__(self, connection: Any, sql: str, schema: pa.Schema) -> None:
        self.connection = connection
        self._schema = schema
        # A database in SQL_ASCII knows no characters: it would refuse the whole for bytes that are no UTF-8.
        encoding = "SQL_ASCII" if connection.get_parameter_status("server_encoding") == "SQL_ASCII" else "UTF8"
        self._sql = f"copy ({sql}) to stdout (format csv, encoding '{encoding}', force_quote *)"
        self._failure: BaseException | None = None
        self._rows_sent: int | None = None  # as COPY itself counted them; None until it says it is done
        source, sink = os.pipe()
        self._source = FileIO(source)
        self._thread = threading.Thread(target=self._feed, args=(sink,), name="postgres-copy", daemon=True)
        self._thread.start()

    def _feed(self, descriptor: int) -> None:
        try:
            with os.fdopen(descriptor, "wb", buffering=PIPE_BUFFER_BYTES) as sink, self.connection.cursor() as cursor:
                cursor.execute(_EXACT_TEXT)
                cursor.copy_expert(self._sql, sink)
                sink.flush()
                self._rows_sent = cursor.rowcount
        except SystemError as error:
            # psycopg2 raises this around its own error when the server ends a COPY in the middle.
            self._failure = error.__cause__ or error
        except (psycopg2.Error, OSError) as error:
            self._failure = error

    def batches(self) -> Iterator[pa.RecordBatch]:
        rows_read = 0
        try:
            for block in self._blocks():
                parsed_rows, whole = parse(block, self._schema)
                for parsed in parsed_rows.to_batches():
                    converted = convert(parsed, self._schema, whole=whole)
                    rows_read += len(converted)
                    for start in range(0, len(converted), BATCH_ROWS):
                        yield converted.slice(start, BATCH_ROWS)
        except pa.ArrowInvalid as error:
            if self._failure is None:
                message = f"a row of it is longer than {ROW_BYTES_MAX >> 20} MB"
                raise QueryRefused(Cause.UNREADABLE, message) from error
        # The end of the pipe is the end of the rows only if COPY says so, and counts as many.
        self._thread.join()
        if self._failure is not None:
            raise refused(self._failure, self._sql) from self._failure
        if self._rows_sent != rows_read:
            message = f"{rows_read} rows arrived, but Postgres says {self._rows_sent}"
            raise QueryRefused(Cause.LOST, message)

    def _blocks(self) -> Iterator[pa.Buffer]:
        """Whole rows, up to BLOCK_BYTES at a time or one longer row, in memory of Arrow's own.

        Arrow's threads may hold what they are given a moment longer than the call that they work for. Python's memory,
        or a Python file, they could only give back with the interpreter's lock, and one that waits for it while the
        interpreter goes aborts the process.
        """
        block, filled = bytearray(BLOCK_BYTES), 0
        while True:
            got = self._source.readinto(memoryview(block)[filled:])
            filled += got or 0
            if got and filled < len(block):
                continue
            if not got:
                self._thread.join()  # only then it is known whether these are all, or the rest of a row is missing
            end = end_of_rows(block, filled) if got or self._failure else filled
            if got and not end:
                if len(block) >= ROW_BYTES_MAX:
                    raise pa.ArrowInvalid("a row is longer than a block may be")
                block += bytes(len(block))
                continue
            if end:
                rows = pa.allocate_buffer(end)
                memoryview(rows).cast("B")[:] = memoryview(block)[:end]
                yield rows
            if not got:
                return
            block[: filled - end] = block[end:filled]
            filled -= end

    def end(self) -> bool:
        """Stop the COPY if it still runs, and wait for its thread; whether it came to its own good end."""
        if self._thread.is_alive():
            with suppress(psycopg2.Error, OSError):
                self.connection.cancel()
                with socket.socket(fileno=os.dup(self.connection.fileno())) as link:
                    link.shutdown(socket.SHUT_RDWR)  # a server that does not answer any more is not waited for
            # Rows that are already on their way have to go somewhere, or the thread never ends.
            with suppress(OSError, ValueError):
                while self._source.read(PIPE_BUFFER_BYTES):
                    pass
            self._thread.join()
        self._source.close()
        return self._rows_sent is not None
