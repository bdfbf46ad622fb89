"""`GET /`: what the org holds and does, as one page of HTML for a person.

It shows counts, ids, names and codes: never a token, a query or a value of a record. It runs no script, loads nothing,
and is served to a loopback Host only, as the control endpoint is. Looking is no call of the API and meets no fault.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from werkzeug.wrappers import Request, Response

from dinmo_dbt.emulator.bulk.job import Job
from dinmo_dbt.emulator.bulk.results import failures

if TYPE_CHECKING:
    from dinmo_dbt.emulator.web.app import App

_JOBS_SHOWN = 20
_CALLS_SHOWN = 50
_CODES_SHOWN = 4
_REFRESH_S = 5
_CODE = re.compile(r"([A-Z_]+):.*:(.*?)\s*--", re.DOTALL)
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


def answer(app: App, request: Request) -> Response:
    """The page; with `?refresh` it loads itself again every 5 seconds."""
    text = _template().render(
        org=app.identity, clock=app.clock, now=app.clock(), calls_used=app.site.usage.requests,
        limits=app.limits, held=len(app.locks.held()), objects=_objects(app), jobs=_jobs(app),
        faults=[_fault(f) for f in app.faults.armed()], changes=len(app.drift.documents),
        calls=app.calls.latest()[:_CALLS_SHOWN], refresh="refresh" in request.args, refresh_s=_REFRESH_S,
    )  # fmt: skip
    response = Response(text, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src '{_digest(text)}'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["thousands"] = "{:,}".format
    return environment.get_template("page.html")


def _digest(text: str) -> str:
    """What Content-Security-Policy calls the page's one style sheet."""
    found = _STYLE.search(text)
    assert found
    return "sha256-" + base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()


def _objects(app: App) -> list[dict[str, Any]]:
    store = app.site.store
    listed = []
    for each in store.schema.objects:
        sql = f'SELECT count(*) FILTER (WHERE "IsDeleted" = 0), count(*) FROM {store.table(each).name}'
        live, every = store.reading().execute(sql).fetchone()
        listed.append({"name": each.name, "label": each.label, "records": live, "deleted": every - live})
    return sorted(listed, key=lambda o: (not o["records"], o["name"]))


def _jobs(app: App) -> list[dict[str, Any]]:
    latest = [job for kind in ("ingest", "query") for job in app.site.jobs.page(kind, None)[0][:_JOBS_SHOWN]]
    latest.sort(key=lambda job: job.number, reverse=True)
    return [_job(app, job) for job in latest[:_JOBS_SHOWN]]


def _job(app: App, job: Job) -> dict[str, Any]:
    why = _codes(app, job) if job.failed else []
    return {
        "id": app.site.store.job_id(job.number), "kind": job.kind, "operation": job.operation, "object": job.object,
        "state": job.state, "created": job.created.replace("T", " "), "processed": job.processed, "failed": job.failed,
        "seconds": job.total_ms / 1000, "error": job.error,
        "codes": why[:_CODES_SHOWN], "more": len(why[_CODES_SHOWN:]),
        "mood": "bad" if job.state in ("Failed", "Aborted") else "good" if job.finished and not job.failed else "busy",
    }  # fmt: skip


def _codes(app: App, job: Job) -> list[tuple[str, int]]:
    """The status codes of the failed rows, each with its fields, most frequent first; texts may hold values."""
    counted: Counter[str] = Counter()
    for error, rows in failures(app.site.store, job).items():
        found = _CODE.match(error)
        code = f"{found[1]} {found[2]}".strip() if found else "failed"
        counted[code] += rows
    return counted.most_common()


def _fault(armed: dict[str, Any]) -> dict[str, Any]:
    shown = {k: v for k, v in armed.items() if v is not None}
    head = {k: shown.pop(k) for k in ("id", "kind", "matched", "fired")}
    return {**head, "call": shown.pop("call", "*"), "settings": shown}
