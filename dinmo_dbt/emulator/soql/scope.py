"""What a statement can name: its object, the parents joined on the way, and a field's SQL.

A record's integer holds its object's number, so a polymorphic lookup joins every object it may point to and
at most one of the joins finds a row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from dinmo_dbt.emulator.errors import ApiError
from dinmo_dbt.emulator.folding import folded_sql
from dinmo_dbt.emulator.ids import COUNTER_BITS
from dinmo_dbt.emulator.schema.definitions import Field, SObject
from dinmo_dbt.emulator.soql.sql import Sql
from dinmo_dbt.emulator.soql.syntax import Node, Statement, not_emulated, words
from dinmo_dbt.emulator.store import Store
from dinmo_dbt.emulator.tables import quoted

_LEVELS_MAX = 5
_JOINS_MAX = 55  # child-to-parent relationships of one query; SQLite joins 64 tables
_ADVICE = "Please reference your WSDL or the describe call for the appropriate names."
# The fields of the Name object, which stands for any parent of a polymorphic lookup (Object Reference, Name).
_NAME_FIELDS = frozenset({
    "id", "name", "firstname", "lastname", "type", "alias", "email", "isactive", "phone", "title", "username",
    "usertype", "profileid", "userroleid", "recordtypeid",
})  # fmt: skip
_ADDRESS = re.compile("Address$", re.IGNORECASE)
_TYPE = Field(name="Type", label="Type", type="string", length=40)


def column_sql(alias: str, target: Field) -> str:
    """A field's value in the table called `alias`."""
    if target.sql is not None:
        return f"({target.sql.replace('{t}', alias)})"
    return f"{alias}.rid" if target.name == "Id" else f"{alias}.{quoted(target.name)}"


def compared_sql(alias: str, target: Field) -> str:
    """A field's value as conditions compare it: the one place that knows where folded text is found."""
    column = column_sql(alias, target)
    return folded_sql(column) if target.folded else column


@dataclass(frozen=True, slots=True)
class Operand:
    """A field or a function of one: its value, its value as conditions compare it, its type.

    `path` is the parents' names as the schema writes them, then the name it has in a record.
    """

    node: Node
    path: tuple[str, ...]
    field: Field
    sql: Sql
    compared: Sql
    function: str = ""  # the date function it is the answer of

    @property
    def shown(self) -> str:
        return ".".join(self.path)

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """What makes two operands the same expression."""
        return self.function, self.path


@dataclass(frozen=True, slots=True)
class Join:
    """A parent: the objects it may be, each with its alias, and the field that points to it."""

    link: Field
    targets: tuple[tuple[str, SObject], ...]
    polymorphic: bool

    @property
    def rid(self) -> str:
        aliases = [f"{alias}.rid" for alias, _ in self.targets]
        return aliases[0] if len(aliases) == 1 else f"coalesce({', '.join(aliases)})"


@dataclass(slots=True)
class Scope:
    """One SELECT on its way to SQL. `everything` also sees the recycle bin (queryAll)."""

    store: Store
    statement: Statement
    clock: Callable[[], datetime]
    everything: bool
    sobject: SObject
    names: set[str]  # what the object may be called at the start of a path
    joins: dict[tuple[str, ...], Join] = field(default_factory=dict)
    tables: str = ""
    aliases: int = 0

    def __post_init__(self) -> None:
        self.tables = f"FROM {self.store.table(self.sobject).name} t"

    def living(self) -> Sql:
        return Sql("1" if self.everything else 't."IsDeleted" = 0')

    def invalid(self, node: Node, message: str) -> ApiError:
        return self.statement.refuse(node, message, "INVALID_FIELD")

    def field(self, node: Node) -> Operand:
        """A field path, joining the parents on the way."""
        names = words(node)
        if len(names) > 1 and names[0].lower() in self.names and self.sobject.relationship(names[0]) is None:
            names = names[1:]
        if len(names) - 1 > _LEVELS_MAX:
            raise self.statement.refuse(node, "No more than 5 relationship levels are allowed")  # text unverified
        path: tuple[str, ...] = ()
        targets: tuple[tuple[str, SObject], ...] = (("t", self.sobject),)
        join: Join | None = None
        for name in names[:-1]:
            join, path = self.parent(node, targets, path, name)
            targets = join.targets
        if join is not None and join.polymorphic:
            return self.of_any(node, join, path, names[-1])
        alias, sobject = targets[0]
        return self.own(node, alias, sobject, path, names[-1])

    def own(self, node: Node, alias: str, sobject: SObject, path: tuple[str, ...], name: str) -> Operand:
        """A field of one object."""
        target = sobject.field(name)
        if target is None and _ADDRESS.search(name) and sobject.field(_ADDRESS.sub("City", name)) is not None:
            raise not_emulated(f"compound fields ({name})")
        if target is None:
            raise self._no_column(node, name, sobject.name)
        return Operand(
            node, (*path, target.name), target, Sql(column_sql(alias, target)), Sql(compared_sql(alias, target))
        )

    def parent(
        self, node: Node, targets: tuple[tuple[str, SObject], ...], path: tuple[str, ...], name: str
    ) -> tuple[Join, tuple[str, ...]]:
        """The join of the parent called `name`, and its path."""
        if len(targets) > 1:
            raise not_emulated(f"a relationship of a polymorphic one ({'.'.join((*path, name))})")
        alias, sobject = targets[0]
        link = sobject.relationship(name)
        if link is None or link.relationship_name is None:
            raise self.invalid(
                node,
                f"Didn't understand relationship '{name}' in field path. If you are attempting to use a custom "
                f"relationship, be sure to append the '__r' after the custom relationship name. {_ADVICE}",
            )
        path = (*path, link.relationship_name)
        if path not in self.joins:
            self.joins[path] = self._join(alias, link)
        return self.joins[path], path

    def _join(self, alias: str, link: Field) -> Join:
        objects = [o for o in (self.store.schema.get(name) for name in link.reference_to) if o is not None]
        if not objects:
            raise not_emulated(f"the relationship {link.relationship_name}")
        living = "" if self.everything else ' AND {0}."IsDeleted" = 0'
        targets = []
        for sobject in objects:
            self.aliases += 1
            if self.aliases > _JOINS_MAX:
                raise not_emulated(f"more than {_JOINS_MAX} relationships")
            joined = f"p{self.aliases}"
            table = self.store.table(sobject).name
            on = f"{joined}.rid = {alias}.{quoted(link.name)}{living.format(joined)}"
            self.tables += f" LEFT JOIN {table} {joined} ON {on}"
            targets.append((joined, sobject))
        return Join(link, tuple(targets), len(link.reference_to) > 1)

    def of_any(self, node: Node, join: Join, path: tuple[str, ...], name: str) -> Operand:
        """A field of the Name object: whichever object the lookup points to."""
        if name.lower() == "type":
            numbers = [(self.store.table(o).number, o.name.replace("'", "''")) for _, o in join.targets]
            cases = " ".join(f"WHEN {number} THEN '{called}'" for number, called in numbers)
            sql = f"(CASE {join.rid} >> {COUNTER_BITS} {cases} END)"
            return Operand(node, (*path, "Type"), _TYPE, Sql(sql), Sql(f"fold({sql})"))
        having = [(a, f) for a, o in join.targets if (f := o.field(name)) is not None]
        if name.lower() not in _NAME_FIELDS or not having:
            raise self._no_column(node, name, "Name")
        columns = [column_sql(a, f) for a, f in having]
        target = having[0][1]
        if len(having) == 1:
            return Operand(node, (*path, target.name), target, Sql(columns[0]), Sql(compared_sql(*having[0])))
        compared = [compared_sql(a, f) for a, f in having]
        return Operand(
            node, (*path, target.name), target, Sql(f"coalesce({', '.join(columns)})"),
            Sql(f"coalesce({', '.join(compared)})"),
        )  # fmt: skip

    def _no_column(self, node: Node, name: str, entity: str) -> ApiError:
        return self.invalid(
            node,
            f"No such column '{name}' on entity '{entity}'. If you are attempting to use a custom field, be sure to "
            f"append the '__c' after the custom field name. {_ADVICE}",
        )
