"""org objects and org fields."""

from __future__ import annotations

from typing import Literal

from dinmo_dbt.cli.documents.parts import Document, Part


class OrgObject(Part):
    object: str
    label: str
    custom: bool
    createable: bool
    updateable: bool
    deletable: bool


class OrgObjects(Document):
    command: Literal["org objects"]
    org_id: str
    objects: list[OrgObject]


class OrgField(Part):
    field: str
    label: str
    type: str
    """describe's."""
    createable: bool
    updateable: bool
    length: int
    precision: int
    scale: int
    required: bool
    external_id: bool
    unique: bool
    picklist: list[str]
    restricted: bool
    refers_to: list[str]
    parent_paths: list[str]


class OrgFields(Document):
    command: Literal["org fields"]
    org_id: str
    object: str
    fields: list[OrgField]
