"""Before-images on disk: one Parquet file a run, written anew with each batch, whole before the batch is sent."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dinmo_dbt import images
from dinmo_dbt.errors import StateError
from dinmo_dbt.state.files import Files

FORMAT = 1
# Of each activation in each org, the runs whose images are kept: the latest. Their ids sort by time.
RUNS_KEPT = 20


def image_place(org_id: str, name: str) -> str:
    """The folder of an activation's images."""
    return f"images/{org_id}/{name}"


def keep(files: Files, place: str, run_id: str, image: pa.Table) -> None:
    """Add the images of one batch to those of its run."""
    earlier = load(files, place, run_id)
    _write(files, place, run_id, image if earlier is None else images.joined(earlier, image))


def note_created(files: Files, place: str, run_id: str, created: pa.Table) -> None:
    """Note which rows made which records in the run's images; nothing if it keeps none."""
    image = load(files, place, run_id)
    if image is not None:
        _write(files, place, run_id, images.with_created(image, created))


def load(files: Files, place: str, run_id: str) -> pa.Table | None:
    """The images of a run (`images.IMAGE` and two columns a field); None if none are kept. StateError DB517 if they
    can't be read."""
    name = f"{run_id}.parquet"
    path = files.fetch(place, [name]) / name
    if not path.exists():
        return None
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, "are damaged") from error
    written = (table.schema.metadata or {}).get(b"dinmo_dbt.format", b"")
    if written != str(FORMAT).encode() or table.schema.names[: len(images.IMAGE)] != images.IMAGE.names:
        raise _damaged(path, "are none of this version's")
    return table.replace_schema_metadata(None).combine_chunks()


def expired(files: Files, place: str) -> list[str]:
    """Images beyond those that are kept, and what a killed run left half-written."""
    names = files.names(place)
    whole = sorted((name for name in names if not name.startswith(".")), reverse=True)
    return whole[RUNS_KEPT:] + [name for name in names if name.startswith(".")]


def _write(files: Files, place: str, run_id: str, image: pa.Table) -> None:
    marked = image.replace_schema_metadata({"dinmo_dbt.format": str(FORMAT)})
    files.put(
        place,
        f"{run_id}.parquet",
        lambda sink: pq.write_table(marked, sink, compression="zstd", write_page_checksum=True),
    )


def _damaged(path: Path, why: str) -> StateError:
    return StateError("DB517", f"the before-images of this run {why}; they are left as they are", where=str(path))
