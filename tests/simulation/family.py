"""Parents of a history's rows: records of another object, which come late, go and get namesakes, or rows of the model.

A row's key and version say which parent it names, so a record that has a version tells whether its lookup is right.
Each seed draws by a stream of its own.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from memory_org import Match, activation, dbt_model

from dinmo_dbt.activation import Activation, FieldMapping
from dinmo_dbt.delivery.run import SyncRun
from dinmo_dbt.errors import DinmoError

from .auditor import PARENTS, Row, is_over, parent_of, up_of

if TYPE_CHECKING:
    from .history import History

_OF_OTHERS = ("Parent__r.Code__c", "Parent__r.Tag__c")
_OWN = ("Up__r.Ext__c", "Up__r.Code__c")


class Family:
    """`path`: how rows name their parents; '' where they have none. `policy`: the activation's `missing_parent`."""

    def __init__(self, history: History) -> None:
        self.history, self.random = history, random.Random(f"parents {history.seed}")
        self.path, self.policy = "", self.random.choice(("hold", "hold", "reject", "set_null"))
        self.names: dict[str, str] = {}  # of every parent that ever was, by its id
        self.alone: set[str] = set()  # parents that at some time nobody shared the name with
        self.held: dict[str, list[str]] = {}  # ids by name
        self.before = self.held  # when the run began
        self.made: dict[str, str] = {}  # by the activation of parents: names by keys
        if history.mode == "delete" or history.beside.is_there or self.random.random() < 0.5:
            return
        kinds = list(_OF_OTHERS)
        if history.on_removed != "delete" and not history.upkeep.keeps_images:  # what they delete has children
            kinds += {"upsert": _OWN[history.looks_up :], "update": _OWN[1:]}.get(history.mode, ())
        self.path = self.random.choice(kinds)

    @property
    def is_own(self) -> bool:
        return self.path.startswith("Up__r")

    @property
    def said(self) -> str:
        return f"; a parent by {self.path}: {self.policy}" if self.path else ""

    @property
    def lookup(self) -> str:
        return "Up__c" if self.is_own else "Parent__c"

    def fields(self) -> tuple[FieldMapping, ...]:
        is_matched = self.history.mode != "upsert" or self.history.looks_up
        code = (FieldMapping("code", "Code__c"),) if self.path == _OWN[1] and not is_matched else ()
        return (*code, FieldMapping("up" if self.is_own else "p", self.path)) if self.path else ()

    def wanted(self, key: str, version: int) -> str | None:
        return None if not self.path else up_of(key, version) if self.is_own else parent_of(key, version)

    # What happens to parents

    def begin(self) -> None:
        if self.path and not self.is_own:
            there = [name for name in PARENTS if self.random.random() < 0.6]
            self._create([*there, *(name for name in there if self.random.random() < 0.4)])

    def change(self) -> None:
        """One comes, gets a namesake, or goes."""
        if not self.path or self.is_own or self.history.quota_gone or self.random.random() < 0.3:
            return
        self.look()
        there = sorted(name for name, ids in self.held.items() if ids)
        match self.random.choice(("come", "come", "namesake", "go")):
            case "come":
                away = sorted(set(PARENTS) - set(there))
                if away and not (self.random.random() < 0.5 and self._sync(away[0])):
                    self._create(away[:1])
            case "namesake" if there:
                self._create([self.random.choice(there)])
            case "go" if there:
                self._go(self.random.choice(self.held[self.random.choice(there)]))

    def finish(self) -> None:
        """Each is there, once."""
        if not self.path or self.is_own:
            return
        self.look()
        for ids in list(self.held.values()):
            for record_id in ids[1:]:
                self._go(record_id)
        self._create([name for name in PARENTS if not self.held.get(name)])

    def _create(self, names: list[str]) -> None:
        if names:
            self.history.org.create([{"Name": "a parent", "Code__c": n, "Tag__c": n} for n in names], "Parent__c")
            self.history._tell(f"parents: {len(names)} come")
            self.history.met["parents come"] += len(names)
        self.look()

    def _go(self, record_id: str) -> None:
        self.let_go(record_id)
        self.history.org.delete(record_id, "Parent__c")
        self.history._tell("parents: one goes")
        self.history.met["parents go"] += 1
        self.look()

    def let_go(self, record_id: str) -> None:
        """A record that may be a parent is about to be deleted: Salesforce empties the lookups that lead to it."""
        if not self.path:
            return
        audit = self.history.audit
        for record in self.history.org.held():
            if record[self.lookup] == record_id and record["Id"] in audit.seen:
                audit.excuse(audit.seen[record["Id"]][0])
        if not self.history.settled:  # some may be on their way to it
            for key, row in audit.rows.items():
                if self.wanted(key, row.version) == self.names.get(record_id):
                    audit.excuse(key)

    def _sync(self, name: str) -> bool:
        """Another activation makes it; whether it did."""
        history = self.history
        key = f"p{PARENTS.index(name)}"
        ready = history.settled and history.place.exists() and not history.events & {"copies", "damage"}
        if not ready or key in self.made:
            return False
        self.made[key] = name
        table = pa.table({"id": list(self.made), "ext": list(self.made), "name": list(self.made.values())})
        process = history._process(own="parents")

        def work() -> SyncRun:
            return history._sync(history._session(history.warehouse(lambda: table)), self.activation())

        try:
            run = process.run(work)
        except DinmoError as error:
            history._tell(f"parents: {error}")
            return False
        history.audit.look(process)
        history._tell(f"parents: {run.outcome.succeeded} synced")
        history.met["parents synced"] += run.outcome.succeeded
        self.look()
        return bool(self.held.get(name))

    def activation(self) -> Activation:
        return activation(
            "upsert", name="parents", model=dbt_model("parents"), meta_path="parents.meta", object="Parent__c",
            match=Match("ext", "Key__c"), guards=self.history._activation().guards,
            fields=(FieldMapping("name", "Code__c"), FieldMapping("name", "Tag__c")),
        )  # fmt: skip

    # What must hold

    def look(self) -> None:
        """Who is there now."""
        if not self.path:
            return
        field, org = self.path.partition(".")[2], self.history.org
        found = defaultdict(list)
        for record in org.held() if self.is_own else org.parents():
            if record[field]:
                found[record[field]].append(record["Id"])
                self.names[record["Id"]] = record[field]
        self.held = dict(found)
        self.alone.update(ids[0] for ids in found.values() if len(ids) == 1)

    def wrong(self, record: dict[str, Any], key: str, version: int) -> str:
        """What is wrong with the lookup of a record that has that version; '' for nothing."""
        record_id = record[self.lookup]
        if record_id is None:
            return ""
        if self.names.get(record_id) != self.wanted(key, version):
            return f"{key} v{version} has a parent that it does not name"
        return "" if record_id in self.alone else f"{key} v{version} has one of two parents of one name"

    def is_open(self, record: dict[str, Any] | None, row: Row) -> bool:
        """Whether a delivered row still goes without the parent that it names."""
        named = self.wanted(row.key, row.version)
        return bool(self.path) and record is not None and named is not None and record[self.lookup] is None

    def lacks(self, record: dict[str, Any], row: Row) -> bool:
        """Whether it goes without although it must not."""
        if not self.is_open(record, row):
            return False
        may = self.policy == "set_null" and (self.history.mode == "insert" or not self._is_there(self.held, row))
        return not may

    def keeps_back(self, row: Row) -> bool:
        """Whether the row waits for its parent."""
        named = self.wanted(row.key, row.version)
        return named is not None and self.policy != "set_null" and not self._is_there(self.held, row)

    def _is_there(self, held: dict[str, list[str]], row: Row) -> bool:
        return len(held.get(self.wanted(row.key, row.version) or "", ())) == 1

    def misnamed(self, row: Row, code: str) -> str:
        """Why a run could not say that of a row's parent; '' where it could."""
        there = [len(held.get(self.wanted(row.key, row.version) or "", ())) for held in (self.before, self.held)]
        if code == "PARENT_MISSING" and min(there):
            return f"{row.key} is told {code}, and its parent is there, {min(there)} times"
        return (
            f"{row.key} is told {code}, and there is no other" if code == "PARENT_AMBIGUOUS" and max(there) < 2 else ""
        )

    def is_over(self, key: str, row: dict[str, Any]) -> bool:
        """As `auditor.is_over`; a row of the model may name one that is not there, or not any more."""
        if not str(row["code"]).startswith("PARENT_"):
            return is_over(row)
        own = self.history.audit.rows.get(key)
        return own is None or not self._is_there(self.held, own)
