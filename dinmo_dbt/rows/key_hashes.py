"""Hashes by which keys and match values are found again. Pure."""

from __future__ import annotations

import pyarrow as pa

from dinmo_dbt.destination import Field
from dinmo_dbt.rows import values
from dinmo_dbt.rows.rowhash import Digests, Hashes, digest_columns, hash_columns

_KEY_SEED = 0x6B6579  # "key"
_MATCH_SEED = 0x6D61746368  # "match"


def key_hash(keys: pa.Array) -> Hashes:
    """The 64-bit hash that sorts and finds a key."""
    return hash_columns([keys], seed=_KEY_SEED)


def match_hash(matches: pa.Array, by: Field) -> Hashes:
    """Match values as one number each, equal where Salesforce takes two for one; from the model or from Salesforce."""
    return hash_columns([values.fold(values.echo_form(matches, by), by)], seed=_MATCH_SEED)


def as_matched(matches: pa.Array, by: Field) -> pa.Array:
    """Match values of the model in the form in which two of them would be one record; null where there is none."""
    # Two numbers that are one double there, or two moments of one second, are one value as well.
    return values.fold(matches if pa.types.is_string(matches.type) else values.echo_form(matches, by), by)


def match_digests(folded: pa.Array) -> Digests:
    """Of `as_matched` values; the first half is what `KeyProblem.hashes` has."""
    return digest_columns([folded], seed=_MATCH_SEED)
