"""Before-images on disk: a Parquet file a batch of a run, whole before the batch is sent, and one a batch of what it
made, once its results are read. Files are written once and never changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dinmo_dbt.codes import IMAGES_UNREADABLE
from dinmo_dbt.delivery import images
from dinmo_dbt.durable import read_file
from dinmo_dbt.errors import StateError
from dinmo_dbt.state.files import Files

FORMAT = 1
# Of each state, the runs whose images are kept: the latest, by numbers of their own, for a clock may have been ahead
# when a run got its id.
RUNS_KEPT = 20


def keep(files: Files, place: str, run_id: str, image: pa.Table) -> None:
    """Add the images of one batch to those of its run."""
    _write(files, place, run_id, image)


def note_created(files: Files, place: str, run_id: str, created: pa.Table) -> None:
    """Note which rows made which records; nothing if the run keeps no images."""
    if _parts(files, place, run_id):
        _write(files, place, run_id, created)


def load(files: Files, place: str, run_id: str) -> pa.Table | None:
    """The images of a run (`images.IMAGE` and two columns a field); None if none are kept. StateError DB517 if they
    can't be read."""
    names = _parts(files, place, run_id)
    folder = files.fetch(place, names)
    image: pa.Table | None = None
    for name in names:
        part = _read(folder / name)
        if "existed" not in part.column_names:
            image = image if image is None else images.with_created(image, part)
        else:
            image = part if image is None else images.joined(image, part)
    return image


def expired(files: Files, place: str) -> list[str]:
    """Images of runs beyond those that are kept, and what a killed run left half-written."""
    names = files.names(place)
    whole = [name for name in names if not name.startswith(".")]
    kept = sorted({_number_of(name) for name in whole}, reverse=True)[:RUNS_KEPT]
    return [name for name in names if name not in whole or _number_of(name) not in kept]


def _parts(files: Files, place: str, run_id: str) -> list[str]:
    return [name for name in files.names(place) if not name.startswith(".") and _run_of(name) == run_id]


def _number_of(name: str) -> int:
    """Of the run, among those that ever kept images here: a later one has a greater number."""
    number = name.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _run_of(name: str) -> str:
    return name.partition("-")[2].rsplit("-", 2)[0]


def _write(files: Files, place: str, run_id: str, rows: pa.Table) -> None:
    marked = rows.replace_schema_metadata({"dinmo_dbt.format": str(FORMAT)})
    content = pa.BufferOutputStream()
    pq.write_table(marked, content, compression="zstd")
    content = content.getvalue()
    own = _parts(files, place, run_id)
    others = [_number_of(name) for name in files.names(place) if not name.startswith(".")]
    number = _number_of(own[0]) if own else max(others, default=0) + 1
    name = f"{number:08d}-{run_id}-{len(own) + 1:04d}-{_digest(content)}.parquet"
    files.put(place, name, lambda sink: sink.write(content))


def _read(path: Path) -> pa.Table:
    try:
        content = pa.py_buffer(read_file(path))
        if _digest(content) != path.stem.rpartition("-")[2]:
            raise _damaged(path, "are damaged")
        table = pq.read_table(pa.BufferReader(content), use_threads=False, pre_buffer=False)  # Python's memory
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, "are damaged") from error
    if (table.schema.metadata or {}).get(b"dinmo_dbt.format", b"") != str(FORMAT).encode():
        raise _damaged(path, "are none of this version's")
    return table.replace_schema_metadata(None).combine_chunks()


def _digest(content: pa.Buffer) -> str:
    """In the file's name, so that a file that was changed is known by it."""
    return hashlib.sha256(content).hexdigest()[:16]


def _damaged(path: Path, why: str) -> StateError:
    return StateError(
        IMAGES_UNREADABLE, f"the before-images of this run {why}; they are left as they are", where=str(path)
    )
