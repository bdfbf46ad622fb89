"""bqemulator, run by the Python of its own environment: ports of REST and gRPC, and a folder that is its home.

It downloads two extensions of DuckDB as it starts, unless its home has them: here they come from their packages.
"""

from __future__ import annotations

import os
import sys

import duckdb_extensions

rest, grpc, home = sys.argv[1:]
os.environ["HOME"] = home
for name in ("spatial", "avro"):
    duckdb_extensions.import_extension(name)
program = os.path.join(os.path.dirname(sys.executable), "bqemulator")
os.execv(program, [program, "start", "--ephemeral", "--log-level", "error", "--rest-port", rest, "--grpc-port", grpc])
