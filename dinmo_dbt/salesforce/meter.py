"""What the replies say of the org: its API calls of the day, and its clock; and how often it was asked."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from decimal import Decimal
from email.utils import parsedate_to_datetime

from dinmo_dbt.codes import LIMIT_USED_UP
from dinmo_dbt.destination import ApiUsage
from dinmo_dbt.errors import LimitReached


class Meter:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls = 0
        self.usage = ApiUsage(0, 0)
        self._org_time: tuple[str, float] | None = None  # by the org's clock and by ours that nobody sets

    def count(self) -> None:
        with self._lock:
            self.calls += 1

    def note(self, headers: Mapping[str, str]) -> None:
        found = re.search(r"(?<!-)api-usage=(\d{1,12})/(\d{1,12})", headers.get("Sforce-Limit-Info", ""))
        if found:
            self.usage = ApiUsage(int(found[1]), int(found[2]))
        if date := headers.get("Date", ""):
            self._org_time = date, time.monotonic()

    @property
    def org_time(self) -> float | None:
        """What time it is by the org's clock, as its last reply says: seconds since the epoch, UTC. None: none did."""
        if self._org_time is None:
            return None
        date, at = self._org_time
        try:
            return parsedate_to_datetime(date).timestamp() + time.monotonic() - at
        except (ValueError, TypeError, OverflowError):
            return None

    def enforce(self, share: Decimal) -> None:
        used, limit = self.usage.used, self.usage.limit
        if limit and used >= limit * share / 100:
            raise LimitReached(
                LIMIT_USED_UP,
                f"{used} of the org's {limit} daily API calls are used; api_share allows {share}%",
                hint="wait for the 24-hour window to move on, or raise api_share in dinmo.yml",
            )
