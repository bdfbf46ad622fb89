"""Each recipe of docs/cookbook.md runs as it stands, on the sample project and the local org, and does what it says."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from .lab import Lab, Org, dbt

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "sample_dbt_project"
PAGE = (ROOT / "docs/cookbook.md").read_text(encoding="utf-8")
RECIPES = {
    int(number): [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    for number, text in re.findall(r"^## (\d+)\. (.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ignored = shutil.ignore_patterns("target", "logs", ".dinmo", "*.duckdb", "*.duckdb.wal")
    root = Path(shutil.copytree(SAMPLE, tmp_path_factory.mktemp("cookbook") / "lab", ignore=ignored))
    done = dbt(root, "build")
    assert done.returncode == 0, done.stdout + done.stderr
    return root


class Kitchen(Lab):
    """The sample project with one recipe's declarations and no others."""

    def cook(self, number: int, **changed: Any) -> None:
        path = self.root / "target/manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        declared = {m["name"]: m for each in RECIPES[number] for m in each.get("models", ())}
        for node in manifest["nodes"].values():
            if node["resource_type"] == "model":
                meta = declared.get(node["name"], {}).get("config", {}).get("meta", {})
                if changed:
                    meta = (
                        {"dinmo": {**meta["dinmo"], "activation": {**meta["dinmo"]["activation"], **changed}}}
                        if meta
                        else {}
                    )
                node["config"]["meta"] = node["meta"] = meta
        path.write_text(json.dumps(manifest), encoding="utf-8")

    def synced(self) -> dict[str, Any]:
        """What `validate --online`, `plan` and `sync` say of the recipe, which is nothing bad."""
        for command in (("validate", "--online"), ("plan",)):
            ran = self.run(*command)
            assert ran.code == 0, ran.all
        ran = self.run("sync", "--json")
        assert ran.code == 0, ran.all
        return {each["activation"]: each for each in ran.json["results"]}

    def rows(self, sql: str) -> int:
        return int(self.texts(f"select count(*) from {sql}")[0])

    def texts(self, sql: str) -> list[str]:
        (file,) = self.root.glob("*.duckdb")
        with duckdb.connect(str(file), read_only=True) as connection:
            return [str(row[0]) for row in connection.execute(sql).fetchall()]

    def execute(self, sql: str) -> None:
        (file,) = self.root.glob("*.duckdb")
        with duckdb.connect(str(file)) as connection:
            connection.execute(sql)


@pytest.fixture
def kitchen(built: Path, tmp_path: Path) -> Kitchen:
    return Kitchen(Path(shutil.copytree(built, tmp_path / "lab")))


@pytest.fixture
def org(kitchen: Kitchen) -> Iterator[Org]:
    with kitchen.serve() as org:
        yield org


def test_there_are_twelve_recipes_and_dbt_takes_each(built: Path, tmp_path: Path) -> None:
    assert sorted(RECIPES) == list(range(1, 13))
    assert all(RECIPES.values())


def a_segment(kitchen: Kitchen, org: Org) -> None:
    wanted = kitchen.rows("dim_customers where is_paying and country = 'Germany'")
    assert 0 < wanted < kitchen.rows("dim_customers")
    kitchen.synced()
    assert org.count("Customer__c") == wanted


def a_constant(kitchen: Kitchen, org: Org) -> None:
    kitchen.synced()
    assert org.count("Customer__c WHERE Source__c = 'dbt' AND Is_Paying__c = true") == kitchen.rows("dim_customers")


def a_parent(kitchen: Kitchen, org: Org) -> None:
    kitchen.synced()
    assert org.count("Subscription__c") == kitchen.rows("fct_subscriptions")
    assert org.count("Subscription__c WHERE Customer__r.Customer_Id__c = null") == 0


def nulls_kept(kitchen: Kitchen, org: Org) -> None:
    org.create("Customer__c", Customer_Id__c="CUS-00001", Phone__c="+49 30 1234")
    kitchen.execute("update dim_customers set phone = null where customer_id = 'CUS-00001'")
    kitchen.synced()
    (record,) = org.query("SELECT Name, Phone__c FROM Customer__c WHERE Customer_Id__c = 'CUS-00001'")
    assert record["Name"] and record["Phone__c"] == "+49 30 1234"


def a_row_that_leaves(kitchen: Kitchen, org: Org) -> None:
    kitchen.synced()
    before = org.count("Subscription__c")
    kitchen.execute(
        "update fct_subscriptions set status = 'canceled' where subscription_id = "
        "(select min(subscription_id) from fct_subscriptions where status = 'active')"
    )
    kitchen.synced()
    assert org.count("Subscription__c") == before
    assert org.count("Subscription__c WHERE Status__c = 'canceled' AND MRR__c = 0") == 1


def a_list_to_delete(kitchen: Kitchen, org: Org) -> None:
    ended, other = (
        kitchen.texts(f"select subscription_id from fct_subscriptions where status {is_it} 'canceled' limit 3")
        for is_it in ("=", "<>")
    )
    for each in (*ended, *other):
        org.create("Subscription__c", Subscription_Id__c=each)
    kitchen.synced()
    left = {each["Subscription_Id__c"] for each in org.query("SELECT Subscription_Id__c FROM Subscription__c")}
    assert (len(ended), left) == (3, set(other))


def what_is_not_there_is_created(kitchen: Kitchen, org: Org) -> None:
    before = org.count("Account")
    told = kitchen.synced()
    ((_, result),) = told.items()
    assert result["counts"]["ambiguous"] == 0
    made = org.count("Account") - before
    assert result["outcome"]["succeeded"] == kitchen.rows("dim_accounts")
    assert 0 < made < kitchen.rows("dim_accounts"), "some were there"


def a_schedule(kitchen: Kitchen, org: Org) -> None:
    shown = kitchen.run("schedule").out
    assert "0 6 * * 1-5 (Europe/Paris), quiet 22:00-05:00 (Europe/Paris)" in shown, shown
    kitchen.synced()


def guards(kitchen: Kitchen, org: Org) -> None:
    kitchen.cook(9, guards={"max_created": 1})
    kitchen.execute("delete from dim_customers where customer_id <> 'CUS-00001'")
    kitchen.synced()
    kitchen.execute(
        "insert into dim_customers select dim_customers.* replace (x as customer_id) "
        "from dim_customers, (values ('a'), ('b')) t(x)"
    )
    ran = kitchen.run("sync")
    assert (ran.code, "max_created" in ran.all) == (4, True), ran.all
    assert org.count("Customer__c") == 1


def adoption(kitchen: Kitchen, org: Org) -> None:
    kitchen.execute("delete from fct_product_events where event_id > 'EVT-000020'")
    assert kitchen.run("sync").code == 0
    made = org.count("Product_Event__c")
    shutil.rmtree(kitchen.root / ".dinmo" / "state", ignore_errors=True)
    for path in (kitchen.root / ".dinmo").iterdir():
        if path.name != "emulator":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    refused = kitchen.run("sync")
    assert refused.code == 4 and "DB401" in refused.all, refused.all
    commands = re.findall(r"^dinmo-dbt (state adopt .*)$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert kitchen.run(*command.split()).code == 0
    assert kitchen.synced()["product_events_to_crm"]["outcome"]["succeeded"] == 0
    assert org.count("Product_Event__c") == made


def two_orgs(kitchen: Kitchen, org: Org) -> None:
    (dinmo,) = [each for each in RECIPES[11] if "destinations" in each]
    (kitchen.root / "dinmo.yml").write_text(yaml.safe_dump(dinmo), encoding="utf-8")
    assert "2 activations valid" in kitchen.run("validate", PARTNERS_CLIENT_ID="x", PARTNERS_CLIENT_SECRET="y").out
    ran = kitchen.run("sync", "-s", "customers_to_crm", PARTNERS_CLIENT_ID="x", PARTNERS_CLIENT_SECRET="y")
    assert ran.code == 0, ran.all
    assert org.count("Customer__c") == kitchen.rows("dim_customers")


def the_first_production_run(kitchen: Kitchen, org: Org) -> None:
    commands = re.findall(r"^dinmo-dbt (.* --target prod.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        ran = kitchen.run(*command.replace("--target prod", "--target dev").split())
        assert ran.code == 0, ran.all
    assert org.count("Customer__c") == 3


COOKED: dict[int, Callable[[Kitchen, Org], None]] = dict(
    enumerate(
        (
            a_segment, a_constant, a_parent, nulls_kept, a_row_that_leaves, a_list_to_delete,
            what_is_not_there_is_created, a_schedule, guards, adoption, two_orgs, the_first_production_run,
        ),
        start=1,
    )
)  # fmt: skip


@pytest.mark.parametrize("number", sorted(COOKED), ids=lambda number: COOKED[number].__name__)
def test_the_recipe_does_what_it_says(kitchen: Kitchen, org: Org, number: int) -> None:
    kitchen.cook(number)
    COOKED[number](kitchen, org)
