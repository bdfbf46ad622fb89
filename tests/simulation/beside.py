"""Another activation of the object, or the same one under another dbt target of the same org, in the same state.

Its model has some of the rows that the activation of the history has, each as it was when that one had it delivered, so
that neither writes what the other one has not. It runs between the history's runs, while nothing is in flight.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from memory_org import Match, activation, dbt_model

from dinmo_dbt.activation import Activation, FieldMapping

from .auditor import Auditor, Row

TARGET = "ci"


@dataclass
class Beside:
    """`activation` is of what the history's own looks like now. `rows` are the keys that its model has."""

    seed: int
    mode: str
    audit: Auditor
    own: Callable[[], Activation]
    rows: dict[str, Row] = field(default_factory=dict)
    is_meant: bool = False  # said in the configuration

    def __post_init__(self) -> None:
        self.random = random.Random(f"beside {self.seed}")
        removes = self.mode == "delete" or self.audit.on_removed != "ignore"  # where it matters most
        self.is_there = self.random.random() < (0.7 if removes else 0.2)
        self.target = TARGET if self.mode in ("upsert", "update") and self.random.random() < 0.5 else "dev"

    @property
    def is_target(self) -> bool:
        return self.target == TARGET

    def activation(self) -> Activation:
        own = self.own()
        if self.is_target:
            return replace(own, model=dbt_model("things", "ci"))
        shares = ("things",) if self.is_meant else ()
        if self.mode == "upsert":
            return replace(own, name="more", model=dbt_model("more"), meta_path="more.meta", shares_object_with=shares)
        return activation(
            "update", name="more", model=dbt_model("more"), meta_path="more.meta", match=Match("code", "Code__c"),
            fields=(FieldMapping("c", "C__c"),), guards=own.guards, shares_object_with=shares,
        )  # fmt: skip

    @property
    def said(self) -> str:
        return f"target {TARGET}" if self.is_target else "another activation"

    def declared(self, target: str) -> tuple[Activation, ...]:
        """What the project has under that target, once there are rows for this one."""
        own = self.activation() if target == TARGET else self.own()
        return (own, self.activation()) if self.rows and not self.is_target else (own,)

    @property
    def refused_as(self) -> str:
        """The code of what refuses it as long as nobody says that it is meant; '' for nothing."""
        if self.is_target:
            return "DB508" if self.audit.acknowledged else ""
        return "DB145" if self.mode == "delete" or self.own().on_removed == "delete" else ""

    def change(self) -> None:
        """Rows come into its model, or leave it."""
        audit = self.audit
        there = {key for key, *_ in audit.seen.values()}
        fit = [key for key in sorted(audit.rows) if key in audit.delivered or key not in there]
        if len(self.rows) > 1 and self.random.random() < 0.5:
            gone = set(self.random.sample(sorted(self.rows), k=self.random.randint(1, len(self.rows) - 1)))
            self.rows = {key: row for key, row in self.rows.items() if key not in gone}
            audit.kept = {key: was_set for key, was_set in audit.kept.items() if key not in gone}  # its own to remove
            if audit.on_removed == "delete":  # what only this one has goes with its row
                audit.may_go |= gone - audit.acknowledged
        elif fit:
            chosen = self.random.sample(fit, k=self.random.randint(1, len(fit)))
            self.rows |= {key: audit.rows[key] for key in chosen}

    def ended(self, left_out: set[str]) -> None:
        """After a run that ended: what it keeps from now on."""
        self.audit.kept = {key: self.audit.is_closed(key) for key in self.rows.keys() - left_out}
