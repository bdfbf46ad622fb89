"""What happens to a reply on its way: the hand-over from the application, which decides, to the transport, which does.

A WSGI application can't drop a connection or be slow without a thread; it leaves an Effect in the environ, and
the HTTP server and the in-process adapter carry it out, each in its own way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_KEY = "emulator.effect"
_AGAIN = "emulator.again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """`delay_s` passes before the reply; then the connection breaks, or after `cut_after` bytes of the body.

    `lost` breaks it before the first byte of the reply. A cut body keeps the headers of the whole one.
    `bytes_per_s` lets the body trickle. `repeat` has the request handled a second time, as a proxy that replays it
    would; the client reads the first reply.
    """

    delay_s: float = 0.0
    lost: bool = False
    cut_after: int | None = None
    bytes_per_s: float | None = None
    repeat: bool = False


def leave(environ: dict[str, Any], effect: Effect) -> None:
    environ[_KEY] = effect


def taken(environ: dict[str, Any]) -> Effect | None:
    """The effect of this request, once."""
    effect: Effect | None = environ.pop(_KEY, None)
    return effect


def again(environ: dict[str, Any]) -> dict[str, Any]:
    """The same request, handled a second time: faults have had their turn."""
    return {**environ, _AGAIN: True}


def is_again(environ: dict[str, Any]) -> bool:
    return _AGAIN in environ
