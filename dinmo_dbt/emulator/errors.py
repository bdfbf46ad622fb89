"""What the emulator says no with: replies in Salesforce's shapes, and its own start-up errors.

Salesforce's error body is an array of objects; inside result items the code is called `statusCode`, in
`sf__Error` it is one text. Source: REST API Developer Guide, errorcodes; Bulk API 2.0, failed results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape


@dataclass(frozen=True, slots=True)
class RowError:
    """Why one record was refused, with Salesforce's own code and text."""

    code: str
    message: str
    fields: tuple[str, ...] = ()
    more: Mapping[str, Any] | None = None  # what else a single record's reply has to say

    def item(self) -> dict[str, Any]:
        """The error inside a collections result."""
        return {"statusCode": self.code, "message": self.message, "fields": list(self.fields)}

    def body(self) -> dict[str, Any]:
        """The error in the body of a refused single-record request."""
        return {**(self.more or {}), "message": self.message, "errorCode": self.code, "fields": list(self.fields)}

    def bulk_text(self) -> str:
        """The `sf__Error` text. The separator of several field names is unverified (a space).

        A value in it can be escaped as in HTML: recorded of restricted picklists, unverified of other codes.
        """
        tail = f"{' '.join(self.fields)} --" if self.fields else "--"
        escaped = self.code == "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"
        message = escape(self.message, {"'": "&#39;", '"': "&quot;"}) if escaped else self.message
        return f"{self.code}:{message}:{tail}"


class ApiError(Exception):
    """A whole request is refused: an HTTP status and Salesforce's error array."""

    def __init__(self, status: int, code: str, message: str, *, fields: tuple[str, ...] | None = None) -> None:
        self.status = status
        entry: dict[str, Any] = {"message": message, "errorCode": code}
        if fields is not None:
            entry["fields"] = list(fields)
        self.body: list[dict[str, Any]] = [entry]
        super().__init__(f"{code}: {message}")

    @classmethod
    def of_rows(cls, status: int, errors: list[RowError]) -> ApiError:
        """The reply to a single-record request whose record was refused."""
        first = errors[0]
        error = cls(status, first.code, first.message, fields=first.fields)
        error.body = [each.body() for each in errors]
        return error


def not_found() -> ApiError:
    """An unknown object, resource or job (recorded traffic of real orgs)."""
    return ApiError(404, "NOT_FOUND", "The requested resource does not exist")


def malformed_id(label: str, text: str, name: str = "Id") -> RowError:
    """The refusal of an id that can't be one of the field's: `label` and `name` are the field's."""
    return RowError("MALFORMED_ID", f"{label}: id value of incorrect type: {text}", (name,))


def not_emulated(what: str) -> ApiError:
    """A request this server understands but does not imitate. 501 is ours: Salesforce never sends it."""
    return ApiError(501, "NOT_EMULATED", f"The dinmo-dbt emulator does not emulate {what}")


class EmulatorError(Exception):
    """The emulator can't start or go on."""


class SchemaError(EmulatorError):
    """A schema file can't be used: the message names the file and the element."""


class RecordsError(EmulatorError):
    """A starting record can't be loaded: the message names the file and the row."""


class FolderInUse(EmulatorError):
    """Another server holds the data folder. `pid` is its process id, 0 when unknown."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        holder = f"process {pid}" if pid else "another process"
        super().__init__(f"the emulator's data folder is in use by {holder}")
