"""Chance by hash: the same parts give the same number, whatever the thread, the time or Python's hash seed."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")


def draw(*parts: str | int) -> float:
    """A number in [0, 1)."""
    digest = blake2b("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def pick(options: Sequence[T], *parts: str | int) -> T:
    return options[int(draw(*parts) * len(options))]
