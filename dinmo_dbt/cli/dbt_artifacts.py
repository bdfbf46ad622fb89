"""What dbt left in its target folder, for a session: manifest, run results, and the gate made of them."""

from __future__ import annotations

import glob
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dinmo_dbt.cli.dbt_project import DbtProject
from dinmo_dbt.codes import ARTIFACT_UNREADABLE, NO_ARTIFACT, NO_RUN_RESULTS, OTHER_PROJECT, OTHER_VARS, PROJECT_CHANGED
from dinmo_dbt.errors import ConfigError, Problem, UsageError
from dinmo_dbt.text.whole_text import as_yaml

if TYPE_CHECKING:
    from dinmo_dbt.artifacts.gate import Gate, RunResults
    from dinmo_dbt.artifacts.manifest import Manifest


@dataclass
class DbtArtifacts(DbtProject):
    """The artifacts of the chosen target folder; the manifest is of the project as dbt last read it."""

    changed: tuple[str, ...] = field(default=(), init=False)  # files of the project that the manifest is not of
    unparsed: Problem | None = field(default=None, init=False)  # why dbt could not read the project again
    _artifacts: tuple[object, ...] = field(default=(), init=False)  # as they were when the first of them was read
    _here: Path | None = field(default=None, init=False)  # where the command was called: while dbt connects, we are not

    @cached_property
    def manifest(self) -> Manifest:
        from dinmo_dbt.artifacts.manifest import load_manifest
        from dinmo_dbt.config.declaration import show

        self._artifacts = self._artifacts or self._stamps()
        if self.unparsed and self._readable_manifest() is None:
            raise ConfigError.of([self.unparsed])
        manifest = load_manifest(self.target_path / "manifest.json")
        blocks = {(node.resource_type, node.name): node.block for node in manifest.nodes.values() if node.is_latest}
        self.console.place = lambda where: self.of_defaults(where) or self.written.with_line(where, blocks)
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

    def of_defaults(self, where: str) -> str:  # noqa: ARG002 - by who knows the activations
        """The place in dinmo.yml of a key that an activation has of the defaults there, and whose it is; else ''."""
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
            message = f"the project was changed since dbt last read it: {listed(self.changed)}"
            hint = "this goes by what dbt made before: dbt build, or dbt parse, brings it up to date"
            self.console.note_once(Problem(PROJECT_CHANGED, message, hint=hint))

    def parse_if_changed(self) -> None:
        """Have dbt read the project where it was changed, or left no whole manifest. DB207 where dbt can't; nothing
        where there is no dbt."""
        from dinmo_dbt.cli.dbt_command import parse

        with suppress(ConfigError):  # what needs it reports it
            _ = self.target  # where it can't be known, dbt would say the same once more
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
            message = f"dbt can't write its manifest: YAML reads the key {show(text)} as a date"
            return replace(problem, message=message, where=where, hint=f"put it in quotes: {as_yaml(text)}")
        return None

    @cached_property
    def run_results(self) -> RunResults | None:
        self._artifacts = self._artifacts or self._stamps()
        return self._load_results()

    def _load_results(self) -> RunResults | None:
        """Those that --run-results names, folded by time; else the target folder's."""
        from dinmo_dbt.artifacts.gate import fold, load_run_results

        if not self.flags.run_results:
            return load_run_results(self.target_path / "run_results.json")
        self._here = self._here or Path.cwd()
        paths = sorted({path for given in self.flags.run_results for path in _results_at(self._here, given)})
        if not paths:
            message = f"--run-results {' '.join(self.flags.run_results)}: no such file"
            raise UsageError(
                NO_RUN_RESULTS, message, hint="name files, folders that have a run_results.json below, or a pattern"
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

    def say_other_vars(self) -> None:
        """Conditions, segments and constants are in the manifest as dbt rendered them."""
        from dinmo_dbt.config.declaration import listed

        variables = self._other_variables()
        if variables:
            message = f"dbt rendered blocks with another value of environment variables: {listed(variables)}"
            hint = "what it rendered counts: run dbt build with the same variables, then sync"
            self.console.note_once(Problem(OTHER_VARS, message, str(self.target_path / "manifest.json"), hint))

        built = self.run_results.vars if self.run_results else None
        other = [name for name, value in self.vars.items() if built is not None and built.get(name) != value]
        if other:
            message = f"dbt rendered conditions and constants with other vars than --vars gives: {listed(other)}"
            hint = "they change only dinmo.yml and profiles.yml here: run dbt build --vars, then sync"
            self.console.note(Problem(OTHER_VARS, message, str(self.target_path / "manifest.json"), hint))


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells that a file was written again; None while it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _results_at(here: Path, given: str) -> list[Path]:
    """The files that a path, a folder or a pattern of --run-results means."""
    place = here / Path(given).expanduser()
    if place.is_dir():
        return sorted(place.rglob("run_results*.json"))
    return [place] if place.is_file() else [Path(each) for each in glob.glob(str(place), recursive=True)]  # noqa: PTH207
