"""Keys and match values that are null or repeated, and what is said of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dinmo_dbt.codes import KEYS_NOT_UNIQUE
from dinmo_dbt.errors import Problem, Refused
from dinmo_dbt.rows.mapping import Mapping
from dinmo_dbt.rows.rowhash import Hashes


@dataclass(frozen=True)
class KeyProblem:
    """Rows that their key, or the value that records are matched by, does not identify. `columns` are the model's,
    `hashes` of the values that several rows have; none where rows have no value."""

    message: str
    columns: tuple[str, ...]
    is_match: bool = False
    hashes: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))


class KeysRefused(Refused):
    """Nothing may be sent of rows that are not told apart."""

    mapping: Mapping
    key_problems: Sequence[KeyProblem]


def key_refusal(problems: Sequence[KeyProblem], relation_name: str, activation: str) -> Problem:
    hint = (
        "mend the model (dbt's unique and not_null tests find such rows), or choose another key or match\n"
        f"dinmo-dbt plan -s {activation} --show-values names some, with a query that finds their rows"
    )
    return Problem(KEYS_NOT_UNIQUE, "; ".join(each.message for each in problems), relation_name, hint)


def keys_refused(problem: Problem, mapping: Mapping, key_problems: Sequence[KeyProblem]) -> KeysRefused:
    error = KeysRefused(problem.code, problem.message, where=problem.where, hint=problem.hint)
    error.mapping, error.key_problems = mapping, key_problems
    return error


def rows_have(count: int) -> str:
    return f"{count:,} row has" if count == 1 else f"{count:,} rows have"


def occurring(count: int, noun: str, which: str = "") -> str:
    return f"1 {noun}{which} occurs" if count == 1 else f"{count:,} {noun}s{which} occur"
