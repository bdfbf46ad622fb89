"""A project whose models and state are in a real Postgres, as `serve` and the commands beside it meet it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import yaml
from test_channels import Receiver
from warehouse.conftest import Postgres, postgres

from .lab import DINMO, MODELS, Lab, Org, dbt, until
from .service import serving
from .test_scheduling import CHANNELS, titles

pytestmark = pytest.mark.slow

__all__ = ["postgres"]
SQL = MODELS["people"][1].replace("range(1, 31)", "generate_series(1, 30)").replace("as double)", "as float)")


@pytest.fixture
def shop(lab: Lab, postgres: Postgres) -> Lab:
    (lab.root / "profiles.yml").write_text(
        yaml.safe_dump({"lab": {"target": "dev", "outputs": {"dev": postgres.output()}}})
    )
    (lab.root / "dinmo.yml").write_text(DINMO + CHANNELS + "state: {warehouse: {schema: serve_state}}\n")
    return lab


def build(lab: Lab, sql: str = SQL) -> None:
    (lab.root / "models" / "people.sql").write_text(sql)
    done = dbt(lab.root, "build", "--select", "people")
    assert done.returncode == 0, done.stdout + done.stderr


def test_serve_with_models_and_state_in_postgres(shop: Lab, org: Org, receiver: Receiver) -> None:
    hook = {"HOOK": f"json://127.0.0.1:{receiver.port}/x"}
    build(shop)
    with serving(shop, **hook) as service:
        assert "PASS=1" in service.says("Done. ")
        build(shop, SQL.replace("'Person ' || i", "'Somebody ' || i"))
        assert "PASS=1" in service.says("Done. ", 2)
        assert shop.run("sync", "--due", **hook).out.startswith("nothing is due")
        assert shop.run("pause", "-s", "people_to_crm", "--reason", "a look at it", **hook).code == 0
        build(shop)
        until(lambda: service.health()[1]["looked"] is not None)
        service.end(signal.SIGKILL)
    assert shop.run("resume", "-s", "people_to_crm", **hook).code == 0
    with serving(shop, **hook) as service:
        assert "PASS=1" in service.says("Done. ")
    assert org.query("SELECT Name FROM Person__c WHERE Person_Id__c = 'P1'")[0]["Name"] == "Person 1"
    history = [run["status"] for run in shop.run("history", "--json", **hook).json["runs"]]
    assert history == ["success"] * 3
    assert titles(receiver) == ["people_to_crm: paused", "people_to_crm: resumed"]
    assert not list(Path(shop.root / ".dinmo").glob("*.db"))


def test_text_of_another_type_in_the_warehouse_stops_an_insert(shop: Lab, postgres: Postgres, org: Org) -> None:
    """Few of the rows differ, as few changed ones would: the type tells that they are not."""
    build(shop)
    some = "select i as k, case when i % 5 < 2 then json_build_object('b', i) end as v from generate_series(1, 30) i"
    postgres.run("drop table people", f"create table people as {some}")
    refs = {"name": "refs", "destination": "crm", "object": "Event__c", "mode": "insert", "fields": {"v": "Ref__c"}}
    shop.only("people", refs, key="k")
    assert shop.run("sync").code == 0
    postgres.run("alter table people alter v type jsonb using v::jsonb")
    refused = shop.run("sync")
    assert (refused.code, org.count("Event__c")) == (4, 30), refused.all
    assert "DB413" in refused.err and "column v was json, is jsonb" in " ".join(refused.err.split()), refused.err
