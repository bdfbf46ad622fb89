"""A stand-in for dbt Cloud's Administrative API: real HTTP on loopback, and faults by order.

Written from what dbt documents and other clients show of the API, never from ours: a run goes through its statuses one
call at a time, `run_steps` come only when asked for, a step is named by its index from 1 (none: the last), and its
artifacts are the target folder that dbt left after that step.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cheroot.server import HTTPConnection
from loopback import served
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

TOKEN = "dbtc_CANARY_TOKEN"
ACCOUNT = 4238
_ROUTES = Map(
    [
        Rule("/api/v2/accounts/<int:account>/runs/", endpoint="runs"),
        Rule("/api/v2/accounts/<int:account>/runs/<int:run>/", endpoint="run"),
        Rule("/api/v2/accounts/<int:account>/runs/<int:run>/artifacts/<path:name>", endpoint="artifact"),
    ]
)
_WORDS = {1: "Queued", 2: "Starting", 3: "Running", 10: "Success", 20: "Error", 30: "Cancelled"}
_here = threading.local()


@dataclass
class Step:
    name: str
    artifacts: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Ran:
    """A run: its status at each look, the last one for ever."""

    job: int
    statuses: list[int] = field(default_factory=lambda: [10])
    steps: list[Step] = field(default_factory=list)


@dataclass
class Fault:
    """What one request meets instead of an answer. `cut`: the connection ends after so many bytes of the body (0:
    before any reply); `pause_s`: before the answer."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    pause_s: float = 0.0
    only: str = ""  # paths that hold this; others go on


def step_of(command: str, target: Path) -> Step:
    """The step of a job that ran this command, after which dbt's target folder is this one."""
    names = ("manifest.json", "run_results.json", "catalog.json")
    files = {name: (target / name).read_bytes() for name in names if (target / name).is_file()}
    return Step(f"Invoke dbt with `{command}`", files)


def cloned() -> Step:
    """The steps before dbt's own leave no artifact."""
    return Step("Clone git repository")


class StandIn:
    def __init__(self) -> None:
        self.runs: dict[int, Ran] = {}
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        self.url = ""
        self._closing = threading.Event()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DINMO_DBT_CLOUD_HOST": self.url,
            "DINMO_DBT_CLOUD_ACCOUNT_ID": str(ACCOUNT),
            "DINMO_DBT_CLOUD_TOKEN": TOKEN,
        }

    @contextlib.contextmanager
    def serve(self) -> Iterator[StandIn]:
        with served(self, connection=_Connection) as self.url:
            try:
                yield self
            finally:
                self._closing.set()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        request = Request(environ)
        self.asked.append(request.full_path.rstrip("?"))
        fault = next((fault for fault in self.faults if fault.only in request.path), None)
        if fault is not None:
            self.faults.remove(fault)
            self._closing.wait(fault.pause_s)
            if fault.cut is not None:
                return self._cut(fault, start_response)
            return Response(fault.body, fault.status, fault.headers)(environ, start_response)
        try:
            response = self._answer(request)
        except HTTPException as error:
            response = _document({"code": error.code, "is_success": False, "user_message": error.description}, None)
            response.status_code = error.code or 500
        return response(environ, start_response)

    @staticmethod
    def _cut(fault: Fault, start_response: Any) -> Iterator[bytes]:
        if fault.cut:
            start_response("200 OK", [("Content-Length", str(len(fault.body))), ("Content-Type", "application/json")])
            yield fault.body[: fault.cut]
        _here.connection.socket.shutdown(socket.SHUT_RDWR)

    def _answer(self, request: Request) -> Response:
        endpoint, named = _ROUTES.bind_to_environ(request.environ).match()
        if request.headers.get("Authorization") != f"Token {TOKEN}":
            response = _document({"code": 401, "is_success": False, "user_message": "Invalid token."}, None)
            response.status_code = 401
            return response
        if named["account"] != ACCOUNT:
            raise NotFound
        if endpoint == "runs":
            job = request.args.get("job_definition_id", type=int)
            found = [number for number in self.runs if job is None or self.runs[number].job == job]
            found.sort(reverse=request.args.get("order_by", "id").startswith("-"))
            return _data([self._run(number) for number in found[: int(request.args.get("limit", "100"))]])
        if named["run"] not in self.runs:
            raise NotFound
        if endpoint == "run":
            related = json.loads(request.args.get("include_related", "[]"))
            return _data(self._run(named["run"], steps="run_steps" in related))
        steps = self.runs[named["run"]].steps
        number = request.args.get("step", len(steps), type=int)
        if not 0 < number <= len(steps) or named["name"] not in steps[number - 1].artifacts:
            raise NotFound
        return Response(steps[number - 1].artifacts[named["name"]], content_type="application/json")

    def _run(self, number: int, *, steps: bool = False) -> dict[str, Any]:
        run = self.runs[number]
        status = run.statuses.pop(0) if len(run.statuses) > 1 else run.statuses[0]
        listed = [
            {"id": number * 100 + index, "run_id": number, "index": index, "name": step.name, "status": 10, "logs": "…"}
            for index, step in enumerate(run.steps, 1)
        ]
        return {
            "id": number,
            "account_id": ACCOUNT,
            "job_definition_id": run.job,
            "status": status,
            "status_humanized": _WORDS[status],
            "is_complete": status >= 10,
            "run_steps": listed if steps else [],
        }


class _Connection(HTTPConnection):
    def communicate(self) -> bool:
        _here.connection = self
        return bool(super().communicate())


def _data(data: Any) -> Response:
    return _document({"code": 200, "is_success": True, "user_message": "Success!", "developer_message": ""}, data)


def _document(status: dict[str, Any], data: Any) -> Response:
    return Response(json.dumps({"status": status, "data": data}), content_type="application/json")
