"""Whole syncs into the emulator in process: no socket, no sleep, one clock for both sides, faults by a seed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import urllib3
from memory_org import ManualClock, Model, NoProgress, World, activation, fates
from mounted_org import START, URL, OneClock, connected, mounted
from simulation.org import SCHEMA

from dinmo_dbt import emulator
from dinmo_dbt.activation import Activation
from dinmo_dbt.delivery import by_job
from dinmo_dbt.delivery.by_job import poll
from dinmo_dbt.delivery.run import Status, SyncRun
from dinmo_dbt.delivery.underway import Delivery
from dinmo_dbt.destination import Job
from dinmo_dbt.errors import DinmoError, StillRunning
from dinmo_dbt.salesforce import collections

BEFORE = [{"id": str(i), "ext": f"e{i}", "a": f"x{i}", "b": "y"} for i in range(300)]
AFTER = [{**row, "b": "z" if int(row["id"]) % 3 else "y"} for row in BEFORE[20:]] + [
    {"id": str(i), "ext": f"e{i}", "a": f"x{i}", "b": "y"} for i in range(300, 500)
]
FAULTS = (
    "request_lost", "reply_lost", "request_repeated", "slow", "hang", "truncated", "content_length", "bad_gzip",
    "status", "html_page", "session_expired", "job_failed", "job_aborted", "job_stuck", "batch_retried",
    "results_shuffled",
)  # fmt: skip


class Laboratory:
    """A world whose org is the emulator, reached by the real client."""

    def __init__(self, folder: Path) -> None:
        (folder / "schema.yml").write_text(SCHEMA)
        self.app = emulator.app(schema=folder / "schema.yml", data=None, seed=1, clock=emulator.Clock(START))
        self._open = ExitStack()
        self._open.callback(self.app.close)
        self._open.enter_context(mounted(self.app.adapter))
        clock = OneClock(self.app.clock)
        destination = connected(self.app, clock, folder, pinned=False)
        self.world = World(folder / "state", destination, clock)  # type: ignore[arg-type]

    def held(self) -> list[tuple[str, str, str]]:
        """What the org holds, as the org itself says."""
        with requests.Session() as session:
            session.mount(URL, self.app.adapter())
            session.headers["Authorization"] = f"Bearer {self.app.identity.access_token}"
            soql = "SELECT Ext__c, A__c, B__c FROM Thing__c"
            reply = session.get(f"{URL}/services/data/v62.0/query", params={"q": soql}).json()
        assert reply["done"]
        return sorted((r["Ext__c"] or "", r["A__c"], r["B__c"]) for r in reply["records"])

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def laboratory(tmp_path: Path) -> Iterator[Callable[[], Laboratory]]:
    opened: list[Laboratory] = []

    def build() -> Laboratory:
        folder = tmp_path / f"lab{len(opened) + 1}"
        folder.mkdir()
        opened.append(Laboratory(folder))
        return opened[-1]

    yield build
    for lab in reversed(opened):  # as they are nested: each puts back how sessions are made
        lab.close()


def expected() -> list[tuple[str, str, str]]:
    return sorted((row["ext"], row["a"], row["b"]) for row in {r["ext"]: r for r in [*BEFORE, *AFTER]}.values())


def through_faults(lab: Laboratory, act: Activation, seed: int) -> None:
    """Runs while everything may go wrong, and then one more, a day later, when nothing does."""
    lab.app.faults.chaos(seed, 0.3, FAULTS)
    for rows in (BEFORE, AFTER):
        with suppress(DinmoError):
            lab.world.sync(act, Model.of(rows, {}))
    assert lab.app.faults.armed()[0]["fired"] > 0
    lab.app.faults.clear()
    lab.app.clock.advance(timedelta(days=2).total_seconds())
    for _ in range(4):  # a row that was refused waits for some runs
        run = lab.world.sync(act, Model.of(AFTER))
        run.check_counts()
        if not fates(run):
            break


@pytest.mark.slow
@pytest.mark.parametrize("api", ["bulk", "collections"])
def test_a_sync_of_changes_reaches_the_org_and_a_second_one_finds_none(
    laboratory: Callable[[], Laboratory], api: str
) -> None:
    lab, act = laboratory(), activation("upsert", api=api)
    assert lab.world.sync(act, Model.of(BEFORE)).outcome.succeeded == 300
    assert lab.world.sync(act, Model.of(AFTER)).outcome.succeeded > 200
    assert lab.held() == expected()
    assert lab.world.plan(act, Model.of(AFTER)).batches == ()


@pytest.mark.slow
@pytest.mark.parametrize("api", ["bulk", "collections"])
@pytest.mark.parametrize("seed", [0, 2, 3, 4, 5, 6])
def test_whatever_goes_wrong_the_org_is_right_in_the_end(
    laboratory: Callable[[], Laboratory], seed: int, api: str
) -> None:
    lab, act = laboratory(), activation("upsert", api=api)
    through_faults(lab, act, seed)
    held = lab.held()
    assert {h for h in held if h[0] in {r["ext"] for r in AFTER}} == {(r["ext"], r["a"], r["b"]) for r in AFTER}
    assert len({ext for ext, *_ in held}) == len(held)


@pytest.mark.slow
def test_the_same_seed_makes_the_same_calls_at_the_same_moments(laboratory: Callable[[], Laboratory]) -> None:
    def lived() -> tuple[Any, ...]:
        lab = laboratory()
        through_faults(lab, activation("upsert", api="bulk"), 3)
        return lab.app.calls.latest(), lab.app.clock(), lab.held()

    assert lived() == lived()


@pytest.mark.slow
@pytest.mark.parametrize(("hours", "looks"), [(0.001, 20), (0.1, 65), (1, 130), (8, 550), (23, 1450)])
def test_a_job_that_lasts_is_looked_at_less_and_less_and_seen_to_be_done_soon_all_the_same(
    laboratory: Callable[[], Laboratory], hours: float, looks: int
) -> None:
    lab, act, seconds = laboratory(), activation("upsert", api="bulk"), hours * 3600
    lab.app.faults.arm_json({"kind": "job_stuck", "state": "InProgress", "seconds": seconds})
    calls = lab.world.org.calls
    run = lab.world.sync(act, Model.of(BEFORE))
    assert run.outcome.succeeded == 300
    assert seconds <= lab.world.clock.now() - run.started <= seconds + max(5, min(60, seconds / 20))
    assert lab.world.org.calls - calls <= looks


@pytest.mark.slow
def test_a_job_that_lasts_longer_than_a_run_waits_is_settled_by_the_next(
    laboratory: Callable[[], Laboratory],
) -> None:
    lab, act = laboratory(), activation("insert", api="bulk")
    lab.app.faults.arm_json({"kind": "job_stuck", "state": "InProgress", "seconds": 30 * 3600})
    run = lab.world.sync(act, Model.of(BEFORE))
    assert run.problem is not None
    assert (run.problem.code, run.outcome.held) == ("DB622", 300)
    again = lab.world.sync(act, Model.of(BEFORE))
    assert (again.recovered.succeeded, again.plan_counts.planned) == (300, 0)
    assert len(lab.held()) == 300


@pytest.mark.parametrize("mode", ["insert", "upsert"])
def test_while_a_job_goes_on_nothing_else_is_sent_and_nothing_counts_as_delivered(
    laboratory: Callable[[], Laboratory], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_job, "POLL_MAX_S", 120.0)
    lab, act = laboratory(), activation(mode, api="bulk")
    lab.app.faults.arm_json({"kind": "job_stuck", "state": "InProgress", "seconds": 30 * 3600})
    run = lab.world.sync(act, Model.of(BEFORE))
    assert (run.status, run.outcome.held, run.outcome.succeeded) == (Status.ON_ITS_WAY, 300, 0)
    for _ in range(3):
        with pytest.raises(StillRunning, match="DB622"):
            lab.world.sync(act, Model.of(AFTER))
        [known] = lab.world.state().known()
        assert (known.in_flight, known.rows) == (300, 0)
        assert lab.held() == []
    lab.world.clock.sleep(30 * 3600)
    again = lab.world.sync(act, Model.of(BEFORE))
    assert (again.recovered.succeeded, again.plan_counts.planned) == (300, 0)
    assert len(lab.held()) == 300


def test_a_job_that_moves_is_waited_for_and_one_that_does_not_is_left(
    laboratory: Callable[[], Laboratory],
) -> None:
    class Moving:
        """A job that takes an hour, a row each ten seconds or none."""

        def __init__(self, rows_a_second: float) -> None:
            self.rate = rows_a_second

        def job(self, job_id: str) -> Job:
            done = int(clock.now() * self.rate)
            return Job(job_id, "JobComplete" if clock.now() >= 3600 else "InProgress", done)

    for rate, ends in ((0.1, True), (0.0, False)):
        clock = ManualClock(0.0)
        journal = SimpleNamespace(hold=lambda: None)
        watch = Delivery(Moving(rate), journal, clock, SyncRun("r", 0.0), NoProgress())  # type: ignore[arg-type]
        if ends:
            job = poll(watch, "750", 360, 120.0)
            assert job is not None and job.is_terminal
        else:
            with pytest.raises(StillRunning):
                poll(watch, "750", 360, 120.0)
            assert 120 <= clock.now() < 240


@pytest.mark.parametrize("gone", ["results_expired", "job_deleted"])
@pytest.mark.parametrize("mode", ["upsert", "insert"])
def test_a_job_whose_results_are_gone_is_settled_without_them(
    laboratory: Callable[[], Laboratory], mode: str, gone: str
) -> None:
    lab, act = laboratory(), activation(mode, api="bulk")
    lab.app.faults.arm_json({"kind": gone, "call": "ingest.results" if gone == "results_expired" else "ingest.info"})
    run = lab.world.sync(act, Model.of(BEFORE))
    lab.app.faults.clear()
    run.check_counts()
    again = lab.world.sync(act, Model.of(BEFORE))
    if mode == "insert":  # they may have been made: never sent again by themselves
        assert run.outcome.unknown == 300
        assert again.plan_counts.planned == 0
        assert len(lab.held()) == 300
    else:
        assert again.outcome.succeeded == 300
    assert lab.world.sync(act, Model.of(BEFORE)).plan_counts.planned == 0


@pytest.mark.parametrize("mode", ["upsert", "insert"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_404_that_passes_is_no_word_on_a_job(laboratory: Callable[[], Laboratory], mode: str, times: int) -> None:
    lab, act = laboratory(), activation(mode, api="bulk")
    lab.app.faults.arm_json({"kind": "status", "status": 404, "call": "ingest.info", "times": times})
    assert lab.world.sync(act, Model.of(BEFORE)).outcome.succeeded == 300
    assert lab.app.faults.armed()[0]["fired"] == times
    assert len(lab.held()) == 300


@pytest.mark.parametrize("mode", ["upsert", "update"])
def test_what_a_lost_reply_may_have_written_is_not_unchanged_when_its_repeat_was_refused(
    laboratory: Callable[[], Laboratory], mode: str
) -> None:
    lab, act = laboratory(), activation(mode, api="collections")
    rows = BEFORE[:20]
    lab.world.sync(activation("upsert", api="collections"), Model.of(rows))
    lab.world.sync(act, Model.of(rows))
    lab.app.faults.arm_json({"kind": "reply_lost", "call": "collections.*", "times": 1})
    refused = {"kind": "rows", "code": "FIELD_CUSTOM_VALIDATION_EXCEPTION", "message": "not now", "share": 0.5}
    lab.app.faults.arm_json({**refused, "call": "collections.*", "after": 1})
    changed = [row | {"a": f"{row['a']} changed"} for row in rows]
    run = lab.world.sync(act, Model.of(changed))
    assert run.outcome.rejected > 0
    lab.app.faults.clear()
    lab.world.sync(act, Model.of(rows))  # they are as they were acknowledged
    assert lab.held() == sorted((row["ext"], row["a"], row["b"]) for row in rows)


def narrowed(lab: Laboratory, bytes_max: int) -> list[int]:
    """A proxy between the client and its org that refuses larger bodies; the sizes of those it let pass."""
    adapter = lab.world.org._client.line.session.get_adapter(URL)  # type: ignore[attr-defined]
    send, passed = adapter.send, []

    def narrow(request: requests.PreparedRequest, **options: Any) -> requests.Response:
        size = len(request.body or b"")
        if size <= bytes_max:
            passed.append(size)
            return send(request, **options)
        refused = requests.Response()
        refused.status_code, refused.raw = 413, urllib3.HTTPResponse(body=io.BytesIO(b"<html>"), preload_content=False)
        return refused

    adapter.send = narrow
    return passed


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "api"), [("upsert", "bulk"), ("upsert", "collections"), ("insert", "bulk")])
def test_what_is_too_large_for_a_proxy_goes_in_smaller_parts_and_one_row_alone_is_reported(
    laboratory: Callable[[], Laboratory], mode: str, api: str
) -> None:
    lab, act = laboratory(), activation(mode, api=api)
    narrowed(lab, 240 if api == "collections" else 170)
    rows = [*BEFORE, {"id": "x", "ext": "large", "a": "é" * 79, "b": "y"}]
    run = lab.world.sync(act, Model.of(rows))
    run.check_counts()
    assert (run.outcome.succeeded, run.outcome.rejected, run.problem) == (300, 1, None)
    left = [row for table in run.not_delivered for row in table.to_pylist()]
    assert [(row["key"], row["code"]) for row in left] == [("x", "REQUEST_ENTITY_TOO_LARGE")]
    assert len(run.jobs) < 120, "not each row by itself"
    assert len(lab.held()) == 300
    again = lab.world.sync(act, Model.of([*BEFORE, {**rows[-1], "a": "short"}]))
    assert (again.outcome.succeeded, again.outcome.rejected) == (1, 0)


def test_rows_of_long_texts_go_in_calls_of_a_bounded_size(
    laboratory: Callable[[], Laboratory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collections, "BODY_BYTES_MAX", 2_000)
    lab = laboratory()
    passed = narrowed(lab, 2_100)
    run = lab.world.sync(
        activation("upsert", api="collections"), Model.of([{**row, "a": "é😀" * 20} for row in BEFORE])
    )
    assert (run.outcome.succeeded, run.outcome.rejected) == (300, 0)
    assert max(passed) <= 2_000


@pytest.mark.parametrize("api", ["bulk", "collections"])
def test_rows_that_swap_their_match_values_are_delivered_in_one_run(
    laboratory: Callable[[], Laboratory], api: str
) -> None:
    lab, act = laboratory(), activation("upsert", api=api)
    lab.world.sync(act, Model.of(BEFORE))
    order = [1, 0, 3, 4, 2, *range(6, 300), 5]  # a swap, a ring of three, and one of all others
    after = [{**row, "ext": f"e{other}"} for row, other in zip(BEFORE, order, strict=True)]
    run = lab.world.sync(act, Model.of(after))
    assert (run.outcome.succeeded, fates(run), run.problem) == (300, {}, None)
    assert lab.held() == sorted((row["ext"], row["a"], row["b"]) for row in after)
    assert lab.world.plan(act, Model.of(after)).batches == ()
