"""The floor of a session: the dbt project it is in, by its flags and the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.codes import BAD_VARS, DBT_PROJECT_NOT_RENDERED, NO_DBT_PROJECT
from dinmo_dbt.errors import ConfigError, UsageError
from dinmo_dbt.text.whole_text import whole_environment

if TYPE_CHECKING:
    from dinmo_dbt.config.written import Written


class Followed(Protocol):
    """A job of dbt Cloud, which builds the models elsewhere."""

    job: int

    def look(self, session: Any) -> object:  # a Session: this floor does not know the upper ones
        """Bring what its latest runs left into the session's target folder."""


@dataclass
class DbtProject:
    """Where the dbt project is, and what its own files say. Each part is read when first asked for."""

    flags: Flags
    console: Console
    following: Followed | None = None  # the job of dbt Cloud that builds the models; without one dbt runs here

    @cached_property
    def root(self) -> Path:
        """The folder of dbt_project.yml: the flag's, DBT_PROJECT_DIR's, or the nearest here or above."""
        given = self.flags.project_dir or _from_environment("PROJECT_DIR")
        start = Path(given).expanduser() if given else Path.cwd()
        places = [start] if given else [start, *start.parents]
        for place in places:
            if (place / "dbt_project.yml").is_file():
                return place.resolve()
        raise ConfigError(
            NO_DBT_PROJECT,
            f"no dbt_project.yml in {start}" + ("" if given else " or above it"),
            hint="run in a dbt project, or name it with --project-dir",
        )

    @cached_property
    def target_path(self) -> Path:
        """dbt's target folder: the flag's, DBT_TARGET_PATH's, dbt_project.yml's `target-path`, or `target`. For a job
        of dbt Cloud a folder of its own in it."""
        given = self.flags.target_path or _from_environment("TARGET_PATH") or self._of_dbt("target-path") or "target"
        folder = self.root / Path(given).expanduser()
        return folder / "dbt_cloud" / f"job-{self.following.job}" if self.following else folder

    @cached_property
    def project_name(self) -> str:
        """As dbt_project.yml has it; '' where it can't be read there."""
        return self._of_dbt("name")

    def _of_dbt(self, key: str) -> str:
        """A text of dbt_project.yml, rendered as dbt does; '' where it has none."""
        from dinmo_dbt.config import template

        declared = self.dbt_project.get(key)
        if not isinstance(declared, str) or not template.is_template(declared):
            return declared if isinstance(declared, str) else ""
        try:
            rendered = template.render(declared, env=whole_environment(os.environ), vars=self.vars)
            wrong = rendered.unset and f"{rendered.unset} is not set"
        except template.NotAllowed as error:
            wrong = str(error)
        if wrong:
            what, hint = f"{key} can't be rendered: {wrong}", "name the folder with --target-path, or DBT_TARGET_PATH"
            raise ConfigError(
                DBT_PROJECT_NOT_RENDERED, what, where="dbt_project.yml", hint=hint if key == "target-path" else ""
            )
        return rendered.text

    @cached_property
    def written(self) -> Written:
        """The project's own files, as they are."""
        from dinmo_dbt.config.written import written

        return written(self.root, self.dbt_project)

    @cached_property
    def dbt_project(self) -> Mapping[str, Any]:
        """The values of dbt_project.yml; none where it can't be read."""
        import yaml

        from dinmo_dbt.config import document
        from dinmo_dbt.durable import read_file

        try:
            project = document.of_dbt(read_file(self.root / "dbt_project.yml"))
        except (OSError, ValueError, yaml.YAMLError):
            return {}
        return project if isinstance(project, dict) else {}

    @cached_property
    def vars(self) -> dict[str, Any]:
        import yaml

        from dinmo_dbt.config import document

        if not self.flags.vars:
            return {}
        try:
            parsed = document.of_dbt(self.flags.vars.encode("utf-8", "surrogatepass"))
        except (yaml.YAMLError, ValueError) as error:
            raise UsageError(BAD_VARS, "--vars is not YAML", hint="write --vars '{day: 2}'") from error
        if not isinstance(parsed, dict):
            raise UsageError(BAD_VARS, "--vars is not a mapping", hint="write --vars '{day: 2}'")
        return parsed

    @cached_property
    def target(self) -> tuple[str, str]:
        from dinmo_dbt.warehouse import target_of

        flags = self.flags
        return target_of(self.root, flags.profiles_dir, flags.profile, flags.target, os.environ, vars=self.vars)

    def _default_target(self) -> str:
        """The target that dbt takes where none is named."""
        from dinmo_dbt.warehouse import target_of

        flags, env = self.flags, {name: text for name, text in os.environ.items() if not name.endswith("_TARGET")}
        with suppress(ConfigError):
            return target_of(self.root, flags.profiles_dir, flags.profile, None, env, vars=self.vars)[1]
        return ""

    def _other_variables(self) -> tuple[str, ...]:
        """Environment variables that blocks are rendered with, and that had another value when dbt read them."""
        if self.following is not None:
            return ()
        read = self.written.variables(self.target_path)
        return tuple(sorted(name for name, value in read.items() if os.environ.get(name) != value))


def _from_environment(name: str) -> str | None:
    return os.environ.get(f"DBT_ENGINE_{name}") or os.environ.get(f"DBT_{name}")
