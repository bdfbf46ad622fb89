"""What the tests of the configuration layer share: golden texts, small manifests, and one real dbt project."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from dinmo_dbt.activation import Activation
from dinmo_dbt.artifacts.declared import Loaded
from dinmo_dbt.artifacts.manifest import Manifest, parse_manifest
from dinmo_dbt.errors import ConfigError, DinmoError

GOLDEN = Path(__file__).parent / "golden" / "config"


def told(error: DinmoError) -> str:
    return "".join(f"{problem}\n" for problem in error.problems)


def right(found: Loaded) -> tuple[Activation, ...]:
    """The activations, where nothing is wrong; else ConfigError with all that is."""
    if found.wrong:
        raise ConfigError.of(found.wrong)
    return found.activations


def golden(name: str, text: str) -> None:
    """Compare with tests/golden/config/<name>.txt; DINMO_UPDATE_GOLDEN=1 writes it instead."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("DINMO_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"no {path.name}: run the tests once with DINMO_UPDATE_GOLDEN=1 and read what it says"
    assert text == path.read_text(encoding="utf-8")


UPSERT: dict[str, Any] = {
    "name": "customers_to_crm",
    "destination": "crm",
    "object": "Customer__c",
    "mode": "upsert",
    "match": {"customer_id": "Customer_Id__c"},
    "fields": {"plan": "Plan__c", "mrr": {"field": "MRR__c", "nulls": "keep"}},
}


def activation(*without: str, **changes: Any) -> dict[str, Any]:
    """The valid upsert above, with some keys left out and others changed."""
    written = copy.deepcopy(UPSERT) | changes
    return {key: value for key, value in written.items() if key not in without}


def insert(*without: str, **changes: Any) -> dict[str, Any]:
    return activation("match", *without, **({"mode": "insert"} | changes))


def block(*activations: Any, **changes: Any) -> dict[str, Any]:
    return {"key": "customer_id", "activations": list(activations) or [activation()]} | changes


def node(name: str = "dim_customers", dinmo: Any = None, **changes: Any) -> dict[str, Any]:
    """A node as dbt-core 1.11 writes it, of project `lab`."""
    config = {
        "materialized": "table",
        "schema": None,
        "database": None,
        "meta": {} if dinmo is None else {"dinmo": dinmo},
    }
    return (
        {
            "unique_id": f"model.lab.{name}",
            "resource_type": "model",
            "package_name": "lab",
            "name": name,
            "database": "dev",
            "schema": "main",
            "relation_name": f'"dev"."main"."{name}"',
            "fqn": ["lab", "marts", name],
            "tags": [],
            "original_file_path": f"models/marts/{name}.sql",
            "patch_path": "lab://models/marts/_marts.yml",
            "columns": {column: {"name": column} for column in ("customer_id", "plan", "mrr")},
            "primary_key": [],
            "version": None,
            "latest_version": None,
        }
        | changes
        | {"config": config | changes.get("config", {})}
    )


def document(*nodes: dict[str, Any], **sections: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v12.json",
            "project_name": "lab",
            "adapter_type": "duckdb",
            "invocation_id": "one",
        },
        "nodes": {n["unique_id"]: n for n in nodes},
    } | sections


def manifest(*nodes: dict[str, Any], **sections: Any) -> Manifest:
    return parse_manifest(document(*nodes, **sections), "manifest.json")
