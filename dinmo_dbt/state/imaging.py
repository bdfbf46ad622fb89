"""Before-images on disk: one Parquet file a run, written anew with each batch, whole before the batch is sent."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dinmo_dbt import images
from dinmo_dbt.errors import StateError
from dinmo_dbt.state.files import make_folder, write_whole

FORMAT = 1
# Of each activation in each org, the runs whose images are kept: the latest. Their ids sort by time.
RUNS_KEPT = 20


def keep(folder: Path, run_id: str, image: pa.Table) -> None:
    """Add the images of one batch to those of its run."""
    earlier = load(folder, run_id)
    _write(folder, run_id, image if earlier is None else images.joined(earlier, image))


def note_created(folder: Path, run_id: str, created: pa.Table) -> None:
    """Note which rows made which records in the run's images; nothing if it keeps none."""
    image = load(folder, run_id)
    if image is not None:
        _write(folder, run_id, images.with_created(image, created))


def load(folder: Path, run_id: str) -> pa.Table | None:
    """The images of a run (`images.IMAGE` and two columns a field); None if none are kept. StateError DB517 if they
    can't be read."""
    path = folder / f"{run_id}.parquet"
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


def expired(folder: Path) -> list[Path]:
    """Images beyond those that are kept, and what a killed run left half-written."""
    if not folder.exists():
        return []
    whole = sorted(folder.glob("[!.]*.parquet"), reverse=True)
    return whole[RUNS_KEPT:] + list(folder.glob(".*"))


def _write(folder: Path, run_id: str, image: pa.Table) -> None:
    marked = image.replace_schema_metadata({"dinmo_dbt.format": str(FORMAT)})
    write_whole(
        make_folder(folder) / f"{run_id}.parquet",
        lambda sink: pq.write_table(marked, sink, compression="zstd", write_page_checksum=True),
    )


def _damaged(path: Path, why: str) -> StateError:
    return StateError("DB517", f"the before-images of this run {why}; they are left as they are", where=str(path))
