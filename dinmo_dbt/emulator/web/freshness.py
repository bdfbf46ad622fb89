"""When the org's schema last changed, as `Last-Modified` of describes tells and `If-Modified-Since` asks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from dinmo_dbt.emulator.schema.definitions import Schema

_SECOND = timedelta(seconds=1)


class Freshness:
    """The moment of each schema, in whole seconds of the org's clock: a new schema is always newer than the last.

    A schema counts from when it is first described, also after a restart: too new at worst, so that no client is
    told that what it knows still holds when it does not.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._schema: Schema | None = None
        self._moment: datetime | None = None

    def of(self, schema: Schema) -> datetime:
        with self._lock:
            if schema is not self._schema or self._moment is None:
                now = self._clock().replace(microsecond=0)
                self._moment = now if self._moment is None else max(now, self._moment + _SECOND)
                self._schema = schema
            return self._moment
