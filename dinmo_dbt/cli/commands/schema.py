"""schema: the JSON Schemas of what people write, as editors take them, and of what commands print."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class SchemaOf(StrEnum):
    """What a schema is of."""

    DBT = "dbt"
    DINMO_YML = "dinmo.yml"
    META = "meta"
    JSON = "json"


_FILES = {
    SchemaOf.DBT: "dbt.schema.json",
    SchemaOf.DINMO_YML: "dinmo_yml.schema.json",
    SchemaOf.META: "meta.schema.json",
    SchemaOf.JSON: "documents.schema.json",
}


def schema(
    of: Annotated[
        SchemaOf,
        typer.Argument(
            metavar="[dbt|dinmo.yml|meta|json]",
            help="A dbt YAML file, dinmo.yml, the block alone, or what commands print.",
        ),
    ] = SchemaOf.DBT,
) -> None:
    """Print a JSON Schema, for your editor or your programs.

    dbt: any YAML file of a dbt project, in which dbt's own keys are free, and dinmo blocks are checked. dinmo.yml:
    that file. meta: what stands under config.meta.dinmo. json: what commands print with --json, and what runs leave.

    \b
    Examples:
      dinmo-dbt schema > dbt.schema.json
      dinmo-dbt schema dinmo.yml > dinmo.schema.json
    """
    from importlib.resources import files

    typer.echo(files("dinmo_dbt").joinpath(_FILES[of]).read_text(encoding="utf-8"), nl=False)
