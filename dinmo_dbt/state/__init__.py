"""State: journal, snapshots, lock and history. The only writer of disk beside dbt's own target folder."""

from dinmo_dbt.state.journal import ActivationState
from dinmo_dbt.state.local import LocalState
from dinmo_dbt.state.marks import Marks
from dinmo_dbt.state.spool import ScanSpool

__all__ = ["ActivationState", "LocalState", "Marks", "ScanSpool"]
