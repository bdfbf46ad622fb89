"""A DuckDB profile that names a file and no more, opened without dbt, whose imports take longer than a small run.

What is not surely the same without dbt is dbt's: a key that is not named here, a template that is more than
`env_var('NAME')` or `env_var('NAME', 'default')`, a secret, a variable that is not set, a path that is no plain file.
Mistakes are so too, and dbt says what is wrong with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, ClassVar

_TEXTS = frozenset({"type", "path", "schema", "database"})
_KEYS = _TEXTS | {"threads"}
# In which Jinja and its native types change nothing, and DuckDB sees no scheme, parameter or quote.
_WORDS = r"[\w./~ -]+"
_TEXT = re.compile(_WORDS)
_ENV_VAR = re.compile(r"\{\{ *env_var\( *(['\"])(\w+)\1 *(?:, *(['\"])((?:" + _WORDS + r")?)\3 *)?\) *\}\}")
# Of which dbt makes secrets, or which it keeps to itself.
_DBT_OWN = ("DBT_ENV_", "DBT_ENGINE", "_DBT")
# Of a name with one dot, not at its head, every version of dbt-duckdb makes the same name of a database.
_FILE = re.compile(r"(\w[\w-]*)(\.\w+)?")


@dataclass
class PlainCredentials:
    """What dbt-duckdb's credentials say of such a profile."""

    path: str
    database: str
    schema: str
    config_options: dict[str, Any] | None = None
    keep_open: bool = True
    type: ClassVar[str] = "duckdb"
    remote: ClassVar[None] = None
    retries: ClassVar[None] = None
    attach: ClassVar[tuple[()]] = ()
    is_motherduck: ClassVar[bool] = False

    def connection_info(self) -> Iterator[tuple[str, object]]:
        """What is no secret."""
        yield from (("database", self.database), ("schema", self.schema), ("path", self.path))


class PlainEnvironment:
    """dbt-duckdb's environment of such credentials: one connection, and a cursor of it for each handle."""

    def __init__(self, credentials: PlainCredentials) -> None:
        import duckdb

        self._connection = duckdb.connect(credentials.path, config=dict(credentials.config_options or {}))

    def handle(self) -> PlainHandle:
        return PlainHandle(self._connection.cursor())

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True)
class PlainHandle:
    """A cursor, as dbt-duckdb wraps it."""

    _cursor: Any

    def cursor(self) -> Any:
        return self._cursor

    def close(self) -> None:
        self._cursor.close()


def credentials(written: Mapping[str, Any], env: Mapping[str, str]) -> PlainCredentials | None:
    """Of what profiles.yml says of a target; None where it is for dbt to say."""
    if not written.keys() <= _KEYS or written.get("type") != "duckdb" or not _is_installed():
        return None
    texts = {key: _rendered(written[key], env) for key in _TEXTS & written.keys()}
    threads = written.get("threads", 1)
    path = texts.get("path") or ""
    name = _FILE.fullmatch(path.rpartition("/")[2])
    if None in texts.values() or type(threads) is not int or name is None or path.startswith("//"):
        return None
    database = texts.get("database", name[1])
    return PlainCredentials(path, name[1], texts.get("schema") or "main") if database == name[1] else None


def _rendered(value: object, env: Mapping[str, str]) -> str | None:
    """A text as dbt renders it; None where only dbt can tell."""
    if not isinstance(value, str):
        return None
    missing = False

    def variable(found: re.Match[str]) -> str:
        nonlocal missing
        given = env.get(found[2], found[4])
        missing = missing or given is None or found[2].startswith(_DBT_OWN)
        return given or ""

    rendered = _ENV_VAR.sub(variable, value)
    return None if missing or not _TEXT.fullmatch(rendered) else rendered


def _is_installed() -> bool:
    try:
        metadata.distribution("dbt-duckdb")
    except metadata.PackageNotFoundError:
        return False
    return True
