"""Files that must survive: written whole, synced, then renamed into place; readable by their owner alone."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from dinmo_dbt.errors import StateError, unwritable

_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs", "glusterfs", "ceph")


def make_folder(folder: Path) -> Path:
    """The folder, made if need be with its parents, for its owner alone."""
    try:
        for parent in (*reversed(folder.parents), folder):  # mkdir(parents=True) would open the parents to all
            parent.mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def write_whole(path: Path, write: Callable[[pa.NativeFile], None]) -> None:
    """Call `write` with a sink; the file is at `path` complete and synced, or not at all. StateError on a full disk."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as raw, pa.PythonFile(raw, mode="w") as sink:
                write(sink)
                raw.flush()
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_network(folder: Path) -> None:
    """SQLite's locks do not hold on network file systems (sqlite.org/howtocorrupt.html): such a location is refused."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return
    best, kind = "", ""
    target = str(folder.resolve())
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _, point, system, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if (target == point or target.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, system
    if kind in _NETWORK:
        raise StateError(
            "DB511",
            f"the state location is on a network file system ({kind}), where two runs could write at once",
            where=target,
            hint="set state.location in dinmo.yml to a folder on a local disk",
        )
