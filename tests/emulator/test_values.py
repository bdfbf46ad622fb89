"""One value has one meaning on every surface, and what is accepted reads back under the stated rules."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import Client

from dinmo_dbt import emulator

from .conftest import Org

_numbers = itertools.count()
NASTY: list[tuple[str, Any, Any]] = [
    ("Plan__c", "emoji 🎉 and é", "emoji 🎉 and é"),
    ("Plan__c", 'quote " and "" and \'', 'quote " and "" and \''),
    ("Plan__c", "comma, semicolon; tab\tend", "comma, semicolon; tab\tend"),
    ("Plan__c", "line\nfeed", "line\nfeed"),
    ("Plan__c", "carriage\rreturn", "carriage\rreturn"),
    ("Plan__c", "  spaces around \t", "spaces around"),
    ("Plan__c", "\u00a0kept\u00a0", "\u00a0kept\u00a0"),
    ("Plan__c", "   ", None),
    ("Plan__c", "null", "null"),
    ("Plan__c", "0012", "0012"),
    ("Note__c", "long " * 6000 + "end", "long " * 6000 + "end"),
    ("Email__c", "Michael.Bluth@Example.COM", "michael.bluth@example.com"),
    ("Tags__c", "Silver;Gold", "Silver;Gold"),
    ("Amount__c", "237.631", 237.631),
    ("Amount__c", "0.30000000000000004", 0.1 + 0.2),
    ("Amount__c", "1e15", 1e15),
    ("Number_Key__c", "999999999999999999", 1e18),
    ("Amount__c", "123456789012345678e-3", 123456789012345.678),
    ("Amount__c", "-0.0", 0.0),
    ("Amount__c", " 7 ", 7.0),
    ("Day__c", "1700-01-01", "1700-01-01"),
    ("Day__c", "1969-12-31", "1969-12-31"),
    ("Day__c", "2024-02-29", "2024-02-29"),
    ("Moment__c", "1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.000+0000"),
    ("Moment__c", "2024-03-31T02:30:00.000+02:00", "2024-03-31T00:30:00.000+0000"),
    ("Moment__c", "2024-03-31T02:30:00-0530", "2024-03-31T08:00:00.000+0000"),
    ("Opens__c", "08:30:00.5Z", "08:30:00.500Z"),
    ("Active__c", "TRUE", True),
    ("Active__c", "false", False),
]


def cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


@pytest.mark.parametrize(("field", "value", "stored"), NASTY, ids=[f"{f}-{i}" for i, (f, _, _) in enumerate(NASTY)])
def test_every_surface_stores_the_same(org: Org, field: str, value: str, stored: Any) -> None:
    keys = [f"v{next(_numbers)}" for _ in range(4)]
    if field == "Number_Key__c":  # 10^18 does not fit 18 digits as a double
        assert org.post("/sobjects/Customer__c", {field: value}).json()[0]["errorCode"] == "NUMBER_OUTSIDE_VALID_RANGE"
        return
    org.create("Customer__c", {"Code__c": keys[0], field: value})
    record = {"attributes": {"type": "Customer__c"}, "Code__c": keys[1], field: value}
    assert org.post("/composite/sobjects", {"records": [record]}).json()[0]["success"] is True
    assert org.patch(f"/sobjects/Customer__c/Code__c/{keys[2]}", {field: value}).status_code == 201
    text = f"Code__c,{field}\n{keys[3]},{cell(value)}\n"
    info, job = org.bulk("upsert", "Customer__c", text, externalIdFieldName="Code__c")
    assert info["numberRecordsFailed"] == 0, org.results(job, "failedResults")
    for key in keys:
        assert org.get(f"/sobjects/Customer__c/Code__c/{key}").json()[field] == stored
    names = ", ".join(f"'{k}'" for k in keys)
    assert [r[field] for r in org.query(f"SELECT {field} FROM Customer__c WHERE Code__c IN ({names})")] == [stored] * 4
    (row,) = csv.DictReader(io.StringIO(org.results(job, "successfulResults"), newline=""))
    if field in ("Plan__c", "Note__c"):
        assert row[field] == value


UNREADABLE: list[tuple[str, Any, str]] = [
    ("Active__c", "1", "boolean from VALUE_STRING value 1 or"),
    ("Active__c", 0, "boolean from VALUE_NUMBER_INT value 0 or"),
    ("Day__c", "", "date from VALUE_STRING value  or"),
    ("Day__c", 20240101, "date from VALUE_NUMBER_INT value 20240101 or"),
    ("Amount__c", True, "double from VALUE_TRUE value true or"),
    ("Moment__c", " ", "datetime from VALUE_STRING value   or"),
    ("Amount__c", "", "double from VALUE_STRING value  or"),
    ("Amount__c", "\u0661\u0662", "double from VALUE_STRING value \u0661\u0662 or"),
    ("Day__c", "\uff12\uff10\uff12\uff14-01-31", "date from VALUE_STRING value \uff12\uff10\uff12\uff14-01-31 or"),
    ("Tags__c", ["Gold"], "multipicklist from START_ARRAY value"),
    ("Plan__c", {"a": 1}, "string from START_OBJECT value { or"),
]


@pytest.mark.parametrize(("field", "value", "reason"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_json_that_is_not_of_the_fields_type_refuses_the_request_or_the_collections_record(
    org: Org, field: str, value: Any, reason: str
) -> None:
    single = org.post("/sobjects/Customer__c", {field: value})
    (error,) = single.json()
    assert (single.status_code, error["errorCode"]) == (400, "JSON_PARSER_ERROR")
    assert error["message"].startswith(f"Cannot deserialize instance of {reason}")
    assert error["message"].endswith("[line:1, column:1]")
    kind = {"attributes": {"type": "Customer__c"}}
    body = {"records": [{**kind, "Name": "good"}, {**kind, "Name": "bad", field: value}]}
    good, bad = org.post("/composite/sobjects", body).json()
    assert good["success"] is True
    assert bad["errors"][0]["statusCode"] == "JSON_PARSER_ERROR"
    assert bad["errors"][0]["message"].startswith(f"Cannot deserialize instance of {reason}")
    assert bad["errors"][0]["message"].endswith("[Source: N/A; line: -1, column: -1][line:-1, column:-1]")


def test_json_nested_too_deep_is_a_parser_error(org: Org) -> None:
    text = '{"Plan__c": ' + "[" * 50_000 + "]" * 50_000 + "}"
    reply = org.http.post(f"{org.base}/sobjects/Customer__c", data=text, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()[0]["errorCode"]) == (400, "JSON_PARSER_ERROR")


def test_an_empty_lookup_is_null_in_json(org: Org) -> None:
    account = org.create("Account", {"Name": "a"})
    rid = org.create("Customer__c", {"Account__c": account})
    assert org.patch(f"/sobjects/Customer__c/{rid}", {"Account__c": ""}).status_code == 204
    assert org.read("Customer__c", rid)["Account__c"] is None


def test_na_is_null_in_bulk_and_text_in_json(org: Org) -> None:
    rid = org.create("Customer__c", {"Code__c": "na", "Plan__c": "#N/A"})
    assert org.read("Customer__c", rid)["Plan__c"] == "#N/A"
    org.bulk("upsert", "Customer__c", "Code__c,Plan__c\nna,#N/A\n", externalIdFieldName="Code__c")
    assert org.read("Customer__c", rid)["Plan__c"] is None


def test_empty_text_is_null_in_json(org: Org) -> None:
    rid = org.create("Customer__c", {"Plan__c": "x", "Amount__c": 1, "Active__c": True})
    org.patch(f"/sobjects/Customer__c/{rid}", {"Plan__c": "", "Amount__c": None, "Active__c": None})
    record = org.read("Customer__c", rid)
    assert (record["Plan__c"], record["Amount__c"], record["Active__c"]) == (None, None, False)


@pytest.fixture(scope="module")
def inside(schema: Any) -> Iterator[tuple[Client, dict[str, str]]]:
    """An org in this process: no socket, and nothing left after."""
    app = emulator.app(schema=schema, data=None)
    yield Client(app), {"Authorization": f"Bearer {app.identity.access_token}"}
    app.close()


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=60)
moments = st.datetimes(datetime(1700, 1, 2), datetime(3999, 12, 30)).flatmap(
    lambda d: st.integers(-14 * 60, 14 * 60).map(lambda m: d.replace(tzinfo=timezone(timedelta(minutes=m))))
)
records = st.fixed_dictionaries({
    "Plan__c": st.none() | text,
    "Amount__c": st.none() | st.floats(-9e15, 9e15, allow_nan=False) | st.integers(-(10**15), 10**15),
    "Day__c": st.none() | st.dates(datetime(1700, 1, 1).date(), datetime(3999, 12, 31).date()),
    "Moment__c": st.none() | moments,
    "Active__c": st.none() | st.booleans(),
    "Tier__c": st.sampled_from([None, "Gold", "Silver"]),
})  # fmt: skip


def expected(record: dict[str, Any]) -> dict[str, Any]:
    blanks = "".join(map(chr, range(33)))
    moment = record["Moment__c"]
    return {
        "Plan__c": (record["Plan__c"] or "").strip(blanks) or None,
        "Amount__c": None if record["Amount__c"] is None else float(record["Amount__c"]),
        "Day__c": record["Day__c"] and record["Day__c"].isoformat(),
        "Moment__c": moment and moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000"),
        "Active__c": bool(record["Active__c"]),
        "Tier__c": record["Tier__c"],
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(records, min_size=1, max_size=20))
def test_what_is_accepted_reads_back_under_the_stated_rules(
    inside: tuple[Client, dict[str, str]], batch: list[dict[str, Any]]
) -> None:
    client, headers = inside
    base = "/services/data/v62.0"
    sent = [
        {"attributes": {"type": "Customer__c"}}
        | {k: v.isoformat() if hasattr(v, "isoformat") else v for k, v in record.items()}
        for record in batch
    ]
    items = client.post(f"{base}/composite/sobjects", json={"records": sent}, headers=headers).json
    assert all(i["success"] for i in items), items
    body = {"ids": [i["id"] for i in items], "fields": list(batch[0])}
    for got, record in zip(
        client.post(f"{base}/composite/sobjects/Customer__c", json=body, headers=headers).json, batch, strict=True
    ):
        wanted = expected(record)
        amount = got.pop("Amount__c")
        assert amount == wanted.pop("Amount__c") or math.isclose(amount, 0)
        assert {k: got[k] for k in wanted} == wanted


def test_text_is_measured_in_characters(org: Org) -> None:
    assert org.post("/sobjects/Customer__c", {"Plan__c": "é" * 255}).status_code == 201
    assert org.post("/sobjects/Customer__c", {"Plan__c": "é" * 256}).json()[0]["errorCode"] == "STRING_TOO_LONG"
    assert org.post("/sobjects/Customer__c", {"Plan__c": " " * 300 + "x"}).status_code == 201


def test_a_lone_surrogate_is_refused(org: Org) -> None:
    body = '{"Plan__c": "\\ud800"}'
    reply = org.http.post(f"{org.base}/sobjects/Customer__c", data=body, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()[0]["errorCode"]) == (400, "JSON_PARSER_ERROR")


def test_many_threads_read_and_write_at_once(org: Org) -> None:
    import threading

    failures: list[str] = []

    def work(number: int) -> None:
        for turn in range(10):
            reply = org.http.patch(
                f"{org.base}/sobjects/Customer__c/Code__c/thread-{number}-{turn % 3}", json={"Amount__c": turn}
            )
            found = org.http.get(f"{org.base}/query", params={"q": "SELECT COUNT() FROM Customer__c"})
            if reply.status_code not in (200, 201) or found.status_code != 200:
                failures.append(reply.text + found.text)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
