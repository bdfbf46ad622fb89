"""resume: what was paused, by hand or by itself, runs again."""

from __future__ import annotations

from dinmo_dbt.cli import options
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.pausing import set_pauses


def resume(
    flags: Flags,
    as_json: options.Json = False,
) -> None:
    """Resume activations that were paused, by hand or by themselves.

    What was due by the clock meanwhile is not made up for; what dbt built meanwhile is due.

    \b
    Examples:
      dinmo-dbt resume -s customers_to_crm
    """
    set_pauses(flags, as_json, None)
