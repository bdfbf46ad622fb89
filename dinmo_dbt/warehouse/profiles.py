"""profiles.yml: which file, which profile, which target. Plain YAML; neither dbt nor a connection is needed.

Only the two names are rendered here. Credentials are rendered by dbt itself (`dbt_profile`), by its own rules, but for
those of a plain file (`plain_duckdb`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dinmo_dbt.codes import NO_PROFILES, PROFILES_NOT_RENDERED, UNKNOWN_PROFILE
from dinmo_dbt.config import document
from dinmo_dbt.durable import read_file
from dinmo_dbt.errors import ConfigError

_PROFILES_DIR = ("DBT_ENGINE_PROFILES_DIR", "DBT_PROFILES_DIR")
_PROFILE = ("DBT_ENGINE_PROFILE", "DBT_PROFILE")
_TARGET = ("DBT_ENGINE_TARGET", "DBT_TARGET")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The target that a command means: its names and the file that describes it. `outputs`: what that says of the
    profile's targets, nothing of it rendered."""

    file: Path
    profile: str
    target: str
    outputs: Mapping[Any, Any] = field(repr=False)  # secrets are in it

    @property
    def written(self) -> Mapping[str, Any]:
        """What the file says of the target; nothing for one whose name is no text there."""
        return _mapping(self.outputs.get(self.target))


def target_of(
    project_dir: Path,
    profiles_dir: Path | None,
    profile: str | None,
    target: str | None,
    env: Mapping[str, str],
    *,
    vars: Mapping[str, object] | None = None,
) -> tuple[str, str]:
    """The names of the chosen profile and target: flag, then `DBT_*` variable, then the files, as dbt does.

    Raises ConfigError when there is no such profile or target. Takes milliseconds: no dbt, no connection.
    """
    chosen = choose(project_dir, profiles_dir, profile, target, env, vars=vars or {})
    return chosen.profile, chosen.target


def targets_of(
    project_dir: Path,
    profiles_dir: Path | None,
    profile: str | None,
    env: Mapping[str, str],
    *,
    vars: Mapping[str, object],
) -> list[str]:
    """The names of all targets of the chosen profile. ConfigError as `target_of`."""
    chosen = choose(project_dir, profiles_dir, profile, None, env, vars=vars)
    return sorted(str(name) for name in chosen.outputs)


def output_of(
    project_dir: Path, profiles_dir: Path | None, profile: str, target: str, env: Mapping[str, str]
) -> Mapping[str, Any]:
    """What profiles.yml says of a target, nothing of it rendered. ConfigError as `target_of`."""
    return choose(project_dir, profiles_dir, profile, target, env, vars={}).written


def choose(
    project_dir: Path,
    profiles_dir: Path | None,
    profile: str | None,
    target: str | None,
    env: Mapping[str, str],
    *,
    vars: Mapping[str, object],
) -> Chosen:
    """As `target_of`, with the profiles.yml that was found."""
    file = profiles_file(project_dir, profiles_dir, env)
    profiles = _mapping(_read_yaml(file))
    profile = profile or _first(_PROFILE, env) or _project_profile(project_dir, env, vars)
    known = sorted(str(name) for name in profiles if name != "config")
    if profile not in profiles:
        raise ConfigError(
            UNKNOWN_PROFILE,
            f"no profile '{profile}'{_did_you_mean(profile, known)}",
            where=str(file),
            hint=f"it has: {', '.join(known) or 'none'}. dbt_project.yml names one (`profile:`), or --profile does",
        )
    written = _mapping(profiles[profile])
    outputs = _mapping(written.get("outputs"))
    names = sorted(str(name) for name in outputs)
    target = target or _first(_TARGET, env) or _written_target(written, file, profile, env, vars)
    if target not in names:
        raise ConfigError(
            UNKNOWN_PROFILE,
            f"profile '{profile}' has no target '{target}'{_did_you_mean(target, names)}",
            where=str(file),
            hint=f"its targets: {', '.join(names) or 'none'}. --target chooses one, or the profile's `target:` does",
        )
    return Chosen(file, profile, target, outputs)


def profiles_file(project_dir: Path, profiles_dir: Path | None, env: Mapping[str, str]) -> Path:
    """The file that dbt would read. ConfigError DB701 where there is none."""
    from_env = _first(_PROFILES_DIR, env)
    if profiles_dir is not None:
        folders = [profiles_dir]
    elif from_env:
        folders = [Path(from_env)]
    else:
        home = Path(env["HOME"]) if env.get("HOME") else Path.home()
        folders = [project_dir, Path.cwd(), home / ".dbt"]
    folders = [folder.expanduser().absolute() for folder in folders]
    for folder in folders:
        if (folder / "profiles.yml").is_file():
            return folder / "profiles.yml"
    looked = ", ".join(dict.fromkeys(str(folder) for folder in folders))
    raise ConfigError(
        NO_PROFILES,
        f"no profiles.yml in {looked}",
        hint="say where it is with --profiles-dir or DBT_PROFILES_DIR; credentials kept only in dbt platform can't be "
        "used, this tool needs a profiles.yml of its own",
    )


def _project_profile(project_dir: Path, env: Mapping[str, str], vars: Mapping[str, object]) -> str:
    file = project_dir / "dbt_project.yml"
    if not file.is_file():
        hint = "say where the dbt project is with --project-dir, or name a profile with --profile"
        raise ConfigError(UNKNOWN_PROFILE, "no dbt_project.yml, so no profile is named", where=str(file), hint=hint)
    written = _mapping(_read_yaml(file)).get("profile")
    if not written:
        hint = "add `profile: <name>` as for dbt, or use --profile"
        raise ConfigError(UNKNOWN_PROFILE, "it names no profile", where=str(file), hint=hint)
    return _render(str(written), str(file), "profile", env, vars)


def _written_target(
    written: Mapping[str, Any], file: Path, profile: str, env: Mapping[str, str], vars: Mapping[str, object]
) -> str:
    # dbt's own default when a profile has no `target:`.
    return _render(str(written.get("target") or "default"), str(file), f"{profile}.target", env, vars)


def _render(text: str, file: str, key: str, env: Mapping[str, str], vars: Mapping[str, object]) -> str:
    if "{{" not in text and "{%" not in text:
        return text
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    def fail(what: str, hint: str) -> ConfigError:
        return ConfigError(PROFILES_NOT_RENDERED, what, where=f"{file}: {key}", hint=hint)

    def env_var(name: str, default: object = None) -> str:
        if name in env:
            return env[name]
        if default is None:
            raise fail(f"environment variable '{name}' is not set", "set it, or give env_var() a default")
        return str(default)

    def var(name: str, default: object = None) -> str:
        if name in vars:
            return str(vars[name])
        if default is None:
            raise fail(f"dbt variable '{name}' is not set", "give it with --vars, or give var() a default")
        return str(default)

    jinja = SandboxedEnvironment(undefined=StrictUndefined)
    jinja.globals.clear()
    try:
        return jinja.from_string(text).render(env_var=env_var, var=var).strip()
    except (TemplateError, TypeError, ValueError) as error:
        raise fail("not a template that can be rendered", "write env_var('NAME') or var('name')") from error


def _read_yaml(file: Path) -> Any:
    try:
        return document.of_dbt(read_file(file))
    except yaml.MarkedYAMLError as error:
        # The text around the mark may be a password: only the line is reported.
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise ConfigError(NO_PROFILES, f"not valid YAML{line}", where=str(file)) from None
    except UnicodeDecodeError:
        raise ConfigError(NO_PROFILES, "not a YAML file in UTF-8", where=str(file)) from None
    except (yaml.YAMLError, ValueError):  # whose text may quote a value
        raise ConfigError(
            NO_PROFILES,
            "not YAML that can be read: a value is not what it looks like, or it holds too much",
            where=str(file),
        ) from None
    except OSError as error:
        raise ConfigError(NO_PROFILES, f"can't be read: {error.strerror}", where=str(file)) from error


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(names: tuple[str, ...], env: Mapping[str, str]) -> str | None:
    return next((env[name] for name in names if env.get(name)), None)


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
