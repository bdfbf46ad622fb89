"""What a shell completes after -s: activations and models, from dbt's manifest as it lies there. No connection, no word
of its own, and nothing where there is none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer


def activations(context: typer.Context, incomplete: str) -> list[str]:
    """Names that begin so. Whatever is wrong, the command itself tells it."""
    given = context.params.get("project_dir") or os.environ.get("DBT_PROJECT_DIR")
    start = Path(given or ".").absolute()
    root = next((place for place in (start, *start.parents) if (place / "dbt_project.yml").is_file()), start)
    target = context.params.get("target_path") or os.environ.get("DBT_TARGET_PATH") or "target"
    try:
        with (root / target / "manifest.json").open(encoding="utf-8") as file:
            nodes = json.load(file)["nodes"]
        names = {name for node in nodes.values() for name in _names(node)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
    return sorted(name for name in names if name.startswith(incomplete))


def _names(node: Mapping[str, Any]) -> Iterator[str]:
    block = (node.get("config") or {}).get("meta", {}).get("dinmo")
    if isinstance(block, dict):
        yield node["name"]
        for each in [block.get("activation"), *(block.get("activations") or ())]:
            if isinstance(each, dict):
                yield str(each.get("name") or f"{node['name']}__{each.get('object')}")
