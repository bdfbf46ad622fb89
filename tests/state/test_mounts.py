"""File systems whose locks do not hold between machines, by what Linux and macOS tell of their mounts."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_org import Model, World, activation

from dinmo_dbt.errors import StateError
from dinmo_dbt.state import mounts
from dinmo_dbt.state.mounts import Mount, linux_mounts, macos_mounts, mount_of, open_to_others, refuse_network

MOUNTINFO = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 8:1 / / rw,relatime shared:1 master:2 - ext4 /dev/root rw
30 27 0:50 / /mnt/cloud\040drive rw - fuse.s3fs s3fs rw,user_id=0
31 27 0:51 /sub /home/ada/project/.dinmo rw,relatime - nfs4 nas:/sub rw
32 27 0:52 / /mnt/a\134b rw - fuse.gcsfuse bucket rw
33 27 8:1 /var /srv rw - ext4 /dev/root rw
34 33 0:53 / /srv rw - fuse.juicefs jfs rw
35 27 0:54 / /mnt/d rw - fuseblk /dev/sdb1 rw
broken
"""
MOUNT = """/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled, nobrowse)
//ada@nas/share on /Volumes/share (smbfs, nodev, nosuid, mounted by ada)
https://dav.example on /Volumes/dav on air (webdav, nodev)
nas:/export on /Volumes/nfs (nfs)
drive on /Volumes/drive (macfuse, nodev, synchronous)
"""
NETWORK = (
    "nfs nfs4 cifs smb3 9p ceph lustre beegfs fuse fuse.sshfs fuse.s3fs fuse.gcsfuse fuse.juicefs fuse.rclone",
    "FUSE.s3fs fuse.vmhgfs-fuse fuse.glusterfs fuse.blobfuse2 fuse.goofys fuse.mount-s3 fuse.ceph fuse.davfs2",
)
LOCAL = ("ext4 xfs btrfs zfs tmpfs overlay apfs fuseblk fuse.fuse-overlayfs fuse.gocryptfs virtiofs fakeowner",)


@pytest.mark.parametrize("kind", " ".join(NETWORK).split())
def test_a_file_system_of_several_machines_is_refused(kind):
    [mount] = linux_mounts(f"30 27 0:50 / /mnt rw - {kind} source rw")
    assert (mount.kind, mount.is_local) == (kind, False)


@pytest.mark.parametrize("kind", " ".join(LOCAL).split())
def test_a_file_system_of_one_machine_is_not(kind):
    [mount] = linux_mounts(f"30 27 0:50 / /mnt rw - {kind} source rw")
    assert mount.is_local


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/mnt/cloud drive/new/.dinmo", "fuse.s3fs"),
        ("/mnt/cloud", "ext4"),
        ("/mnt/cloud drives", "ext4"),
        ("/home/ada/project/.dinmo", "nfs4"),
        ("/home/ada/project/.dinmo2", "ext4"),
        ("/mnt/a\\b/c", "fuse.gcsfuse"),
        ("/srv/x", "fuse.juicefs"),
        ("/mnt/d/x", "fuseblk"),
        ("/", "ext4"),
    ],
)
def test_a_path_is_on_the_mount_with_the_longest_point(path, kind):
    assert mount_of(path, linux_mounts(MOUNTINFO)).kind == kind


@pytest.mark.parametrize(
    ("path", "kind", "local"),
    [
        ("/Users/ada/p/.dinmo", "apfs", True),
        ("/Volumes/share/p", "smbfs", False),
        ("/Volumes/dav on air/p", "webdav", False),
        ("/Volumes/nfs/p", "nfs", False),
        ("/Volumes/drive", "macfuse", False),
    ],
)
def test_macos_tells_of_its_mounts_by_a_flag(path, kind, local):
    found = mount_of(path, macos_mounts(MOUNT))
    assert (found.kind, found.is_local) == (kind, local)


@given(st.text())
def test_any_text_of_a_system_gives_mounts_or_none(text):
    for found in (linux_mounts(text), macos_mounts(text)):
        assert mount_of("/a", found) is None or mount_of("/a", found) in found


def test_a_state_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    refuse_network(tmp_path)
    cloud = tmp_path / "cloud"
    cloud.mkdir()
    (tmp_path / "link").symlink_to(cloud)
    told = [Mount("/", "ext4", True), Mount(os.path.realpath(cloud), "fuse.s3fs", False)]
    monkeypatch.setattr(mounts, "_mounts", lambda: told)
    with pytest.raises(StateError, match=r"(?s)DB511.*fuse.s3fs at .*cloud.*warehouse: \{schema"):
        World(tmp_path / "link" / "new" / "state").sync(
            activation(), Model.of([{"id": "1", "ext": "e", "a": "x", "b": "y"}])
        )
    assert list(cloud.iterdir()) == []


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o775, 0o777, 0o1777, 0o702])
def test_a_folder_that_everybody_can_write_to_is_named(tmp_path, mode):
    folder = tmp_path / ".dinmo"
    assert open_to_others(folder, tmp_path) is None, "it is not there yet"
    folder.mkdir()
    folder.chmod(mode)
    told = open_to_others(folder, tmp_path)
    assert (told is not None) == bool(mode & 0o002)
    assert told is None or (told.code, told.where) == ("DB532", str(folder))


def test_a_folder_of_somebody_else_is_named_unless_the_project_is_theirs_too(tmp_path, monkeypatch):
    project = tmp_path / "project"
    folder = project / ".dinmo"
    folder.mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(project, 65534, 65534)
        os.chown(folder, 65534, 65534)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert open_to_others(folder, project) is None
    told = open_to_others(folder, Path("/"))
    assert told is not None and "another user" in told.message
