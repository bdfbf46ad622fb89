"""What is declared, in dinmo.yml and in the models' meta, and which of it a session is about."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from dinmo_dbt.cli.dbt_artifacts import DbtArtifacts
from dinmo_dbt.codes import NO_ACTIVATION, NOT_DOCUMENTED
from dinmo_dbt.errors import ConfigError, Problem
from dinmo_dbt.text.whole_text import whole_environment

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation
    from dinmo_dbt.artifacts.declared import Loaded
    from dinmo_dbt.artifacts.manifest import Node
    from dinmo_dbt.artifacts.selection import Declared
    from dinmo_dbt.config.meta import NotActivated
    from dinmo_dbt.config.project import Project


@dataclass
class Declarations(DbtArtifacts):
    """The activations: declared, selected, right and wrong."""

    offline: bool = False

    @cached_property
    def project(self) -> Project:
        from dinmo_dbt.config.project import load_project

        project = load_project(
            self.root, target=self.target[1], env=whole_environment(os.environ), vars=self.vars, offline=self.offline
        )
        for note in project.notes:
            self.console.note(note)
        return project

    def of_defaults(self, where: str) -> str:
        """The place in dinmo.yml of a key that an activation has of the defaults there, and whose it is; else ''."""
        from dinmo_dbt.config.meta import is_of_defaults

        declared: Loaded | None = self.__dict__.get("declared")
        every: list[Declared] = [*declared.activations, *declared.left] if declared is not None else []
        for each in every:
            way = where.removeprefix(f"{each.meta_path}.").split(".")
            if way == where.split("."):
                continue
            node = self.manifest.nodes.get(each.model.unique_id)
            if node is not None and is_of_defaults(node.block, each.meta_path, way, self.project.defaults):
                return f"{self.project.written_at(('defaults', *way))}, for {each.name}"
        return ""

    @cached_property
    def declared(self) -> Loaded:
        """What the manifest declares; an activation whose destination can't be used is none."""
        from dinmo_dbt.artifacts.declared import activations, left_activation
        from dinmo_dbt.artifacts.misplaced import given_twice, misplaced, owned
        from dinmo_dbt.config.spelling import bare_words, other_columns, other_numbers

        def placed(node: Node) -> str:
            key = owned(self.written, node)
            if key is None or node.package != self.manifest.project_name:  # the root's word is the last
                return key.where if key else ""
            is_own = self.written.of(node.resource_type, node.name) is None
            return key.where if is_own and (key.is_rendered or key.value == node.block) else ""

        strays = misplaced(self.written, self.manifest, self.changed)
        loaded = activations(
            self.manifest, self.project.defaults, written_at=self.project.written_at, placed=placed, strays=strays
        )
        usable, left = [], list(loaded.left)
        for each in loaded.activations:
            given = self.written.given_to(each.model.resource_type, each.model.name, each.model.fqn)
            read = [key for key in given if key.file not in self.changed]
            each = replace(each, bare=bare_words(read, each))
            problems = [
                *self.project.problems_with(each.destination, where=f"{each.meta_path}.destination"),
                *given_twice(self.written, each.model.resource_type, each.model.name),
                *other_numbers(read, each),
                *other_columns(read, each),
            ]
            if problems:
                left.append(left_activation(each, tuple(problems)))
            else:
                usable.append(each)
        return replace(loaded, activations=tuple(usable), left=tuple(left))

    @cached_property
    def selected(self) -> tuple[Declared, ...]:
        """What --select and --exclude leave of what is declared, right or wrong."""
        from dinmo_dbt.artifacts.selection import select

        loaded = self.declared
        if not loaded.names and not loaded.problems:
            raise ConfigError(
                NO_ACTIVATION,
                "no model declares an activation",
                where=str(self.target_path / "manifest.json"),
                hint="dinmo-dbt init MODEL writes a first one; or write config.meta.dinmo in a model's YAML "
                "(docs/meta.md), then run dbt parse or dbt build",
            )
        return select((*loaded.activations, *loaded.left), self.flags.select, self.flags.exclude)

    @cached_property
    def chosen(self) -> tuple[Activation, ...]:
        """The activations of --select and --exclude that are right. ConfigError where all of them are wrong."""
        from dinmo_dbt.activation import Activation

        right = tuple(each for each in self.selected if isinstance(each, Activation))
        problems = self.declared.problems or (() if right else self.wrong_problems)
        if problems:
            raise ConfigError.of(problems)
        return right

    @property
    def left(self) -> tuple[NotActivated, ...]:
        """What --select and --exclude leave of what is declared and is no activation."""
        from dinmo_dbt.config.meta import NotActivated

        return tuple(each for each in self.selected if isinstance(each, NotActivated))

    @property
    def wrong(self) -> tuple[NotActivated, ...]:
        """Of these, what was to be one and is not switched off: a sync of it fails."""
        return tuple(each for each in self.left if each.is_wrong and each.enabled)

    @property
    def wrong_problems(self) -> tuple[Problem, ...]:
        """All that is wrong with what is selected, switched off or not."""
        from dinmo_dbt.artifacts.declared import at_most

        left = (problem for each in self.left if each.is_wrong for problem in each.problems)
        return at_most([*self.declared.problems, *left])

    def say_notes(self, *, of_the_manifest: bool = False) -> None:
        """What is to be said of the selected; with `of_the_manifest` also what only the relation itself can settle,
        which is not worth a word where the relation is read. What is wrong and switched off stops nothing."""

        places = {each.meta_path for each in self.selected}
        notes = [note for note in self.declared.notes if note.where in places]
        silent = [each for each in self.left if not (each.is_wrong and each.enabled)]
        notes += [] if of_the_manifest else [p for each in silent if each.is_wrong for p in each.problems]
        notes += [problem for each in silent if not each.is_wrong for problem in each.problems]
        for note in dict.fromkeys(notes):
            if of_the_manifest or note.code != NOT_DOCUMENTED:
                self.console.note(note)

    def wrong_lines(self) -> list[str]:
        """Each selected activation that is wrong, where a command lists the others."""
        return [f"{each.name}: wrong, no sync runs it ({each.problems[0].code})" for each in self.wrong]

    def say_wrong(self) -> int:
        """Tell what is wrong beside the chosen, where a command goes on without it; the exit code that it asks for."""
        problems = tuple(dict.fromkeys(problem for each in self.wrong for problem in each.problems))
        self.console.problems(problems)
        return ConfigError.exit_code if problems else 0
