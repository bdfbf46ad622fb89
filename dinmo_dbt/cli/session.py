"""Wiring: from flags and environment to project, manifest, warehouse, orgs and state."""

from __future__ import annotations

import glob
import os
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dinmo_dbt.cli.clock import SystemClock
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.scratch import scratch_folder
from dinmo_dbt.cli.stopping import Stop
from dinmo_dbt.codes import (
    ARTIFACT_UNREADABLE,
    BAD_VARS,
    DBT_PROJECT_NOT_RENDERED,
    NO_ACTIVATION,
    NO_ARTIFACT,
    NO_DBT_PROJECT,
    NO_RUN_RESULTS,
    NOT_DOCUMENTED,
    OTHER_PROJECT,
    OTHER_VARS,
    PROJECT_CHANGED,
    STATE_LEFT_BEHIND,
)
from dinmo_dbt.errors import ConfigError, DinmoError, Problem, Refused, StateError, UsageError, unwritable
from dinmo_dbt.text.whole_text import as_yaml, whole_environment

if TYPE_CHECKING:
    import pyarrow as pa

    from dinmo_dbt.activation import Activation
    from dinmo_dbt.artifacts.declared import Loaded
    from dinmo_dbt.artifacts.gate import Gate, RunResults
    from dinmo_dbt.artifacts.manifest import Manifest, Node
    from dinmo_dbt.artifacts.selection import Declared
    from dinmo_dbt.channels import Told
    from dinmo_dbt.cli.embedded_org import EmbeddedOrg
    from dinmo_dbt.cli.lanes import Lanes
    from dinmo_dbt.config.channel import Channel
    from dinmo_dbt.config.meta import Left
    from dinmo_dbt.config.project import Project
    from dinmo_dbt.config.written import Written
    from dinmo_dbt.salesforce import SalesforceDestination
    from dinmo_dbt.state import ActivationState, Activity, Place, StateId, Store
    from dinmo_dbt.warehouse import Warehouse
    from dinmo_dbt.watch.notice import Notice


class Followed(Protocol):
    """A job of dbt Cloud, which builds the models elsewhere."""

    job: int

    def look(self, session: Session) -> object:
        """Bring what its latest runs left into the session's target folder."""


@dataclass(frozen=True)
class Stoppable:
    """The warehouse, read until the user asks the command to stop."""

    warehouse: Warehouse
    clock: SystemClock

    def schema(self, relation_name: str) -> pa.Schema:
        return self.warehouse.schema(relation_name)

    def read(self, relation_name: str, columns: Sequence[str], where: str | None) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self.warehouse.read(relation_name, columns, where):
                self.clock.sleep(0)
                yield batch
        except Exception:
            self.clock.sleep(0)  # a driver has its own error for a query that was broken off
            raise


@dataclass
class Session:
    """One command's view of the world; each part is opened when first asked for, and closed at the end. While it is
    entered, the first SIGINT or SIGTERM asks the command to stop (`Stop`)."""

    flags: Flags
    console: Console
    offline: bool = False
    stop: Stop | None = None  # entered already, by who makes one session after the other
    following: Followed | None = None  # the job of dbt Cloud that builds the models; without one dbt runs here
    lanes: Lanes | None = None  # of the sessions that run side by side
    writes: bool = False  # a state is copied to the warehouse, or from it

    def __post_init__(self) -> None:
        self.stack = ExitStack()
        self._stop = self.stop or Stop()
        self.clock = SystemClock(self._stop)
        self._destinations: dict[str, SalesforceDestination] = {}
        self._unreachable: dict[str, DinmoError] = {}
        self.changed: tuple[str, ...] = ()  # files of the project that the manifest is not of
        self.unparsed: Problem | None = None  # why dbt could not read the project anew
        self._artifacts: tuple[object, ...] = ()  # as they were when the first of them was read

    def __enter__(self) -> Session:
        if self.stop is None:
            self.stack.enter_context(self._stop)
        return self

    def __exit__(self, _: object, error: object, __: object) -> None:
        if isinstance(error, DinmoError):
            error.put(self.console.place)  # who tells it knows no project
        self.stack.close()

    # Where things are

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
            told, hint = f"{key} can't be rendered: {wrong}", "name the folder with --target-path, or DBT_TARGET_PATH"
            raise ConfigError(
                DBT_PROJECT_NOT_RENDERED, told, where="dbt_project.yml", hint=hint if key == "target-path" else ""
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

    # What is declared

    @cached_property
    def target(self) -> tuple[str, str]:
        from dinmo_dbt.warehouse import target_of

        flags = self.flags
        return target_of(self.root, flags.profiles_dir, flags.profile, flags.target, os.environ, vars=self.vars)

    @cached_property
    def project(self) -> Project:
        from dinmo_dbt.config.project import load_project

        project = load_project(
            self.root, target=self.target[1], env=whole_environment(os.environ), vars=self.vars, offline=self.offline
        )
        for note in project.notes:
            self.console.note(note)
        return project

    @cached_property
    def manifest(self) -> Manifest:
        from dinmo_dbt.artifacts.manifest import load_manifest
        from dinmo_dbt.config.declaration import show

        self._artifacts = self._artifacts or self._stamps()
        if self.unparsed and self._readable_manifest() is None:
            raise ConfigError.of([self.unparsed])
        manifest = load_manifest(self.target_path / "manifest.json")
        blocks = {(node.resource_type, node.name): node.block for node in manifest.nodes.values() if node.is_latest}
        self.console.place = lambda where: self._of_defaults(where) or self.written.with_line(where, blocks)
        self._say_changed(manifest)
        name = self.project_name
        if name and manifest.project_name and name != manifest.project_name:
            raise ConfigError(
                OTHER_PROJECT,
                f"the manifest is of project {show(manifest.project_name)}, dbt_project.yml's is {show(name)}",
                where=str(self.target_path / "manifest.json"),
                hint="run `dbt build` or `dbt parse` in this project, or choose its folder with --target-path",
            )
        return manifest

    def _of_defaults(self, where: str) -> str:
        """The place in dinmo.yml of a key that an activation has of the defaults there, and whose it is; else ''."""
        from dinmo_dbt.config.meta import is_of_defaults

        declared: Loaded | None = self.__dict__.get("declared")
        every: list[Declared] = [*declared.activations, *declared.left] if declared is not None else []
        for each in every:
            way = where.removeprefix(f"{each.meta_path}.").split(".")
            if way == where.split("."):
                continue
            node = self.manifest.nodes.get(each.model)
            if node is not None and is_of_defaults(node.block, each.meta_path, way, self.project.defaults):
                return f"{self.project.written_at(('defaults', *way))}, for {each.name}"
        return ""

    def _readable_manifest(self) -> Manifest | None:
        """None where dbt wrote none, or left it half written."""
        from dinmo_dbt.artifacts.manifest import load_manifest

        try:
            return load_manifest(self.target_path / "manifest.json")
        except ConfigError as error:
            if error.problems[0].code in (NO_ARTIFACT, ARTIFACT_UNREADABLE):
                return None
            raise

    def _changed(self, manifest: Manifest) -> tuple[str, ...]:
        """Files of the project that are not what the manifest was made of. dbt Cloud makes its own of another copy."""
        made = stamp(self.target_path / "manifest.json")
        if self.following is not None or made is None:
            return ()
        return self.written.since(made[0] / 1e9, manifest.files, self.target_path)

    def _say_changed(self, manifest: Manifest) -> None:
        from dinmo_dbt.config.declaration import listed

        self.changed = self._changed(manifest)
        if self.changed:
            told = f"the project was changed since dbt last read it: {listed(self.changed)}"
            hint = "this goes by what dbt made before: dbt build, or dbt parse, brings it up to date"
            self.console.note_once(Problem(PROJECT_CHANGED, told, hint=hint))

    def parse_if_changed(self) -> None:
        """Have dbt read the project where it was changed, or left no whole manifest. DB207 where dbt can't; nothing
        where there is no dbt."""
        from dinmo_dbt.cli.dbt_command import parse

        with suppress(ConfigError):  # it is told by who needs it
            _ = self.target  # where it can't be told, dbt would say the same once more
            made = self._readable_manifest()
            changed = self._changed(made) if made is not None else ()
            if made is not None and not changed and not self._other_variables():
                return
            results = None
            with suppress(ConfigError):
                results = self.run_results
            given = self.flags.vars or (as_yaml(results.vars) if results and results.vars else None)
            problem = parse(self.root, self.target_path, self.flags, given, self.written.changed)
            self.__dict__.pop("written", None)
            if problem is not None:
                is_placed = problem.where != str(self.root)
                guess = replace(problem, where=changed[0]) if len(changed) == 1 and not is_placed else problem
                self.unparsed = problem if is_placed else self._date_as_key(problem) or guess

    def _date_as_key(self, problem: Problem) -> Problem | None:
        """What dbt ends at without a word of where it stands."""
        from dinmo_dbt.config.declaration import show
        from dinmo_dbt.config.spelling import dates

        for where, text in dates(self.written.keys):
            told = f"dbt can't write its manifest: YAML reads the key {show(text)} as a date"
            return replace(problem, message=told, where=where, hint=f"put it in quotes: {as_yaml(text)}")
        return None

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
            given = self.written.given_to(each.resource_type, each.model_name, each.fqn)
            read = [key for key in given if key.file not in self.changed]
            each = replace(each, bare=bare_words(read, each))
            problems = [
                *self.project.problems_with(each.destination, where=f"{each.meta_path}.destination"),
                *given_twice(self.written, each.resource_type, each.model_name),
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
    def left(self) -> tuple[Left, ...]:
        """What --select and --exclude leave of what is declared and is no activation."""
        from dinmo_dbt.config.meta import Left

        return tuple(each for each in self.selected if isinstance(each, Left))

    @property
    def wrong(self) -> tuple[Left, ...]:
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

    # What is outside

    @cached_property
    def run_results(self) -> RunResults | None:
        self._artifacts = self._artifacts or self._stamps()
        return self._load_results()

    def _load_results(self) -> RunResults | None:
        """Those that --run-results names, folded by time; else the target folder's."""
        from dinmo_dbt.artifacts.gate import fold, load_run_results

        if not self.flags.run_results:
            return load_run_results(self.target_path / "run_results.json")
        paths = sorted({path for given in self.flags.run_results for path in _results_at(given)})
        if not paths:
            told = f"--run-results {' '.join(self.flags.run_results)}: no such file"
            raise UsageError(
                NO_RUN_RESULTS, told, hint="name files, folders that have a run_results.json below, or a pattern"
            )
        return fold([found for path in paths if (found := load_run_results(path)) is not None])

    def _stamps(self) -> tuple[object, ...]:
        names = ("run_results.json", "manifest.json")
        return tuple(stamp(self.target_path / name) for name in names)

    def gate_by_now(self) -> tuple[Gate, RunResults | None]:
        """The gate and what it goes by, as dbt's artifacts are now, perhaps others than when the session began."""
        from dinmo_dbt.artifacts.manifest import load_manifest

        before = self.gate, self.run_results
        if self.following is not None:
            self.following.look(self)
        if self._artifacts in ((), self._stamps()):  # not read from files, or as they were
            return before
        results = self._load_results()
        return self._gate(load_manifest(self.target_path / "manifest.json"), results), results

    @cached_property
    def gate(self) -> Gate:
        return self._gate(self.manifest, self.run_results)

    def _gate(self, manifest: Manifest, results: RunResults | None) -> Gate:
        """What the last dbt command says, and earlier ones of what it does not speak of. A job of dbt Cloud is asked
        for all of its runs."""
        from dinmo_dbt.artifacts import earlier
        from dinmo_dbt.artifacts.gate import gate

        if self.following is not None:
            return gate(manifest, results)
        own = self.root / (self._of_dbt("target-path") or "target")
        places = {place.resolve() for place in (own, *own.glob("dbt_cloud/job-*"))} - {self.target_path.resolve()}
        return gate(manifest, results, earlier.verdicts(self.target_path, sorted(places), manifest, results))

    def remember_answers(self) -> None:
        """Keep what dbt's last command said beyond the next one. Where the folder refuses, it is missed as unknown."""
        from dinmo_dbt.artifacts import earlier

        if self.following is None:
            with suppress(OSError):
                earlier.remember(self.target_path, self.manifest, self.run_results)

    @cached_property
    def warehouse(self) -> Warehouse:
        from dinmo_dbt.warehouse import connect

        flags = self.flags
        warehouse = connect(
            self.root,
            profiles_dir=flags.profiles_dir,
            profile=flags.profile,
            target=flags.target,
            vars=self.vars,
            env=os.environ,
            writes=self.writes or self.project.state_warehouse_schema is not None,
            show_values=flags.show_values,
        )
        self.stack.callback(warehouse.close)
        self._stop.breaks.append(warehouse.interrupt)
        self.stack.callback(self._stop.breaks.remove, warehouse.interrupt)
        return warehouse

    @property
    def source(self) -> Stoppable:
        """The models' rows."""
        return Stoppable(self.warehouse, self.clock)

    def check_target(self, *, allow_mismatch: bool) -> None:
        """Stop when the manifest's relation names were made for another target than the connected one."""
        from dinmo_dbt.artifacts.gate import ConnectedTarget, target_check

        connected = self.warehouse.connected
        problem = target_check(
            self.manifest,
            self.run_results,
            ConnectedTarget(
                connected.database or "",
                connected.schema,
                connected.target,
                connected.adapter_type,
                self._default_target(),
            ),
        )
        if problem is None:
            return
        if allow_mismatch:
            self.console.note(problem)
            return
        raise Refused.of(problem)

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

    def say_other_vars(self) -> None:
        """Conditions, segments and constants are in the manifest as dbt rendered them."""
        from dinmo_dbt.config.declaration import listed

        variables = self._other_variables()
        if variables:
            told = f"dbt rendered blocks with another value of environment variables: {listed(variables)}"
            hint = "what it rendered counts: run dbt build with the same variables, then sync"
            self.console.note_once(Problem(OTHER_VARS, told, str(self.target_path / "manifest.json"), hint))

        built = self.run_results.vars if self.run_results else None
        other = [name for name, value in self.vars.items() if built is not None and built.get(name) != value]
        if other:
            told = f"dbt rendered conditions and constants with other vars than --vars gives: {listed(other)}"
            hint = "they change only dinmo.yml and profiles.yml here: run dbt build --vars, then sync"
            self.console.note(Problem(OTHER_VARS, told, str(self.target_path / "manifest.json"), hint))

    @cached_property
    def state(self) -> Store:
        """Where dinmo.yml says; in the warehouse it is reached over the connection that models are read by."""
        from dinmo_dbt.state import open_to_others

        store = self.store_at(self.place)
        open_folder = open_to_others(self.project.state_location, self.project.root)
        if open_folder is not None:
            self.console.note(open_folder)
        store.refuse_copied()
        return store

    @property
    def place(self) -> Place:
        """Where dinmo.yml keeps the state."""
        from dinmo_dbt.state import Kind, Place

        schema = self.project.state_warehouse_schema
        return Place(Kind.WAREHOUSE, schema) if schema else Place(Kind.FOLDER, str(self.project.state_location))

    def store_at(self, place: Place) -> Store:
        """That place, whatever is in it; to write to a schema needs a session that `writes`, or keeps its state in
        one."""
        from dinmo_dbt.state import Kind, LocalState, Marks, WarehouseState

        marks, target = Marks(_user_state_folder()), self.target[1]
        if place.kind is Kind.FOLDER:
            store: Store = LocalState(Path(place.name), self.clock, marks, target=target)
        else:
            tables, scratch = self.warehouse.tables(place.name), self.scratch / f"state-{place.name}"
            store = WarehouseState(tables, scratch, self.clock, marks, target=target)
        store.history_s = self.project.history_s
        store.tell = self.console.note
        return store

    @property
    def activity(self) -> Activity:
        """Schedules, pauses and warnings of the chosen dbt target's activations."""
        return self.state.activity(self.target[1])

    @cached_property
    def scratch(self) -> Path:
        """A private folder for temporary files, on the disk of the state: its size and speed are the user's choice."""
        location = self.project.state_location
        parent = location if location.is_dir() and os.access(location, os.W_OK) else None
        try:
            return self.stack.enter_context(scratch_folder(parent))
        except OSError as error:
            raise unwritable(parent or Path(tempfile.gettempdir()), error) from error

    @property
    def api_calls(self) -> int:
        """HTTP calls to every org so far, logins included."""
        return sum(destination.calls for destination in self._destinations.values())

    def destination(self, name: str) -> SalesforceDestination:
        """The org of a destination, logged in; the embedded one is started for the command's duration."""
        if name in self._unreachable:
            raise self._unreachable[name]
        if name not in self._destinations:
            try:
                self._destinations[name] = self._connect(name)
            except DinmoError as error:
                error.put(lambda place: place or self.place_of(name))
                self._unreachable[name] = error  # asked once; each activation that needs it says so
                raise
        return self._destinations[name]

    def place_of(self, destination: str) -> str:
        """Where in dinmo.yml a destination's org is said, for what has no place of its own."""
        return f"destination {destination}, target {self.target[1]}"

    @cached_property
    def embedded(self) -> EmbeddedOrg:
        """The embedded org, started when first asked for."""
        from dinmo_dbt.cli.embedded_org import EmbeddedOrg

        if self.lanes is not None:
            return self.stack.enter_context(self.lanes.org(lambda: EmbeddedOrg(self.project.emulator)))
        started = EmbeddedOrg(self.project.emulator)
        self.stack.callback(started.close)
        return started

    def send(self, channel: Channel, notice: Notice) -> Told:
        """One attempt to send a notice to a channel. Other dbt projects may have it too: the incident is this one's."""
        from dinmo_dbt import channels
        from dinmo_dbt.watch.notice import incident

        about = f"{incident('dinmo-dbt', self.project_name)}/{notice.incident}" if notice.incident else ""
        return channels.send(channel, replace(notice, incident=about))

    def refuse_sharing(self, activation: Activation, state: ActivationState, *, is_meant: bool = False) -> None:
        """Before anything is drawn from a state: stop where another dbt target has this org, or where the activation
        could delete what another one keeps. `is_meant`: as `say_left_behind` has it."""
        project = self.project
        if project.shared_orgs:
            raise ConfigError.of(list(project.shared_orgs))
        state.refuse_shared(project.may_share, project.places)
        self.say_left_behind(activation, state, is_meant=is_meant)
        problems = [each for each in self.removals if each.where == activation.meta_path]
        if problems:
            raise ConfigError.of(problems)

    def say_left_behind(self, activation: Activation, state: ActivationState, *, is_meant: bool = False) -> None:
        """A first sync beside a state of the activation in another place: an insert would make every row again, and is
        refused, unless a person says that it is meant; others send them again."""
        from dinmo_dbt.activation import Mode
        from dinmo_dbt.state import Kind

        if state.exists:
            return
        old = self._left_behind.get(state.own)
        if old is None:
            return
        name = Path(old.name).name if old == self._usual_folder else old.name
        where = f"the folder {name}" if old.kind is Kind.FOLDER else str(old)
        means = "an insert would make every row again" if activation.mode is Mode.INSERT else "every row is sent again"
        told = f"{activation.name} has no state in {self.place}, and one in {where}: {means}"
        copying = f"dinmo-dbt state copy --to {self.place.kind} --from {name}"
        hint = f"take it along: {copying}"
        if activation.mode is Mode.INSERT:
            hint += f"\nis it somebody else's? take over what Salesforce holds: {activation.adopting}"
            hint += "\nif every row is to be a new record: add --first-sync"
        problem = Problem(STATE_LEFT_BEHIND, told, activation.meta_path, hint)
        if activation.mode is Mode.INSERT and not is_meant:
            raise StateError(problem.code, problem.message, where=problem.where, hint=problem.hint)
        self.console.note_once(problem)

    @property
    def _usual_folder(self) -> Place:
        from dinmo_dbt.state import Kind, Place

        return Place(Kind.FOLDER, str(self.root / ".dinmo"))

    @cached_property
    def _other_places(self) -> tuple[Place, ...]:
        """Where else than dinmo.yml says a state may be: in the usual folder, and in schemas that have its tables."""
        from dinmo_dbt.state import TABLES, Kind, Place

        places = [self._usual_folder]
        with suppress(DinmoError):
            schemas = self.warehouse.tables("dinmo").schemas_with(TABLES)
            places += [Place(Kind.WAREHOUSE, schema) for schema in schemas]
        return tuple(place for place in places if place != self.place)

    @cached_property
    def _left_behind(self) -> dict[StateId, Place]:
        """What was begun elsewhere, and where. Each place is asked once, one after the other: there may be hundreds of
        schemas. One that can't be read says nothing; the org is asked before an insert all the same."""
        found: dict[StateId, Place] = {}
        for place in self._other_places:
            with suppress(DinmoError), closing(self.store_at(place)) as store:
                for own in store.begun():
                    found.setdefault(own, place)
        return found

    @cached_property
    def removals(self) -> list[Problem]:
        """Activations that could delete what others keep."""
        from dinmo_dbt.config import sharing

        return sharing.removals(self.declared.activations, self.org_of)

    def org_of(self, destination: str) -> str:
        """What tells the org of a destination under this target: its id once it has been asked for, else its name."""
        known = self._destinations.get(destination)
        return known.org_id if known is not None else destination

    def start_orgs(self, activations: Iterable[Activation]) -> None:
        """Start the embedded org if one of them needs it; it comes up while the warehouse is connected."""
        if any(self.project.org(activation.destination).is_emulator for activation in activations):
            _ = self.embedded

    def _connect(self, name: str) -> SalesforceDestination:
        from dinmo_dbt import salesforce

        org = self.project.org(name)
        if org.is_emulator:
            org = self.embedded.address(org)
        destination = salesforce.connect(
            org,
            scratch=self.scratch,
            sleep=self.clock.sleep,
            rng=random.Random(),
            now=self.clock.now,
            logins=self.project.state_location / "logins",
            env=os.environ,
            told=self.console.timed,
        )
        self.stack.callback(destination.disconnect)
        return destination


def _results_at(given: str) -> list[Path]:
    """The files that a path, a folder or a pattern of --run-results means."""
    place = Path(given).expanduser()
    if place.is_dir():
        return sorted(place.rglob("run_results*.json"))
    return [place] if place.is_file() else [Path(each) for each in glob.glob(str(place), recursive=True)]  # noqa: PTH207


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells that a file was written again; None while it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _from_environment(name: str) -> str | None:
    return os.environ.get(f"DBT_ENGINE_{name}") or os.environ.get(f"DBT_{name}")


def _user_state_folder() -> Path | None:
    """Where this user's programs keep what outlives a project's folder (XDG Base Directory); None without a home."""
    given = os.environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:
        return None
    return base / "dinmo-dbt"


def is_terminal() -> bool:
    """Whether progress may be drawn: stderr is a terminal that can move its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
