"""The error tree: each class with its exit code, each message with a stable code, a place and a way out.

A programmer's mistake is an `assert`; the world's mistake is a `DinmoError`. A rejected record is data in a
sync run, never an exception. No message carries a secret or a row value.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dinmo_dbt.codes import STATE_NOT_WRITABLE
from dinmo_dbt.text.whole_text import whole


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: what, where and what to do next.

    `code` is stable between releases (DB1xx configuration, DB2xx dbt artifacts, DB3xx Salesforce schema,
    DB4xx guards and gates, DB5xx state, DB6xx Salesforce and channels, DB7xx warehouse, DB8xx command line).
    `where` names the file, model and `meta` path, or the object and field.
    """

    code: str
    message: str
    where: str = ""
    hint: str = ""

    def __post_init__(self) -> None:
        """A path or an argument may hold bytes that are no text, and messages go into files and databases."""
        for name in ("message", "where", "hint"):
            object.__setattr__(self, name, whole(getattr(self, name)))

    def at(self, place: Callable[[str], str]) -> Problem:
        """The same, at the place that `place` makes of its own."""
        return replace(self, where=place(self.where))

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        hint = f"\n    {self.hint}" if self.hint else ""
        return f"{self.code} {place}{self.message}{hint}"


class DinmoError(Exception):
    """The world's mistake. Carries one `Problem`; `ConfigError` may carry many.

    `whole` is what it is about in full, row values included: '' unless --show-values asked for it, and for the terminal
    alone. No problem holds it, so neither does the history, a notice or a document.
    """

    exit_code = 1
    whole = ""

    def __init__(self, code: str, message: str, *, where: str = "", hint: str = "") -> None:
        self.problems: tuple[Problem, ...] = (Problem(code, message, where, hint),)
        super().__init__(str(self.problems[0]))

    def add_hint(self, line: str) -> None:
        """One more line of what to do next, of the first problem."""
        first = self.problems[0]
        hint = "\n".join(part for part in (first.hint, line) if part)
        self._set((replace(first, hint=hint), *self.problems[1:]))

    def put(self, place: Callable[[str], str]) -> None:
        """Give each problem the place that `place` makes of its own."""
        self._set(tuple(problem.at(place) for problem in self.problems))

    def _set(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        self.args = ("\n".join(str(problem) for problem in problems),)


class Interrupted(BaseException):
    """The user asked the run to stop, by signal `number`. No error: what is journalled is settled by the next run."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class UsageError(DinmoError):
    """A flag, a selector or an environment that can't be used."""

    exit_code = 2


class ConfigError(DinmoError):
    """`meta`, dinmo.yml, profiles.yml, manifest or the object's schema: every problem found, in one go."""

    exit_code = 2

    @classmethod
    def of(cls, problems: tuple[Problem, ...] | list[Problem]) -> ConfigError:
        """One error that reports all `problems` (at least one), in the order given."""
        first = problems[0]
        error = cls(first.code, first.message, where=first.where, hint=first.hint)
        error._set(tuple(problems))
        return error


class Refused(DinmoError):
    """A guard or the gate said no; nothing was sent."""

    exit_code = 4

    @classmethod
    def of(cls, problem: Problem) -> Refused:
        return cls(problem.code, problem.message, where=problem.where, hint=problem.hint)


class StateError(DinmoError):
    """The state is locked, belongs to something else, is damaged, or has a newer format. It is left untouched."""

    exit_code = 5


class CountsError(DinmoError):
    """The counts of promise 1 do not add up: a defect of ours, never passed over."""

    exit_code = 7


class WarehouseError(DinmoError):
    """The warehouse can't be reached, or the model's relation can't be read."""


class DbtCloudError(DinmoError):
    """dbt Cloud, or the way to it, failed, or its run left nothing to go by."""

    @classmethod
    def of(cls, problem: Problem) -> DbtCloudError:
        return cls(problem.code, problem.message, where=problem.where, hint=problem.hint)


class DestinationError(DinmoError):
    """Salesforce, or the way to it, failed."""


class NotApplied(DestinationError):
    """Known not to have acted: refused, or never reached. Safe to send again within a budget."""


class TooLarge(NotApplied):
    """Refused for its size, by Salesforce or a proxy on the way: fewer rows at once may pass."""


class StillRunning(DestinationError):
    """A job that was sent is not done. It goes on without us, and is asked for later."""


class OutcomeUnknown(DestinationError):
    """May have acted: ask before anything else. Never sent again on a guess."""


class AuthError(DestinationError):
    """Login refused, or the session can't be renewed."""


class WrongOrg(AuthError):
    """It is not the org it has to be that answered the login."""


class ReadOnly(DestinationError):
    """The org takes no writes for now: maintenance. Nothing was applied; the run stops and the next one continues."""


class LimitReached(DestinationError):
    """The org's API limit, or the share of it that `api_share` allows, is used up."""


def unwritable(path: Path, error: OSError) -> StateError:
    """What the system said of a file of ours, in a person's words; nothing that was there before is lost."""
    full = ("the disk is full", "free some space there, and run again")
    forbidden = "let the user that this runs as write there"
    in_the_way = ("something that is no folder lies where a folder belongs", "move it away, and run again")
    known = {
        errno.ENOSPC: full,
        errno.EDQUOT: ("the disk quota is used up", full[1]),
        errno.EROFS: ("the file system is read-only", forbidden),
        errno.EACCES: ("permission denied", forbidden),
        errno.EPERM: ("permission denied", forbidden),
        errno.EEXIST: in_the_way,
        errno.ENOTDIR: in_the_way,
    }
    reason, advice = known.get(error.errno or 0, (error.strerror or "it can't be written", ""))
    return StateError(STATE_NOT_WRITABLE, f"{reason}; what was there before is untouched", where=str(path), hint=advice)


# OpenSSL's X509_V_ERR_: of the certificate itself, not of its signer.
_CERTIFICATES = {
    9: ("is not valid yet", "is this machine's clock right?"),
    10: ("has expired", "is this machine's clock right? If it is, the host's owner has to renew it"),
    62: ("is for another host", "is the address right? A proxy on the way may answer in the host's place"),
    64: ("is for another host", "is the address right? A certificate names hosts, and seldom an IP address"),
}


def untrusted(error: BaseException) -> tuple[str, str] | None:
    """What is wrong with the certificate that a TLS handshake failed on, so before anything was sent, and what to look
    at: '' where its authority is not trusted. None for anything else. It may lie deep in what a library raised for it.
    """
    import ssl  # who asks has loaded it

    inner: object = error
    for _ in range(8):
        if isinstance(inner, ssl.SSLCertVerificationError):
            return _CERTIFICATES.get(inner.verify_code, ("is not trusted", ""))
        if not isinstance(inner, BaseException):
            return None
        inner = getattr(inner, "reason", None) or inner.__cause__ or (inner.args[0] if inner.args else None)
    return None
