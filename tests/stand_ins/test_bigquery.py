"""BigQuery, by bqemulator: dbt builds, dinmo-dbt plans and syncs, and each cell in the org is what the model says."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e.lab import ACCOUNTS, OBJECTS, Org, Ran, until

from .environments import ENVIRONMENTS, ROOT, needed
from .nasty import FIELDS, HELD, as_held, seed, upsert
from .shop import Shop, answers, free_port, org_files, project, serving

SERVER, CLIENT = ENVIRONMENTS["bigquery"]
HERE = Path(__file__).parent

pytestmark = pytest.mark.slow

SEED_TYPES = {
    "whole": "int64", "exact": "string", "amount": "string", "ratio": "float64", "flag": "bool",
    "day": "date", "clock": "time", "local": "datetime", "moment": "timestamp", "text": "string", "json": "string",
    "choices": "string",
}  # fmt: skip
# `cast(… as numeric)` keeps three places in the stand-in.
NASTY = """select key, if(text = '<empty>', '', text) as text, whole, parse_numeric(exact) as exact,
parse_numeric(amount) as amount, if(key = 'full', {{ var('ratio', 0.1) }}, ratio) as ratio, flag, day, clock,
local, moment, parse_json(json) as json, split(choices, ';') as choices from {{ ref('raw') }}"""
MODELS: dict[str, tuple[str, str, str, list[dict[str, Any]]]] = {
    # The stand-in forgets that a column of a table is JSON.
    "nasty": ("table", "key", NASTY, [upsert("by_table", "Nasty__c", without=("json",))]),
    "nasty_view": ("view", "key", "select * from {{ ref('nasty') }}", [upsert("by_view", "Seen__c")]),
    "events": (
        "table",
        "key",
        "select concat('E', cast(i as string)) as key, i as whole"
        " from unnest(generate_array(1, {{ var('events', 20) }})) i",
        [{"name": "inserted", "destination": "crm", "object": "Event__c", "mode": "insert", "where": "whole > 5",
          "fields": {"key": "Text__c", "whole": "Whole__c"}}],
    ),
    "companies": (
        "view",
        "website",
        "select 'a.example' as website, 10.5 as score union all select 'b.example', 20 union all select 'none', 30",
        [{"name": "updated", "destination": "crm", "object": "Account", "mode": "update",
          "match": {"website": "Website"}, "fields": {"score": "Score__c"}}],
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Service:
    rest: int
    grpc: int

    def profile(self, dataset: str) -> dict[str, Any]:
        return {
            "type": "bigquery", "method": "oauth-secrets", "token": "none", "project": "shop", "dataset": dataset,
            "location": "US", "threads": 1, "api_endpoint": f"http://127.0.0.1:{self.rest}",
        }  # fmt: skip


@dataclass(frozen=True)
class EitherWay(Shop):
    """Read by the Storage Read API, or by REST where the profile keeps dinmo-dbt from that."""

    storage: int | None

    def run(self, *arguments: str) -> Ran:
        if self.storage is None:
            return super().run(*arguments)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STAND_IN_GRPC", str(self.storage))
            return self._run("python", str(HERE / "bigquery_client.py"), *arguments)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    needed(SERVER, CLIENT)
    made, home = Service(free_port(), free_port()), tmp_path_factory.mktemp("server")
    command = [SERVER.program("python"), HERE / "bigquery_server.py", made.rest, made.grpc, home]
    with serving(list(map(str, command)), made.rest, home / "log"):
        until(lambda: answers(made.grpc))
        yield made


@pytest.fixture(params=["storage", "rest"])
def shop(request: pytest.FixtureRequest, service: Service, tmp_path: Path) -> EitherWay:
    made = EitherWay(tmp_path / "shop", CLIENT, service.grpc if request.param == "storage" else None)
    declared = [
        {"name": name, "config": {"materialized": kind, "meta": {"dinmo": {"key": key, "activations": activations}}}}
        for name, (kind, key, _, activations) in MODELS.items()
    ]
    seeds = [{"name": "raw", "config": {"column_types": SEED_TYPES}}]
    models = {name: sql for name, (_, _, sql, _) in MODELS.items()}
    objects = dict.fromkeys(("Nasty__c", "Seen__c", "Event__c"), FIELDS) | {"Account": OBJECTS["Account"]}
    made.write(project(service.profile(request.param), models, declared) | org_files(objects, {"Account": ACCOUNTS}))
    made.write({"seeds/raw.csv": seed(), "seeds/seeds.yml": json.dumps({"version": 2, "seeds": seeds})})
    return made


@pytest.fixture
def org(shop: EitherWay) -> Iterator[Org]:
    with shop.org() as org:
        yield org


def sent(ran: Ran) -> dict[str, int]:
    return {each["activation"]: each["outcome"]["succeeded"] for each in ran.json["results"]}


def test_what_dbt_built_is_in_salesforce_cell_by_cell_and_then_only_changes_are_sent(shop: EitherWay, org: Org) -> None:
    shop.dbt("build")
    planned = shop.run("plan", "--json")
    assert planned.code in (0, 10), planned.all
    assert org.count("Nasty__c") == 0
    first = shop.run("sync", "--json")
    assert first.code == 3, first.all  # a row with a control character is invalid
    assert sent(first) == {"by_table": 4, "by_view": 4, "inserted": 15, "updated": 2}
    for name in ("Nasty__c", "Seen__c"):
        found = {each["Key__c"]: as_held(each) for each in org.query(f"SELECT FIELDS(ALL) FROM {name} LIMIT 200")}
        assert found.keys() == HELD.keys()
        for key, held in HELD.items():
            assert found[key] == (held if name == "Seen__c" else {**held, "Json__c": None}), (name, key)
    assert {each["Whole__c"] for each in org.query("SELECT Whole__c FROM Event__c")} == set(map(str, range(6, 21)))
    scores = {each["Website"]: each["Score__c"] for each in org.query("SELECT Website, Score__c FROM Account")}
    assert scores == {"a.example": 10.5, "b.example": 20, "o.example": None}
    assert sent(shop.run("sync", "--json")) == dict.fromkeys(sent(first), 0)

    shop.dbt("build", "--select", "events", "nasty", "--vars", "{events: 22, ratio: 0.25}")
    assert sent(shop.run("sync", "--json")) == {"by_table": 1, "by_view": 1, "inserted": 2, "updated": 0}
    assert org.query("SELECT Ratio__c FROM Seen__c WHERE Key__c = 'full'")[0]["Ratio__c"] == "0.25"
    told = shop.run("debug")
    way = "REST, slowly: the profile names an api_endpoint" if shop.storage is None else "the Storage Read API"
    assert f"BigQuery, project shop (rows by {way})" in " ".join(told.out.split()), told.all


def test_the_reader_by_itself(service: Service) -> None:
    """In the environment that has Google's clients."""
    ports = {"STAND_IN_REST": str(service.rest), "STAND_IN_GRPC": str(service.grpc)}
    command = [CLIENT.program("python"), "-m", "pytest", "-p", "no:cacheprovider", HERE / "bigquery_reads.py"]
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, env=os.environ | ports, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
