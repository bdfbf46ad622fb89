"""`python snowflake_server.py PORT`: fakesnow, mended where it is not as the service is. It runs in an environment of
its own and imports nothing of ours.

- A null timestamp stays null: fakesnow's pair of seconds and fraction has no mask.
- A result comes in chunks: the first with the answer, the others to be fetched from where it says.
- Numbers are packed as the service packs them: chunk by chunk, the narrowest integers that the values allow, the scale
  told beside them, as the connector's own converter expects. So the chunks of one column differ in type.
- Each statement is told on stdout as it begins.
"""

from __future__ import annotations

import itertools
import sys
from base64 import b64decode, b64encode
from typing import Any

import fakesnow.arrow as arrow
import fakesnow.server as server
import pyarrow as pa
import pyarrow.compute as pc
import uvicorn
from fakesnow.cursor import FakeSnowflakeCursor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PORT = sys.argv[1]
CHUNK_ROWS = 5_000

_NARROW = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_UNSCALED = pa.decimal128(38, 0)
_pair_of = arrow.timestamp_to_sf_struct
_execute = FakeSnowflakeCursor.execute
_chunks: dict[str, bytes] = {}
_numbers = itertools.count(1)


def _masked(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    filled = _pair_of(whole.fill_null(0))
    children = [filled.field(position) for position in range(filled.type.num_fields)]
    return pa.StructArray.from_arrays(children, fields=list(filled.type), mask=pc.is_null(whole))


def _packed(table: pa.Table) -> bytes:
    for position, field in enumerate(table.schema):
        if field.metadata[b"logicalType"] == b"FIXED":
            packed = _narrowest(table.column(position))
            table = table.set_column(position, field.with_type(packed.type), packed)
    return bytes(arrow.to_ipc(table))


def _narrowest(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """What has more digits than 64 bits hold stays a decimal."""
    whole = column
    if pa.types.is_decimal(column.type):
        whole = pa.chunked_array([_unscaled(chunk) for chunk in column.chunks], _UNSCALED)
    for kind in _NARROW:
        try:
            return whole.cast(kind)
        except pa.ArrowInvalid:
            continue
    return column


def _unscaled(chunk: pa.Array) -> pa.Array:
    """The same 16 bytes a value, read as a whole number."""
    wide = chunk.cast(pa.decimal128(38, chunk.type.scale))
    return pa.Array.from_buffers(_UNSCALED, len(wide), wide.buffers(), null_count=-1, offset=wide.offset)


def _in_chunks(content: dict[str, Any], **options: Any) -> JSONResponse:
    data = content.get("data") or {}
    if data.get("rowsetBase64"):
        table = pa.ipc.open_stream(b64decode(data["rowsetBase64"])).read_all()
        parts = [table.slice(start, CHUNK_ROWS) for start in range(0, max(len(table), 1), CHUNK_ROWS)]
        data["rowsetBase64"] = b64encode(_packed(parts[0])).decode()
        data["chunks"] = [_kept(part) for part in parts[1:]]
    return JSONResponse(content, **options)


def _kept(part: pa.Table) -> dict[str, Any]:
    name, body = str(next(_numbers)), _packed(part)
    _chunks[name] = body
    url = f"http://127.0.0.1:{PORT}/chunks/{name}"
    return {"url": url, "rowCount": len(part), "uncompressedSize": len(body), "compressedSize": len(body)}


def _told(cursor: FakeSnowflakeCursor, command: str, *values: Any, **options: Any) -> Any:
    print(command, flush=True)
    return _execute(cursor, command, *values, **options)


async def _chunk(request: Request) -> Response:
    return Response(_chunks[request.path_params["name"]])


arrow.timestamp_to_sf_struct = _masked
server.JSONResponse = _in_chunks
FakeSnowflakeCursor.execute = _told
server.app.routes.append(Route("/chunks/{name}", _chunk))

if __name__ == "__main__":
    uvicorn.run(server.app, host="127.0.0.1", port=int(PORT), log_level="warning")
