"""An org mounted in process, without a socket: the app and a client on it, on a clock that stands still."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from werkzeug.test import Client, TestResponse

from dinmo_dbt import emulator
from dinmo_dbt.emulator.clock import Clock
from dinmo_dbt.emulator.web import effect
from dinmo_dbt.emulator.web.effect import Effect

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


class Mounted:
    """`api` calls the org's API, `control` its control endpoint; both with the org's own token.

    `effect` is what the last call left for a transport, which there is none of here.
    """

    def __init__(self, schema: Path, data: Path | None = None, **options: Any) -> None:
        options.setdefault("clock", Clock(START))
        self.app = emulator.app(schema=schema, data=data, **options)
        self.effect: Effect | None = None
        self.client = Client(self._wire)
        self.token = self.app.identity.access_token
        self.version = "62.0"

    def _wire(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = self.app(environ, start_response)
        self.effect = effect.taken(environ)
        return body

    @property
    def clock(self) -> Clock:
        return self.app.clock

    def api(self, method: str, path: str, body: Any = None, **more: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.token}", **more.pop("headers", {})}
        if body is not None:
            more["json"] = body
        return self.client.open(f"/services/data/v{self.version}{path}", method=method, headers=headers, **more)

    def control(self, method: str, path: str, body: Any = None, **more: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.app.identity.access_token}", **more.pop("headers", {})}
        if body is not None:
            more["json"] = body
        return self.client.open(f"/emulator{path}", method=method, headers=headers, **more)

    def get(self, path: str) -> Any:
        reply = self.api("GET", path)
        assert reply.status_code == 200, reply.text
        return reply.json

    def create(self, name: str, record: dict[str, Any]) -> str:
        reply = self.api("POST", f"/sobjects/{name}", record)
        assert reply.status_code == 201, reply.text
        rid: str = reply.json["id"]  # type: ignore[index]
        return rid

    def count(self, name: str) -> int:
        total: int = self.get(f"/query?q=SELECT+COUNT()+FROM+{name}")["totalSize"]
        return total

    def open_job(self, name: str, text: str | bytes, operation: str = "insert", **more: Any) -> str:
        """An ingest job with its data, not closed."""
        made = self.api("POST", "/jobs/ingest", {"object": name, "operation": operation, **more})
        assert made.status_code == 200, made.text
        job: str = made.json["id"]  # type: ignore[index]
        put = self.api("PUT", f"/jobs/ingest/{job}/batches", data=text, headers={"Content-Type": "text/csv"})
        assert put.status_code == 201, put.text
        return job

    def close_job(self, job: str, state: str = "UploadComplete") -> TestResponse:
        return self.api("PATCH", f"/jobs/ingest/{job}", {"state": state})

    def job(self, name: str, text: str | bytes, operation: str = "insert", **more: Any) -> str:
        """An ingest job, closed."""
        job = self.open_job(name, text, operation, **more)
        assert self.close_job(job).status_code == 200
        return job

    def info(self, job: str, kind: str = "ingest") -> dict[str, Any]:
        info: dict[str, Any] = self.get(f"/jobs/{kind}/{job}")
        return info

    def results(self, job: str, which: str) -> str:
        reply = self.api("GET", f"/jobs/ingest/{job}/{which}")
        assert reply.status_code == 200, reply.text
        return reply.get_data().decode()

    def rows(self, job: str, which: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.results(job, which), newline="")))

    def close(self) -> None:
        self.app.close()


def names(count: int, first: int = 0) -> str:
    """A file of `count` accounts, n0, n1, ..."""
    return "Name\n" + "".join(f"n{i}\n" for i in range(first, first + count))
