"""The texts of dinmo.yml as they will be used: rendered for the chosen dbt target, and what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dinmo_dbt.codes import FILE_NOT_READ, MISPLACED_KEY, NOT_RENDERED, VARIABLE_UNSET
from dinmo_dbt.config import document, template
from dinmo_dbt.config.declaration import Path as KeyPath
from dinmo_dbt.durable import open_file
from dinmo_dbt.errors import Problem

TEMPLATE_HINT = "write {{ env_var('NAME') }} or {{ var('name') }}"


@dataclass
class Findings:
    """What is wrong with a file, each with the destination and dbt target whose entry it is in, '' for none; and notes
    of what is not known yet."""

    problems: list[Problem] = field(default_factory=list)
    owners: list[tuple[str, str]] = field(default_factory=list)  # of each problem
    notes: list[Problem] = field(default_factory=list)

    def add(self, problem: Problem, path: KeyPath) -> None:
        """Once each; of a secret in the wrong place nothing more is said."""
        at_place = [p for p in self.problems if p.where == problem.where]
        if problem not in at_place and not any(p.code == MISPLACED_KEY for p in at_place):
            self.problems.append(problem)
            self.owners.append(_owner(path))

    def note(self, problem: Problem) -> None:
        if problem not in self.notes:
            self.notes.append(problem)

    def of(self, destination: str, target: str | None) -> tuple[Problem, ...]:
        """What keeps that target's entry of a destination from being used."""
        owners = ((destination, ""), (destination, target))
        return tuple(p for p, owner in zip(self.problems, self.owners, strict=True) if owner in owners)


@dataclass(frozen=True)
class Reading:
    """One reading of one file for one dbt target. Offline, an unset variable is a note, and no file is looked at."""

    root: Path
    read: document.Document
    target: str | None
    env: Mapping[str, str]
    vars: Mapping[str, Any]
    offline: bool
    found: Findings = field(default_factory=Findings)

    def add(self, code: str, message: str, path: KeyPath, hint: str = "") -> None:
        self.found.add(Problem(code, message, self.read.where(path), hint), path)

    def path(self, text: str, path: KeyPath) -> Path:
        return self.absolute(self.rendered(text, path))

    def absolute(self, text: str) -> Path:
        """`~` is HOME, and a relative path starts at the project."""
        home = self.env.get("HOME", "")
        if home and (text == "~" or text.startswith("~/")):
            text = home + text[1:]
        return self.root / text

    def final(self, text: str, path: KeyPath, chosen: bool, hint: str = "") -> str | None:
        """The text that will be used, or None while it is not known: another target's, or unset offline."""
        if not template.is_template(text):
            return text
        if not chosen:
            return None
        rendered = self.rendered(text, path, hint)
        return None if rendered == text else rendered

    def rendered(self, text: str, path: KeyPath, hint: str = "") -> str:
        """The text rendered; as it was written when a variable is unset, which is said."""
        if not template.is_template(text):
            return text
        try:
            result = template.render(text, env=self.env, vars=self.vars)
        except template.NotAllowed as error:
            self.add(NOT_RENDERED, str(error), path, TEMPLATE_HINT)
            return text
        if result.unset:
            problem = Problem(VARIABLE_UNSET, f"{result.unset} is not set", self.read.where(path), hint)
            if self.offline:
                self.found.note(problem)
            else:
                self.found.add(problem, path)
            return text
        if not result.text.strip() or "\0" in result.text:
            self.add(VARIABLE_UNSET, "the rendered value is empty", path, hint)
            return text
        return result.text

    def switched_off(self, text: str) -> bool:
        """Whether the text is empty here and its own default says that it may be: env_var('NAME', '')."""
        if not template.only_from_environment(text):
            return False
        here, nowhere = (template.render(text, env=env, vars=self.vars) for env in (self.env, {}))
        return not here.text.strip() and not nowhere.unset

    def is_readable(self, file: Path, path: KeyPath) -> bool:
        """Whether there is a file to read; else a problem says why not."""
        try:
            os.close(open_file(file))
        except (FileNotFoundError, NotADirectoryError):
            self.add(FILE_NOT_READ, "no such file", path, "a relative path starts at the dbt project")
        except OSError as error:
            said = (error.strerror or "").lower()
            self.add(FILE_NOT_READ, f"the file can't be read: {said}", path)
        else:
            return True
        return False


def _owner(path: KeyPath) -> tuple[str, str]:
    """The destination and dbt target whose entry holds that place; '' for a whole destination, and for none."""
    match path:
        case ("destinations", str(name), "targets", str(target), *_):
            return name, target
        case ("destinations", str(name), *_):
            return name, ""
    return "", ""
