"""Stored values as the API prints them: JSON for REST, text for Bulk's CSV.

REST prints doubles with a point and dateTimes as `...000+0000`; Bulk prints Java's doubles and `...000Z`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.emulator.schema.definitions import Field
from dinmo_dbt.emulator.store import Store


def json_value(store: Store, field: Field, value: Any) -> Any:
    """A stored value as REST prints it. Whether large doubles are printed in E notation is unverified."""
    if value is None:
        return field.kind.empty
    return store.codec.encode(value) if field.kind.is_id else field.kind.json(value)


def csv_text(store: Store, field: Field, values: list[Any]) -> pa.Array:
    """Stored values as Bulk prints them; null is the empty string."""
    if field.kind.is_id:
        rids = np.array([-1 if v is None else v for v in values], np.int64)
        return pc.fill_null(store.codec.encode_many(rids), "")
    return pc.fill_null(field.kind.csv(values), "")
