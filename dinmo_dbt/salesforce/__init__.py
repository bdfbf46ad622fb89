"""The only speaker to Salesforce: an org as `destination.Destination`, over HTTP.

Importing this package is cheap; `connect` loads requests and logs in, a batch loads pyarrow's CSV.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dinmo_dbt.codes import NO_ANSWER

if TYPE_CHECKING:
    import random

    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from dinmo_dbt.destination import (
        ApiUsage,
        Batch,
        Destination,
        Diagnosis,
        Field,
        Job,
        ListedJob,
        ListedObject,
        ObjectSchema,
        PayloadColumn,
        StateRecord,
    )
    from dinmo_dbt.org import Org
    from dinmo_dbt.salesforce.client import Client
    from dinmo_dbt.salesforce.state_records import StateRecords

_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def connect(
    org: Org,
    *,
    scratch: Path,
    sleep: Callable[[float], None],
    rng: random.Random,
    now: Callable[[], float],
    trust_env: bool = False,
    logins: Path | None = None,
    env: Mapping[str, str] = MappingProxyType({}),
    say: Callable[[str], None] = lambda _: None,
) -> SalesforceDestination:
    """Log in to `org`; AuthError if that fails or the org is not the pinned one.

    `scratch` is a private folder for unlinked temporary files, `now` gives seconds since the epoch (as `time.time`).
    `logins`: where refresh tokens are kept that an org gave; of no use to the other flows. `env`: this process's, for a
    program that is run, a file of certificates, or to tell of a proxy that is not used.
    `say` is called with a line for people while the login waits for an answer.
    """
    from dinmo_dbt.errors import AuthError
    from dinmo_dbt.salesforce.auth import LogIn
    from dinmo_dbt.salesforce.authorities import authorities
    from dinmo_dbt.salesforce.client import Client

    try:
        client = Client(
            LogIn(org, now, logins, env),
            sleep=sleep,
            rng=rng,
            api_share=org.api_share,
            trust_env=trust_env,
            ca_file=authorities(org.ca_file, env),
            say=say,
        )
    except AuthError as error:
        proxy = next((name for name in _PROXIES if env.get(name)), "")
        if error.problems[0].code == NO_ANSWER and proxy and not trust_env:
            error.add_hint(f"{proxy} is set, and not used on the way to Salesforce, which has to be a direct one")
        raise
    return SalesforceDestination(client, scratch=scratch, sleep=sleep)


class SalesforceDestination:
    """`destination.Destination` over one logged-in client. Its promises are the contract's."""

    def __init__(self, client: Client, *, scratch: Path, sleep: Callable[[float], None]) -> None:
        self._client = client
        self._scratch = scratch
        self._sleep = sleep
        self._schemas: dict[str, ObjectSchema] = {}
        self.org_id = client.login.organization_id

    @property
    def calls(self) -> int:
        return self._client.meter.calls

    @property
    def usage(self) -> ApiUsage:
        return self._client.meter.usage

    @property
    def org_time(self) -> float | None:
        """What time it is by the org's clock: seconds since the epoch, UTC; None before any reply."""
        return self._client.meter.org_time

    @property
    def instance_url(self) -> str:
        return self._client.login.instance_url

    @property
    def username(self) -> str:
        """The logged-in user; may ask the org, '' if the token does not allow it."""
        from dinmo_dbt.salesforce.auth import username

        return username(self._client)

    def try_api(self) -> None:
        """One call of the API that needs nothing but the right to call it; DestinationError where that is missing."""
        self._client.get("limits")

    def disconnect(self) -> None:
        """Close the connections. The session is left alive: other processes may share it."""
        self._client.close()

    def objects(self) -> list[ListedObject]:
        """The org's objects that this user may see, by API name."""
        from dinmo_dbt.salesforce.describe import objects

        return objects(self._client)

    def describe_reply(self, object_name: str) -> dict[str, Any]:
        """The org's own describe of an object, whole; ConfigError DB301 if this user has no such object."""
        from dinmo_dbt.salesforce.describe import reply

        return reply(self._client, object_name)

    def describe(self, object_name: str) -> ObjectSchema:
        from dinmo_dbt.salesforce.describe import describe

        folded = object_name.lower()
        if folded not in self._schemas:
            self._schemas[folded] = describe(self._client, object_name)
        return self._schemas[folded]

    def has_records(self, object_name: str) -> bool:
        from dinmo_dbt.salesforce.lookup import has_records

        return has_records(self._client, object_name)

    def lookup(self, object_name: str, field: Field, values: pa.Array, only: tuple[str, str] | None = None) -> pa.Table:
        from dinmo_dbt.salesforce.lookup import lookup

        return lookup(self._client, object_name, field, values, only, scratch=self._scratch, sleep=self._sleep)

    def read(self, object_name: str, fields: tuple[str, ...], record_ids: tuple[str, ...]) -> list[dict[str, object]]:
        from dinmo_dbt.salesforce.collections import read

        return read(self._client, object_name, fields, record_ids)

    def read_many(self, object_name: str, fields: Sequence[str], record_ids: pa.Array) -> pa.Table:
        from dinmo_dbt.salesforce.lookup import read_many

        return read_many(self._client, object_name, fields, record_ids, scratch=self._scratch, sleep=self._sleep)

    def read_pages(self, object_name: str, fields: Sequence[str], record_ids: pa.Array | None) -> Iterator[pa.Table]:
        from dinmo_dbt.salesforce.lookup import read_pages

        return read_pages(self._client, object_name, fields, record_ids, scratch=self._scratch, sleep=self._sleep)

    def job_slots(self, rows: pa.Table, columns: tuple[PayloadColumn, ...]) -> npt.NDArray[np.int8]:
        from dinmo_dbt.salesforce.results import job_slots

        return job_slots(rows, columns)

    def diagnose(self, code: str, message: str) -> Diagnosis:
        from dinmo_dbt.salesforce.errors import classify

        return classify(code, message)

    def create_job(self, batch: Batch) -> str:
        from dinmo_dbt.salesforce.bulk import create_job

        return create_job(self._client, batch)

    def upload(self, job_id: str, batch: Batch) -> None:
        from dinmo_dbt.salesforce.bulk import upload

        upload(self._client, job_id, batch, scratch=self._scratch)

    def close(self, job_id: str) -> None:
        from dinmo_dbt.salesforce.bulk import close

        close(self._client, job_id)

    def abort(self, job_id: str) -> None:
        from dinmo_dbt.salesforce.bulk import abort

        abort(self._client, job_id)

    def job(self, job_id: str) -> Job | None:
        from dinmo_dbt.salesforce.bulk import job

        return job(self._client, job_id)

    def listed_jobs(self) -> Sequence[ListedJob] | None:
        from dinmo_dbt.salesforce.bulk import list_jobs

        return list_jobs(self._client)

    def made_by(self, job_id: str, names: Collection[str]) -> pa.Table | None:
        from dinmo_dbt.salesforce.bulk import made_by

        return made_by(self._client, job_id, names, scratch=self._scratch, sleep=self._sleep)

    @cached_property
    def _state_records(self) -> StateRecords:
        from dinmo_dbt.salesforce.state_records import StateRecords

        return StateRecords(self._client)

    def state_record(self, key: str) -> StateRecord | None:
        return self._state_records.read(key)

    def keep_state_record(self, key: str, name: str, record: StateRecord) -> None:
        self._state_records.write(key, name, record)

    def results(self, job_id: str, batch: Batch) -> pa.Table | None:
        from dinmo_dbt.salesforce.bulk import read_results

        return read_results(self._client, job_id, batch, scratch=self._scratch, sleep=self._sleep)

    def send(self, batch: Batch, before: Callable[[], None] | None = None) -> pa.Table:
        from dinmo_dbt.salesforce.collections import send

        return send(self._client, batch, self.describe(batch.object), before)


if TYPE_CHECKING:

    def _fulfils_the_contract(destination: SalesforceDestination) -> Destination:
        return destination
