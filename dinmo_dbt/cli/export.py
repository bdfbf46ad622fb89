"""Undelivered rows as a file that another program opens: CSV that is safe in a spreadsheet, or Parquet.

A spreadsheet runs a cell that begins like a formula (OWASP, "CSV Injection"), so such cells get an apostrophe before
them. This is for exports alone: what is sent to Salesforce is never changed this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dinmo_dbt.codes import NOT_EXPORTED
from dinmo_dbt.errors import StateError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from dinmo_dbt.watch.history import RunRecord

SUFFIXES = (".csv", ".parquet")
COLUMNS = ("activation", "run", "key", "fate", "class", "code", "message", "fields", "record_id")
# What programs pass over before they look for a sign: blanks, breaks, controls, marks without a width. The signs are
# those of full width too, which some read as the others.
_FORMULA = r"\A([\pZ\pC]*[=+\-@＝＋－﹣−＠﹢﹦﹫]|[\t\r\n])"


def check_path(path: Path) -> None:
    """UsageError DB812 unless a new file of that name can be one of ours."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(NOT_EXPORTED, f"{path.name} says no format", hint=f"end the name in {' or '.join(SUFFIXES)}")
    if path.exists() or path.is_symlink():
        raise UsageError(
            NOT_EXPORTED, "the file exists; it is left as it is", where=str(path), hint="choose another name"
        )


def undelivered(run: RunRecord, table: pa.Table, *, whole: bool) -> pa.Table:
    """A run's `explained` rows as `COLUMNS`; messages without the values that were sent unless `whole`."""
    import pyarrow as pa

    names = [pa.repeat(named, len(table)) for named in (run.activation, run.run_id)]
    message = table["message" if whole else "shown"]
    why = [table[name] for name in ("key", "fate", "class", "code")]
    return pa.table([*names, *why, message, table["fields"], table["record_id"]], schema=_schema())


def write(path: Path, tables: Sequence[pa.Table]) -> None:
    """The rows in one file, whole or not at all, readable by its owner alone."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    from dinmo_dbt.state.files import write_whole

    rows = pa.concat_tables([_schema().empty_table(), *tables])
    try:
        if path.suffix.lower() == ".csv":
            write_whole(path, lambda sink: pa.csv.write_csv(spreadsheet_safe(rows), sink))
        else:
            write_whole(path, lambda sink: pa.parquet.write_table(rows, sink, compression="zstd"))
    except StateError as error:
        raise UsageError(NOT_EXPORTED, error.problems[0].message, where=str(path)) from error


def spreadsheet_safe(rows: pa.Table) -> pa.Table:
    """The same rows, with an apostrophe before each text that a spreadsheet would take for a formula."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pa.table([pc.replace_substring_regex(c, _FORMULA, r"'\1") for c in rows.columns], names=rows.column_names)


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([pa.field(name, pa.utf8()) for name in COLUMNS])
