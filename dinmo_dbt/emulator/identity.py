"""Who an org is, and the secrets that are minted with it.

Chance comes from the caller: the operating system's for an org that is served, a seeded one for an org that a
simulation repeats.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from dinmo_dbt.emulator.ids import ALPHABET, base62


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the org is; minted when the folder is created, stable until it is reset.

    `password` and `security_token` belong to the org's one user. `refresh_token` is a new one at the next start
    after it was revoked.
    """

    organization_id: str
    user_id: str
    username: str
    client_id: str
    client_secret: str
    access_token: str
    password: str
    security_token: str
    refresh_token: str

    @classmethod
    def of(cls, meta: Mapping[str, str], *, organization_id: str, user_id: str) -> Identity:
        return cls(
            organization_id=organization_id,
            user_id=user_id,
            username=meta["username"],
            client_id=meta["client_id"],
            client_secret=meta["client_secret"],
            access_token=meta["access_token"],
            password=meta["password"],
            security_token=meta["security_token"],
            refresh_token=meta["refresh_token"],
        )


def chance_of(seed: int | None) -> random.Random:
    """Repeatable with a seed; without one the operating system's, fit for secrets."""
    return random.SystemRandom() if seed is None else random.Random(seed)


def minted(chance: random.Random) -> dict[str, str]:
    """What a new org is known by, as text."""
    instance = letters(chance, 3)
    counter = chance.randrange(1, 62**6 - 1)
    organization = f"00D{instance}{base62(counter, 9)}"
    return {
        "instance": instance,
        "organization_counter": str(counter),
        "username": f"admin@{letters(chance, 8).lower()}.emulator.example",
        "client_id": f"3MVG9{letters(chance, 80)}",
        "client_secret": f"{chance.getrandbits(256):064X}",
        "access_token": access_token(chance, organization),
        "password": letters(chance, 12),
        "security_token": letters(chance, 24),
        "refresh_token": f"5Aep861{letters(chance, 80)}",
    }


def known_by(db: sqlite3.Connection, chance: random.Random, now: str) -> dict[str, str]:
    """What the org is known by, as its store keeps it. What is missing there is minted, and its own session let in.

    A folder may have been written before a secret existed, or its refresh token was revoked. `now` is a `stamp`.
    """
    db.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", minted(chance).items())
    meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
    db.execute("INSERT OR IGNORE INTO token (token, created) VALUES (?, ?)", (meta["access_token"], now))
    return meta


def access_token(chance: random.Random, organization_id: str) -> str:
    """A new session of the org: `00D<15>!` and characters every client's pattern accepts."""
    return f"{organization_id[:15]}!AQ{letters(chance, 86, ALPHABET + '._')}"


def letters(chance: random.Random, count: int, alphabet: str = ALPHABET) -> str:
    return "".join(chance.choice(alphabet) for _ in range(count))
