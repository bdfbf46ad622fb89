"""How a running org's schema differs from its source: documents laid over it, one after another, kept with the org.

This is how a field is deleted, made required or closed by a permission while clients are at work. A restart reads
the source again and lays the same documents over it; `clear` goes back to the source.
"""

from __future__ import annotations

import json
import threading
from typing import Any

from dinmo_dbt.emulator.errors import SchemaError
from dinmo_dbt.emulator.schema.definitions import Schema
from dinmo_dbt.emulator.schema.document import laid_over, parsed_document
from dinmo_dbt.emulator.store import Store

_KEY = "schema_changes"


class Drift:
    """The changes of one org. `source` is the schema as it was read at this start."""

    def __init__(self, store: Store, source: Schema) -> None:
        self._store = store
        self._source = source
        self._lock = threading.Lock()
        self._documents: list[dict[str, Any]] = []
        self.reload()
        if self._documents:
            try:
                store.change(self._result(self._documents))
            except SchemaError as error:
                raise SchemaError(
                    f"{error}\nThis schema was changed while the org ran, and the change no longer fits its source: "
                    "reset the emulator's data folder"
                ) from error

    @property
    def documents(self) -> list[dict[str, Any]]:
        """What was laid over the source, oldest first."""
        with self._lock:
            return list(self._documents)

    def reload(self) -> None:
        """Know what the store has; its schema is as that says."""
        kept = self._store.meta(_KEY)
        with self._lock:
            self._documents = json.loads(kept) if kept is not None else []

    def lay(self, document: dict[str, Any]) -> None:
        """Change the org's schema from the next call on. SchemaError, and nothing changed, where it can't be so."""
        with self._lock:
            documents = [*self._documents, document]
            self._store.change(self._result(documents))
            self._keep(documents)

    def clear(self) -> None:
        """Go back to the source."""
        with self._lock:
            self._store.change(self._source)
            self._keep([])

    def _result(self, documents: list[dict[str, Any]]) -> Schema:
        schema = self._source
        for document in documents:
            schema = laid_over(schema, parsed_document(document, "schema"))
        missing = {p for o in schema.every for f in o.every if f.custom for p in f.reference_to} - {
            o.name for o in schema.every
        } - {p for o in self._source.every for f in o.every for p in f.reference_to} - {"Group"}  # fmt: skip
        if missing:
            raise SchemaError(f"schema: no object {', '.join(sorted(missing))} to refer to")
        return schema

    def _keep(self, documents: list[dict[str, Any]]) -> None:
        with self._store.writing() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_KEY, json.dumps(documents)))
        self._documents = documents
