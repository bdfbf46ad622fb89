"""How an org behaves that is not in its schema: the keywords that `app` and `serve` hand down to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from dinmo_dbt.emulator.clock import Clock

if TYPE_CHECKING:
    from dinmo_dbt.emulator.bulk.pace import Pace
    from dinmo_dbt.emulator.limits import Limits
    from dinmo_dbt.emulator.logins import Logins


class OrgOptions(TypedDict, total=False):
    """`batch_delay_s` is a pause after each internal batch, for tests that must meet a running job.

    `public_key` (PEM) makes the JWT flow verify signatures. `session_s` ends a session after that many seconds
    without a call; Salesforce's default is 7,200, ours is never. A `seed` makes a new org's ids, secrets and tokens
    the same each time: never serve such an org to others. `pace` says how jobs go on (`batch_delay_s` is its `batch_s`
    where it is not given), `limits` what the org allows, `logins` which logins it takes.
    """

    batch_delay_s: float
    daily_api_requests: int
    public_key: str | None
    session_s: int | None
    seed: int | None
    clock: Clock | None
    pace: Pace | None
    limits: Limits | None
    logins: Logins | None
