"""Models of a stand-in's project: each cell of them as SQL writes it and as the org has to hold it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from e2e.lab import EXTERNAL, NUMBER, TEXT, Org

from .shop import Shop, org_files, project

# A column of the model: its field, its type, and by row its value as SQL writes it and as the org holds it.
Cells = list[tuple[str, Any]]
Columns = dict[str, tuple[str, str, Cells]]
NULL = ("null", None)

_MOMENT = "<type>DateTime</type>"
_PLANS = (
    "<type>MultiselectPicklist</type><visibleLines>3</visibleLines><valueSet><restricted>true</restricted>"
    "<valueSetDefinition><sorted>false</sorted><value><fullName>Free</fullName><label>Free</label></value>"
    "<value><fullName>Team</fullName><label>Team</label></value></valueSetDefinition></valueSet>"
)
OBJECTS = {
    "Customer__c": {
        "Customer_Id__c": TEXT.format(40) + EXTERNAL,
        "Whole__c": NUMBER.format(0),
        "Money__c": NUMBER.format(4),
        "Digits__c": TEXT.format(80),
        "Share__c": NUMBER.format(2),
        "Note__c": TEXT.format(255),
        "Active__c": "<type>Checkbox</type><defaultValue>false</defaultValue>",
        "Born__c": "<type>Date</type>",
        "Wakes__c": "<type>Time</type>",
        "Wall__c": _MOMENT,
        "Local__c": _MOMENT,
        "Zoned__c": _MOMENT,
        "Said__c": TEXT.format(255),
        "Plans__c": _PLANS,
        "Thing__c": TEXT.format(255),
        "Order__c": TEXT.format(40),
        "Mixed__c": TEXT.format(40),
    },
    "Event__c": {"Ref__c": TEXT.format(40), "Amount__c": NUMBER.format(2)},
    "Account": {"Score__c": NUMBER.format(2)},
}
ACCOUNTS = "Name,Website\nAlpha,a.example\nBeta,b.example\nOther,o.example\n"
INSERT = {
    "name": "events_to_crm",
    "destination": "crm",
    "object": "Event__c",
    "mode": "insert",
    "fields": {"event_id": "Ref__c", "amount": "Amount__c"},
}
UPDATE = {
    "name": "companies_to_crm",
    "destination": "crm",
    "object": "Account",
    "mode": "update",
    "match": {"website": "Website"},
    "fields": {"score": "Score__c"},
}


def upsert(columns: Columns) -> dict[str, Any]:
    """Columns are named in lower case, as people write them."""
    fields = {name.strip('"'): field for name, (field, _, _) in columns.items() if name != "customer_id"}
    return {
        "name": "customers_to_crm",
        "destination": "crm",
        "object": "Customer__c",
        "mode": "upsert",
        "match": {"customer_id": "Customer_Id__c"},
        "fields": fields | {"customer_id": "Name"},
    }


def customers(columns: Columns, rows: Sequence[int] = (0, 1, 2)) -> str:
    def selected(row: int) -> str:
        cells = ((f"cast({cells[row][0]} as {kind})", name) for name, (_, kind, cells) in columns.items())
        return "select " + ", ".join(f"{value} as {name}" for value, name in cells)

    return " union all ".join(map(selected, rows))


def companies(score: str = "20") -> str:
    rows = (("a.example", "10.5"), ("b.example", score), ("unknown.example", "30"))
    return " union all ".join(
        f"select cast('{site}' as varchar(40)) as website, cast({value} as numeric(9, 1)) as score"
        for site, value in rows
    )


def shop_of(shop: Shop, output: dict[str, Any], columns: Columns, events: str) -> Shop:
    keys = {"customers": ("customer_id", upsert(columns)), "events": ("event_id", INSERT)}
    keys["companies"] = ("website", UPDATE)
    declared = [
        {"name": name, "config": {"meta": {"dinmo": {"key": key, "activations": [activation]}}}}
        for name, (key, activation) in keys.items()
    ]
    models = {"customers": customers(columns), "events": events, "companies": companies()}
    shop.write(project(output, models, declared) | org_files(OBJECTS, {"Account": ACCOUNTS}))
    return shop


def check_cells(org: Org, columns: Columns) -> None:
    fields = [field for field, _, _ in columns.values()]
    found = org.query(f"SELECT {', '.join(fields)} FROM Customer__c")
    told = {record["Customer_Id__c"]: {field: record[field] for field in fields} for record in found}
    assert len(told) == 3
    for row in (0, 1, 2):
        expected = {field: cells[row][1] for field, _, cells in columns.values()}
        assert told[expected["Customer_Id__c"]] == expected


def sent(shop: Shop) -> dict[str, int]:
    """A sync: how many rows of each activation were delivered."""
    done = shop.run("sync", "--json")
    assert done.code == 0, done.all
    return {one["activation"].removesuffix("_to_crm"): one["outcome"]["succeeded"] for one in done.json["results"]}


def refusal(shop: Shop, columns: Columns, code: str, **change: Any) -> str:
    """What a plan of the customers says, declared so, that ends by that code."""
    shop.declare("customers", key="customer_id", activations=[upsert(columns) | change])
    refused = shop.run("plan", "-s", "customers_to_crm")
    shop.declare("customers", key="customer_id", activations=[upsert(columns)])
    assert refused.code not in (0, 10) and code in refused.all, refused.all
    return " ".join(refused.all.split())
