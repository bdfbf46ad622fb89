"""When the org's schema last changed, for `Last-Modified` of describes and `If-Modified-Since`; and the answers given
since, which need not be made again for each request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from datetime import datetime, timedelta
from typing import Any

from dinmo_dbt.emulator.schema.definitions import Schema

_SECOND = timedelta(seconds=1)
_ANSWERS_MAX = 32


class Freshness:
    """The moment of each schema, in whole seconds of the org's clock: a new schema is always newer than the last.

    A schema counts from when it is first described, also after a restart: too new at worst, so that no client
    goes on with what does not hold any more.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._schema: Schema | None = None
        self._moment: datetime | None = None
        self._answers: dict[Hashable, tuple[Schema, Any]] = {}

    def of(self, schema: Schema) -> datetime:
        with self._lock:
            if schema is not self._schema or self._moment is None:
                now = self._clock().replace(microsecond=0)
                self._moment = now if self._moment is None else max(now, self._moment + _SECOND)
                self._schema = schema
            return self._moment

    def answer(self, schema: Schema, asked: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, or gave when the same was asked of this schema."""
        known = self._answers.get(asked)
        if known is not None and known[0] is schema:
            return known[1]
        made = make()
        with self._lock:
            if len(self._answers) >= _ANSWERS_MAX:
                self._answers.clear()
            self._answers[asked] = schema, made
        return made
