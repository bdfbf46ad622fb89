"""State: journal, snapshots and history, in a folder, a warehouse or a bucket. Else only dbt's target is written."""

from dinmo_dbt.state.activity import Activity, Pause, Unsent
from dinmo_dbt.state.bucket import BucketState
from dinmo_dbt.state.copied import Place, PlaceKind
from dinmo_dbt.state.local import LocalState
from dinmo_dbt.state.marks import Marks
from dinmo_dbt.state.mounts import open_to_others
from dinmo_dbt.state.runs import Judged, Runs
from dinmo_dbt.state.state_id import StateId
from dinmo_dbt.state.store import Store
from dinmo_dbt.state.tables import TABLES
from dinmo_dbt.state.warehouse import WarehouseState

__all__ = [
    "TABLES",
    "Activity",
    "BucketState",
    "Judged",
    "LocalState",
    "Marks",
    "Pause",
    "Place",
    "PlaceKind",
    "Runs",
    "StateId",
    "Store",
    "Unsent",
    "WarehouseState",
    "open_to_others",
]
