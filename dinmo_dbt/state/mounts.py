"""Where a state may not lie: file systems whose locks other machines don't see. And where it had better
not: folders that others can change."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dinmo_dbt.codes import LOCKS_DO_NOT_HOLD, STATE_OPEN_TO_OTHERS
from dinmo_dbt.errors import Problem, StateError

# Of these the kernel's own locks, if there are any, hold on one machine at most (sqlite.org/howtocorrupt.html, 2.1).
_NETWORK = re.compile(
    "nfs[34]?|cifs|smb[23]|smbfs|afs|afpfs|webdav|davfs|9p|drvfs|vboxsf|vmhgfs|prl_fs|ncpfs|coda|ceph|glusterfs|lustre|"
    "beegfs|orangefs|pvfs2|ocfs2|gfs2"
)
# A FUSE file system can be anything, and most are somebody's cloud; flock is kept by the kernel alone there unless the
# file system asks for it. These have a local disk below, or are the one way into a container's own machine.
_LOCAL_FUSE = re.compile(
    r"fuseblk|fuse\.(fuse-overlayfs|lxcfs|ntfs|ntfs-3g|exfat|ext2|fuse2fs|fuse-ext2|gocryptfs|encfs|cryfs|securefs|bindfs|"
    r"mergerfs|unionfs|unionfs-fuse|grpcfuse|osxfs)"
)


@dataclass(frozen=True, slots=True)
class Mount:
    """A file system, where it is mounted, and whether its locks hold."""

    point: str
    kind: str
    is_local: bool


def refuse_network(folder: Path) -> None:
    """StateError DB511 where two machines could write at once. The folder need not be there yet."""
    found = mount_of(str(folder.resolve()), _mounts())
    if found is None or found.is_local:
        return
    raise StateError(
        LOCKS_DO_NOT_HOLD,
        f"the state location is on a file system ({found.kind} at {found.point}) whose locks do not hold between "
        "machines: two runs could write at once",
        where=str(folder),
        hint="set state.location in dinmo.yml to a folder on a local disk, or keep the state in the warehouse: "
        "state: {warehouse: {schema: dinmo}}",
    )


def open_to_others(folder: Path, project: Path) -> Problem | None:
    """What is to be said of a state's folder that somebody else could change, and so what is sent. Nothing where it is
    not there yet; the owner of the project's folder can change more than that."""
    try:
        found, owners = folder.stat(), {os.geteuid(), 0, project.stat().st_uid}
    except OSError:
        return None
    if found.st_mode & stat.S_IWOTH:
        who = "every user of this machine can write to"
        hint = "chmod 700, or set state.location to a folder in it"
    elif found.st_uid not in owners:
        who = f"another user (uid {found.st_uid}) owns"
        hint = "chown it, or set state.location to a folder of your own"
    else:
        return None
    return Problem(STATE_OPEN_TO_OTHERS, f"{who} the state's folder, and could change what is sent", str(folder), hint)


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """What an absolute path without links is on: the mount with the longest point, of two at one point the later."""
    best = None
    for mount in mounts:
        below = mount.point.rstrip("/") + "/"
        if f"{path}/".startswith(below) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def linux_mounts(mountinfo: str) -> list[Mount]:
    """/proc/self/mountinfo (man 5 proc): the fifth field is the point, in octal escapes; the kind follows the dash."""
    found = []
    for line in mountinfo.split("\n"):
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if dash and len(fields) >= 6:
            point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
            kind = after.split(" ")[0]
            found.append(Mount(point, kind, _is_local(kind)))
    return found


def macos_mounts(printed: str) -> list[Mount]:
    """What `mount` prints: `//ada@nas/share on /Volumes/share (smbfs, nodev, mounted by ada)`. The flag `local` is
    MNT_LOCAL (man 2 statfs)."""
    found = []
    for line in printed.split("\n"):
        parts = re.fullmatch(r".*? on (/.*) \(([^()]*)\)", line)
        if parts:
            kind, *flags = (part.strip() for part in parts[2].split(","))
            found.append(Mount(parts[1], kind, "local" in flags))
    return found


def _is_local(kind: str) -> bool:
    kind = kind.lower()
    if kind in ("fuse", "fuseblk") or kind.startswith("fuse."):
        return _LOCAL_FUSE.fullmatch(kind) is not None
    return _NETWORK.fullmatch(kind) is None


def _mounts() -> list[Mount]:
    """None are known where the system does not tell."""
    if sys.platform == "darwin":
        try:
            printed = subprocess.run(["/sbin/mount"], capture_output=True, timeout=10, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            return []
        return macos_mounts(os.fsdecode(printed))
    try:
        return linux_mounts(os.fsdecode(Path("/proc/self/mountinfo").read_bytes()))
    except OSError:
        return []
