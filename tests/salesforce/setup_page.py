"""The rows that docs/salesforce-setup.md has about refusals, made of what the messages are made of."""

from __future__ import annotations

from dinmo_dbt.salesforce.errors import RETIRED_HINT, hint
from dinmo_dbt.salesforce.refusals import REFUSALS

OF_THE_API = (
    "INVALID_SESSION_ID", "API_DISABLED_FOR_ORG", "API_CURRENTLY_DISABLED", "REQUEST_LIMIT_EXCEEDED", "LIMIT_EXCEEDED",
    "ORG_LOCKED", "INACTIVE_ORG",
)  # fmt: skip


def rows() -> list[str]:
    found = []
    for each in REFUSALS:
        said = ", ".join(part for part in (f"`{each.error}`" if each.error else "", each.words) if part)
        found.append(_row(said or "anything else", each.means, each.mend))
    return [*found, *(_row(f"`{code}`", "", hint(code)) for code in OF_THE_API), _row("HTTP 410", "", RETIRED_HINT)]


def _row(*cells: str) -> str:
    return ("| " + " | ".join(cells) + " |").replace(" -> ", " → ").replace("|  |", "| |")
