"""dinmo-dbt with the Storage Read API of the stand-in: `python bigquery_client.py ARGUMENT...`, or imported.

Google's client of that API can't be given a plain endpoint, and the profile's `api_endpoint` is that of REST alone.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import grpc
from google.cloud.bigquery_storage_v1 import BigQueryReadClient
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

from dinmo_dbt.warehouse.bigquery import engine


def storage_client(_handle: Any, _credentials: Any) -> Any:
    channel = grpc.insecure_channel(f"127.0.0.1:{os.environ['STAND_IN_GRPC']}")
    return BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))


if __name__ == "__main__":
    from dinmo_dbt import cli

    engine.storage_client = storage_client
    sys.exit(cli.run(sys.argv[1:]))
