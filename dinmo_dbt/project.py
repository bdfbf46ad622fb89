"""dinmo.yml: destinations per dbt target, defaults, state and emulator. Only the chosen target renders."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path


class Secret:
    """A text that never shows itself: `repr`, `str`, `format` and pickling give a mask; `reveal()` gives the text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return (Secret, ("***",))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to log in: `jwt`, `client_credentials` or `access_token`; only that flow's values are set."""

    flow: str
    login_url: str = ""
    client_id: str = ""
    username: str = ""
    private_key_path: Path | None = None
    client_secret: Secret | None = None
    instance_url: str = ""
    access_token: Secret | None = None


@dataclass(frozen=True, slots=True)
class Org:
    """The org that a destination means under the chosen dbt target. No credentials: the embedded emulator."""

    destination: str
    target: str
    credentials: Credentials | None
    organization_id: str | None = None
    api_share: Decimal = field(default=Decimal(80))  # percent of the org's daily API calls

    @property
    def is_emulator(self) -> bool:
        return self.credentials is None
