"""The only importer of dbt: the user's own profile and adapter, and a model's rows as Arrow batches.

`target_of` names the chosen target from YAML alone. `connect` opens the connection that dbt would open and gives a
`Warehouse` that reads relations. Nothing here writes to the warehouse, prints, or leaves the process in another
folder. dbt and Arrow are imported when a connection is asked for, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dinmo_dbt.warehouse.profiles import output_of, target_of, targets_of

if TYPE_CHECKING:
    from dinmo_dbt.warehouse.connection import Connected, Warehouse, connect

__all__ = ["Connected", "Warehouse", "connect", "output_of", "target_of", "targets_of"]


def __getattr__(name: str) -> Any:
    if name in ("Connected", "Warehouse", "connect"):
        from dinmo_dbt.warehouse import connection

        return getattr(connection, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
