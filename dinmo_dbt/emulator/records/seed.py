"""What a new org holds: its Organization, its one user, and the starting records of a folder of CSV files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from dinmo_dbt.emulator.bulk import csvtext
from dinmo_dbt.emulator.bulk.columns import cell_columns
from dinmo_dbt.emulator.bulk.csvtext import CsvError
from dinmo_dbt.emulator.errors import RecordsError
from dinmo_dbt.emulator.records.engine import Org
from dinmo_dbt.emulator.store import Store, stamp
from dinmo_dbt.emulator.tables import Table, quoted

_BATCH_ROWS = 10_000


def seed_org(store: Store, clock: Callable[[], datetime]) -> None:
    """Write the Organization and User records of a new folder; later starts change nothing."""
    if store.meta("seeded") is not None:
        return
    identity = store.identity()
    now, user = stamp(clock()), store.user_rid
    system = {
        "CreatedDate": now, "LastModifiedDate": now, "SystemModstamp": now, "CreatedById": user,
        "LastModifiedById": user, "IsDeleted": 0,
    }  # fmt: skip
    person = {
        "rid": user, "Username": identity.username, "LastName": "Admin", "FirstName": "Emulator",
        "Email": identity.username, "Alias": "admin", "TimeZoneSidKey": "Etc/UTC", "LocaleSidKey": "en_US",
        "LanguageLocaleKey": "en_US", "EmailEncodingKey": "UTF-8", "UserType": "Standard", "IsActive": 1,
    }  # fmt: skip
    organizations = store.tables["Organization"]
    organization = {
        "rid": store.organization_rid, "Name": "dinmo-dbt emulator",
        "InstanceName": "EMU1", "IsSandbox": 0, "OrganizationType": "Developer Edition",
        "LanguageLocaleKey": "en_US", "TimeZoneSidKey": "Etc/UTC",
    }  # fmt: skip
    with store.writing() as db:
        db.execute("UPDATE sobject SET next = 2 WHERE name = 'User'")
        for table, row in ((store.tables["User"], person), (organizations, organization)):
            full = {**row, **system}
            names, marks = ", ".join(map(quoted, full)), ", ".join("?" * len(full))
            db.execute(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", tuple(full.values()))
        db.execute("INSERT INTO meta VALUES ('seeded', ?)", (now,))


def load_records(store: Store, org: Org, folder: Path | None) -> None:
    """Load `<Object>.csv` files once per data folder, parents before the files that refer to them.

    A bad row stops the start, with its file and line; the next start loads the folder again.
    """
    if folder is None or store.meta("records") is not None:
        return
    if not folder.is_dir():
        raise RecordsError(f"{folder}: no such folder (starting records are <Object>.csv files)")
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.csv")):
        sobject = store.schema.get(path.stem)
        if sobject is None:
            raise RecordsError(f"{path}: the schema has no object {path.stem}")
        if not sobject.createable:
            raise RecordsError(f"{path}: records of {sobject.name} can't be created")
        files[sobject.name] = path
    with store.writing() as db:  # a start that failed half-way leaves nothing behind
        for name in files:
            db.execute(f"DELETE FROM {store.tables[name].name}")
    for name in _parents_first(store, list(files)):
        _load_file(org, store.tables[name], files[name])
    with store.writing() as db:
        db.execute("INSERT INTO meta VALUES ('records', ?)", (str(len(files)),))


def _parents_first(store: Store, names: list[str]) -> list[str]:
    ordered: list[str] = []
    left = list(names)
    while left:
        ready = [
            n for n in left
            if not any(p in left and p != n for f in store.tables[n].sobject.fields for p in f.reference_to)
        ]  # fmt: skip
        chosen = ready or left[:1]
        ordered += chosen
        left = [n for n in left if n not in chosen]
    return ordered


def _load_file(org: Org, table: Table, path: Path) -> None:
    try:
        line_ending = "CRLF" if b"\r\n" in path.read_bytes()[:65_536] else "LF"
        layout = csvtext.scan(path, delimiter=",", line_ending=line_ending, batch_rows=_BATCH_ROWS)
        with path.open("rb") as file:
            before = 0
            for start, end in zip(layout.offsets, layout.offsets[1:], strict=False):
                texts = csvtext.read(file, start, end, width=len(layout.header), delimiter=",")
                before += _load_block(org, table, layout.header, texts, path, before)
    except CsvError as error:
        raise RecordsError(f"{path}: {error}") from error


def _load_block(org: Org, table: Table, header: tuple[str, ...], texts: list[pa.Array], path: Path, before: int) -> int:
    count = len(texts[0]) if texts else 0
    work = org.prepare(table, cell_columns(org, table.sobject, header, texts), count)
    with org.store.writing() as db:
        outcome = org.apply(db, "insert", work)
    if outcome.errors:
        row = min(outcome.errors)
        error = outcome.errors[row][0]
        fields = f" ({', '.join(error.fields)})" if error.fields else ""
        raise RecordsError(f"{path}, row {before + row + 1}: {error.code}: {error.message}{fields}")
    return count
