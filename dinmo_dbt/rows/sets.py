"""Sets of numbers, by sorting. Pure.

NumPy's own set functions go by a hash table since NumPy 2.3, whose release notes promise speed; on millions of numbers
they take 15 to 20 times as long as a sort does: 3.1 s of CPU for 3,000,000 row numbers with NumPy 2.4.6, 0.2 s here.
With `return_index`, `return_inverse` or `axis` they still sort.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_Number = TypeVar("_Number", bound=np.generic)


def distinct(values: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """Each value once, ascending."""
    ordered = np.sort(values)
    first = np.ones(len(ordered), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def union(some: npt.NDArray[_Number], others: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """Each value of either once, ascending."""
    return distinct(np.concatenate([some, others]))


def without(values: npt.NDArray[_Number], others: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """Each of the values once, ascending, but for those that are among the others."""
    return distinct(values[~among(values, others)])


def among(values: npt.NDArray[Any], others: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Of each value whether it is one of the others, which are of its type."""
    found: npt.NDArray[np.bool_] = pc.is_in(pa.array(values), value_set=pa.array(others)).to_numpy(zero_copy_only=False)
    return found
