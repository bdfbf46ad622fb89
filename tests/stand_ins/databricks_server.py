"""`python databricks_server.py PORT`: the few Thrift calls by which Databricks' connector reads, answered by DuckDB.

It is no Databricks: it shows that the connector, by the connection that dbt opens, hands us what it is given. It runs
in the environment of the adapter, for the messages' classes are the connector's; and imports nothing of ours.
"""

from __future__ import annotations

import re
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import duckdb
import pyarrow as pa
from databricks.sql.thrift_api.TCLIService import TCLIService, ttypes
from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.transport.TTransport import TMemoryBuffer

BATCH_ROWS = 5_000
CATALOG = "lake"

_OK = ttypes.TStatus(statusCode=ttypes.TStatusCode.SUCCESS_STATUS)
_FINISHED = ttypes.TOperationState.FINISHED_STATE
_KINDS = ttypes.TTypeId
_SPARK = {"VARCHAR": "string", "INTEGER": "int", "TIMESTAMP": "timestamp_ntz", "TIMESTAMP WITH TIME ZONE": "timestamp"}
_ARROW_KINDS = (
    (pa.types.is_boolean, _KINDS.BOOLEAN_TYPE),
    (pa.types.is_integer, _KINDS.BIGINT_TYPE),
    (pa.types.is_floating, _KINDS.DOUBLE_TYPE),
    (pa.types.is_date, _KINDS.DATE_TYPE),
    (pa.types.is_timestamp, _KINDS.TIMESTAMP_TYPE),
    (pa.types.is_binary, _KINDS.BINARY_TYPE),
    (pa.types.is_list, _KINDS.ARRAY_TYPE),
    (pa.types.is_struct, _KINDS.STRUCT_TYPE),
    (pa.types.is_map, _KINDS.MAP_TYPE),
)


class Service:
    """The interface that Databricks' client calls: each method takes a request and gives its response."""

    def __init__(self) -> None:
        self._database = duckdb.connect()
        self._database.execute(f"set timezone = 'America/New_York'; attach ':memory:' as {CATALOG}; use {CATALOG}")
        self._lock = threading.Lock()
        self._results: dict[bytes, tuple[Any, list[pa.RecordBatch]]] = {}  # what was not fetched yet

    def OpenSession(self, request: Any) -> Any:
        version = ttypes.TProtocolVersion.SPARK_CLI_SERVICE_PROTOCOL_V7
        session = ttypes.TSessionHandle(_handle(), serverProtocolVersion=version)
        return ttypes.TOpenSessionResp(_OK, version, session, canUseMultipleCatalogs=True)

    def ExecuteStatement(self, request: Any) -> Any:
        operation = ttypes.TOperationHandle(_handle(), ttypes.TOperationType.EXECUTE_STATEMENT, True)
        try:
            table = self._result(request.statement)
        except duckdb.Error as error:
            state = ttypes.TGetOperationStatusResp(_OK, ttypes.TOperationState.ERROR_STATE, displayMessage=_told(error))
            return ttypes.TExecuteStatementResp(_OK, operation, ttypes.TSparkDirectResults(operationStatus=state))
        columns = [_column(position, field) for position, field in enumerate(table.schema)]
        metadata = ttypes.TGetResultSetMetadataResp(
            _OK, ttypes.TTableSchema(columns), ttypes.TSparkRowSetType.ARROW_BASED_SET, False,
            arrowSchema=table.schema.serialize().to_pybytes(), isStagingOperation=False,
        )  # fmt: skip
        self._results[operation.operationId.guid] = (metadata, table.to_batches(BATCH_ROWS))
        state = ttypes.TGetOperationStatusResp(_OK, _FINISHED)
        direct = ttypes.TSparkDirectResults(state, metadata, self._fetched(operation))
        return ttypes.TExecuteStatementResp(_OK, operation, direct)

    def FetchResults(self, request: Any) -> Any:
        return self._fetched(request.operationHandle)

    def CloseOperation(self, request: Any) -> Any:
        self._results.pop(request.operationHandle.operationId.guid, None)
        return ttypes.TCloseOperationResp(_OK)

    def CancelOperation(self, request: Any) -> Any:
        return ttypes.TCancelOperationResp(_OK)

    def CloseSession(self, request: Any) -> Any:
        return ttypes.TCloseSessionResp(_OK)

    def run(self, sql: str) -> None:
        """What the test fills the tables by, in DuckDB's own SQL."""
        with self._lock:
            self._database.execute(sql)

    def _fetched(self, operation: Any) -> Any:
        """A batch at a time."""
        metadata, waiting = self._results[operation.operationId.guid]
        given = [waiting.pop(0)] if waiting else []
        batches = [ttypes.TSparkArrowBatch(batch.serialize().to_pybytes(), batch.num_rows) for batch in given]
        rows = ttypes.TRowSet(startRowOffset=0, rows=[], arrowBatches=batches)
        return ttypes.TFetchResultsResp(_OK, bool(waiting), rows, metadata)

    def _result(self, statement: str) -> pa.Table:
        sql = statement.replace("`", '"').replace("current_version().dbsql_version", "'stand-in'")
        described = sql.removeprefix("describe query ")
        with self._lock:
            if described == sql:
                return self._database.sql(sql).to_arrow_table()
            rows = self._database.sql(f"describe {described}").fetchall()
        columns = {"col_name": [row[0] for row in rows], "data_type": [_spark(row[1]) for row in rows]}
        return pa.table({**columns, "comment": pa.nulls(len(rows), pa.utf8())})


def _spark(kind: str) -> str:
    """DuckDB's name of a type as Databricks writes it."""
    if kind.endswith("[]"):
        return f"array<{_spark(kind[:-2])}>"
    if kind.startswith(("STRUCT", "MAP")):
        return kind.partition("(")[0].lower() + "<>"
    return _SPARK.get(kind, kind.lower())


def _column(position: int, field: pa.Field) -> Any:
    kind = next((kind for fits, kind in _ARROW_KINDS if fits(field.type)), _KINDS.STRING_TYPE)
    entry = ttypes.TPrimitiveTypeEntry(kind)
    if pa.types.is_decimal(field.type):
        parts = {"precision": field.type.precision, "scale": field.type.scale}
        told = {name: ttypes.TTypeQualifierValue(i32Value=value) for name, value in parts.items()}
        entry = ttypes.TPrimitiveTypeEntry(_KINDS.DECIMAL_TYPE, ttypes.TTypeQualifiers(told))
    return ttypes.TColumnDesc(field.name, ttypes.TTypeDesc([ttypes.TTypeEntry(primitiveEntry=entry)]), position + 1)


def _told(error: duckdb.Error) -> str:
    """In the words that Databricks has for it."""
    if isinstance(error, duckdb.CatalogException):
        return "[TABLE_OR_VIEW_NOT_FOUND] The table or view cannot be found. SQLSTATE: 42P01"
    if column := re.search(r'column "(\w+)" not found', str(error)):
        told = f"A column, variable, or function parameter with name `{column[1]}` cannot be resolved."
        return f"[UNRESOLVED_COLUMN.WITH_SUGGESTION] {told} SQLSTATE: 42703"
    if value := re.search(r"Could not convert string '(.*)' to INT", str(error), re.DOTALL):
        return f'[CAST_INVALID_INPUT] The value \'{value[1]}\' of the type "STRING" cannot be cast to "INT" because'
    return str(error)


def _handle() -> Any:
    return ttypes.THandleIdentifier(uuid.uuid4().bytes, uuid.uuid4().bytes)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service = Service()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/fill":
            self.service.run(body.decode())
            self._answer(b"")
            return
        out = TMemoryBuffer()
        TCLIService.Processor(self.service).process(TBinaryProtocol(TMemoryBuffer(body)), TBinaryProtocol(out))
        self._answer(out.getvalue())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-thrift")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
