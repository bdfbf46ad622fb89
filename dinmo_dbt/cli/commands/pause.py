"""pause: no sync runs these activations until they are resumed."""

from __future__ import annotations

from typing import Annotated

import typer

from dinmo_dbt.cli import options
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.pausing import set_pauses
from dinmo_dbt.text.whole_text import whole


def pause(
    flags: Flags,
    reason: Annotated[str, typer.Option("--reason", help="Why; shown wherever the pause is.")],
    as_json: options.Json = False,
) -> None:
    """Pause activations: no sync runs them until they are resumed.

    The dbt target counts: what is paused for prod still runs for dev.

    \b
    Examples:
      dinmo-dbt pause -s customers_to_crm --reason "sales is cleaning up duplicates"
    """
    set_pauses(flags, as_json, whole(reason))
