"""`GET /`: what the org holds and does, as one page of HTML for a person.

It shows counts, ids, names and codes: never a token, a query or a value of a record. It runs no script, loads nothing,
and is served to a loopback Host only, as the control endpoint is. Looking is no call of the API and meets no fault.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from werkzeug.wrappers import Request, Response

from dinmo_dbt.emulator.bulk.job import Job
from dinmo_dbt.emulator.bulk.results import reasons
from dinmo_dbt.emulator.faults.fault import KINDS
from dinmo_dbt.emulator.limits import RECORD_KB
from dinmo_dbt.emulator.web.call import FIRST_VERSION, LAST_VERSION

if TYPE_CHECKING:
    from dinmo_dbt.emulator.web.instance import Instance

_JOBS_SHOWN = 20
_CALLS_SHOWN = 50
_REASONS_SHOWN = 4
_REASONS_OF_ROWS_MAX = 100_000  # in the whole list of jobs, at 1 µs each; the others tell theirs when they are opened
_REFRESH_S = 5
_DAILY = {
    "DailyApiRequests": "API calls", "DailyBulkApiBatches": "Bulk batches", "DailyBulkRows": "Bulk rows",
    "DailyBulkV2QueryJobs": "Bulk queries",
}  # fmt: skip
# What a failed job says, without what it found in the file: that can be anything where a header is missing.
_JOB_ERROR = re.compile(r"\w+ ?: ?[^:]*|[^:]*")
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


def answer(app: Instance, request: Request) -> Response:
    """The page; with `?job=<id>` one job opened, with `?refresh` it loads itself again every 5 seconds."""
    app.site.worker.tend()
    asked = request.args.get("job")
    opened = _opened(app, asked) if asked else None
    objects = _objects(app)
    text = _template().render(
        org=app.identity, versions=f"v{FIRST_VERSION}.0 to v{LAST_VERSION}.0", clock=app.clock, now=app.clock(),
        sessions=app.site.sessions.count(), held=len(app.locks.held()), changes=len(app.drift.documents),
        objects=objects, limits=_limits(app, sum(each["records"] for each in objects)), asked=asked, opened=opened,
        jobs=_jobs(app), faults=[_fault(each) for each in app.faults.armed()], calls=_calls(app),
        refresh="refresh" in request.args, refresh_s=_REFRESH_S,
    )  # fmt: skip
    status = 404 if asked and opened is None else 200
    response = Response(text, status=status, content_type="text/html; charset=utf-8")
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


def _objects(app: Instance) -> list[dict[str, Any]]:
    store = app.site.store
    listed = []
    for each in store.schema.objects:
        sql = f'SELECT count(*) FILTER (WHERE "IsDeleted" = 0), count(*) FROM {store.table(each).name}'
        live, every = store.reading().execute(sql).fetchone()
        listed.append({"name": each.name, "label": each.label, "records": live, "deleted": every - live})
    return sorted(listed, key=lambda each: each["name"])


def _limits(app: Instance, records: int) -> list[dict[str, Any]]:
    allowed, used = app.limits.json(), app.site.usage.used()
    daily = [{"name": label, "used": used[name], "most": allowed[name]} for name, label in _DAILY.items()]
    return [*daily, {"name": "Storage, MB", "used": records * RECORD_KB // 1024, "most": allowed["DataStorageMB"]}]


def _jobs(app: Instance) -> list[dict[str, Any]]:
    latest = [job for kind in ("ingest", "query") for job in app.site.jobs.page(kind, None)[0][:_JOBS_SHOWN]]
    latest.sort(key=lambda job: job.number, reverse=True)
    left, listed = _REASONS_OF_ROWS_MAX, []
    for job in latest[:_JOBS_SHOWN]:
        listed.append(_job(app, job, counted=job.failed <= left))
        left -= job.failed if job.failed <= left else 0
    return listed


def _opened(app: Instance, job_id: str) -> dict[str, Any] | None:
    number = app.site.store.codec.job_number(job_id)
    job = app.site.jobs.get(app.site.store.reading(), number) if number is not None else None
    return _job(app, job, counted=True) if job is not None else None


def _job(app: Instance, job: Job, *, counted: bool) -> dict[str, Any]:
    """A job, with the reasons of its failed rows if they are to be counted."""
    why = reasons(app.site.store, job).most_common() if counted and job.failed else []
    said = _JOB_ERROR.match(job.error or "")
    return {
        "id": app.site.store.codec.job_id(job.number), "kind": job.kind, "operation": job.operation,
        "object": job.object, "external_id": job.external_id, "version": job.api_version, "retries": job.retries,
        "state": job.state, "mood": _mood(job), "created": _time(job.created), "changed": _time(job.changed),
        "processed": job.processed, "failed": job.failed, "seconds": job.total_ms / 1000,
        "error": said[0].strip() if said else "", "reasons": why, "shown": why[:_REASONS_SHOWN],
        "more": len(why[_REASONS_SHOWN:]), "uncounted": not counted,
    }  # fmt: skip


def _mood(job: Job) -> str:
    if job.state in ("Failed", "Aborted"):
        return "bad"
    return "good" if job.finished and not job.failed else "busy"


def _time(stamped: str) -> str:
    return stamped.replace("T", " ")[:19]


def _fault(armed: dict[str, Any]) -> dict[str, Any]:
    shown = dict(armed)
    head = {key: shown.pop(key) for key in ("id", "kind", "matched", "fired")}
    times = shown.pop("times", None)
    left = times - head["fired"] if times is not None else None
    return {**head, "left": left, "call": shown.pop("call", KINDS[head["kind"]].calls), "settings": shown}


def _calls(app: Instance) -> list[dict[str, Any]]:
    """The last calls, newest first; a run of the same, as when a job is polled, is one line: its last, its slowest."""
    alike = ("method", "path", "status", "fault", "agent", "session")
    runs = []
    for _, same in groupby(app.calls.latest(), key=lambda call: [call[name] for name in alike]):
        run = list(same)
        runs.append({**run[0], "ms": max(call["ms"] for call in run), "times": len(run)})
    return runs[:_CALLS_SHOWN]
