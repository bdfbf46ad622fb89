"""The project's YAML as people wrote it: where each `dinmo` block stands, on which line, and when its file was changed.

dbt writes into the manifest what it understood, and leaves out what it did not: a key out of place is in these files
alone. They are read with no more bounds than dbt has, and what is no YAML is dbt's to tell.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml

from dinmo_dbt.config.declaration import Path as KeyPath
from dinmo_dbt.config.declaration import dotted
from dinmo_dbt.durable import read_file

PROJECT = "dbt_project.yml"
# dbt_project.yml's keys for where files are, and what they are without it (dbt, "Project configs").
FOLDERS = {
    "model-paths": "models",
    "seed-paths": "seeds",
    "snapshot-paths": "snapshots",
    "analysis-paths": "analyses",
    "macro-paths": "macros",
    "test-paths": "tests",
    "function-paths": "functions",
}
RESOURCES = {"models": "model", "seeds": "seed", "snapshots": "snapshot"}
SUFFIXES = (".sql", ".py", ".csv", ".yml", ".yaml")
VALUES_MAX = 200_000  # of one file, aliases expanded: what goes further is left to dbt
_WORTH_A_LOOK = re.compile(rb"dinmo|activation|destination", re.IGNORECASE)
_VARIABLE = re.compile(r"""env_var\(\s*\\?["'](\w+)\\?["']""")
_DEFAULT = "DBT_DEFAULT_PLACEHOLDER"  # dbt-core 1.x notes it where a variable was not set
_DATE = "tag:yaml.org,2002:timestamp"
_BLOCK_KEYS = ("activation", "activations", "segments", "key")
_TELLING = ("destination", "object", "mode", "match", "fields")


@dataclass(frozen=True)
class Key:
    """A key that is, or was meant to be, a `dinmo` block: its file, its way from the top, its value and lines.

    `names`: the `name` of each list item on the way, so the model's or the column's. `lines`: of each key within, by
    its way from here. `twice`: keys within that one mapping has twice, of which YAML takes the last, with both lines.
    `bare`: the text of each value within that stands without quotes, and what YAML 1.1 reads it as. `bare_keys`: the
    text of each key within that YAML takes for another one or for a date, and whether for a date.
    """

    file: str
    path: KeyPath
    names: tuple[str, ...]
    value: Any
    lines: Mapping[KeyPath, int] = field(repr=False)
    twice: tuple[tuple[KeyPath, int, int], ...] = ()
    bare: Mapping[KeyPath, tuple[str, Any]] = field(default_factory=dict, repr=False)
    bare_keys: Mapping[KeyPath, tuple[str, bool]] = field(default_factory=dict, repr=False)

    @property
    def line(self) -> int:
        return self.lines[()]

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}: {self.place}"

    def where_of(self, path: KeyPath) -> str:
        """The place of a key within."""
        return f"{self.file}:{self.lines.get(path, self.line)}: {self.place}.{dotted(path)}"

    def line_of(self, inner: str) -> int:
        """Of the key within that a place, such as `activation.fields.name`, is at or below."""
        return self.lines[max((path for path in self.lines if _begins(inner, dotted(path))), key=len)]

    @property
    def place(self) -> str:
        """The way to it as a person reads it: `models.shops.config.dinmo`."""
        names, parts = list(self.names), []
        for part in self.path:
            parts.append((names.pop(0) if names else "") if isinstance(part, int) else part)
        return ".".join(part for part in parts if part)

    @property
    def is_in_project_file(self) -> bool:
        return self.file == PROJECT

    @property
    def resource(self) -> tuple[str, str] | None:
        """`model` and its name, of a block at the one place under a model, seed or snapshot where dbt hands it on."""
        match self.path:
            case (section, int(), "config", "meta", "dinmo") | (section, int(), "meta", "dinmo"):
                kind = RESOURCES.get(str(section))
            case (section, int(), "versions", int(), "config", "meta", "dinmo"):
                kind = RESOURCES.get(str(section))
            case _:
                return None
        return (kind, self.names[0]) if kind and self.names else None

    @property
    def folder(self) -> tuple[str, tuple[str, ...]] | None:
        """Of `+meta: {dinmo: ...}` in dbt_project.yml: the kind of resource, and the package and folders whose
        resources get it."""
        handed = self.handed
        return handed[:2] if handed and handed[2] == "dinmo" else None

    @property
    def handed(self) -> tuple[str, tuple[str, ...], str] | None:
        """The same of a key of `+meta` by any name, which dbt hands on as well; and the name."""
        match self.path:
            case (section, *way, "+meta", word) if self.is_in_project_file and section in RESOURCES:
                return RESOURCES[str(section)], tuple(map(str, way)), str(word)
        return None

    @property
    def is_in_place(self) -> bool:
        return (self.folder if self.is_in_project_file else self.resource) is not None

    @property
    def is_rendered(self) -> bool:
        """Whether dbt changes it: its text here is not its value."""
        return "{{" in (text := repr(self.value)) or "{%" in text


@dataclass(frozen=True)
class Written:
    """The files of a dbt project, and the blocks in those that are YAML."""

    root: Path
    folders: tuple[str, ...]
    inner: tuple[str, ...] = ()  # folders of packages and targets, which are not the project's own

    @cached_property
    def changed(self) -> Mapping[str, float]:
        """Each file that dbt reads, and when it was last changed, in seconds since the epoch."""
        found = {}
        for name in (PROJECT, *self.folders):
            for path in _files(self.root / name):
                with_suffix = path.suffix.lower() in SUFFIXES
                if with_suffix and (moment := _moment(path)) is not None:
                    found[path.relative_to(self.root).as_posix()] = moment
        return found

    def since(self, moment: float, known: Collection[str], target: Path) -> tuple[str, ...]:
        """Files that are not what dbt read at that moment, when it wrote its `target` folder: changed or new since, or
        gone of those `known`. Where dbt noted what it read a file's content tells, and else its time; not where every
        file is newer, as a checkout or a copy makes them."""
        newer = [file for file, at in self.changed.items() if at > moment]
        gone = [file for file in known if file not in self.changed]
        if len(gone) == len(known):  # the project's files are not here
            gone = []
        if newer:
            noted = _noted(target)
            by_content = [file for file in newer if noted and noted.get(file) != _checksum(self.root / file)]
            newer = by_content if noted else [] if len(newer) == len(self.changed) else newer
        return tuple(sorted({*newer, *gone}))

    def variables(self, target: Path) -> Mapping[str, str | None]:
        """Environment variables that blocks name, and what dbt read in each as it wrote its `target` folder; None:
        nothing, so that the block's own default counted. None of those whose value dbt did not note."""
        named = {name for key in self.keys if key.is_rendered for name in _VARIABLE.findall(repr(key.value))}
        noted = _kept(target).get("env_vars") if named else None
        found = {name: noted[name] for name in named if name in noted} if isinstance(noted, dict) else {}
        return {name: None if value == _DEFAULT else str(value) for name, value in found.items()}

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """Blocks, in place or not, by file and line."""
        found: list[Key] = []
        for file in sorted(self.changed):
            if file.endswith((".yml", ".yaml")):
                found += keys_of(self.root, file)
        return tuple(found)

    def with_line(self, where: str, blocks: Mapping[tuple[str, str], Any]) -> str:
        """`FILE: NAME.config.meta.dinmo.PATH` with the line of that key, `FILE:LINE: …`; as it is, where it is no such
        place. `blocks`: what the manifest has at each resource: of another block than the file's, its first line. Of
        dbt_project.yml the place names a block by its line already: the key's own takes its place."""
        for key in self.keys:
            if key.folder and _begins(where, key.where):
                inner = where[len(key.where) :].lstrip(".")
                return f"{key.file}:{key.line_of(inner)}: {where.partition(': ')[2]}"
        file, colon, way = where.partition(": ")
        if not colon or not file.endswith((".yml", ".yaml")):
            return where
        for key in self.keys:
            start = f"{key.names[0]}.config.meta.dinmo" if key.resource else ""
            if key.file != file or not start or not (way == start or way.startswith((f"{start}.", f"{start}["))):
                continue
            assert key.resource is not None
            is_same = key.is_rendered or blocks.get(key.resource) == key.value
            line = key.line_of(way[len(start) :].lstrip(".")) if is_same else key.line
            return f"{file}:{line}: {way}"
        return where

    def given_to(self, kind: str, name: str, fqn: tuple[str, ...]) -> tuple[Key, ...]:
        """The blocks of a resource, in properties files and in dbt_project.yml."""
        return tuple(
            key
            for key in self.keys
            if key.resource == (kind, name)
            or (key.folder and key.folder[0] == kind and fqn[: len(key.folder[1])] == key.folder[1])
        )

    def of(self, kind: str, name: str) -> Key | None:
        """The block of a resource in a properties file."""
        return self._by_resource.get((kind, name))

    @cached_property
    def _by_resource(self) -> Mapping[tuple[str, str], Key]:
        return {each.resource: each for each in reversed(self.keys) if each.resource and "versions" not in each.path}


def written(root: Path, project: Mapping[str, Any]) -> Written:
    """The files of the project at `root`, whose dbt_project.yml holds these values."""
    folders: list[str] = []
    for key, usual in FOLDERS.items():
        given = project.get(key, [usual])
        folders += [each for each in ([given] if isinstance(given, str) else given) if isinstance(each, str)]
    return Written(root, tuple(dict.fromkeys(folders)))


def keys_of(root: Path, file: str) -> list[Key]:
    """The blocks of one file; none where it can't be read."""
    try:
        raw = read_file(root / file)
        if not _WORTH_A_LOOK.search(raw):
            return []
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        node = yaml.compose(raw.decode("utf-8-sig"), Loader=loader)
        return [] if node is None else list(_Walk(file).blocks(node, (), ()))
    except (OSError, ValueError, RecursionError, yaml.YAMLError, _TooMany):
        return []


class _TooMany(Exception):
    pass


class _Walk:
    """One file's nodes, from the top to its blocks."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.values = 0
        self.bare: dict[KeyPath, tuple[str, Any]] = {}  # of the block that is read
        self.bare_keys: dict[KeyPath, tuple[str, bool]] = {}
        self.scalars = yaml.SafeLoader("")

    def blocks(self, node: yaml.Node, path: KeyPath, names: tuple[str, ...]) -> Iterator[Key]:
        self.count()
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                yield from self.blocks(item, (*path, number), (*names, _name(item)))
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                word = key.value if isinstance(key, yaml.ScalarNode) else ""
                if word == "<<":
                    yield from self.blocks(value, path, names)
                elif self.is_block(word, value):
                    yield self.key(key, value, (*path, word), names)
                else:
                    yield from self.blocks(value, (*path, word), names)

    def count(self) -> None:
        self.values += 1
        if self.values > VALUES_MAX:
            raise _TooMany

    def is_block(self, word: str, value: yaml.Node) -> bool:
        return is_block(word, self.shallow(value))

    def shallow(self, node: yaml.Node) -> Any:
        """Enough of a value to tell whether it is a block: two levels of keys."""
        if isinstance(node, yaml.MappingNode):
            return {
                key.value: {k.value: None for k, _ in value.value} if isinstance(value, yaml.MappingNode) else None
                for key, value in node.value
                if isinstance(key, yaml.ScalarNode)
            }
        if isinstance(node, yaml.SequenceNode):
            return [self.shallow(item) for item in node.value[:1]]
        return None

    def key(self, key: yaml.Node, value: yaml.Node, path: KeyPath, names: tuple[str, ...]) -> Key:
        lines: dict[KeyPath, int] = {(): key.start_mark.line + 1}
        twice: list[tuple[KeyPath, int, int]] = []
        self.bare, self.bare_keys = {}, {}
        read = self.value(value, (), lines, twice)
        return Key(self.file, path, names, read, lines, tuple(twice), self.bare, self.bare_keys)

    def value(
        self, node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], twice: list[tuple[KeyPath, int, int]]
    ) -> Any:
        self.count()
        if isinstance(node, yaml.SequenceNode):
            found = []
            for number, item in enumerate(node.value):
                lines[(*path, number)] = item.start_mark.line + 1
                found.append(self.value(item, (*path, number), lines, twice))
            return found
        if isinstance(node, yaml.MappingNode):
            own: dict[str, Any] = {}
            merged: dict[str, Any] = {}
            for key, value in node.value:
                word = _json_key(self.scalar(key)) if isinstance(key, yaml.ScalarNode) else ""
                if isinstance(key, yaml.ScalarNode) and key.value == "<<":
                    inner = self.value(value, path, lines, [])
                    merged = (inner if isinstance(inner, dict) else {}) | merged
                    continue
                place, line = (*path, word), key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode) and (key.value != word or key.tag == _DATE):
                    self.bare_keys[place] = (str(key.value), key.tag == _DATE)
                if word in own:
                    twice.append((place, lines[place], line))
                lines[place] = line
                own[word] = self.value(value, place, lines, twice)
            return merged | own
        read = self.scalar(node)
        if isinstance(node, yaml.ScalarNode) and not node.style:  # a plain one
            self.bare[path] = (node.value, read)
        return read

    def scalar(self, node: yaml.Node) -> Any:
        """As dbt has it in its manifest: JSON knows no dates."""
        try:
            found = self.scalars.construct_object(node)
            return found.isoformat() if isinstance(found, date) else found  # a datetime is one
        except (ArithmeticError, ValueError, LookupError, AttributeError, yaml.YAMLError):
            return getattr(node, "value", None)


def _json_key(word: object) -> str:
    return json.dumps(word) if isinstance(word, bool) or word is None else str(word)


def is_block(word: str, value: object) -> bool:
    """Whether a key is `dinmo`, another spelling of it before a block, or what stands in a block, without one."""
    if word == "dinmo":
        return True
    if not isinstance(value, Mapping | list):
        return False
    if word in ("activation", "activations"):
        each = value[0] if isinstance(value, list) and value else value
        return _tells(each) or (isinstance(each, Mapping) and any(_tells(inner) for inner in each.values()))
    folded = re.sub(r"[^a-z]", "", word.lower())
    if folded in ("dinmo", "dinmodbt", "dbtdinmo"):
        return True
    return is_near(folded) and isinstance(value, Mapping) and (bool(set(_BLOCK_KEYS) & set(value)) or _tells(value))


def _tells(value: object) -> bool:
    """Whether a mapping has at least two of the keys that an activation can hardly be without."""
    return isinstance(value, Mapping) and sum(key in value for key in _TELLING) > 1


@lru_cache(maxsize=1_000)  # a manifest repeats the same few words for each of its nodes
def is_near(word: str, target: str = "dinmo") -> bool:
    """Whether one slip of the fingers makes the one word of the other: a letter more, less, another, or two changed
    round; or two of these."""
    if abs(len(word) - len(target)) > 2:
        return False
    rows = [list(range(len(target) + 1))]
    for i, letter in enumerate(word, 1):
        row = [i]
        for j, other in enumerate(target, 1):
            cost = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == target[j - 2] and word[i - 2] == other:
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return rows[-1][-1] <= 2


def _begins(way: str, start: str) -> bool:
    return not start or way == start or way.startswith((f"{start}.", f"{start}["))


def _name(node: yaml.Node) -> str:
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if isinstance(key, yaml.ScalarNode) and key.value in ("name", "v") and isinstance(value, yaml.ScalarNode):
            return str(value.value)
    return ""


def _files(place: Path) -> Iterable[Path]:
    if place.is_file():
        return [place]
    return (Path(folder) / name for folder, _, names in os.walk(place) for name in names)


def _kept(target: Path) -> Mapping[str, Any]:
    """What dbt-core 1.x keeps for its partial parsing; nothing where it can't be read. dbt brings msgpack with it."""
    try:
        msgpack = importlib.import_module("msgpack")  # it has no types

        kept = msgpack.unpackb(read_file(target / "partial_parse.msgpack"), strict_map_key=False)
        return kept if isinstance(kept, dict) else {}
    except Exception:  # noqa: BLE001 - another's file, of any form: without it nothing is reported
        return {}


def _noted(target: Path) -> Mapping[str, str]:
    """The checksum of each file that dbt-core 1.x read; none where it can't be known."""
    try:
        kept = _kept(target)
        found = {id.partition("://")[2]: each["checksum"]["checksum"] for id, each in kept["files"].items()}
        own = kept["metadata"]["project_name"]
        return {**found, PROJECT: kept["state_check"]["project_hashes"][own]["checksum"]}
    except Exception:  # noqa: BLE001 - another's file, of any form: without it times tell
        return {}


def _checksum(path: Path) -> str:
    """As dbt makes it."""
    try:
        text = read_file(path).decode().replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError):
        return ""
    return hashlib.sha256((text if path.name == PROJECT else text.strip()).encode()).hexdigest()


def _moment(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
