"""The turns of one command, several at once: each is taken as soon as nothing before it is in its way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from dinmo_dbt.cli.drawing import reach

if TYPE_CHECKING:
    from dinmo_dbt.cli.due import Turn
    from dinmo_dbt.cli.lanes import Reach
    from dinmo_dbt.cli.session import Session


def take_all(session: Session, turns: Sequence[Turn], threads: int, take: Callable[[Session, Turn], None]) -> None:
    """Take each one's turn, in their order but for those that do not meet: up to `threads` of them at once, each thread
    with a session of its own. What a turn raises is raised once the others under way are through; no other begins."""
    count = min(threads, len(turns))
    if count <= 1:
        for turn in turns:
            take(session, turn)
        return
    queue = _Queue([(turn, reach(session, turn.activation)) for turn in turns])
    workers = [
        threading.Thread(target=_work, args=(queue, session, take), name=f"sync-{number}") for number in range(count)
    ]
    session.console.shared = True
    begun = []
    try:
        for worker in workers:
            worker.start()
            begun.append(worker)
    except RuntimeError as error:  # the system gives no more threads: those that run take all the turns
        if not begun:
            queue.fail(error)
    finally:
        for worker in begun:
            worker.join()
        session.console.shared = False
    if queue.error is not None:
        raise queue.error


def _work(queue: _Queue, session: Session, take: Callable[[Session, Turn], None]) -> None:
    try:
        with session.beside() as own:
            while (turn := queue.next()) is not None:
                take(own, turn)
                queue.done(turn)
    except BaseException as error:  # noqa: BLE001 - raised again where all of them are waited for
        queue.fail(error)


class _Queue:
    """What is to be taken and what is under way. Safe to use from several threads."""

    def __init__(self, waiting: Iterable[tuple[Turn, Reach]]) -> None:
        self._waiting = list(waiting)
        self._under_way: dict[str, Reach] = {}
        self._changed = threading.Condition()
        self.error: BaseException | None = None

    def next(self) -> Turn | None:
        """Wait for one that may be taken; None once none waits."""
        with self._changed:
            while self._waiting:
                place = free([each for _, each in self._waiting], list(self._under_way.values()))
                if place is not None:
                    turn, own = self._waiting.pop(place)
                    self._under_way[turn.activation.name] = own
                    return turn
                self._changed.wait()
            return None

    def done(self, turn: Turn) -> None:
        with self._changed:
            del self._under_way[turn.activation.name]
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """A worker is gone: nothing more is begun."""
        with self._changed:
            self.error = self.error or error
            self._waiting.clear()
            self._changed.notify_all()


def free(waiting: Sequence[Reach], under_way: Sequence[Reach]) -> int | None:
    """The place of the first that meets nothing under way and nothing that waits before it; None if there is none."""
    before = list(under_way)
    for place, each in enumerate(waiting):
        if not any(each.meets(other) for other in before):
            return place
        before.append(each)
    return None
