"""What a write gives one field, row by row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dinmo_dbt.emulator.schema.definitions import Field

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Cell:
    """One field's values for every row of a write: `given` is None when every row sets it."""

    field: Field
    values: pa.Array
    given: Mask | None = None
