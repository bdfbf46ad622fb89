"""What a shell completes where an activation or a model is named: from dbt's manifest as it lies there. No connection,
no word of its own, and nothing where there is none."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

_Node = Mapping[str, Any]


def selection(context: typer.Context, incomplete: str) -> list[str]:
    """What -s selects by name: activations, and the models that declare them."""
    return _begun(context, incomplete, lambda node: (*_activations(node), *([node["name"]] if _block(node) else [])))


def activation(context: typer.Context, incomplete: str) -> list[str]:
    return _begun(context, incomplete, _activations)


def model(context: typer.Context, incomplete: str) -> list[str]:
    """What may get its first activation."""
    rows = ("model", "seed", "snapshot")
    return _begun(context, incomplete, lambda node: [node["name"]] if node["resource_type"] in rows else [])


def _begun(context: typer.Context, incomplete: str, names: Callable[[_Node], Iterable[str]]) -> list[str]:
    """Names that begin so. Whatever is wrong, the command itself tells it."""
    given = context.params.get("project_dir") or os.environ.get("DBT_PROJECT_DIR")
    start = Path(given or ".").absolute()
    root = next((place for place in (start, *start.parents) if (place / "dbt_project.yml").is_file()), start)
    target = context.params.get("target_path") or os.environ.get("DBT_TARGET_PATH") or "target"
    try:
        with (root / target / "manifest.json").open(encoding="utf-8") as file:
            nodes = json.load(file)["nodes"]
        found = {name for node in nodes.values() for name in names(node)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
    return sorted(name for name in found if name.startswith(incomplete))


def _block(node: _Node) -> Any:
    return (node.get("config") or {}).get("meta", {}).get("dinmo")


def _activations(node: _Node) -> Iterator[str]:
    block = _block(node)
    if isinstance(block, dict):
        for each in [block.get("activation"), *(block.get("activations") or ())]:
            if isinstance(each, dict):
                yield str(each.get("name") or f"{node['name']}__{each.get('object')}")
