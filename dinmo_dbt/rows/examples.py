"""Examples of rows that can't be distinguished: for those who may see values. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.rows import values
from dinmo_dbt.rows.arrow import plain
from dinmo_dbt.rows.key_hashes import as_matched, key_hash, match_digests
from dinmo_dbt.rows.key_problems import KeyProblem
from dinmo_dbt.rows.keys import key_text
from dinmo_dbt.rows.mapping import Mapping
from dinmo_dbt.rows.reasons import unreadable
from dinmo_dbt.rows.rowhash import Hashes

VALUES_MAX = 5
ROWS_MAX = 20


@dataclass
class Examples:
    """Some of the rows that a problem is of. `values`: how many have each key or match value, as it is compared; None
    is for none. `rows`: what the warehouse holds in the problem's columns, each once."""

    problem: KeyProblem
    values: Counter[str | None] = field(default_factory=Counter)
    rows: dict[tuple[object, ...], None] = field(default_factory=dict)

    def look(self, batch: pa.RecordBatch, mapping: Mapping) -> None:
        compared, hashes, is_sound = _compared(self.problem, batch, mapping)
        if len(self.problem.hashes):
            wanted = pa.array(np.isin(hashes, self.problem.hashes[:VALUES_MAX]))
        else:
            wanted = pc.and_(pc.is_null(compared), pa.array(is_sound))
        if not pc.any(wanted).as_py():
            return
        self.values.update(compared.filter(wanted).to_pylist())
        held = [_held(batch.column(name).filter(wanted)) for name in self.problem.columns]
        for row in zip(*held, strict=True):
            if len(self.rows) < ROWS_MAX:
                self.rows.setdefault(row)


def sources(problems: Iterable[KeyProblem]) -> tuple[str, ...]:
    """The model columns that are to be read for them."""
    return tuple(dict.fromkeys(name for problem in problems for name in problem.columns))


def examples(batches: Iterable[pa.RecordBatch], mapping: Mapping, problems: Iterable[KeyProblem]) -> list[Examples]:
    found = [Examples(problem) for problem in problems]
    for batch in batches:
        for each in found:
            each.look(batch, mapping)
    return found


def _held(array: pa.Array) -> list[object]:
    """The values as Python has them; the text of those that it has no type for, as of nanoseconds or the year 10000."""
    array = plain(array)
    try:
        found: list[object] = array.to_pylist()
    except (ValueError, OverflowError):
        found = array.cast(pa.utf8()).to_pylist()
    return found


def _compared(
    problem: KeyProblem, batch: pa.RecordBatch, mapping: Mapping
) -> tuple[pa.Array, Hashes, npt.NDArray[np.bool_]]:
    """The texts of a batch's keys or match values, null for none; their hashes, 0 for none; and where a value that is
    none is not one that can't be sent or read, which is no such problem."""
    is_sound = np.ones(batch.num_rows, np.bool_)
    if problem.is_match:
        match = mapping.match
        assert match is not None
        held, unfit = values.canonical(batch.column(match.source), match.field, keep_nulls=match.keep_nulls)
        for reasons in (unfit, unreadable(batch, match.source)):
            is_sound &= True if reasons is None else reasons == 0
        compared = as_matched(held, match.field)
        text = values.text(compared, match.field)
        hashed = match_digests(compared.drop_null())[:, 0]
    else:
        compared = text = key_text([batch.column(name) for name in problem.columns])
        hashed = key_hash(compared.drop_null())
    hashes = np.zeros(len(compared), np.uint64)
    hashes[compared.is_valid().to_numpy(zero_copy_only=False)] = hashed
    return text, hashes, is_sound
