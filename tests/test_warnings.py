"""What people are told of runs: once when it begins, once when it is over, and nothing that a row holds."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_org import activation as written
from memory_org import dbt_model

from dinmo_dbt.activation import Activation, Ceiling, WarningKind, Watch
from dinmo_dbt.channels import goes_on, takes
from dinmo_dbt.codes import MEANINGS
from dinmo_dbt.config.channel import Channel
from dinmo_dbt.config.when import _LIMITS, _OFF, USUAL
from dinmo_dbt.errors import Problem
from dinmo_dbt.org import Secret
from dinmo_dbt.watch.history import RunRecord, Trigger
from dinmo_dbt.watch.notice import Notice, Severity
from dinmo_dbt.watch.standing import Noticed, OpenWarning
from dinmo_dbt.watch.usual import NEW_RUNS
from dinmo_dbt.watch.warnings import digest, notice, paused, resumed

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests/golden/warnings/messages.txt"
HOUR, DAY = 3600.0, 86400.0
START = 1_772_431_200.0  # Monday 2026-03-02 06:00 UTC
ORG = "00D000000000001AAA"
OWN = "prod/subscriptions_to_crm"
HINTS = {
    "DB302": "add it in Setup -> Object Manager -> Subscription -> Fields & Relationships",
    "DB402": "look at the model; if it is right: dinmo-dbt state reset --select subscriptions_to_crm",
}
NO_FIELD = Problem(
    "DB302",
    "Subscription__c has no field Plan__c that the user may see",
    "models/marts/_marts.yml: dim_subscriptions.config.meta.dinmo.activations[0].fields.plan_name",
    HINTS["DB302"],
)
NO_ANSWER = Problem("DB607", "Salesforce did not answer", "", "run again; retries are used up")
LOCKED = Problem("DB501", "subscriptions_to_crm is being synced by another process", "", "try again")
EMPTY = Problem("DB402", "the segment is empty, but 5,000 rows were synced before", "", HINTS["DB402"])
TOO_MANY = Problem(
    "DB403",
    "4,100 of 5,000 known rows changed; guards.max_change is 50%",
    "models/marts/_marts.yml: dim_subscriptions.config.meta.dinmo.activations[0]",
    "if that is right: --allow-changes 4100",
)
USED_UP = Problem("DB609", "the share of the org's daily API calls that api_share allows is used", "", "wait")
UNFIT = Problem("", "dbt: test failed: not_null_dim_subscriptions_subscription_id")
LEFT_OUT = [
    {"fate": "rejected", "code": "FIELD_CUSTOM_VALIDATION_EXCEPTION", "fields": ["MRR__c"], "class": "data",
     "hint": "a validation rule refused the row: Setup -> Object Manager -> Validation Rules", "rows": 391},
    {"fate": "invalid", "code": "V-PICKLIST", "fields": ["Plan__c"], "class": None, "hint": "", "rows": 12},
    {"fate": "held", "code": "PARENT_MISSING", "fields": ["Customer__r"], "class": "reference",
     "hint": "sync the parents first; the row is tried again by every run", "rows": 7},
    {"fate": "no_match", "code": "NO_RECORD", "fields": [], "class": None, "hint": "", "rows": 3},
]  # fmt: skip


def act(*off: WarningKind, mute_until: float | None = None, **watches: Watch) -> Activation:
    """An activation with every warning on, as the defaults have it, but for those given."""
    on = {kind: watch for kind, watch in USUAL.items() if kind not in off}
    on |= {WarningKind(name): watch for name, watch in watches.items()}
    return replace(
        written(), name="subscriptions_to_crm", model=dbt_model("dim_subscriptions"), object="Subscription__c",
        segment="active", warnings=on, mute_until=mute_until,
    )  # fmt: skip


def run(number: int, status: str = "success", *, seconds: float = 42.0, read: int = 5_000, **changes: Any) -> RunRecord:
    """The run of that day; one that failed or was refused did not get to its counts unless they are given."""
    started = START + number * DAY
    got_far = status in ("success", "rejected", "unknown") or "counts" in changes
    return replace(
        RunRecord(
            run_id=f"20260302T060000-{number:06x}", activation="subscriptions_to_crm", target="prod", org_id=ORG,
            started=started, finished=started + seconds, status=status,
            trigger=Trigger("due", "every day", due=started - 5),
            counts={"read": read, "unchanged": read - min(read, 120)} if got_far else {},
            outcome={"succeeded": min(read, 120), "removed": 0} if got_far else {},
            deliverable_rows=5_000 if got_far else 0,
            field_types={"Plan__c": "picklist", "MRR__c": "currency"} if got_far else {},
            calls_used=1_200, calls_allowed=100_000, detail={"api_calls": 14},
        ),
        **changes,
    )  # fmt: skip


def play(runs: Sequence[RunRecord], activation: Activation) -> list[Noticed]:
    """The runs one after the other, as the state has them judged."""
    standing: tuple[OpenWarning, ...] = ()
    told = []
    for number, each in enumerate(runs):
        earlier = [r for r in runs[max(0, number - 100) : number] if r.ended][::-1]
        found = notice(each, activation=activation, earlier=earlier, standing=standing)
        assert found == notice(each, activation=activation, earlier=earlier, standing=standing), "it is repeatable"
        standing = found.standing
        told.append(found)
    return told


def titles(told: Sequence[Noticed]) -> list[list[str]]:
    return [[n.title.removeprefix("dinmo-dbt [prod] subscriptions_to_crm: ") for n in each.notices] for each in told]


def only(kind: WarningKind, limit: Any = ...) -> Activation:
    watch = USUAL[kind] if limit is ... else replace(USUAL[kind], limit=limit)
    return replace(act(), warnings={kind: watch})


# Messages


def calm(days: int, **changes: Any) -> list[RunRecord]:
    return [run(day, **changes) for day in range(days)]


REJECTED = {"refused_rows": 403, "detail": {"left_out": LEFT_OUT, "api_calls": 14}}
HELD = {"waiting_rows": 7, "waiting_since": START - DAY, "detail": {"left_out": LEFT_OUT, "api_calls": 14}}
STORIES: dict[str, list[RunRecord]] = {
    "failed": [*calm(1), run(1, "failed", problem=NO_ANSWER), run(2, "failed", problem=NO_ANSWER), run(3)],
    "failed after a part was sent": [
        *calm(1),
        run(1, "failed", problem=NO_ANSWER, waiting_rows=3_800, counts={"read": 5000, "planned": 5000},
            outcome={"succeeded": 1_200, "held": 3_800}),
    ],
    "failed, drift": [*calm(1), run(1, "failed", problem=NO_FIELD), run(2)],
    "rejected": [run(0, "rejected", **REJECTED), run(1)],
    "held": [run(0), run(1, **HELD), run(2)],
    "empty": [run(0), run(1, read=0), run(2)],
    "empty, refused": [run(0), run(1, "refused", problem=EMPTY), run(2)],
    "row_count": [*calm(10), run(10, read=2_400), run(11)],
    "row_count, a new level": [*calm(10), *(run(day, read=2_400) for day in range(10, 21))],
    "duration": [*calm(10), run(10, seconds=2_000), run(11)],
    "missed": [
        run(0, trigger=Trigger("due", "every hour", due=START - 5 * HOUR, passed=4)),
        run(1, trigger=Trigger()),
        run(2),
    ],
    "full": [
        run(0, resent="the first sync to this org", counts={"read": 5_000}, outcome={"succeeded": 5_000}),
        run(1),
    ],
    "drift, another type": [run(0), run(1, field_types={"Plan__c": "string", "MRR__c": "currency"}), run(2)],
    "api_budget": [run(0, calls_used=82_300), run(1, calls_used=70_000)],
    "failed, api_budget": [run(0), run(1, "failed", problem=USED_UP, calls_used=82_300)],
    "refused": [run(0), run(1, "refused", problem=TOO_MANY), run(2)],
    "blocked": [run(0), run(1, "blocked", problem=UNFIT, org_id="")],
}  # fmt: skip


def shown(told: Notice) -> str:
    return f"[{told.severity}] {told.title}\n{told.body}\n({told.id})\n"


def messages() -> str:
    parts = []
    for name, runs in STORIES.items():
        parts.append(f"##### {name}\n")
        parts += [shown(each) for found in play(runs, act()) for each in found.notices]
    parts.append("##### paused\n")
    common: dict[str, Any] = {"target": "prod", "at": START}
    why = "3 runs in a row failed: DB302 Subscription__c has no field Plan__c that the user may see"
    for told in (
        paused(act(), reason=why, by_hand=False, id="one", **common),
        paused(act(), reason="the field moves", by_hand=True, id="two", **common),
        resumed(act(), reason="", by_hand=True, id="three", **common),
    ):
        assert told
        parts.append(shown(told))
    parts.append("##### digest\n")
    quiet = replace(act(), name="customers_to_crm")
    runs = [run(0, "failed", problem=NO_ANSWER), replace(run(0, "rejected", **REJECTED), started=START + 60)]
    standing = play([run(0, "rejected", **REJECTED)], act())[-1].standing
    whole = digest([act(), quiet, replace(quiet, name="leads_to_crm")], runs, standing, target="prod", start=START,
                   end=START + DAY, id="digest", paused={"leads_to_crm": "the field moves"})  # fmt: skip
    parts.append(shown(whole))
    return "\n".join(parts)


def test_the_messages_are_those_that_were_read_and_found_good() -> None:
    text = messages()
    if os.environ.get("DINMO_UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_every_kind_has_a_message_of_its_own() -> None:
    text = messages()
    for kind in WarningKind:
        assert re.search(rf"^\[(critical|warning)\] .*: (\w+, )*{kind}(, |$)", text, re.MULTILINE), kind
        if kind is not WarningKind.FULL:
            assert re.search(rf"^\[recovered\] .*: (\w+, )*{kind}(, \w+)* recovered$|: resumed$", text, re.MULTILINE), (
                kind
            )


# Laws

MARK = "‹a row's own value›"
PLANTED = [{**group, "message": MARK, "shown": MARK, "key": MARK, "record_id": MARK} for group in LEFT_OUT]
PROBLEMS = st.sampled_from([NO_FIELD, NO_ANSWER, EMPTY, TOO_MANY, USED_UP, LOCKED])


@st.composite
def runs_of_days(draw: st.DrawFn) -> list[RunRecord]:
    found = []
    for number in range(draw(st.integers(1, 25))):
        status = draw(
            st.sampled_from(
                ["success"] * 6 + ["rejected", "unknown", "failed", "failed", "refused", "blocked", "interrupted"]
            )
        )
        changes: dict[str, Any] = {"problem": draw(PROBLEMS)} if status in ("failed", "refused") else {}
        changes["detail"] = {"left_out": PLANTED, "api_calls": 14, "keys": [MARK]}
        if draw(st.booleans()):
            changes |= {"refused_rows": draw(st.sampled_from([0, 250, 251, 5_000]))}
        if draw(st.booleans()):
            changes |= {"waiting_rows": 3, "waiting_since": START + (number - draw(st.integers(0, 4))) * DAY}
        if draw(st.booleans()):
            changes |= {
                "calls_used": draw(st.sampled_from([None, 70_000, 75_000, 80_001])),
                "resent": draw(st.sampled_from(["", "--full"])),
            }
        if draw(st.booleans()):
            late, passed = draw(st.sampled_from([(0, 0), (601, 0), (5, 1)]))
            changes |= {"trigger": Trigger("due", "every day", due=START + number * DAY - late, passed=passed)}
        if draw(st.booleans()):
            changes |= {"field_types": {"Plan__c": draw(st.sampled_from(["string", "picklist"]))}}
        found.append(
            run(
                number,
                status,
                read=draw(st.sampled_from([0, 2_000, 5_000])),
                seconds=draw(st.sampled_from([42.0, 900.0])),
                **changes,
            )
        )
    return found


def kinds_in(told: Notice) -> set[WarningKind]:
    words = told.title.removeprefix("dinmo-dbt [prod] subscriptions_to_crm: ").removesuffix(" recovered")
    return {WarningKind(word) for word in words.split(", ")}


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(runs_of_days())
def test_a_warning_is_reported_once_when_it_begins_and_once_when_it_is_over(runs: list[RunRecord]) -> None:
    before: dict[WarningKind, OpenWarning] = {}
    ids: list[str] = []
    for each, found in zip(runs, play(runs, act()), strict=True):
        after = {stands.kind: stands for stands in found.standing}
        begun, over = set(after) - set(before), set(before) - set(after)
        told = [kind for n in found.notices if n.severity is not Severity.RECOVERED for kind in kinds_in(n)]
        ended = [kind for n in found.notices if n.severity is Severity.RECOVERED for kind in kinds_in(n)]
        assert len(told) == len(set(told)) and len(ended) == len(set(ended))
        assert set(told) - begun <= {WarningKind.FULL, WarningKind.DRIFT}, "what does not begin is an event"
        assert begun <= set(told)
        assert set(ended) == over
        assert not set(told) & set(before) - over, "no repeat while it stands"
        for kind in set(before) & set(after):
            assert replace(after[kind], said="") == replace(before[kind], said=""), "it stands as it began"
        if each.status == "interrupted" or each.problem is LOCKED:
            assert (after, found.notices) == (before, ())
        ids += [n.id for n in found.notices]
        assert all(n.id.startswith(f"{each.run_id}:") for n in found.notices)
        before = after
    assert len(set(ids)) == len(ids)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(runs_of_days(), st.sets(st.sampled_from(WarningKind)), st.booleans())
def test_an_incident_is_open_while_something_stands_of_it_that_the_channel_knows_of(
    runs: list[RunRecord], loud: set[WarningKind], only_critical: bool
) -> None:
    channel = Channel("warnings.channels[0]", Secret("pagerduty://key@key"), only_critical)
    activation = act(**{kind: replace(watch, critical=kind in loud) for kind, watch in USUAL.items()})
    opened: set[str] = set()
    for each, found in zip(runs, play(runs, activation), strict=True):
        for told in found.notices:
            assert told.incident
            if takes(channel, told):
                over = told.severity is Severity.RECOVERED and not goes_on(channel, told)
                opened = opened - {told.incident} if over else opened | {told.incident}
        stands = {stands.kind for stands in found.standing if stands.critical or not only_critical}
        about = {f"prod/:api_budget/{activation.destination}" if kind == "api_budget" else OWN for kind in stands}
        assert {each for each in opened if each.count("/") < 3} == about
        events = {about for about in opened if about.count("/") == 3}
        assert all(each.split("/")[2] in ("full", "drift") for each in events), "nothing else is over as it is told"


def test_an_incident_keeps_its_name_when_its_activation_gets_another() -> None:
    before = play([run(0), run(1, "failed", problem=NO_ANSWER)], act())[-1]
    renamed = replace(act(), name="subscriptions")
    stands = [replace(each, activation="subscriptions") for each in before.standing]
    again, over = (replace(run(n, status, problem=p), activation="subscriptions") for n, status, p in
                   ((2, "failed", NO_FIELD), (3, "success", None)))  # fmt: skip
    worse = notice(again, activation=renamed, earlier=[run(0)], standing=stands)
    ended = notice(over, activation=renamed, earlier=[], standing=worse.standing)
    told = [*before.notices, *worse.notices, *ended.notices]
    assert [each.incident for each in told] == [OWN] * 3 and ended.standing == ()


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(runs_of_days())
def test_no_message_holds_what_a_row_holds_or_what_salesforce_said_of_it(runs: list[RunRecord]) -> None:
    found = play(runs, act())
    day = digest([act()], runs, found[-1].standing, target="prod", start=START, end=START + 30 * DAY, id="d")
    for told in [*(n for each in found for n in each.notices), day]:
        assert MARK not in told.title + told.body + told.id
        assert len(told.body) < 1_500 or told is day
        assert "\n" not in told.title
    assert MARK not in "".join(stands.said for each in found for stands in each.standing)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(runs_of_days(), st.integers(0, 26))
def test_while_it_is_muted_nothing_begins_and_nothing_is_over(runs: list[RunRecord], day: int) -> None:
    loud = play(runs[:day], act())
    standing = loud[-1].standing if loud else ()
    muted = act(mute_until=START + 100 * DAY)
    for number, each in enumerate(runs[day:], day):
        found = notice(each, activation=muted, earlier=runs[:number][::-1], standing=standing)
        assert found == Noticed(standing, ())


@pytest.mark.slow
@given(runs_of_days())
def test_what_is_switched_off_is_forgotten_without_a_word(runs: list[RunRecord]) -> None:
    standing = play(runs, act())[-1].standing
    last = run(len(runs) + 1)
    assert notice(last, activation=act(*WarningKind), earlier=runs[::-1], standing=standing) == Noticed((), ())


# Each kind


@pytest.mark.parametrize(
    ("limit", "refused", "of", "told"),
    [
        (Ceiling(percent=Decimal(5)), 5, 100, False),
        (Ceiling(percent=Decimal(5)), 6, 100, True),
        (Ceiling(percent=Decimal(5)), 1, 10, True),  # no floor of rows
        (Ceiling(percent=Decimal("0.1")), 1, 1_001, False),
        (Ceiling(percent=Decimal(0)), 0, 0, False),
        (Ceiling(rows=10), 10, 10, False),
        (Ceiling(rows=10), 11, 1_000_000, True),
        (Ceiling(rows=0), 1, 1, True),
    ],
)
def test_rejected_means_more_than_the_limit(limit: Ceiling, refused: int, of: int, told: bool) -> None:
    found = play([run(0, "rejected", refused_rows=refused, deliverable_rows=of)], only(WarningKind.REJECTED, limit))
    assert bool(found[0].notices) == told


@pytest.mark.parametrize("kind", [WarningKind.REJECTED, WarningKind.EMPTY, WarningKind.ROW_COUNT])
def test_a_run_that_read_nothing_yet_says_nothing_of_its_rows(kind: WarningKind) -> None:
    bad = {
        WarningKind.REJECTED: run(9, "rejected", refused_rows=5_000),
        WarningKind.EMPTY: run(9, read=0),
        WarningKind.ROW_COUNT: run(9, read=0),
    }[kind]
    nothing = {"read": 0, "unchanged": 0}
    broken = [run(10, "failed", problem=NO_ANSWER), run(11, "failed", counts=nothing, problem=NO_ANSWER)]
    told = titles(play([*calm(9), bad, *broken, run(12)], only(kind)))
    assert told[9:] == [[f"{kind}"], [], [], [f"{kind} recovered"]]
    assert titles(play([*calm(9), *broken], only(kind))) == [[]] * 11


def test_a_run_that_did_not_send_all_says_nothing_of_rows_that_were_rejected_before() -> None:
    counts = {"read": 5_000, "unchanged": 4_880}  # a guard's refusal and a failure on the way know what they read
    cut = [run(10, "refused", counts=counts, problem=TOO_MANY), run(11, "failed", counts=counts, problem=NO_ANSWER)]
    bad = [run(number, "rejected", refused_rows=5_000) for number in (9, 12)]
    told = titles(play([*calm(9), bad[0], *cut, bad[1], run(13)], only(WarningKind.REJECTED)))
    assert told[9:] == [["rejected"], [], [], [], ["rejected recovered"]]


def test_a_failure_recovers_with_a_run_that_did_its_work_only() -> None:
    runs = [
        run(0, "failed", problem=NO_ANSWER),
        run(1, "failed", problem=NO_FIELD),  # another cause is no news
        run(2, "failed", problem=LOCKED),
        run(3, "interrupted"),
        run(4, "refused", problem=TOO_MANY),
        run(5, "unknown"),
    ]
    told = play(runs, act(WarningKind.DRIFT))
    assert titles(told) == [["failed"], [], [], [], ["refused"], ["failed, refused recovered"]]
    assert "DB302" in told[1].standing[0].said
    assert titles(play([run(0, "refused", problem=LOCKED)], act())) == [[]]


def test_a_mapping_that_never_fitted_has_failed_and_has_not_drifted() -> None:
    assert titles(play([run(0, "failed", problem=NO_FIELD)], act())) == [["failed"]]
    assert titles(play([run(0), run(1, "failed", problem=NO_FIELD)], act())) == [[], ["failed, drift"]]


def test_a_field_that_is_mapped_again_is_no_drift() -> None:
    runs = [run(0, field_types={"A": "string", "B": "date"}), run(1, field_types={"B": "date", "C": "double"}), run(2)]
    assert titles(play(runs, only(WarningKind.DRIFT))) == [[], [], []]
    runs[1] = run(1, field_types={"B": "datetime"})
    assert titles(play(runs, only(WarningKind.DRIFT))) == [[], ["drift"], []]


def test_a_schema_problem_stands_until_a_run_got_past_it() -> None:
    runs = [run(0), run(1, "failed", problem=NO_FIELD), run(2, "failed", problem=NO_ANSWER),
            run(3, "failed", problem=NO_ANSWER, field_types={"Plan__c": "string"})]  # fmt: skip
    assert titles(play(runs, only(WarningKind.DRIFT))) == [[], ["drift"], [], ["drift recovered", "drift"]]


def test_full_is_reported_once_in_a_row_of_such_runs_for_one_reason() -> None:
    reasons = ["", "first", "first", "", "first", "--full", ""]
    told = titles(play([run(n, resent=why) for n, why in enumerate(reasons)], only(WarningKind.FULL)))
    assert told == [[], ["full"], [], [], ["full"], ["full"], []]


def test_a_run_by_hand_says_nothing_of_what_was_missed() -> None:
    late = Trigger("due", "every day", due=START - 601)
    told = titles(play([run(0, trigger=late), run(1, trigger=Trigger()), run(2)], only(WarningKind.MISSED)))
    assert told == [["missed"], [], ["missed recovered"]]
    soon = Trigger("due", "every day", due=START - 600)
    assert titles(play([run(0, trigger=soon)], only(WarningKind.MISSED))) == [[]]
    assert titles(play([run(0, trigger=replace(soon, passed=1))], only(WarningKind.MISSED))) == [["missed"]]


def test_held_means_that_a_row_waits_for_longer_than_the_limit() -> None:
    waits = [run(n, waiting_rows=1, waiting_since=START) for n in range(3)]
    assert titles(play(waits, only(WarningKind.HELD))) == [[], ["held"], []]
    assert titles(play(waits, only(WarningKind.HELD, 3 * DAY))) == [[], [], []]


def test_the_api_budget_is_over_only_well_under_its_limit() -> None:
    used = [79_000, 81_000, 79_000, 81_000, 72_001, 72_000, 79_000]
    told = titles(play([run(n, calls_used=calls) for n, calls in enumerate(used)], only(WarningKind.API_BUDGET)))
    assert told == [[], ["api_budget"], [], [], [], ["api_budget recovered"], []]
    nothing = run(0, "failed", problem=USED_UP, calls_used=None, calls_allowed=None)
    assert titles(play([nothing], only(WarningKind.API_BUDGET))) == [["api_budget"]]


def test_a_new_level_of_rows_is_reported_once_and_becomes_the_usual_one() -> None:
    runs = [*calm(20), *(run(20 + n, read=2_400) for n in range(30)), run(50, read=1_000)]
    told = titles(play(runs, only(WarningKind.ROW_COUNT)))
    news = {number: each for number, each in enumerate(told) if each}
    assert news == {20: ["row_count"], 20 + NEW_RUNS - 1: ["row_count recovered"], 50: ["row_count"]}


def test_what_a_guard_refuses_again_and_again_does_not_become_usual() -> None:
    refused = [run(8 + n, "refused", problem=TOO_MANY, counts={"read": 2_400}) for n in range(15)]
    told = titles(play([*calm(8), *refused, run(23)], only(WarningKind.ROW_COUNT)))
    assert told == [[]] * 8 + [["row_count"]] + [[]] * 14 + [["row_count recovered"]]


def test_a_percentage_of_rows_is_judged_from_the_second_run_on() -> None:
    act_ = only(WarningKind.ROW_COUNT, Decimal(30))
    assert titles(play([run(0), run(1, read=3_500), run(2, read=2_000)], act_)) == [[], [], ["row_count"]]
    assert titles(play([run(0), run(1, read=3_499)], act_)) == [[], ["row_count"]]


def test_a_duration_is_measured_by_the_limit_or_by_runs_of_the_same_work() -> None:
    slow = run(10, seconds=700)
    assert titles(play([*calm(10), slow], only(WarningKind.DURATION)))[-1] == ["duration"]
    assert titles(play([*calm(10), replace(slow, resent="--full")], only(WarningKind.DURATION)))[-1] == []
    assert titles(play([slow], only(WarningKind.DURATION, 600.0))) == [["duration"]]
    quick = run(11, "failed", seconds=3, problem=NO_ANSWER)
    assert titles(play([slow, quick, run(12)], only(WarningKind.DURATION, 600.0)))[1:] == [[], ["duration recovered"]]


def test_severities_are_those_that_the_user_gave() -> None:
    mild = act(WarningKind.DRIFT, failed=Watch(critical=False), full=Watch(critical=True))
    (told,) = play([run(0, "failed", problem=NO_ANSWER)], mild)
    assert [n.severity for n in told.notices] == [Severity.WARNING]
    (told,) = play([run(0, resent="--full")], mild)
    assert [n.severity for n in told.notices] == [Severity.CRITICAL]
    told = play([run(0), run(1, "failed", problem=NO_FIELD)], act(failed=Watch(critical=False), drift=Watch(True)))[-1]
    assert [n.severity for n in told.notices] == [Severity.CRITICAL], "the louder of the two that share a notice"


def test_a_pause_is_sent_to_those_who_asked() -> None:
    common: dict[str, Any] = {"target": "prod", "reason": "r", "by_hand": True, "at": START, "id": "i"}
    for tell in (paused, resumed):
        assert tell(act(), **common)
        assert tell(act(WarningKind.PAUSED), **common) is None
        assert tell(act(mute_until=START + 1), **common) is None


# The page


def test_the_page_has_every_kind_with_its_default_and_severity() -> None:
    page = (ROOT / "docs/warnings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|(?:[^|]*)\| ([^|]*?) \| ([^|]*?) \| ([^|]*?) \|", page, re.MULTILINE)
    assert [name for name, *_ in rows] == [kind.value for kind in WarningKind]
    for name, default, severity, limit in rows:
        kind = WarningKind(name)
        usual = USUAL[kind].limit
        spans = {86400.0: "24 hours", 600.0: "10 minutes"}
        if kind in _OFF:
            assert default == "off"
        elif usual is None:
            assert default == "on"
        else:
            said = spans[usual] if isinstance(usual, float) else str(usual).removesuffix("%") + "%"
            assert default == f"on, {said}"
        assert severity == ("critical" if USUAL[kind].critical else "warning")
        assert bool(limit) == (kind in _LIMITS)
    for code in [code for code, known in MEANINGS.items() if known.is_schema]:
        assert code in page


def test_what_concerns_the_whole_org_is_reported_by_the_first_activation_and_is_over_with_the_last() -> None:
    activation, over_budget = only(WarningKind.API_BUDGET), run(1, calls_used=90, calls_allowed=100)
    elsewhere = OpenWarning("other", over_budget.target, WarningKind.API_BUDGET, 1.0, "r0", False, "90 of 100")
    first = notice(over_budget, activation=activation, earlier=[], standing=[])
    assert [each.id for each in first.notices] == [f"{over_budget.run_id}:api_budget"]
    second = notice(over_budget, activation=activation, earlier=[], standing=[], of_the_org=[elsewhere])
    assert second == Noticed(first.standing, ())
    well, stands = run(2, calls_used=10, calls_allowed=100), first.standing
    assert notice(well, activation=activation, earlier=[], standing=stands, of_the_org=[elsewhere]) == Noticed((), ())
    last = notice(well, activation=activation, earlier=[], standing=stands)
    assert [each.id for each in last.notices] == [f"{well.run_id}:api_budget:recovered"]
