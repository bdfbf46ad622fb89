"""The connection that dbt's own adapter opens with the profile's credentials, and a driver's errors in our words."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from dinmo_dbt.text.redaction import SQLSTATES, Foreign
from dinmo_dbt.warehouse.dbt_profile import as_dbt_runs
from dinmo_dbt.warehouse.profiles import Chosen
from dinmo_dbt.warehouse.query import Cause, QueryRefused, cause_of

_MISSING = re.compile(r"does not exist|doesn't exist|not found|NOT_FOUND|Invalid object name", re.IGNORECASE)
_DENIED = re.compile(r"permission|denied|not authori[sz]ed|insufficient privilege", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KnownError:
    """What a driver's error means, by its number or class. `message` is ours, and is said before the driver's words;
    `code`: the driver's number, by which its documentation names the error. `text` and `position`: the server's words
    and the character of the statement that they are about, where the exception's own text is not just these."""

    cause: Cause
    message: str = ""
    code: str = ""
    text: str = ""
    position: int | None = None


# An engine's own reading of its driver's error; None where it does not know it.
Reading = Callable[[BaseException], KnownError | None]


def _unread(_error: BaseException) -> KnownError | None:
    return None


class DbtAdapter:
    """dbt's adapter for one target, without a project. Every thread has a connection of its own, as in dbt."""

    def __init__(self, credentials: Any, project_dir: Path, chosen: Chosen, read: Reading = _unread) -> None:
        """Opens this thread's connection. Raises QueryRefused."""
        from dbt.adapters.factory import get_adapter_class_by_name

        self.type: str = credentials.type
        self.credentials = credentials
        self._project_dir = project_dir
        self._read = read
        self._names = itertools.count()
        with self.errors(connecting=True), as_dbt_runs(project_dir):
            required = _required_config(credentials, chosen)
            self._adapter = get_adapter_class_by_name(self.type)(required, get_context("spawn"))
            self.handle()

    def handle(self) -> Any:
        """This thread's connection: whatever the adapter calls so, mostly the driver's own object."""
        connections = self._adapter.connections
        if connections.get_if_exists() is None:
            with as_dbt_runs(self._project_dir):
                connections.set_connection_name(f"dinmo-{next(self._names)}")
                _ = connections.get_thread_connection().handle
        return connections.get_thread_connection().handle

    def another(self) -> Any:
        """A connection beside this thread's, where one read takes a whole: the caller closes it."""
        from dbt.adapters.contracts.connection import Connection

        with self.errors(connecting=True), as_dbt_runs(self._project_dir):
            wanted = Connection(type=self.type, name=f"dinmo-{next(self._names)}", credentials=self.credentials)
            return self._adapter.connections.open(wanted).handle

    def close(self) -> None:
        with self.errors():
            self._adapter.cleanup_connections()
            close_all = getattr(type(self._adapter.connections), "close_all_connections", None)
            if close_all is not None:
                close_all()

    def errors(self, sql: str = "", *, connecting: bool = False) -> AbstractContextManager[None]:
        return driver_errors(self._read, sql, connecting=connecting)


@contextmanager
def driver_errors(read: Reading, sql: str = "", *, connecting: bool = False) -> Iterator[None]:
    """Any exception in our words: drivers are many, and so are their classes."""
    try:
        yield
    except QueryRefused:
        raise
    except Exception as error:
        causes = list(_causes(error))
        state = next((state for state in map(_state, causes) if state), "")
        known = next((known for known in map(read, causes) if known), None)
        known = known or KnownError(_cause(state, str(error)))
        code = known.code or state
        kind = SQLSTATES.get(code) or SQLSTATES.get(state) or type(error).__name__
        foreign = Foreign(known.text or str(error), kind, code, sql, known.position, link=connecting)
        message = known.message or ("can't connect" if connecting else "")
        raise QueryRefused(Cause.OTHER if connecting else known.cause, message, foreign) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what dbt, or the driver, made it of."""
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _state(error: BaseException) -> str:
    """The SQLSTATE that the driver gives beside the text, if it is a known one."""
    given = (getattr(error, name, None) for name in ("sqlstate", "pgcode"))
    return next((state for state in given if isinstance(state, str) and state in SQLSTATES), "")


def _cause(state: str, text: str) -> Cause:
    """By the code; where the driver has none, by the words in the text, which decide the hint and no more."""
    if state:
        return cause_of(state)
    if _MISSING.search(text):
        return Cause.MISSING
    return Cause.DENIED if _DENIED.search(text) else Cause.OTHER


def _required_config(credentials: Any, chosen: Chosen) -> Any:
    """dbt-adapters' `AdapterRequiredConfig`, without a project."""
    from dbt.adapters.contracts.connection import QueryComment

    @dataclass
    class Required:
        credentials: Any
        profile_name: str
        target_name: str
        threads: int = 1
        project_name: str = "dinmo"
        query_comment: Any = field(default_factory=lambda: QueryComment(comment=""))
        cli_vars: dict[str, Any] = field(default_factory=dict)
        target_path: str = "target"
        log_cache_events: bool = False

    return Required(credentials, chosen.profile, chosen.target)
