"""The object Dinmo_State__c, which an administrator may install (`salesforce_metadata/`): a record for each state.

An org without it, or where this user may not see it, answers INVALID_TYPE (REST guide, "Status Codes and Error
Responses"): no error here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from typing import Any

from dinmo_dbt.codes import RESULTS_UNREADABLE
from dinmo_dbt.destination import StateRecord
from dinmo_dbt.errors import DestinationError, NotApplied
from dinmo_dbt.salesforce.client import Client
from dinmo_dbt.salesforce.errors import SalesforceRefusal
from dinmo_dbt.salesforce.lookup import query
from dinmo_dbt.salesforce.request import CallEffect, Request

OBJECT = "Dinmo_State__c"
NAME_CHARACTERS = 80  # of a custom object's Name


class StateRecords:
    """The records over one client, until a call fails."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._there = True

    def read(self, key: str) -> StateRecord | None:
        assert key.isalnum(), key
        soql = f"SELECT Id, Serial__c, Lineage__c, Run__c FROM {OBJECT} WHERE Key__c = '{key}'"
        if not self._there:
            return None
        with self._stops_asking():
            try:
                found = [record for page in query(self._client, soql) for record in page]
            except SalesforceRefusal as refusal:
                if refusal.salesforce_code != "INVALID_TYPE":
                    raise
                self._there = False
                return None
            return _parse(found[0]) if found else None

    def write(self, key: str, name: str, record: StateRecord) -> None:
        if not self._there:
            return
        fields = {
            "Name": name[:NAME_CHARACTERS],
            "Serial__c": record.serial,
            "Lineage__c": record.lineage,
            "Run__c": record.run,
        }
        path, body = f"sobjects/{OBJECT}/Key__c/{key}", json.dumps(fields).encode()
        with self._stops_asking():
            self._client.call(Request("PATCH", path, CallEffect.REPEATABLE, body=body))

    @contextmanager
    def _stops_asking(self) -> Iterator[None]:
        """What fails once is not asked for again."""
        try:
            yield
        except DestinationError:
            self._there = False
            raise


def _parse(record: dict[str, Any]) -> StateRecord:
    try:
        return StateRecord(int(Decimal(str(record["Serial__c"]))), str(record["Lineage__c"]), str(record["Run__c"]))
    except (KeyError, ValueError, ArithmeticError, InvalidOperation):
        raise NotApplied(RESULTS_UNREADABLE, f"a record of {OBJECT} holds no serial") from None
