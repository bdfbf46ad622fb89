"""A dbt model, as dbt's manifest has it: what an activation's rows come from. Seeds and snapshots are models here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """What activations, selections and messages need to know of it.

    `relation_name` is quoted as the warehouse takes it; '' where dbt builds none. `file` is the model's own, from the
    project's folder; `columns` are those that its YAML documents, `primary_key` those that dbt's tests make one.
    """

    unique_id: str
    name: str
    relation_name: str
    resource_type: str
    fqn: tuple[str, ...]
    tags: tuple[str, ...]
    file: str
    columns: tuple[str, ...] = ()
    primary_key: tuple[str, ...] = ()
    contract_enforced: bool = False
