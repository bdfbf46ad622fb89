"""The control endpoint `/emulator/...`: faults, clock, limits, locks, pace and the last calls, as JSON.

    GET    /emulator/faults            the faults armed, with what they matched and hit
    POST   /emulator/faults            arm one: {"kind": "status", "call": "ingest.*", "status": 503, "times": 1}
    DELETE /emulator/faults[/<id>]     disarm one, or all
    GET    /emulator/clock             {"now": "2026-01-02T03:04:05.000000+00:00", "stopped": false}
    POST   /emulator/clock/advance     {"seconds": 60}
    POST   /emulator/clock/set         {"now": "2026-01-02T03:04:05Z"}
    POST   /emulator/clock/stop, run   {}
    GET    /emulator/limits            the limits, and what is used of the daily ones
    POST   /emulator/limits            {"DailyApiRequests": 100}
    DELETE /emulator/limits            forget what was used
    GET    /emulator/logins            which logins the org takes
    POST   /emulator/logins            {"app": "external_client_app", "password_flow": false}
    GET    /emulator/locks             the records held, and until when
    POST   /emulator/locks             {"ids": ["001..."], "seconds": 30}
    DELETE /emulator/locks             release them all
    GET    /emulator/pace              how jobs go on
    POST   /emulator/pace              {"by": "poll"}
    GET    /emulator/schema            what was changed in the schema meanwhile, and what is not as in its source
    POST   /emulator/schema            {"objects": {"Account": {"fields": {"Rating": {"access": "none"}}}}}
    DELETE /emulator/schema            back to the source
    GET    /emulator/calls             the last 200 calls of the API
    GET    /emulator/snapshot          the snapshots taken, by number
    POST   /emulator/snapshot          {}: the org as it is, to go back to
    DELETE /emulator/snapshot          let go of them all
    POST   /emulator/restore           {"snapshot": 1}
    POST   /emulator/reset             {}: as new, with the same identity

Every change needs `Authorization: Bearer <the org's own token>` and, with a body, `Content-Type: application/json`;
every request a loopback Host, so that no web page reaches it by DNS rebinding. These calls are not counted and never
meet a fault. A request that can't be done is `{"error": ...}` with status 400, 401, 403, 404, 405 or 415.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from dinmo_dbt.emulator.bulk.pace import Pace
from dinmo_dbt.emulator.errors import EmulatorError

if TYPE_CHECKING:
    from dinmo_dbt.emulator.web.instance import Instance

_LOOPBACK = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::\d+)?")
_BODY_BYTES_MAX = 1 << 20


def answer(app: Instance, request: Request) -> Response:
    """The reply to one request under `/emulator`."""
    try:
        return _json(_done(app, request))
    except _RefusedError as error:
        return _json({"error": str(error)}, error.status)
    except EmulatorError as error:
        return _json({"error": str(error)}, 400)
    except HTTPException as error:
        return _json({"error": error.name}, error.code or 400)


def is_local(request: Request) -> bool:
    """Whether the Host is a loopback one: a web page that reaches this server by DNS rebinding has another."""
    return _LOOPBACK.fullmatch(request.host) is not None


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


def _done(app: Instance, request: Request) -> Any:
    if not is_local(request):
        raise _RefusedError(403, "the control endpoint answers a loopback Host only")
    path = request.path.rstrip("/")
    act, values = _ROUTES.bind("emulator").match(path, method=request.method)
    if request.method == "GET":
        return act(app, {}, **values)
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    own = app.identity.access_token
    if scheme != "Bearer" or not hmac.compare_digest(token.strip().encode(), own.encode()):
        raise _RefusedError(401, "a change needs Authorization: Bearer and the org's own token")
    return act(app, _body(request) if request.method == "POST" else {}, **values)


def _body(request: Request) -> dict[str, Any]:
    if request.mimetype != "application/json":
        raise _RefusedError(415, "the Content-Type must be application/json")
    data = request.stream.read(_BODY_BYTES_MAX + 1)
    try:
        body = json.loads(data or b"{}") if len(data) <= _BODY_BYTES_MAX else None
    except ValueError as error:
        raise _RefusedError(400, "the body is not JSON") from error
    if not isinstance(body, dict):
        raise _RefusedError(400, f"the body must be a JSON object of at most {_BODY_BYTES_MAX} bytes")
    return body


def _faults(app: Instance, _: dict[str, Any]) -> Any:
    return {"faults": app.faults.armed()}


def _arm(app: Instance, body: dict[str, Any]) -> Any:
    return {"id": app.faults.arm_json(body)}


def _clear_faults(app: Instance, _: dict[str, Any]) -> Any:
    app.faults.clear()
    return {"faults": []}


def _disarm(app: Instance, _: dict[str, Any], number: int) -> Any:
    app.faults.disarm(number)
    return {"faults": app.faults.armed()}


def _clock(app: Instance, _: dict[str, Any]) -> Any:
    return {"now": app.clock().isoformat(timespec="microseconds"), "stopped": app.clock.stopped}


def _move_clock(app: Instance, body: dict[str, Any], how: str) -> Any:
    match how:
        case "advance":
            app.clock.advance(_only(body, "seconds", (int, float)))
        case "set":
            app.clock.set(_moment(_only(body, "now", (str,))))
        case "stop":
            app.clock.stop()
        case "run":
            app.clock.run()
        case _:
            raise _RefusedError(404, "a clock can advance, set, stop and run")
    app.site.worker.wake()
    return _clock(app, body)


def _limits(app: Instance, _: dict[str, Any]) -> Any:
    return {"limits": app.limits.json(), "used": app.site.usage.used()}


def _set_limits(app: Instance, body: dict[str, Any]) -> Any:
    app.limits = app.limits.changed(body)
    return _limits(app, body)


def _clear_usage(app: Instance, body: dict[str, Any]) -> Any:
    app.site.usage.clear()
    return _limits(app, body)


def _logins(app: Instance, _: dict[str, Any]) -> Any:
    return app.logins.json()


def _set_logins(app: Instance, body: dict[str, Any]) -> Any:
    app.logins = app.logins.changed(body)
    return app.logins.json()


def _locks(app: Instance, _: dict[str, Any]) -> Any:
    return {"locks": {rid: until.isoformat() for rid, until in app.locks.held().items()}}


def _lock(app: Instance, body: dict[str, Any]) -> Any:
    ids, seconds = _only(body, "ids", (list,), "seconds"), body.get("seconds", 30)
    if not all(isinstance(i, str) for i in ids) or not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise EmulatorError('locks: {"ids": ["001..."], "seconds": 30}')
    app.lock(ids, seconds)
    return _locks(app, body)


def _unlock(app: Instance, body: dict[str, Any]) -> Any:
    app.locks.release()
    return _locks(app, body)


def _pace(app: Instance, _: dict[str, Any]) -> Any:
    return app.pace.json()


def _set_pace(app: Instance, body: dict[str, Any]) -> Any:
    app.pace = Pace.of(body, app.pace)
    return app.pace.json()


def _schema(app: Instance, _: dict[str, Any]) -> Any:
    return {"changes": app.drift.documents, "approximate": list(app.site.store.schema.approximate)}


def _change_schema(app: Instance, body: dict[str, Any]) -> Any:
    app.change_schema(body)
    return _schema(app, body)


def _clear_schema(app: Instance, body: dict[str, Any]) -> Any:
    app.drift.clear()
    return _schema(app, body)


def _calls(app: Instance, _: dict[str, Any]) -> Any:
    return {"calls": app.calls.latest()}


def _snapshots(app: Instance, _: dict[str, Any]) -> Any:
    return {"snapshots": app.snapshots.numbers()}


def _take_snapshot(app: Instance, body: dict[str, Any]) -> Any:
    _nothing(body)
    return {"snapshot": app.snapshots.add(app.snapshot())}


def _drop_snapshots(app: Instance, body: dict[str, Any]) -> Any:
    app.snapshots.clear()
    return _snapshots(app, body)


def _restore(app: Instance, body: dict[str, Any]) -> Any:
    number = _only(body, "snapshot", (int,))
    app.restore(app.snapshots.get(number))
    return {"snapshot": number}


def _reset(app: Instance, body: dict[str, Any]) -> Any:
    _nothing(body)
    app.reset()
    return {}


_ACTS: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("GET", "/emulator/faults", _faults),
    ("POST", "/emulator/faults", _arm),
    ("DELETE", "/emulator/faults", _clear_faults),
    ("DELETE", "/emulator/faults/<int:number>", _disarm),
    ("GET", "/emulator/clock", _clock),
    ("POST", "/emulator/clock/<how>", _move_clock),
    ("GET", "/emulator/limits", _limits),
    ("POST", "/emulator/limits", _set_limits),
    ("DELETE", "/emulator/limits", _clear_usage),
    ("GET", "/emulator/logins", _logins),
    ("POST", "/emulator/logins", _set_logins),
    ("GET", "/emulator/locks", _locks),
    ("POST", "/emulator/locks", _lock),
    ("DELETE", "/emulator/locks", _unlock),
    ("GET", "/emulator/pace", _pace),
    ("POST", "/emulator/pace", _set_pace),
    ("GET", "/emulator/schema", _schema),
    ("POST", "/emulator/schema", _change_schema),
    ("DELETE", "/emulator/schema", _clear_schema),
    ("GET", "/emulator/calls", _calls),
    ("GET", "/emulator/snapshot", _snapshots),
    ("POST", "/emulator/snapshot", _take_snapshot),
    ("DELETE", "/emulator/snapshot", _drop_snapshots),
    ("POST", "/emulator/restore", _restore),
    ("POST", "/emulator/reset", _reset),
)
_ROUTES = Map([Rule(path, methods=[method], endpoint=act) for method, path, act in _ACTS], merge_slashes=False)


def _only(body: dict[str, Any], key: str, kinds: tuple[type, ...], *more: str) -> Any:
    """The body's one item (besides `more`); anything else is refused by name."""
    for name in body:
        if name not in (key, *more):
            raise EmulatorError(f"unknown key {name}. Known: {', '.join((key, *more))}")
    value = body.get(key)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise EmulatorError(f"{key} is missing or can't be {value!r}")
    return value


def _nothing(body: dict[str, Any]) -> None:
    for name in body:
        raise EmulatorError(f"unknown key {name}: there is nothing to choose")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise EmulatorError(f"{text!r} is no date and time in ISO 8601") from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _json(body: Any, status: int = 200) -> Response:
    response = Response(json.dumps(body), status=status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
