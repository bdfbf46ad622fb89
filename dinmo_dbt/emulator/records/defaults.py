"""What a new record holds in fields that it was not given."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa

from dinmo_dbt.emulator.errors import ApiError
from dinmo_dbt.emulator.records.rules import Errors, Origin
from dinmo_dbt.emulator.schema.definitions import Field, SObject, accepted
from dinmo_dbt.emulator.store import Store

DEFAULT_FORMULAS = frozenset({("date", "TODAY()"), ("datetime", "NOW()")})


def default_of(store: Store, sobject: SObject, each: Field, now: str) -> Any:
    """What an insert stores in a field it was not given. `now` is a `stamp`."""
    if each.name == "RecordTypeId":
        ids = [r.id for r in sobject.record_types if r.default and r.usable and r.id is not None]
        return store.codec.decode(ids[0]) if ids else None
    if each.name == "OwnerId":
        return store.user_rid
    if each.default_formula is not None and (each.type, each.default_formula) in DEFAULT_FORMULAS:
        return now[:10] if each.type == "date" else now
    if each.type == "boolean":
        return int(bool(each.default))
    if each.default is None:
        return None
    if each.kind.is_text:
        return str(each.default)
    errors: Errors = {}
    return accepted(each, pa.array([str(each.default)]), Origin(0), errors)[0].as_py()


def auto_number(display: str, counter: int) -> str:
    """An auto-number's text: `PE-{0000}` and 7 give `PE-0007`. Date parts of a format are not emulated."""
    found = re.search(r"\{(0+)\}", display)
    if found is None:
        raise ApiError(400, "NOT_EMULATED", f"The auto-number format {display} is not emulated")
    return display[: found.start()] + str(counter).zfill(len(found[1])) + display[found.end() :]
