"""A state in a bucket, on a real S3 server: runners without a disk, their deaths, and the way there and back."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

import pytest
import s3fs

from .lab import Lab, Org
from .test_kill_points import ROWS, declared, killed

pytestmark = pytest.mark.slow

NAMES = {"insert": "events_to_crm", "upsert": "people_to_crm"}
STEPS = [
    "before begin",
    "before upload in planned",
    "after upload in planned",
    "before create in planned",
    "after create in planned",
    "after names in planned",
    "before create in advance opened",
    "after create in advance opened",
    "before create in advance closing",
    "after create in advance closing",
    "after advance closed",
    "before upload in settle",
    "after upload in settle",
    "before create in settle",
    "after create in settle",
    "before remove in settle",
    "before create in finish",
    "after create in finish",
]


@pytest.fixture
def shop(lab: Lab, s3: str) -> Lab:
    place = f"{s3}/{uuid.uuid4().hex}"
    (lab.root / "dinmo.yml").write_text((lab.root / "dinmo.yml").read_text() + f"state: {{location: {place}}}\n")
    return lab


@pytest.fixture
def lab(lab: Lab, s3: str) -> Lab:
    lab.variables = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return lab


def new_runner(lab: Lab) -> None:
    """All that a runner keeps on its disk is gone but for the org."""
    for path in (lab.root / ".dinmo").iterdir():
        if path.name != "emulator":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_runners_without_a_disk_send_each_row_once(shop: Lab, org: Org) -> None:
    checked = shop.run("debug")
    assert checked.code == 0, checked.all
    assert "s3://states/" in checked.out
    assert "none yet" in checked.out
    assert shop.run("sync", "--first-sync").code == 0
    assert not [path for path in (shop.root / ".dinmo").iterdir() if path.name not in ("emulator", "logins")]
    new_runner(shop)
    ran = shop.run("sync", "--json")
    assert ran.code == 0, ran.all
    assert [result["counts"]["unchanged"] for result in ran.json["results"]] == [2, 30, 20]
    assert (org.count("Event__c"), org.count("Person__c")) == (20, 30)
    assert shop.run("history").out.count("success") >= 4
    assert shop.run("status").code == 0
    shown = shop.run("state", "show", "--json")
    assert {each["rows"] for each in shown.json["states"]} == {2, 20, 30}


@pytest.mark.parametrize(
    ("mode", "step"), [("insert", step) for step in STEPS] + [("upsert", step) for step in STEPS[1::4]]
)
def test_killed_at(shop: Lab, org: Org, mode: str, step: str) -> None:
    name, field = declared(shop, mode)
    killed(shop, step)
    new_runner(shop)
    unlocked = shop.run("state", "unlock", NAMES[mode], "--yes")
    assert unlocked.code in (0, 2), unlocked.all
    ran = shop.run("sync", "--json", "--first-sync")
    assert ran.code == 0, ran.all
    values = [record[field] for record in org.query(f"SELECT {field} FROM {name}")]
    assert len(values) == len(set(values)) == ROWS
    assert shop.run("plan", "--detailed-exitcode").code == 0
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    place = (shop.root / "dinmo.yml").read_text().rpartition("location: s3://")[2].rstrip("}\n")
    assert files.find(f"{place}/spool") == []
    assert len(files.find(f"{place}/versions")) == 3


def test_a_state_goes_to_a_bucket_and_back(lab: Lab, org: Org, s3: str) -> None:
    assert lab.run("sync").code == 0
    dinmo, place = lab.root / "dinmo.yml", f"{s3}/{uuid.uuid4().hex}"
    before = dinmo.read_text()
    refused = lab.run("state", "copy", "--to", "bucket")
    assert refused.code == 2
    assert "dinmo.yml names no bucket" in refused.err
    dinmo.write_text(before + f"state: {{location: {place}}}\n")
    left = lab.run("sync", "-s", "events")
    assert left.code == 5, left.all
    assert "dinmo-dbt state copy --to bucket --from .dinmo" in " ".join(left.err.split())
    copied = lab.run("state", "copy", "--to", "bucket", "--from", ".dinmo")
    assert copied.code == 0, copied.all
    assert f"in {place} now" in " ".join(copied.out.split())
    ran = lab.run("sync", "--json")
    assert [result["counts"]["unchanged"] for result in ran.json["results"]] == [2, 30, 20], ran.all
    dinmo.write_text(before)
    assert "DB533" in lab.run("sync").err
    back = lab.run("state", "copy", "--to", "folder", "--from", place)
    assert back.code == 0, back.all
    ran = lab.run("sync", "--json")
    assert [result["counts"]["unchanged"] for result in ran.json["results"]] == [2, 30, 20], ran.all
    assert org.count("Event__c") == 20


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("http://x/y", "state can't be kept at http://"),
        ("s3://", "names no bucket"),
        ("s3://key:secret@bucket/x", "a location holds no credentials"),
        ("s3://bucket/x?a=b", "names no bucket"),
    ],
)
def test_a_location_that_is_none_is_refused_with_its_line(lab: Lab, location: str, told: str) -> None:
    dinmo = lab.root / "dinmo.yml"
    dinmo.write_text(dinmo.read_text() + f"state: {{location: '{location}'}}\n")
    ran = lab.run("list")
    assert ran.code == 2, ran.all
    assert told in " ".join(ran.err.split())
    assert "dinmo.yml:5" in ran.err
    assert "secret@" not in ran.all or location not in ran.all


def test_a_bucket_that_is_not_there_stops_the_sync_before_it_sends(lab: Lab, org: Org, s3: str) -> None:
    dinmo = lab.root / "dinmo.yml"
    dinmo.write_text(dinmo.read_text() + "state: {location: 's3://missing/x'}\n")
    ran = lab.run("sync", "--first-sync")
    assert ran.code == 5, ran.all
    assert "no such bucket" in ran.err
    assert "Traceback" not in ran.all
    assert org.count("Person__c") == 0


def test_credentials_that_the_store_refuses_are_reported_without_them(shop: Lab, org: Org) -> None:
    ran = shop.run("sync", "--first-sync", AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert ran.code == 5, ran.all
    assert "DB520" in ran.err
    assert "Traceback" not in ran.all
    assert Path(shop.root / "dinmo.yml").exists()
