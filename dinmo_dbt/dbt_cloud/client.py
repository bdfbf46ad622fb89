"""The Administrative API of dbt Cloud (docs.getdbt.com/dbt-cloud/api-v2): a job's runs, and the files they left.

Read-only. All that it answers is checked: an id is digits, a status one that is known, and a body has a bound. No
message carries the token or a word of the service's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote, urlencode, urlsplit

import requests

from dinmo_dbt import __version__, wire
from dinmo_dbt.artifacts.gate import BUILDS, moment_of
from dinmo_dbt.codes import (
    CLOUD_ARTIFACTS_UNUSABLE,
    CLOUD_NOT_CONFIGURED,
    CLOUD_NOT_FOUND,
    CLOUD_RATE_LIMITED,
    CLOUD_REFUSED_TOKEN,
    CLOUD_REPLY_UNUSABLE,
    CLOUD_RUN_NOT_ENDING,
    CLOUD_UNREACHABLE,
)
from dinmo_dbt.config.declaration import show
from dinmo_dbt.errors import DbtCloudError, UsageError, untrusted
from dinmo_dbt.org import LOOPBACK, Secret

if TYPE_CHECKING:
    from dinmo_dbt.clock import Clock


HOST, ACCOUNT, TOKEN, SECRET = (f"DINMO_DBT_CLOUD_{name}" for name in ("HOST", "ACCOUNT_ID", "TOKEN", "WEBHOOK_SECRET"))

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60  # of silence; bytes that come one by one never meet it, so one attempt as a whole is bounded too
JSON_SECONDS_MAX = 120
FILE_SECONDS_MAX = 1_800
# Memory is what counts, of the text and of all that it holds; past these sizes there is not enough of it for any.
JSON_BYTES_MAX = 100_000_000  # run results, and a run whose steps carry their logs
FILE_BYTES_MAX = 150_000_000
FILE_MEMORY_MAX = 320 << 20  # of a manifest once it is read
ATTEMPTS_MAX = 6
BACKOFF_S = 1.0
RETRY_AFTER_MAX_S = 300.0
POLL_S, POLL_MAX_S, POLL_GROWTH = 10.0, 60.0, 1.5  # at most 6 calls a minute of the 5,000 that an account has
WAIT_MAX_S = 86_400.0
TELL_EVERY_S = 300.0
STEPS_MAX = 500
RECENT_MAX = 100  # what the service lists at once


class JobRunStatus(IntEnum):
    """Where a run is, in the service's own numbers."""

    QUEUED = 1
    STARTING = 2
    RUNNING = 3
    SUCCESS = 10
    ERROR = 20
    CANCELLED = 30

    @property
    def is_final(self) -> bool:
        return self >= JobRunStatus.SUCCESS

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Account:
    """Where to ask, and as whom. `url` is the scheme and host of the account's own access URL."""

    url: str
    account_id: str
    token: Secret


@dataclass(frozen=True, slots=True)
class JobRun:
    """One run of a job. `steps`: the numbers of its steps, in order; empty where they were not asked for."""

    run_id: str
    job_id: str
    status: JobRunStatus
    steps: tuple[int, ...] = ()
    project_id: str = ""  # where it is known, as is `ended`, in seconds since the epoch
    ended: float | None = None
    builds: bool = True  # whether a step of it may have built something, as far as their names tell


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    json: Any = None


@dataclass(frozen=True, slots=True)
class _Fault:
    """No answer that can be used. `again`: whether asking once more may help; `after_s`: the service's own wish."""

    code: str
    reason: str
    again: bool = True
    after_s: float | None = None
    hint: str = ""


def account_of(env: Mapping[str, str], *others: str) -> Account:
    """The account that the environment names. UsageError DB220 with every variable that is missing, `others` too."""
    missing = [name for name in (HOST, ACCOUNT, TOKEN, *others) if not env.get(name, "").strip()]
    if missing:
        raise UsageError(
            CLOUD_NOT_CONFIGURED,
            f"not set: {', '.join(missing)}",
            hint="host and account id are those of the account's access URL, the token a service token's"
            + (", the secret is shown when the webhook is made" if SECRET in missing else ""),
        )
    account_id = id_text(env[ACCOUNT].strip())
    if account_id is None:
        raise UsageError(CLOUD_NOT_CONFIGURED, f"{ACCOUNT} is not a number", hint="it stands in dbt Cloud's own URLs")
    return Account(_origin(env[HOST].strip()), account_id, Secret(env[TOKEN].strip()))


def id_text(value: object) -> str | None:
    """An id as its digits, whether it was sent as a number or as text; None if it is neither."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if 0 <= value < 10**20 else ""
    return value if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}", value) else None


class CloudClient:
    """One account's API. Raises DbtCloudError."""

    def __init__(self, account: Account, clock: Clock) -> None:
        self._account = account
        self._clock = clock
        self._session = _plain_session()

    def close(self) -> None:
        self._session.close()

    def latest(self, job_id: str) -> JobRun:
        """The newest run of a job, whatever became of it."""
        return self.of_job(job_id, limit=1)[0]

    def of_job(self, job_id: str, *, limit: int = RECENT_MAX) -> list[JobRun]:
        """The newest runs of a job, the newest first; one at least, whatever became of it."""
        runs = [run for run in self._runs({"job_definition_id": job_id}, limit) if run.job_id == job_id]
        if not runs:
            hint = "see the job's number in its URL, and that the token may read its project"
            raise DbtCloudError(CLOUD_NOT_FOUND, f"dbt Cloud job {job_id} has no run, or is not there", hint=hint)
        return runs

    def of_project(self, project_id: str) -> list[JobRun]:
        """The newest runs of every job of a project, the newest first; of the account, where it is not known."""
        return self._runs({"project_id": project_id} if project_id else {}, RECENT_MAX)

    def _runs(self, of: Mapping[str, str], limit: int) -> list[JobRun]:
        found = self._data("", {**of, "order_by": "-id", "limit": str(limit)}, "no such runs")
        if not isinstance(found, list):
            raise _unexpected("the list of runs is not a list")
        runs = [run for each in found if (run := _listed(each)) is not None]
        if found and not runs:
            raise _unexpected("no run in the list has its id and its job's")
        return sorted(runs, key=lambda run: int(run.run_id), reverse=True)

    def run(self, run_id: str, *, steps: bool = False) -> JobRun:
        """One run; with `steps`, those too."""
        asked = {"include_related": '["run_steps"]'} if steps else {}
        run = _run(self._data(f"{run_id}/", asked, f"no run {run_id}"), steps=steps)
        if run.run_id != run_id:
            raise _unexpected("another run than the one asked for")
        return run

    def finished(self, run: JobRun, tell: Callable[[str], None]) -> JobRun:
        """The run once it has ended; `tell` hears of it when its status changes, and every few minutes."""
        pause, began, said_at = POLL_S, self._clock.monotonic(), 0.0
        heard: JobRunStatus | None = None
        while not run.status.is_final:
            waited = self._clock.monotonic() - began
            if waited >= WAIT_MAX_S:
                raise DbtCloudError(
                    CLOUD_RUN_NOT_ENDING,
                    f"dbt Cloud run {run.run_id} is {run.status.word} after {WAIT_MAX_S / 3600:g} hours",
                )
            if run.status is not heard or waited - said_at >= TELL_EVERY_S:
                tell(f"dbt Cloud run {run.run_id} is {run.status.word}")
                heard, said_at = run.status, waited
            self._clock.sleep(min(pause, WAIT_MAX_S - waited))
            pause = min(POLL_MAX_S, pause * POLL_GROWTH)
            run = self.run(run.run_id)
        return run

    def json(self, run: JobRun, step: int, name: str) -> Any:
        """An artifact that a step left, as JSON values; None where it left none. DB230 where it can't be used."""
        with _of_one_run(run, step, name):
            answer = self._ask(*_artifact(run, step, name))
        return None if answer.status == 404 else answer.json

    def copy(self, run: JobRun, step: int, name: str, file: BinaryIO) -> bool:
        """An artifact that a step left, into `file`; False where it left none. DB230 where it can't be used."""
        with _of_one_run(run, step, name):
            return self._ask(*_artifact(run, step, name), file).status != 404

    def _data(self, path: str, params: Mapping[str, str], otherwise: str) -> Any:
        answer = self._ask(path, params)
        if answer.status == 404:
            hint = "see the account's id, and that the token may read the job's project"
            raise DbtCloudError(CLOUD_NOT_FOUND, f"dbt Cloud has {otherwise} in this account", hint=hint)
        if not isinstance(answer.json, dict) or "data" not in answer.json:
            raise _unexpected("it has no `data`")
        return answer.json["data"]

    def _ask(self, path: str, params: Mapping[str, str], file: BinaryIO | None = None) -> _Answer:
        """A 2xx or 404 answer of `…/runs/<path>`."""
        url = f"{self._account.url}/api/v2/accounts/{self._account.account_id}/runs/{path}"
        if params:
            url += "?" + urlencode(params, quote_via=quote)
        fault = _Fault(CLOUD_UNREACHABLE, "not asked")
        for attempt in range(1, ATTEMPTS_MAX + 1):
            outcome = self._attempt(url, file)
            if isinstance(outcome, _Answer):
                return outcome
            fault = outcome if attempt == 1 else replace(outcome, reason=f"{outcome.reason}, at attempt {attempt}")
            if not fault.again or attempt == ATTEMPTS_MAX:
                break
            backoff_s = BACKOFF_S * 2 ** (attempt - 1)
            self._clock.sleep(backoff_s if fault.after_s is None else min(fault.after_s, RETRY_AFTER_MAX_S) + BACKOFF_S)
        raise DbtCloudError(fault.code, f"{urlsplit(self._account.url).netloc}: {fault.reason}", hint=fault.hint)

    def _attempt(self, url: str, file: BinaryIO | None) -> _Answer | _Fault:
        """One call. What requests raises holds the request, and so the token: it goes no further than here."""
        headers = {**self._session.headers, "Accept": "application/json"}
        headers["Authorization"] = f"Token {self._account.token.reveal()}"
        request = requests.PreparedRequest()  # as it is: no cookie, no password from .netrc
        request.prepare("GET", url, headers)
        attempt = wire.Attempt(JSON_SECONDS_MAX if file is None else FILE_SECONDS_MAX)
        try:
            with (
                attempt,
                self._session.send(
                    request, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S), allow_redirects=False, stream=True
                ) as response,
            ):
                fault = _refusal(response.status_code, response.headers)
                if fault is not None:
                    return fault
                if response.status_code == 404:
                    return _Answer(404)
                if file is not None:
                    file.seek(0)
                    file.truncate()
                    wire.copy(response, file, FILE_BYTES_MAX, attempt)
                    wire.check_cost(file, FILE_MEMORY_MAX)
                    return _Answer(response.status_code)
                return _parsed(response.status_code, wire.text(response, JSON_BYTES_MAX, attempt))
        except wire.Broken as broken:
            code = CLOUD_UNREACHABLE if broken.again else CLOUD_REPLY_UNUSABLE
            return _Fault(code, str(broken), broken.again, hint=f"is {HOST} the account's own?")
        except requests.exceptions.SSLError as error:
            wrong, advice = untrusted(error) or ("", "")
            return _Fault(
                CLOUD_UNREACHABLE, f"its certificate {wrong}" if wrong else "TLS broke", not wrong, hint=advice
            )
        except requests.exceptions.RequestException as error:
            if attempt.is_over:
                return _Fault(CLOUD_UNREACHABLE, attempt.overdue)
            return _Fault(
                CLOUD_UNREACHABLE, f"not reached ({type(error).__name__})", hint=f"is {HOST} the account's own?"
            )


def _artifact(run: JobRun, step: int, name: str) -> tuple[str, dict[str, str]]:
    return f"{run.run_id}/artifacts/{name}", {"step": str(step)}


@contextmanager
def _of_one_run(run: JobRun, step: int, name: str) -> Iterator[None]:
    """What the service says of one file is no word on the service: it gives the list of runs, and not that file."""
    try:
        yield
    except DbtCloudError as error:
        problem = error.problems[0]
        if problem.code != CLOUD_REPLY_UNUSABLE and not (
            problem.code == CLOUD_REFUSED_TOKEN and "HTTP 403" in problem.message
        ):
            raise
        why = problem.message.partition(": ")[2]
        message = f"{name} of step {step} of dbt Cloud run {run.run_id} can't be used: {why}"
        raise DbtCloudError(CLOUD_ARTIFACTS_UNUSABLE, message, hint="run the job again") from None


def _refusal(status: int, headers: Mapping[str, str]) -> _Fault | None:
    """What a status other than 2xx and 404 means."""
    if 200 <= status < 300 or status == 404:
        return None
    if status in (401, 403):
        hint = f"see {TOKEN} and {ACCOUNT}; the token's permission must let it read the job's project"
        return _Fault(CLOUD_REFUSED_TOKEN, f"the token was refused (HTTP {status})", again=False, hint=hint)
    if status < 200:
        return _Fault(CLOUD_UNREACHABLE, f"HTTP {status}, which is no answer yet")
    if status == 429:
        return _Fault(
            CLOUD_RATE_LIMITED, "too many requests (HTTP 429)", after_s=_retry_after(headers), hint="try later"
        )
    if 300 <= status < 400:
        hint = f"set {HOST} to the account's access URL"
        return _Fault(CLOUD_REPLY_UNUSABLE, f"a redirect (HTTP {status}); none is followed", again=False, hint=hint)
    if status >= 500:
        return _Fault(CLOUD_UNREACHABLE, f"HTTP {status}", after_s=_retry_after(headers))
    return _Fault(CLOUD_REPLY_UNUSABLE, f"HTTP {status}", again=False)


def _parsed(status: int, body: bytearray) -> _Answer | _Fault:
    try:
        return _Answer(status, wire.values(body))
    except wire.Broken as broken:
        return _Fault(CLOUD_REPLY_UNUSABLE, str(broken), broken.again, hint=f"is {HOST} the account's own?")


def _run(raw: object, *, steps: bool = False) -> JobRun:
    if not isinstance(raw, dict):
        raise _unexpected("a run is not a mapping")
    run_id, job_id = id_text(raw.get("id")), id_text(raw.get("job_definition_id"))
    if run_id is None or job_id is None:
        raise _unexpected("a run without its id or its job's")
    status = raw.get("status")
    if isinstance(status, bool) or not isinstance(status, int) or status not in JobRunStatus._value2member_map_:
        raise _unexpected("a run with an unknown status")
    listed, project_id = raw.get("run_steps"), id_text(raw.get("project_id")) or ""
    numbers = _steps(listed) if steps else ()
    builds = not steps or any(map(_may_build, listed or ()))
    return JobRun(run_id, job_id, JobRunStatus(status), numbers, project_id, moment_of(raw.get("finished_at")), builds)


def _listed(raw: object) -> JobRun | None:
    """One of many: a run that can't be read keeps no other back. None without its ids; a status that is not known is no
    end of it."""
    try:
        return _run(raw)
    except DbtCloudError:
        ids = (id_text(raw.get("id")), id_text(raw.get("job_definition_id"))) if isinstance(raw, dict) else ()
        return JobRun(ids[0], ids[1], JobRunStatus.RUNNING) if len(ids) == 2 and ids[0] and ids[1] else None


def _steps(raw: object) -> tuple[int, ...]:
    """The numbers by which a run's steps are asked for, from 1."""
    if not isinstance(raw, list) or len(raw) > STEPS_MAX:
        raise _unexpected("a run without the list of its steps, or with too many")
    numbers: set[int] = set()
    for step in raw:
        number = step.get("index") if isinstance(step, dict) else None
        if isinstance(number, bool) or not isinstance(number, int) or not 0 < number <= STEPS_MAX:
            raise _unexpected("a step without its number")
        numbers.add(number)
    return tuple(sorted(numbers))


def _may_build(step: dict[str, Any]) -> bool:
    """Whether a step runs a dbt command that builds, by its name: Invoke dbt with `dbt build`. One that has not begun
    does nothing."""
    name = step.get("name")
    if step.get("status") == JobRunStatus.QUEUED or not isinstance(name, str):
        return not isinstance(name, str)
    return not set(BUILDS).isdisjoint(re.findall("[a-z]+", name.partition("dbt ")[2]))


def _unexpected(what: str) -> DbtCloudError:
    return DbtCloudError(CLOUD_REPLY_UNUSABLE, f"dbt Cloud's reply can't be used: {what}", hint=f"is {HOST} right?")


def _origin(host: str) -> str:
    """scheme://host[:port] of a host name or URL; https, or http on this machine."""
    try:
        parts = urlsplit(host if "://" in host else f"https://{host}")
        name, port = parts.hostname or "", parts.port
    except ValueError:
        name, port, parts = "", None, urlsplit("")
    plain = not parts.username and not parts.password and parts.path in ("", "/") and not parts.query
    loopback = name in LOOPBACK
    if not plain or not (loopback or re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", name)):
        raise UsageError(
            CLOUD_NOT_CONFIGURED,
            f"{HOST} is not a host: {show(name)}",
            hint="write it as emea.dbt.com or cloud.getdbt.com",
        )
    if parts.scheme != "https" and not (loopback and parts.scheme == "http"):
        raise UsageError(
            CLOUD_NOT_CONFIGURED, f"{HOST} must be reached by https", hint="plain http is for this machine only"
        )
    return f"{parts.scheme}://" + (f"[{name}]" if ":" in name else name) + (f":{port}" if port else "")


def _plain_session() -> requests.Session:
    """A session that repeats nothing by itself, and takes nothing from the environment."""
    return wire.session(trust_env=False, user_agent=f"dinmo-dbt/{__version__}", pool_size=1)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait; a date counts from the reply's own Date, so that no clock of ours matters (RFC 9110, 10.2.3)."""
    header = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,6}", header):
        return float(header)
    try:
        moment, sent = parsedate_to_datetime(header), parsedate_to_datetime(headers.get("Date", ""))
        return max(0.0, (moment - sent).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
