"""A YAML file written by hand, as plain values with the line each was written on.

Read with PyYAML's safe scanner and our own rules: no tags, no duplicate keys, keys are text, and bounds on size, depth
and what aliases expand to. Dates stay text. Everything the file can hold gives a value or a `ConfigError`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dinmo_dbt.codes import (
    YAML_DUPLICATE_KEY,
    YAML_KEY_NOT_TEXT,
    YAML_SYNTAX,
    YAML_TAG,
    YAML_TOO_LARGE,
    YAML_UNREADABLE,
)
from dinmo_dbt.config.declaration import Path as KeyPath
from dinmo_dbt.config.declaration import dotted, is_another_number, show
from dinmo_dbt.durable import read_file
from dinmo_dbt.errors import ConfigError, Problem
from dinmo_dbt.text import whole_text

BYTES_MAX = 1_000_000
DEPTH_MAX = 50
NODES_MAX = 10_000  # after aliases are expanded
OF_DBT_NODES_MAX = 20 * NODES_MAX

_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class Document:
    """The file's values, and the line of every key and list item. `misread`: numbers, as they stand, that YAML makes
    others of."""

    name: str
    value: Any
    lines: Mapping[KeyPath, int]
    misread: Mapping[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """`dinmo.yml:12: destinations.crm`; what is not in the file has the line of what would hold it."""
        known = next((path[:n] for n in range(len(path), -1, -1) if path[:n] in self.lines), ())
        line = self.lines.get(known)
        place = f"{self.name}:{line}" if line else self.name
        return f"{place}: {dotted(path)}" if path else place


def load(path: Path) -> Document:
    """The one document of that file. FileNotFoundError is the caller's; anything else wrong is a ConfigError."""
    try:
        raw = read_file(path, BYTES_MAX + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(YAML_UNREADABLE, f"can't be read: {error.strerror}", where=path.name) from error
    return parse(raw, path.name)


def of_dbt(raw: bytes) -> Any:
    """The values of YAML that dbt reads too, by its own rules, so with tags, dates and keys of any kind, and with the
    bounds of this module but for twenty times as many values. yaml.YAMLError or ValueError for what is none."""
    loader = yaml.SafeLoader(raw.decode("utf-8-sig"))
    try:
        if len(raw) > BYTES_MAX:
            raise ValueError(f"larger than {BYTES_MAX:,} bytes")
        node = loader.get_single_node()
        if node is None:
            return None
        _check_expanded(node, OF_DBT_NODES_MAX)
        found = loader.construct_document(node)
        return whole_text.whole(found) if whole_text.is_odd(raw) else found
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as odd:
        # A constructor of PyYAML's takes a scalar for what its tag says: `!!bool x` is a KeyError, `!!int ""` another.
        raise ValueError(f"a value can't be read: {type(odd).__name__}") from None
    finally:
        loader.dispose()


def _check_expanded(root: yaml.Node, most: int) -> None:
    """ValueError for a loop of aliases, or for more values or levels than the bounds once they are expanded. A key that
    is plain is a part of its value."""
    known: dict[int, tuple[int, int]] = {}
    under_way: set[int] = set()

    def measured(node: yaml.Node) -> tuple[int, int]:
        """Its values, itself among them, and how many levels are below it."""
        if isinstance(node, yaml.ScalarNode):
            return 1, 0
        if id(node) in under_way:
            raise ValueError("an alias stands within what it means")
        if id(node) not in known:
            under_way.add(id(node))
            within = [measured(part) for part in _parts(node)]
            known[id(node)] = (
                1 + sum(values for values, _ in within),
                1 + max((levels for _, levels in within), default=0),
            )
            under_way.discard(id(node))
        return known[id(node)]

    values, levels = measured(root)
    if values > most or levels > DEPTH_MAX:
        limit = f"{most:,} values" if values > most else f"{DEPTH_MAX} levels"
        raise ValueError(f"more than {limit} after aliases are expanded")


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        return list(node.value)
    keys = [key for key, _ in node.value if not isinstance(key, yaml.ScalarNode)]
    return [*keys, *(value for _, value in node.value)]


def parse(raw: bytes, name: str) -> Document:
    """The one YAML document in `raw`; an empty one is an empty mapping."""
    if len(raw) > BYTES_MAX:
        raise ConfigError(YAML_TOO_LARGE, f"larger than {BYTES_MAX:,} bytes", where=name)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(YAML_UNREADABLE, "not UTF-8 text", where=f"{name}:{line}") from None
    try:
        _check_events(text, name)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, text, name) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(YAML_SYNTAX, "a control character is not allowed in YAML", where=f"{name}:{line}") from None
    except (yaml.YAMLError, ValueError) as error:
        # The scanner lets a few ValueErrors through: an escape past the last code point, a version that is no number.
        raise ConfigError(YAML_SYNTAX, f"not YAML: {type(error).__name__}", where=name) from None
    if node is None:
        return Document(name, {}, {})
    try:
        _check_expanded(node, NODES_MAX)
    except ValueError as bound:
        raise ConfigError(YAML_TOO_LARGE, str(bound), where=f"{name}:{node.start_mark.line + 1}") from None
    reading = _Parser(name)
    value = reading.value(node, ())
    if reading.problems:
        raise ConfigError.of(reading.problems)
    value = whole_text.whole(value) if whole_text.is_odd(raw) else value
    return Document(name, value, reading.lines, reading.misread)


def _syntax(error: yaml.MarkedYAMLError, text: str, name: str) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    message = " ".join(_unquoted(part) for part in (error.context, error.problem) if part) or "not YAML"
    if mark is None:
        return ConfigError(YAML_SYNTAX, message, where=name)
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    hint = "YAML is indented with spaces, not tabs" if "\t" in line[: mark.column + 1] else ""
    # The line itself is not shown: it may hold a secret that was on its way to an environment variable.
    return ConfigError(YAML_SYNTAX, message, where=f"{name}:{mark.line + 1}:{mark.column + 1}", hint=hint)


def _unquoted(message: str) -> str:
    """PyYAML's words without the text they quote, be it one sign or a name: it may be of a secret without quotes.

    What it expected, and its names of tokens (`<stream end>`), are its own; what else it found, and the names of
    aliases and anchors, are the file's.
    """
    if message.startswith("found character"):
        return "found a sign that no value begins with: put the text in quotes"
    ours = re.sub(r",? but (?:found|got) '(?!<[a-z -]+>'\Z).*", "", message, flags=re.DOTALL)
    return ours if ours.startswith("expected ") else re.sub(r" '.*", "", ours, flags=re.DOTALL)


def _check_events(text: str, name: str) -> None:
    """Tags and depth, before anything recursive sees the document."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None):
            raise ConfigError(
                YAML_TAG, "tags are not allowed; put a text that begins with `!` in quotes", where=f"{name}:{line}"
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise ConfigError(YAML_TOO_LARGE, f"nested more than {DEPTH_MAX} levels deep", where=f"{name}:{line}")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Parser:
    """Nodes to values, with the problems met on the way."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[KeyPath, int] = {}
        self.misread: dict[KeyPath, str] = {}
        self.problems: list[Problem] = []
        self.scalars = yaml.SafeLoader("")

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        return self.scalar(node, path)

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        first_lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            where = f"{self.name}:{line}" + (f": {dotted(path)}" if path else "")
            if key_node.tag == _MERGE:
                merged = self.merge(value_node, path) | merged
                continue
            if key_node.tag != _TEXT:
                bare = f" {show(key_node.value)}" if isinstance(key_node, yaml.ScalarNode) else ""
                hint = "YAML reads yes, no, on, off, null and numbers as values: put the key in quotes" if bare else ""
                self.problems.append(Problem(YAML_KEY_NOT_TEXT, f"the key{bare} is not text", where, hint))
                continue
            key = str(key_node.value)
            if key in first_lines:
                message = f"the key {show(key)} is given twice, on lines {first_lines[key]} and {line}"
                self.problems.append(Problem(YAML_DUPLICATE_KEY, message, where))
                continue
            first_lines[key] = line
            self.lines[(*path, key)] = line
            own[key] = self.value(value_node, (*path, key))
        return merged | own

    def merge(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        """`<<: *other` or `<<: [*one, *two]`, the first of which wins."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in sources:
            value = self.value(source, path)
            if not isinstance(value, dict):
                where = f"{self.name}:{source.start_mark.line + 1}"
                self.problems.append(Problem(YAML_SYNTAX, "`<<` takes a mapping or a list of mappings", where))
                continue
            merged = value | merged
        return merged

    def scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        if node.tag.rpartition(":")[2] not in ("null", "bool", "int", "float"):
            return str(node.value)  # dates too: they are written back as they were read
        try:
            read = self.scalars.construct_object(node)
            if is_another_number(str(node.value), read):
                self.misread[path] = str(node.value)
            return read
        except (ValueError, OverflowError, yaml.YAMLError):
            where = f"{self.name}:{node.start_mark.line + 1}"
            self.problems.append(Problem(YAML_SYNTAX, "this can't be read as a number: put it in quotes", where))
            return None
