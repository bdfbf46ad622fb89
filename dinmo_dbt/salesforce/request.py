"""One call of Salesforce's API as a value: what is sent, what it does when it arrives, and the reply it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

API_VERSION = "62.0"  # results, and the ids in failed rows, need 53 or later; newer versions change nothing we use
FILE_BYTES_MAX = 1 << 30


class CallEffect(Enum):
    """What a call does when it arrives, and so what may follow a reply that never came."""

    NOTHING = "nothing"  # a read, or a call that changes no record: sent again; in the end NotApplied
    STAGES = "stages"  # stages data, changes no record, must not be repeated: NotApplied at once
    REPEATABLE = "repeatable"  # the same end state once or twice: sent again; in the end OutcomeUnknown
    ONCE = "once"  # never sent again after a doubt: OutcomeUnknown at once

    @property
    def repeats(self) -> bool:
        return self in (CallEffect.NOTHING, CallEffect.REPEATABLE)

    @property
    def acts(self) -> bool:
        return self in (CallEffect.REPEATABLE, CallEffect.ONCE)


@dataclass(frozen=True, slots=True)
class Request:
    """One call, as often as it is sent. `path` is below `/services/data/vNN.N/` unless it starts with `/`."""

    method: str
    path: str
    effect: CallEffect = CallEffect.NOTHING
    params: Mapping[str, str] | None = None
    body: bytes | BinaryIO | None = None
    content_type: str = "application/json; charset=UTF-8"
    accept: str = "application/json"
    holds_values: bool = False  # row values in the request: Salesforce's words about it stay out of messages
    file: BinaryIO | None = None  # where the body goes; None: it is JSON
    file_bytes_max: int = FILE_BYTES_MAX
    exact_numbers: bool = False  # JSON numbers arrive as their text
    is_whole: Callable[[Any], bool] | None = None  # whether the JSON has the promised shape
    before: Callable[[], None] | None = None  # each time it is sent


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply of status 2xx. `json` is None when the body was empty or went to a file."""

    status: int
    headers: Mapping[str, str]
    json: Any = None


def url_of(instance_url: str, request: Request) -> str:
    path = request.path if request.path.startswith("/") else f"/services/data/v{API_VERSION}/{request.path}"
    assert not path.startswith("//") and ".." not in path, path
    if request.params:
        # %20 and %2B, never `+`: servers differ on what a plus in a query means.
        path += "?" + urlencode(request.params, quote_via=quote)
    return instance_url + path


def name_of(request: Request) -> str:
    """Method and path without its query, which can hold row values."""
    return f"{request.method} {request.path.partition('?')[0]}"
