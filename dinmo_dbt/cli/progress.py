"""A progress bar per activation, on a terminal only: rows sent, accepted, rejected, rate, time left."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from dinmo_dbt.destination import Job


class Shown(Protocol):
    """`run.Progress`, and the number of rows to come."""

    def planned(self, rows: int) -> None: ...
    def sent(self, rows: int) -> None: ...
    def processed(self, job: Job, batch_rows: int) -> None: ...
    def settled(self, succeeded: int, not_delivered: int) -> None: ...


class Silent:
    """Nobody watches."""

    def planned(self, rows: int) -> None: ...
    def sent(self, rows: int) -> None: ...
    def processed(self, job: Job, batch_rows: int) -> None: ...
    def settled(self, succeeded: int, not_delivered: int) -> None: ...


class Bar:
    """A rich progress bar on stderr."""

    def __init__(self, bars: Any, name: str) -> None:
        self.bars = bars
        self.task = bars.add_task(name, total=None, accepted=0, rejected=0, sent_rows=0)
        self.sent_rows = self.accepted = self.rejected = 0

    def planned(self, rows: int) -> None:
        self.bars.update(self.task, total=rows)

    def sent(self, rows: int) -> None:
        self.sent_rows += rows
        self.bars.update(self.task, sent_rows=self.sent_rows)

    def processed(self, job: Job, batch_rows: int) -> None:
        done = self.accepted + self.rejected + min(job.processed, batch_rows)
        self.bars.update(self.task, completed=done, accepted=self.accepted + job.processed - job.failed)

    def settled(self, succeeded: int, not_delivered: int) -> None:
        self.accepted += succeeded
        self.rejected += not_delivered
        done = self.accepted + self.rejected
        self.bars.update(self.task, completed=done, accepted=self.accepted, rejected=self.rejected)


@contextmanager
def progress(name: str, *, enabled: bool) -> Iterator[Shown]:
    """What `sync` reports to; a bar if somebody watches."""
    if not enabled or not is_terminal():
        yield Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("          {task.description}"),
        BarColumn(bar_width=24),
        TextColumn(
            "{task.fields[sent_rows]:,} sent, {task.fields[accepted]:,} accepted, {task.fields[rejected]:,} rejected"
        ),
        _rate_column(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield Bar(bars, name)


def _rate_column() -> Any:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} rows/s" if task.speed else "")

    return Rate()


def is_terminal() -> bool:
    """Whether progress may be drawn: stderr is a terminal that can move its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
