"""What is told of several activations at once is one message, and nothing of it is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.watch.notice import NAMES_MAX, Notice, Severity, gathered

GONE = "DB607 Salesforce gives no answer\n-> look at its status page"


def failed(name: str, cause: str = GONE, what: str = "failed", severity: Severity = Severity.CRITICAL) -> Notice:
    body = f"{cause}\nNothing was sent\n\ndinmo-dbt history run-{name} --target dev"
    return Notice(f"{name}:{what}", severity, f"dinmo-dbt [dev] {name}: {what}", body, activation=name, cause=cause)


def test_one_cause_is_one_notice_that_says_where_to_look_for_each() -> None:
    alone = Notice("digest", Severity.INFO, "dinmo-dbt [dev] 3 activations: 0 warnings open", "the day")
    [one, other, digest] = gathered([failed("a"), failed("x", "DB302 no such field"), failed("b"), alone, failed("c")])
    assert one.title == "dinmo-dbt [dev] 3 activations: failed"
    assert one.id == "a:failed+2" and one.severity is Severity.CRITICAL
    assert one.body == (
        f"{GONE}\n\n"
        "a: dinmo-dbt history run-a --target dev\n"
        "b: dinmo-dbt history run-b --target dev\n"
        "c: dinmo-dbt history run-c --target dev"
    )
    assert [each.activation for each in one.of] == ["a", "b", "c"]
    assert (other, digest) == (failed("x", "DB302 no such field"), alone)


def test_two_notices_of_one_activation_stay_two() -> None:
    first, second = failed("a"), failed("a")
    assert gathered([first, second, failed("b")])[1:] == [second]


def test_many_names_are_cut_and_still_all_of_it() -> None:
    [one] = gathered([failed(f"a{n}") for n in range(NAMES_MAX + 3)])
    assert one.body.splitlines()[-1] == "and 3 more: dinmo-dbt status"
    assert len(one.of) == NAMES_MAX + 3


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from(["", GONE, "DB302 no such field"]),
            st.sampled_from(["failed", "failed, drift"]),
            st.sampled_from(Severity),
        ),
        max_size=12,
    )
)
def test_each_notice_is_in_one_message_and_with_its_like(drawn: list[tuple[str, str, str, Severity]]) -> None:
    notices = [
        Notice(str(n), severity, f"dinmo-dbt [dev] {name}: {what}", "body", activation=name, cause=cause)
        for n, (name, cause, what, severity) in enumerate(drawn)
    ]
    found = gathered(notices)
    assert sorted(int(each.id) for one in found for each in (one.of or (one,))) == list(range(len(notices)))
    for one in found:
        for each in one.of:
            assert (each.severity, each.cause) == (one.severity, one.body.partition("\n\n")[0])
        assert len({each.activation for each in one.of}) == len(one.of)
