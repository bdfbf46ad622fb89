"""The credentials of one target, as dbt renders and validates them, and dbt kept quiet meanwhile.

Internal dbt-core 1.x API, used here and nowhere else. `dbt.cli` is never imported: it costs a second and installs
log handlers. No usage tracking: nothing here starts it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
import warnings
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dinmo_dbt.codes import BAD_CREDENTIALS, NO_ADAPTER, PROFILES_NOT_RENDERED
from dinmo_dbt.errors import ConfigError
from dinmo_dbt.warehouse.profiles import Chosen

# The current folder, dbt's flags and Python's warning filters belong to the process: one connection at a time
# may change them.
_process = threading.RLock()

# How dbt's messages begin, before they come to the point. A point that stands elsewhere stands in a value.
_HEAD = r"\A(?:[A-Z][a-z]+ Error\n\s+|Credentials in profile \"[^\"\n]*\", target \"[^\"\n]*\" invalid: )*"
_NO_ENV = re.compile(_HEAD + r"Env var required but not provided: '([^'\n]+)'\s*\Z")
_NO_VAR = re.compile(_HEAD + r"Could not render [^\n]*: Required var '([^'\n]+)' not found in config:")
_NO_ADAPTER = re.compile(_HEAD + r"Could not find adapter type ([\w-]+)!?\s*\Z")
_UNRENDERED = re.compile(_HEAD + r"Could not render ")
_SAFE_MESSAGES = (
    re.compile(_HEAD + r"(required field \"type\" not found)"),
    re.compile(_HEAD + r"(Inconsistency detected between 'path' and 'database' fields in profile)"),
)


@contextlib.contextmanager
def as_dbt_runs(project_dir: Path) -> Iterator[None]:
    """dbt works inside the project's folder and prints as it likes; for as long as this lasts, so do we, unheard.

    Relative paths in a profile (a DuckDB file, a key file) then mean what they mean to dbt. What an adapter prints
    for the user (a login link) goes to stderr: stdout is for answers.
    """
    with _process, warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        before, root = Path.cwd(), logging.getLogger()
        handlers = list(root.handlers)
        os.chdir(project_dir)
        try:
            yield
        finally:
            os.chdir(before)
            # A library that dbt imports calls logging.basicConfig(); everyone's records would go to stderr.
            root.handlers[:] = handlers


def credentials(project_dir: Path, chosen: Chosen, vars: Mapping[str, object], env: Mapping[str, str]) -> Any:
    """dbt's `Credentials` of the chosen target. Raises ConfigError; no message carries a value of the profile."""
    from dbt.config.profile import Profile
    from dbt.config.renderer import ProfileRenderer
    from dbt.flags import set_flags
    from dbt_common.context import set_invocation_context
    from dbt_common.events.event_manager_client import cleanup_event_logger
    from dbt_common.exceptions import DbtBaseException

    set_invocation_context(dict(env))  # env_var() looks there
    cleanup_event_logger()  # or dbt prints "Registered adapter" and the like
    flags = {"PROFILES_DIR": str(chosen.file.parent), "PROJECT_DIR": str(project_dir)}
    set_flags(Namespace(**flags, LOG_CACHE_EVENTS=False, SEND_ANONYMOUS_USAGE_STATS=False))
    try:
        renderer = ProfileRenderer(dict(vars))
        return Profile.render(renderer, chosen.profile, None, chosen.target, None).credentials
    except DbtBaseException as error:
        raise _refused(error, chosen) from None
    except (TypeError, ValueError, AttributeError, KeyError):  # dbt's own, over a list or null where it wants text
        where = f"{chosen.file}: {chosen.profile}.outputs.{chosen.target}"
        message = (
            "dbt can't read this target: a key, `type` perhaps, has a list, a mapping or nothing where text is meant"
        )
        raise ConfigError(BAD_CREDENTIALS, message, where=where, hint="`dbt debug` says more") from None


def _refused(error: Exception, chosen: Chosen) -> ConfigError:
    text = str(error)
    where = f"{chosen.file}: {chosen.profile}.outputs.{chosen.target}"
    if found := _NO_ENV.match(text):
        name = found.group(1)
        return ConfigError(
            PROFILES_NOT_RENDERED,
            f"environment variable '{name}' is not set",
            where=where,
            hint=f"export {name}, or give env_var() a default",
        )
    if found := _NO_VAR.match(text):
        hint = "give it with --vars, or give var() a default"
        return ConfigError(PROFILES_NOT_RENDERED, f"dbt variable '{found.group(1)}' is not set", where=where, hint=hint)
    if found := _NO_ADAPTER.match(text):
        name = found.group(1)
        return ConfigError(
            NO_ADAPTER,
            f"the dbt adapter for type '{name}' is not installed",
            where=where,
            hint=f"pip install dbt-{name} (into the environment that runs dinmo-dbt)",
        )
    if _UNRENDERED.match(text):
        return ConfigError(
            PROFILES_NOT_RENDERED, "a value can't be rendered", where=where, hint="`dbt debug` shows which"
        )
    safe = next((found[1] for pattern in _SAFE_MESSAGES if (found := pattern.match(text))), None)
    safe = safe or _wrong_value(error)
    return ConfigError(BAD_CREDENTIALS, f"dbt refuses this target: {safe}", where=where, hint="`dbt debug` says more")


def _wrong_value(error: Exception) -> str:
    """Which key is wrong, without the value dbt's message quotes: it may be the password."""
    cause = error.__cause__
    validator, instance = getattr(cause, "validator", None), getattr(cause, "instance", None)
    if validator == "required" and isinstance(instance, dict):
        missing = [name for name in getattr(cause, "validator_value", ()) if name not in instance]
        return f"'{missing[0]}' is a required property" if missing else "a key is missing"
    if validator == "additionalProperties" and isinstance(instance, dict):
        known = getattr(cause, "schema", {}).get("properties", {})
        return f"it has no use for {', '.join(repr(str(name)) for name in instance if name not in known)}"
    key = ".".join(str(part) for part in getattr(cause, "path", ()) or ())
    kind = getattr(cause, "validator_value", None)
    wanted = f", which should be of type {kind}" if isinstance(kind, str) else ""
    return f"a wrong value for '{key}'{wanted}" if key else "a key is missing or has a wrong value"


def scrub(text: str, credentials: Any, env: Mapping[str, str]) -> str:
    """`text` with every value of the profile that dbt itself would not show replaced by ‹secret›."""
    shown = {str(value) for _, value in credentials.connection_info()}
    own = [value for value in _texts(vars(credentials)) if value not in shown]
    secrets = own + [
        value for name, value in env.items() if name.startswith(("DBT_ENV_SECRET", "DBT_ENGINE_ENV_SECRET"))
    ]
    for secret in sorted((value for value in secrets if len(value) >= 4), key=len, reverse=True):
        text = text.replace(secret, "‹secret›")
    return text


def _texts(value: object) -> Iterator[str]:
    """All texts in it, however deep: settings, secrets and attached databases are mappings and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif hasattr(value, "__dict__"):
        yield from _texts(vars(value))
